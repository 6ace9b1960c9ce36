"""From what a client sends as user name to an address (in the manner of RFC 8265 section 3.3, UsernameCaseMapped)."""

from __future__ import annotations

import unicodedata

from mailsrv.address import Address, AddressError

# Not in a user name: controls, formats (zero-width, bidirectional), surrogates, private use,
# unassigned, and separators (RFC 8264 section 9: disallowed in the IdentifierClass).
_DISALLOWED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"})


def parse_user_name(name: str, default_domain: str = "") -> Address | None:
    """The address a user name means, in lower case; None where it can be nobody's."""
    # RFC 8265 3.3.2: width mapping, case mapping, then form C.
    name = name.lower() if name.isascii() else unicodedata.normalize("NFC", _map_width(name).lower())
    if any(unicodedata.category(character) in _DISALLOWED for character in name):
        return None
    local_part, at, domain = name.rpartition("@")
    if not at:
        local_part, domain = name, default_domain
    if not domain:
        return None
    try:
        return Address(local_part, domain)
    except AddressError:
        return None


def comparable_group(name: str) -> str:
    """The name of a group as rules compare it: without case, whichever way accents are composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name.strip()).casefold())


def _map_width(text: str) -> str:
    """Full-width and half-width characters as the ordinary ones."""
    return "".join(
        unicodedata.normalize("NFKC", character)
        if unicodedata.decomposition(character).startswith(("<wide>", "<narrow>"))
        else character
        for character in text
    )
