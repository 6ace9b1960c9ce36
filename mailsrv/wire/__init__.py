"""What all protocols do with octets and connections: buffers, dot-stuffing, networks, connection limits.

Nothing here knows a protocol, does I/O or reads a clock by itself.
"""
