"""Names as paths: a bijective escape for accounts and for mailboxes (R-PATH-1).

An account's local part and domain stand for themselves where they are plain; every other octet
is ``%XX``. Nothing escapes its folder: ``/`` and a leading dot are never plain.

A mailbox is a Maildir++ folder: a dot, then the levels joined by dots, each in modified UTF-7
(RFC 9051 appendix A, as Dovecot keeps it). A dot inside a level, which Maildir++ cannot hold, is
written in the base64 form of modified UTF-7, so that an existing Dovecot Maildir is read as it is
and every name has exactly one folder. A folder whose name is not such a form is left alone.
"""

from __future__ import annotations

import binascii
import os
import re

from mailsrv.address import Address
from mailsrv.interfaces.mailbox import InvalidMailboxName
from mailsrv.store.mailbox_name import INBOX, canonical_name

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+=@-.")
_DIRECT = frozenset(map(chr, range(0x20, 0x7F))) - frozenset("&./")
_LONGEST = 255
"""NAME_MAX of the usual file systems, octets."""
_PLACE = re.compile(r"\{(domain|local)\}")


def escape_component(text: str) -> str:
    """One path component for a part of an address; raises :class:`InvalidMailboxName` where it is too long."""
    octets = text.encode("utf-8", "surrogatepass")
    parts = [
        chr(octet) if octet in _PLAIN and not (octet == 0x2E and at == 0) else f"%{octet:02X}"
        for at, octet in enumerate(octets)
    ]
    escaped = "".join(parts)
    if not escaped or len(escaped) > _LONGEST:
        raise InvalidMailboxName("No mail can be kept for that address", cause="its folder name would be too long")
    return escaped


def unescape_component(component: str) -> str:
    """The inverse of :func:`escape_component`; ValueError for what it never makes."""
    octets = bytearray()
    at = 0
    while at < len(component):
        if component[at] == "%":
            octets.append(int(component[at + 1 : at + 3], 16))
            at += 3
        else:
            octets += component[at].encode()
            at += 1
    text = octets.decode("utf-8", "surrogatepass")
    if escape_component(text) != component:
        raise ValueError(f"not the name of an account: {component!r}")
    return text


def account_path(pattern: str, account: Address) -> str:
    """The account's folder: ``pattern`` with ``{domain}`` and ``{local}`` filled in, absolute."""
    filled = {"domain": escape_component(account.domain), "local": escape_component(account.local_part)}
    return os.path.abspath(_PLACE.sub(lambda match: filled[match[1]], pattern))


def encode_level(level: str) -> str:
    """One level in modified UTF-7; dots in base64."""
    parts: list[str] = []
    shifted: list[str] = []
    for character in level:
        if character in _DIRECT:
            if shifted:
                parts.append(_base64(shifted))
                shifted = []
            parts.append(character)
        elif character == "&":
            if shifted:
                parts.append(_base64(shifted))
                shifted = []
            parts.append("&-")
        else:
            shifted.append(character)
    if shifted:
        parts.append(_base64(shifted))
    return "".join(parts)


def _base64(characters: list[str]) -> str:
    octets = "".join(characters).encode("utf-16-be", "surrogatepass")
    return "&" + binascii.b2a_base64(octets, newline=False).decode().rstrip("=").replace("/", ",") + "-"


def decode_level(encoded: str) -> str:
    """The inverse of :func:`encode_level`; ValueError for anything it never makes."""
    parts = []
    at = 0
    while at < len(encoded):
        start = encoded.find("&", at)
        if start < 0:
            parts.append(encoded[at:])
            break
        parts.append(encoded[at:start])
        end = encoded.index("-", start)
        base64 = encoded[start + 1 : end]
        if base64:
            padded = base64.replace(",", "/") + "=" * (-len(base64) % 4)
            parts.append(binascii.a2b_base64(padded).decode("utf-16-be"))
        else:
            parts.append("&")
        at = end + 1
    level = "".join(parts)
    if encode_level(level) != encoded:
        raise ValueError(f"not modified UTF-7 as it is written: {encoded!r}")
    return level


def directory_name(mailbox: str) -> str:
    """The Maildir++ folder of a mailbox; "" for INBOX, which is the account's folder itself."""
    if mailbox == INBOX:
        return ""
    directory = "." + ".".join(map(encode_level, mailbox.split("/")))
    if len(directory) > _LONGEST:
        raise InvalidMailboxName("That mailbox name is too long")
    return directory


def mailbox_name(directory: str) -> str | None:
    """The mailbox a Maildir++ folder holds; None for a name that is none of ours."""
    if len(directory) < 2 or directory[0] != ".":
        return None
    try:
        name = "/".join(map(decode_level, directory[1:].split(".")))
    except (ValueError, UnicodeError):
        return None
    if not all(name.split("/")) or canonical_name(name) != name or name == INBOX:
        return None
    return name
