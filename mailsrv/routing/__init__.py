"""Transport rules, destinations, SRS: where an address leads. No I/O."""
