"""Whom a rule is for: ``alice@example.org``, ``example.org``, ``*.example.org``, ``*``, and ``<>`` for senders.

Local parts are compared without case, domains in their canonical form (:mod:`mailsrv.address`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

from attrs import frozen

from mailsrv.address import Address, AddressError, parse_domain, parse_mailbox


class PatternKind(enum.Enum):
    """How much a pattern takes in."""

    ADDRESS = "address"
    DOMAIN = "domain"
    BELOW = "below"
    ALL = "all"
    NULL = "null"


@frozen
class Pattern:
    """A parsed pattern. ``key`` is what :func:`keys_of` of a matching address contains."""

    kind: PatternKind
    key: str

    @property
    def domain(self) -> str:
        """The domain in it; "" for ``*`` and ``<>``."""
        if self.kind is PatternKind.BELOW:
            return self.key[2:]
        return self.key.rpartition("@")[2] if self.kind in {PatternKind.ADDRESS, PatternKind.DOMAIN} else ""

    def matches(self, address: Address | None) -> bool:
        """``None`` is the null reverse-path."""
        return self.kind is PatternKind.ALL or self.key in keys_of(address)


EVERYBODY = Pattern(PatternKind.ALL, "*")
NULL = Pattern(PatternKind.NULL, "<>")


def parse_pattern(text: str) -> Pattern:
    """Raises ValueError with a sentence for the administrator."""
    if text == "*":
        return EVERYBODY
    if text == "<>":
        return NULL
    try:
        if "@" in text:
            address = parse_mailbox(text)
            return Pattern(PatternKind.ADDRESS, _address_key(address))
        if text.startswith("*."):
            return Pattern(PatternKind.BELOW, f"*.{parse_domain(text[2:])}")
        return Pattern(PatternKind.DOMAIN, parse_domain(text))
    except AddressError as error:
        raise ValueError(f"expected an address, a domain, *.domain or *: {error.text}") from error


def _address_key(address: Address) -> str:
    return f"{address.local_part.lower()}@{address.domain}"


def keys_of(address: Address | None) -> Iterator[str]:
    """The keys of all patterns that match: the address itself, its domain, those above it, all."""
    if address is None:
        yield "<>"
    else:
        domain = address.domain
        yield _address_key(address)
        yield domain
        if not domain.startswith("["):
            above = domain.partition(".")[2]
            while above:
                yield f"*.{above}"
                above = above.partition(".")[2]
    yield "*"
