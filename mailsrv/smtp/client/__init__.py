"""SMTP and LMTP as a client: an engine for one connection, and its Twisted shell."""
