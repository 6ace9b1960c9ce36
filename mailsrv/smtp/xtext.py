"""xtext (RFC 3461 4) and its relative for internationalized addresses (RFC 6533 3), decoded strictly.

What comes out holds no control characters: it goes into logs, notices and commands. ``ValueError`` is
raised for everything else.
"""

from __future__ import annotations

import re

from mailsrv.smtp.grammar import ADDRESS_TYPE, EMBEDDED_UNICODE, UNICODE_XTEXT, XTEXT

ENVELOPE_ID_LIMIT = 100
"""RFC 3461 4.4: characters of an ENVID, as encoded."""
ORIGINAL_RECIPIENT_LIMIT = 500
"""RFC 3461 4.2: characters of an ORCPT, as encoded, with its type."""

_HEXCHAR = re.compile(r"\+([0-9A-F]{2})")
# RFC 6533 3: HEXPOINT of one of the ASCII characters that cannot stand for themselves, but for the controls.
_EMBEDDED_ASCII = frozenset(" +=\\")


def decode_xtext(text: str) -> str:
    """The printable ASCII it stands for (RFC 3461 4.4 wants no other even where the encoding allows it)."""
    if not XTEXT.fullmatch(text):
        raise ValueError("no xtext")
    if "+" in text:
        text = _HEXCHAR.sub(lambda match: chr(int(match[1], 16)), text)
        if not (text.isascii() and text.isprintable()):
            raise ValueError("xtext of unprintable characters")
    return text


def decode_unicode_xtext(text: str) -> str:
    """``utf-8-addr-xtext`` and ``utf-8-addr-unitext`` of RFC 6533 3."""
    if not UNICODE_XTEXT.fullmatch(text):
        raise ValueError("no utf-8-addr-xtext")
    decoded = EMBEDDED_UNICODE.sub(_embedded, text)
    if not decoded.isprintable():
        raise ValueError("unprintable characters")
    return decoded


def _embedded(match: re.Match[str]) -> str:
    number = int(match[1], 16)
    if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        raise ValueError("no character")
    character = chr(number)
    if number < 0x80 and character not in _EMBEDDED_ASCII:
        raise ValueError("a character that stands for itself")
    return character


def decode_original_recipient(text: str) -> str:
    """The value of ORCPT: ``type;address``, the type in lower case, the address decoded."""
    kind, found, address = text.partition(";")
    if not found or len(text) > ORIGINAL_RECIPIENT_LIMIT or not ADDRESS_TYPE.fullmatch(kind):
        raise ValueError("no original recipient")
    kind = kind.lower()
    return f"{kind};{decode_unicode_xtext(address) if kind == 'utf-8' else decode_xtext(address)}"


def decode_envelope_id(text: str) -> str:
    """The value of ENVID."""
    if len(text) > ENVELOPE_ID_LIMIT:
        raise ValueError("envelope id too long")
    return decode_xtext(text)
