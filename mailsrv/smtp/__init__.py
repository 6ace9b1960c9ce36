"""SMTP (RFC 5321) for MX and submission, and LMTP (RFC 2033): the server side.

``session.py`` is the engine (no I/O), ``protocol.py`` and ``factory.py`` the Twisted shell around it.
"""
