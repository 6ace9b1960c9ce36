"""The few lines a mail server writes in front of a message: Received, Return-Path, Date, Message-ID (RFC 5321 4.4).

Always new fields at the top; what a message already has is never changed. Values come from
peers, so CR, LF and NUL are refused in general and made harmless in trace fields (R-INJ-1).
"""

from __future__ import annotations

import enum
import functools
import re
import secrets
import time
from collections.abc import Callable

from attrs import frozen

from mailsrv.address import Address
from mailsrv.errors import MailError
from mailsrv.message.dates import format_date
from mailsrv.message.fields import Octets, read_header
from mailsrv.message.settings import DEFAULT_LIMITS, MessageLimits
from mailsrv.status import BAD_ARGUMENTS

PREFERRED_LINE_OCTETS = 78
LONGEST_LINE_OCTETS = 998
"""RFC 5322 2.1.1."""

_FIELD_NAME = re.compile(rb"[!-9;-~]{1,77}")
_FORBIDDEN = re.compile(rb"[\r\n\0]")
_NOT_IN_DOMAIN = re.compile(r"[^0-9A-Za-z.:_\[\]-]+")
_NOT_IN_ATOM = re.compile(r"[^0-9A-Za-z!#$%&'*+/=?^_`{|}~.-]+")
_NOT_IN_COMMENT = re.compile(r"[\x00-\x1f\x7f()\\]+")
_LONGEST_NAME = 255


class InvalidField(MailError):
    """A header field that cannot be written: a name that is none, or a value with CR, LF or NUL."""

    def __init__(self, cause: str) -> None:
        super().__init__(BAD_ARGUMENTS, "Invalid header field", cause=cause)


class TransmissionType(enum.Enum):
    """The ``with`` keywords of RFC 3848 and RFC 6531 (registry "Mail Transmission Types")."""

    SMTP = "SMTP"
    ESMTP = "ESMTP"
    ESMTPA = "ESMTPA"
    ESMTPS = "ESMTPS"
    ESMTPSA = "ESMTPSA"
    LMTP = "LMTP"
    LMTPA = "LMTPA"
    LMTPS = "LMTPS"
    LMTPSA = "LMTPSA"
    UTF8SMTP = "UTF8SMTP"
    UTF8SMTPA = "UTF8SMTPA"
    UTF8SMTPS = "UTF8SMTPS"
    UTF8SMTPSA = "UTF8SMTPSA"
    UTF8LMTP = "UTF8LMTP"
    UTF8LMTPA = "UTF8LMTPA"
    UTF8LMTPS = "UTF8LMTPS"
    UTF8LMTPSA = "UTF8LMTPSA"


@functools.lru_cache(maxsize=32)
def transmission_type(
    *,
    is_lmtp: bool = False,
    is_extended: bool = True,
    is_encrypted: bool = False,
    is_authenticated: bool = False,
    is_utf8: bool = False,
) -> TransmissionType:
    """The keyword for how a message came. ``is_extended`` False: HELO, with which nothing else goes."""
    if is_lmtp:
        base = "UTF8LMTP" if is_utf8 else "LMTP"
    elif not is_extended:
        return TransmissionType.SMTP
    else:
        base = "UTF8SMTP" if is_utf8 else "ESMTP"
    return TransmissionType(base + ("S" if is_encrypted else "") + ("A" if is_authenticated else ""))


@frozen
class Hop:
    """One hand-over of a message, as a Received field tells it (RFC 5321 4.4)."""

    by: str
    """Our host name."""
    transmission: TransmissionType
    queue_id: str
    seconds: int
    """When, since 1970."""
    offset_minutes: int = 0
    helo: str = ""
    """What the client called itself; empty leaves out the ``from`` clause (mail of our own)."""
    peer_address: str = ""
    """IP address, empty on Unix sockets."""
    peer_name: str = ""
    """Its name by DNS, where that was confirmed."""
    tls: str = ""
    """Version and cipher for a comment."""
    recipient: Address | None = None
    """Only where there is exactly one: two would tell them of each other (RFC 5321 7.2)."""


def format_field(name: bytes, value: bytes) -> bytes:
    """``name: value`` with its line end, folded at white space to 78 octets where possible and 998 at most.

    Raises :class:`InvalidField` for a name that is none, for CR, LF and NUL, and for a word no
    line can hold. Unfolding gives back ``value`` (white space at its ends apart).
    """
    if not _FIELD_NAME.fullmatch(name):
        raise InvalidField(f"field name {name[:80]!r}")
    if _FORBIDDEN.search(value):
        raise InvalidField(f"CR, LF or NUL in field {name.decode('ascii')}")
    line = name + b": " + value.strip(b" \t")
    if len(line) <= PREFERRED_LINE_OCTETS:
        return line + b"\r\n"
    lines: list[bytes] = []
    start, at_least = 0, len(name) + 2
    while len(line) - start > PREFERRED_LINE_OCTETS:
        cut = _fold_place(line, start, start + at_least)
        if cut < 0:
            break
        lines.append(line[start:cut])
        start, at_least = cut, 1
    lines.append(line[start:])
    if any(len(each) > LONGEST_LINE_OCTETS for each in lines):
        raise InvalidField(f"a word too long for a line in field {name.decode('ascii')}")
    return b"\r\n".join(lines) + b"\r\n"


