"""The address value.

``local_part`` is as meant (unquoted, case kept, never reinterpreted); ``domain`` is canonical
(see :mod:`mailsrv.address.domain`). Making one checks both, so text that would not be an address
never becomes one. ``str()`` gives a valid Mailbox of RFC 5321, quoted where it must be.
"""

from __future__ import annotations

import functools
import re

from attrs import field, frozen

from mailsrv.address.domain import format_unicode_domain, parse_domain
from mailsrv.address.errors import AddressError

__all__ = ["Address", "AddressError"]

LOCAL_PART_LIMIT_OCTETS = 64
"""RFC 5321 4.5.3.1.1."""
ADDRESS_LIMIT_OCTETS = 254
"""RFC 5321 4.5.3.1.3: a path has 256 octets, with its angle brackets."""

# RFC 5321 4.1.2: Dot-string = Atom *("." Atom); RFC 6531 3.3 adds UTF8-non-ascii to atext.
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u00a0-\U0010ffff-]+"
DOT_STRING = re.compile(rf"{_ATEXT}(?:\.{_ATEXT})*")
# Not even in quotes: controls (C0, DEL, C1), line and paragraph separators, bidirectional
# embeddings and isolates (they make a line of a log read as another), and lone surrogates.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def _canonical_domain(text: str) -> str:
    return parse_domain(text) if text else ""


@functools.lru_cache(maxsize=4096)
def _quoted(local_part: str) -> str:
    if DOT_STRING.fullmatch(local_part):
        return local_part
    # RFC 5321 4.1.2: quote only what needs it
    return '"' + local_part.replace("\\", "\\\\").replace('"', '\\"') + '"'


@frozen(order=True)
class Address:
    """A mailbox address: a local part as meant (unquoted) and a domain in canonical form.

    ``domain`` is empty in one case only: the ``<Postmaster>`` of RFC 5321 4.1.1.3, whose local
    part is then ``postmaster``.
    """

    local_part: str
    domain: str = field(converter=_canonical_domain)

    def __attrs_post_init__(self) -> None:
        local_part = self.local_part
        if not local_part:
            raise AddressError("Empty local part")
        # isprintable is far cheaper than the search, and stricter.
        if not local_part.isprintable() and _FORBIDDEN.search(local_part):
            raise AddressError("Control character in an address")
        octets = len(local_part) if local_part.isascii() else len(local_part.encode())
        if octets > LOCAL_PART_LIMIT_OCTETS:
            raise AddressError("Local part too long")
        if octets + 1 + len(self.domain) > ADDRESS_LIMIT_OCTETS:
            raise AddressError("Address too long")
        if not self.domain and local_part != "postmaster":
            raise AddressError("Address without a domain")

    def __str__(self) -> str:
        return f"{_quoted(self.local_part)}@{self.domain}" if self.domain else self.local_part

    @property
    def ascii_domain(self) -> str:
        """The domain for DNS and for peers without SMTPUTF8."""
        return self.domain

    @property
    def unicode_domain(self) -> str:
        """The domain for people."""
        return format_unicode_domain(self.domain)

    @property
    def is_ascii(self) -> bool:
        """Whether a peer without SMTPUTF8 can be given this address (RFC 6531 3.2)."""
        return self.local_part.isascii()

    @property
    def is_address_literal(self) -> bool:
        """Whether the domain is an IP address in brackets."""
        return self.domain.startswith("[")

    def split_subaddress(self, separator: str = "+") -> tuple[Address, str]:
        """``alice+tag`` as ``alice`` and ``tag`` (RFC 5233 1): the address without its detail, and the detail.

        The detail is empty where there is none. A local part that begins with the separator is a
        name like any other and is not split.
        """
        if not separator:
            return self, ""
        user, found, detail = self.local_part.partition(separator)
        if not found or not user:
            return self, ""
        return Address(user, self.domain), detail
