"""DKIM: keys, their records and signatures (RFC 6376, 8301, 8463, 8616).

Nothing here does I/O but :mod:`~mailsrv.mailauth.key_store`, which is for threads and commands.
"""