_FOLDABLE = re.compile(rb"(?<=[^ \t])[ \t]")


def _fold_place(line: bytes, start: int, least: int) -> int:
    """The white space to break before: the last within the preferred length, else the first behind it; -1 if none.

    Always right behind a word, and ``line`` ends in one, so that no line is white space alone
    (it would be read as the end of the header).
    """
    best = -1
    for match in _FOLDABLE.finditer(line, least):
        place = match.start()
        if place - start <= PREFERRED_LINE_OCTETS:
            best = place
            continue
        return place if best < 0 else best
    return best


def format_received(hop: Hop) -> bytes:
    """A Received field: ``from``, ``by``, ``with``, ``id``, ``for`` and the time, one clause group a line.

    What a peer said of itself is cut to what the grammar allows, never able to end the field.
    """
    lines = []
    if hop.helo or hop.peer_address:
        lines.append(_from_clause(hop.helo, hop.peer_address, hop.peer_name))
    lines.append(_by_clause(hop.by, hop.transmission, hop.tls))
    lines.append(f"id {_NOT_IN_ATOM.sub('', hop.queue_id)[:_LONGEST_NAME] or '0'}")
    if hop.recipient is not None:
        lines.append(f"for <{hop.recipient}>")
    text = "\r\n\t".join(lines)
    return b"Received: %b;\r\n\t%b\r\n" % (text.encode("utf-8"), format_date(hop.seconds, hop.offset_minutes))


# All messages of a connection have these two in common.
@functools.lru_cache(maxsize=1024)
def _from_clause(helo: str, peer_address: str, peer_name: str) -> str:
    return f"from {_domain_like(helo) or 'unknown'}{_tcp_info(peer_address, peer_name)}"


@functools.lru_cache(maxsize=1024)
def _by_clause(by: str, transmission: TransmissionType, tls: str) -> str:
    return f"by {_domain_like(by) or 'localhost'} with {transmission.value}{_tls_comment(tls)}"


def _domain_like(text: str) -> str:
    return _NOT_IN_DOMAIN.sub("", text)[:_LONGEST_NAME]


def _tcp_info(peer_address: str, peer_name: str) -> str:
    """TCP-info = address-literal / ( Domain FWS address-literal ), in parentheses."""
    if not peer_address:
        return ""
    address = _domain_like(peer_address).strip("[]")
    literal = f"[IPv6:{address}]" if ":" in address else f"[{address}]"
    name = _domain_like(peer_name)
    return f" ({name} {literal})" if name else f" ({literal})"


def _tls_comment(tls: str) -> str:
    text = _NOT_IN_COMMENT.sub(" ", tls).strip()[:_LONGEST_NAME]
    return f" ({text})" if text else ""


def format_return_path(reverse_path: Address | None) -> bytes:
    """The Return-Path of final delivery (RFC 5321 4.4); None is the null reverse-path."""
    path = "" if reverse_path is None else str(reverse_path)
    return format_field(b"Return-Path", f"<{path}>".encode())


def new_message_id(hostname: str, clock: Callable[[], float] = time.time) -> bytes:
    """A unique ``<id-left@id-right>`` (RFC 5322 3.6.4): time and 80 random bits before the host name."""
    return f"<{int(clock() * 1000):x}.{secrets.token_hex(10)}@{_domain_like(hostname) or 'localhost'}>".encode("ascii")


def count_received(octets: Octets, limits: MessageLimits = DEFAULT_LIMITS) -> int:
    """How many Received fields a message has (RFC 5321 6.3: loops)."""
    return sum(row[1].lower() == b"received" for row in read_header(octets, 0, len(octets), limits).rows)


def missing_originator_fields(
    octets: Octets,
    hostname: str,
    seconds: int,
    offset_minutes: int = 0,
    limits: MessageLimits = DEFAULT_LIMITS,
) -> bytes:
    """The Date and Message-ID fields a submitted message lacks, to be put in front of it (RFC 6409 8.2, 8.3)."""
    names = {row[1].lower() for row in read_header(octets, 0, len(octets), limits).rows}
    added = b""
    if b"date" not in names:
        added += format_field(b"Date", format_date(seconds, offset_minutes))
    if b"message-id" not in names:
        added += format_field(b"Message-ID", new_message_id(hostname))
    return added
