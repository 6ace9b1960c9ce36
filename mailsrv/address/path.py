"""Paths and mailboxes as SMTP writes them (RFC 5321 4.1.2; RFC 6531 3.3).

``scan_*`` reads a path at the start of a text and says where it ended (arguments of MAIL and RCPT
go on with parameters); ``parse_*`` wants nothing after it. Source routes are read and dropped
(RFC 5321 appendix C). Everything else the grammar does not know raises :class:`AddressError`.
"""

from __future__ import annotations

import re

from attrs import frozen

from mailsrv.address.domain import parse_domain
from mailsrv.address.errors import AddressError
from mailsrv.address.mailbox import DOT_STRING, Address

# Quoted-string = DQUOTE *QcontentSMTP DQUOTE;  qtextSMTP = %d32-33 / %d35-91 / %d93-126
# quoted-pairSMTP = %d92 %d32-126;  RFC 6531 3.3 adds UTF8-non-ascii to qtextSMTP
_QUOTED_STRING = re.compile('"((?:[ !#-\\[\\]-~\u00a0-\U0010ffff]|\\\\[ -~])*)"')
_QUOTED_PAIR = re.compile(r"\\(.)")
_DOMAIN = re.compile("(?:[A-Za-z0-9.\u0080-\U0010ffff-]+|\\[[^\\]\\[\\\\\x00-\x20]*\\])")
_POSTMASTER = re.compile("<postmaster>", re.IGNORECASE)


@frozen
class ScannedPath:
    """What a path said and the index just after it. ``None`` is the null reverse-path."""

    address: Address | None
    end: int


def parse_mailbox(text: str) -> Address:
    """``Mailbox`` of RFC 5321 4.1.2: without angle brackets, with a domain."""
    address, end = _scan_mailbox(text, 0)
    if end != len(text):
        raise AddressError("Bad address")
    return address


def parse_reverse_path(text: str) -> Address | None:
    """A whole ``Reverse-path``; None for ``<>``."""
    scanned = scan_reverse_path(text)
    if scanned.end != len(text):
        raise AddressError("Bad reverse-path")
    return scanned.address


def parse_forward_path(text: str) -> Address:
    """A whole ``Forward-path``; ``<Postmaster>`` gives the address without a domain."""
    address, end = scan_forward_path(text)
    if end != len(text):
        raise AddressError("Bad forward-path")
    return address


def scan_reverse_path(text: str, start: int = 0) -> ScannedPath:
    """``Reverse-path = Path / "<>"`` at ``start``."""
    if text.startswith("<>", start):
        return ScannedPath(None, start + 2)
    address, end = _scan_path(text, start)
    return ScannedPath(address, end)


def scan_forward_path(text: str, start: int = 0) -> tuple[Address, int]:
    """``Path`` or ``"<Postmaster>"`` at ``start``, and where it ended."""
    if text[start + 1 : start + 2] in "pP" and _POSTMASTER.match(text, start):
        return Address("postmaster", ""), start + len("<postmaster>")
    return _scan_path(text, start)


def _scan_path(text: str, start: int) -> tuple[Address, int]:
    """``Path = "<" [ A-d-l ":" ] Mailbox ">"``."""
    if not text.startswith("<", start):
        raise AddressError("An address in angle brackets is expected")
    position = start + 1
    if text.startswith("@", position):
        position = _skip_source_route(text, position)
    address, end = _scan_mailbox(text, position)
    if not text.startswith(">", end):
        raise AddressError("Bad address")
    return address, end + 1


def _skip_source_route(text: str, position: int) -> int:
    """``A-d-l = At-domain *( "," At-domain )`` and its colon: accepted and ignored (RFC 5321 4.1.1.3)."""
    while text.startswith("@", position):
        match = _DOMAIN.match(text, position + 1)
        if match is None:
            break
        parse_domain(match.group())
        position = match.end()
        if text.startswith(":", position):
            return position + 1
        if not text.startswith(",", position):
            break
        position += 1
    raise AddressError("Bad source route")


def _scan_mailbox(text: str, position: int) -> tuple[Address, int]:
    if text.startswith('"', position):
        match = _QUOTED_STRING.match(text, position)
        local_part = _QUOTED_PAIR.sub(r"\1", match.group(1)) if match else ""
    else:
        match = DOT_STRING.match(text, position)
        local_part = match.group() if match else ""
    if match is None:
        raise AddressError("Bad local part")
    if not text.startswith("@", match.end()):
        raise AddressError("Bad address")
    domain = _DOMAIN.match(text, match.end() + 1)
    if domain is None:
        raise AddressError("Bad domain")
    return Address(local_part, domain.group()), domain.end()
