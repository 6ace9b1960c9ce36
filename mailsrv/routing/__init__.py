"""Where an address leads, without any I/O: transport rules (``rules.py``) and sender rewriting (``srs.py``)."""
