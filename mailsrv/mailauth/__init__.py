"""DKIM: keys and signatures. No I/O."""
