"""Answers as octets: status responses with their codes (RFC 3501 7.1, RFC 5530), strings, numbers before FETCH."""

from __future__ import annotations

import re

from attrs import frozen

from mailsrv.errors import InsufficientStorage, MailError, Unavailable
from mailsrv.imap.errors import BadCommand, CommandRefused
from mailsrv.interfaces.account import InvalidCredentials
from mailsrv.interfaces.mailbox import (
    InvalidMailboxName,
    LimitReached,
    MailboxError,
    MailboxExists,
    MailboxInUse,
    NoSuchMailbox,
    NotPermitted,
    OverQuota,
)
from mailsrv.wire.connection_limits import TooManyConnections

_UNSAFE_TEXT = re.compile(r"[^\x20-\x7e]")


@frozen
class Ok:
    """How a command ended well: code and text of its tagged OK, or of a tagged NO where only part was done."""

    text: str = ""
    code: bytes = b""
    is_partial: bool = False
    """Tagged NO: RFC 2180 4.1.2, messages that are gone."""


@frozen
class NoReplyYet:
    """The command goes on (IDLE); its tagged answer comes later."""


NOT_YET = NoReplyYet()


def status_line(tag: bytes, condition: bytes, text: str, code: bytes = b"") -> bytes:
    """``tag OK [CODE] text`` CRLF. Text that is not printable ASCII never gets out."""
    safe = _UNSAFE_TEXT.sub("?", text).encode("ascii") or b"Done"
    if code:
        return b"%b %b [%b] %b\r\n" % (tag, condition, code, safe)
    return b"%b %b %b\r\n" % (tag, condition, safe)


_CODES: tuple[tuple[type[MailError], bytes], ...] = (
    (InvalidCredentials, b"AUTHENTICATIONFAILED"),
    (NoSuchMailbox, b"NONEXISTENT"),
    (MailboxExists, b"ALREADYEXISTS"),
    (InvalidMailboxName, b"CANNOT"),
    (MailboxInUse, b"INUSE"),
    (OverQuota, b"OVERQUOTA"),
    (LimitReached, b"LIMIT"),
    (NotPermitted, b"NOPERM"),
    (TooManyConnections, b"LIMIT"),
    (MailboxError, b"CANNOT"),
    (Unavailable, b"UNAVAILABLE"),
    (InsufficientStorage, b"UNAVAILABLE"),
)


def refusal_code(error: MailError) -> bytes:
    """The response code of an error (RFC 5530)."""
    if isinstance(error, BadCommand | CommandRefused):
        return error.code
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return b"UNAVAILABLE" if error.is_temporary else b""


def no_destination(error: NoSuchMailbox) -> CommandRefused:
    """The mailbox that messages were to go to is not there: CREATE may help, or cannot (RFC 3501 6.3.11, 6.4.7)."""
    return CommandRefused(error.text, code=b"TRYCREATE" if error.may_be_created else b"NONEXISTENT")


_FETCH_PREFIXES: list[bytes] = [b"* 0 FETCH ("]
_FETCH_PREFIXES_KEPT = 65536


def fetch_prefixes(first: int, last: int) -> list[bytes]:
    """``* n FETCH (`` for each number of a range. The first 65,536 are made once and shared."""
    if last < _FETCH_PREFIXES_KEPT:
        made = len(_FETCH_PREFIXES)
        if last >= made:
            _FETCH_PREFIXES.extend([b"* %d FETCH (" % number for number in range(made, last + 1)])
        return _FETCH_PREFIXES[first : last + 1]
    return [b"* %d FETCH (" % number for number in range(first, last + 1)]
