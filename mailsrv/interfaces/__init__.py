"""What the parts of mailsrv promise each other.

Protocols and providers both import this package and never each other. An interface method that
may wait returns a ``Deferred``; one that does not is answered from memory at once. Values that
cross these borders are frozen. No module here imports anything of mailsrv above level 1.
"""
