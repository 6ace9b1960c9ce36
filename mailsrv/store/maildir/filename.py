"""File names of messages: ``1763800000.KAbC….mailsrv,S=2048,W=2048,U=17:2,FS``.

Seconds of arrival; a token that names the delivery (``K`` and its key) or the copy (``C``, with the key of
the message it was made of while the journal may still make that one anew, or a mark where that is another
account's); then
what makes the index rebuildable: ``S`` octets on disk, ``W`` octets with CRLF line ends (both as
Dovecot writes them), ``U`` the UID. What stands before the colon never changes while the message
stays where it is and is the key of the file; after it come the flags.
"""

from __future__ import annotations

import base64
import os
import re
from typing import NamedTuple

from mailsrv.interfaces.journal import DeliveryKey

OUR_MARK = ".mailsrv,"
INFO = ":2,"
NEW = "new"
CUR = "cur"

# The order of letters in a name is alphabetic; bits as in mailsrv.store.view (Answered, Flagged, Deleted, Seen, Draft).
_LETTERS = (("D", 16), ("F", 2), ("R", 1), ("S", 8), ("T", 4))
_BIT_OF = dict(_LETTERS)
_LETTERS_OF = tuple("".join(letter for letter, bit in _LETTERS if bits & bit) for bits in range(32))
_NUMBER = re.compile(r",([SWU])=(\d{1,19})(?=[,:]|$)")
_TOKEN = re.compile(r"^\d+\.([KC][A-Za-z0-9_-]+)\.mailsrv,")
_UID_PART = re.compile(r",U=\d+")


class NameParts(NamedTuple):
    """What a file name tells; None where it does not."""

    stored_octets: int | None
    size_octets: int | None
    uid: int | None
    token: str | None


def token_of(kind: str, key_octets: bytes) -> str:
    """The token of a delivery (``K``) or a copy (``C``)."""
    return kind + base64.urlsafe_b64encode(key_octets).decode("ascii").rstrip("=")


def key_of(token: str | None) -> DeliveryKey | None:
    """The delivery that a ``K`` token names."""
    if token is None or token[0] != "K":
        return None
    try:
        return DeliveryKey.from_octets(base64.urlsafe_b64decode(token[1:] + "=" * (-(len(token) - 1) % 4)))
    except ValueError:
        return None


def source_key_of(token: str | None) -> DeliveryKey | None:
    """The delivery that a copy (``C``) was made of, where its token names it."""
    if token is None or token[0] != "C":
        return None
    try:
        octets = base64.urlsafe_b64decode(token[1:] + "=" * (-(len(token) - 1) % 4))
        return DeliveryKey.from_octets(octets[16:])
    except ValueError:
        return None


FROM_ELSEWHERE = b"\x01"
"""Follows the number of a copy whose source is another account's, in place of a key."""


def is_from_elsewhere(token: str) -> bool:
    """Whether the source of this copy (``C``) is another account's."""
    try:
        return base64.urlsafe_b64decode(token[1:] + "=" * (-(len(token) - 1) % 4))[16:] == FROM_ELSEWHERE
    except ValueError:
        return False


def format_base(seconds: int, token: str, stored_octets: int, size_octets: int, uid: int) -> str:
    """The part before the colon."""
    return f"{seconds}.{token}.mailsrv,S={stored_octets},W={size_octets},U={uid}"


def with_uid(base: str, uid: int) -> str:
    """``base`` naming this UID."""
    return f"{_UID_PART.sub('', base)},U={uid}"


def changed_base(file: str, uid_validity: int, uid: int) -> str:
    """A name of its own for what another program made of this message: it tells only the second of arrival."""
    return f"{base_of(file).partition('.')[0]}.V{uid_validity}U{uid}.changed"


def parse_base(base: str) -> NameParts:
    """What the part before the colon tells."""
    numbers = {kind: int(number) for kind, number in _NUMBER.findall(base)}
    token = _TOKEN.match(base)
    uid = numbers.get("U")
    return NameParts(
        numbers.get("S"),
        numbers.get("W"),
        uid if uid is not None and 0 < uid < 1 << 32 else None,
        token[1] if token else None,
    )


def readable_name(file: str) -> str:
    """The name itself where it is UTF-8; else with what is not written as ``\\x`` and two digits."""
    if file.isascii():
        return file
    return os.fsencode(file).decode("utf-8", "backslashreplace")


def base_of(file: str) -> str:
    """The unchanging part of ``new/…`` or ``cur/…:2,…`` or of a bare name."""
    return file[file.rfind("/") + 1 :].partition(":")[0]


def info_of(file: str) -> str:
    """The letters after ``:2,``; "" where there are none."""
    return file.partition(INFO)[2]


def letters_of(bits: int) -> str:
    """System flags as letters."""
    return _LETTERS_OF[bits & 31]


def bits_of(info: str) -> int:
    """Letters as system flags; others are passed over."""
    bits = 0
    for letter in info:
        bits |= _BIT_OF.get(letter, 0)
    return bits


def keyword_letters(info: str) -> str:
    """The lower-case letters: keywords, by their place in ``dovecot-keywords``."""
    return "".join(letter for letter in info if "a" <= letter <= "z")


def format_file(base: str, bits: int, keywords: str) -> str:
    """Where a message with these flags stands: in ``new`` only while it has none."""
    if not bits and not keywords:
        return f"{NEW}/{base}"
    return f"{CUR}/{base}{INFO}{_LETTERS_OF[bits & 31]}{keywords}"
