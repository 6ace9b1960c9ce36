"""Mailboxes of others among a user's own, as rights of a directory allow.

`names.py` says what they are called, `grants.py` what one user may open now, `mailbox.py` lets through what a right
allows, `mailboxes.py` puts own and others' mailboxes together, `rights_watch.py` asks for rights at log-in and again.
"""
