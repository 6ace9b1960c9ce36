"""Domains and address literals in one canonical form.

The form is the A-label one in lower case (RFC 5890 2.3.2.1): what DNS, TLS, file names and logs
take as it is, and equal domains are equal strings whichever way they were written. U-labels are
made only for people (:func:`format_unicode_domain`). Address literals are kept in the spelling
``[192.0.2.1]`` and ``[ipv6:2001:db8::1]``.
"""

from __future__ import annotations

import functools
import ipaddress
import re

import idna

from mailsrv.address.errors import AddressError

DOMAIN_LIMIT_OCTETS = 255
"""RFC 5321 4.5.3.1.2."""

# RFC 5321 4.1.2:  Domain = sub-domain *("." sub-domain);  sub-domain = Let-dig [Ldh-str]
# RFC 1035 2.3.4:  a label has at most 63 octets
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_CANONICAL = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


@functools.lru_cache(maxsize=4096)
def parse_domain(text: str) -> str:
    """The canonical form of a domain name or of an address literal in brackets; raises :class:`AddressError`."""
    domain = text.lower()
    if len(domain) <= DOMAIN_LIMIT_OCTETS and _CANONICAL.fullmatch(domain):
        # A label that claims to be an A-label has to be one: else it would differ from its own U-label.
        return domain if "xn--" not in domain else _encode(domain)
    if text.startswith("[") and text.endswith("]"):
        return _parse_literal(text[1:-1])
    if domain.isascii():
        raise AddressError("Bad domain")
    return _encode(text)


def format_unicode_domain(domain: str) -> str:
    """A canonical domain as people read it (U-labels); itself where it has none."""
    if "xn--" not in domain:
        return domain
    try:
        return idna.decode(domain)
    except (idna.IDNAError, UnicodeError):
        return domain


def _encode(text: str) -> str:
    """Map (UTS 46) and encode to A-labels (RFC 5891 4.4)."""
    if len(text) > DOMAIN_LIMIT_OCTETS:
        raise AddressError("Bad domain")
    try:
        domain = idna.encode(text, uts46=True, std3_rules=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise AddressError("Bad internationalized domain") from error
    if len(domain) > DOMAIN_LIMIT_OCTETS or not _CANONICAL.fullmatch(domain):
        raise AddressError("Bad internationalized domain")
    return domain


def _parse_literal(text: str) -> str:
    """RFC 5321 4.1.3. General-address-literal has no registered tag and is refused."""
    try:
        if text[:5].lower() == "ipv6:":
            # A zone ("%eth0") would be a name of this machine, and no IPv6-addr of the grammar has one.
            if "%" in text:
                raise AddressError("Bad address literal")
            return f"[ipv6:{ipaddress.IPv6Address(text[5:])}]"
        return f"[{ipaddress.IPv4Address(text)}]"
    except ValueError as error:
        raise AddressError("Bad address literal") from error
