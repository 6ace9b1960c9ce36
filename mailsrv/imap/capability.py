"""What CAPABILITY says, before and after log-in and TLS. Nothing is listed that does not wholly work."""

from __future__ import annotations

from functools import lru_cache

_AFTER_LOGIN = (
    b"IMAP4rev1",  # RFC 3501
    b"LITERAL+",  # RFC 7888
    b"ID",  # RFC 2971
    b"IDLE",  # RFC 2177
    b"NAMESPACE",  # RFC 2342
    b"ENABLE",  # RFC 5161
    b"UNSELECT",  # RFC 3691
    b"UIDPLUS",  # RFC 4315
    b"MOVE",  # RFC 6851
    b"CHILDREN",  # RFC 3348
    b"SPECIAL-USE",  # RFC 6154
    b"CREATE-SPECIAL-USE",  # RFC 6154
    b"LIST-EXTENDED",  # RFC 5258
    b"LIST-STATUS",  # RFC 5819
    b"ESEARCH",  # RFC 4731
    b"CONDSTORE",  # RFC 7162
    b"STATUS=SIZE",  # RFC 8438
    b"MULTIAPPEND",  # RFC 3502
    b"WITHIN",  # RFC 5032
    b"BINARY",  # RFC 3516
    b"QUOTA",  # RFC 9208
    b"QUOTA=RES-STORAGE",
    b"QUOTA=RES-MESSAGE",
    b"UTF8=ACCEPT",  # RFC 6855
)


@lru_cache(maxsize=64)
def before_login(mechanisms: tuple[str, ...], *, may_start_tls: bool, may_log_in: bool) -> bytes:
    """Before log-in: LITERAL- of RFC 7888 is listed, for larger literals are not taken yet.

    ENABLE and IDLE, though they come after it: Python's imaplib asks once, here, and does without what is not listed.
    """
    listed = [b"IMAP4rev1", b"LITERAL-", b"SASL-IR", b"ID", b"ENABLE", b"IDLE"]
    if may_start_tls:
        listed.append(b"STARTTLS")
    if may_log_in:
        listed += [b"AUTH=" + mechanism.encode("ascii") for mechanism in mechanisms]
    else:
        listed.append(b"LOGINDISABLED")
    return b" ".join(listed)


@lru_cache(maxsize=16)
def after_login(append_octets: int) -> bytes:
    """After log-in, with the largest message APPEND takes (RFC 7889)."""
    return b" ".join((*_AFTER_LOGIN, b"APPENDLIMIT=%d" % append_octets))
