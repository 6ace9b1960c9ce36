"""IMAP4rev1 (RFC 3501) with the extensions `capability.py` lists: engine, commands, Twisted shell.

The engine (`session.py`) does no I/O; one file a command lives in `command/`.
"""
