"""Addresses (RFC 5321 4.1.2, RFC 6531 3.3): the value, its grammar, and domains in one canonical form.

An :class:`Address` that exists is a valid one: what fails the grammar is an :class:`AddressError`
and cannot become text (R-INJ-1). Local parts are never interpreted here: ``a%b``, ``a!b`` and
``a@b`` in quotes are ordinary names.
"""

from mailsrv.address.domain import format_unicode_domain, parse_domain
from mailsrv.address.mailbox import Address, AddressError
from mailsrv.address.path import (
    ScannedPath,
    parse_forward_path,
    parse_mailbox,
    parse_reverse_path,
    scan_forward_path,
    scan_reverse_path,
)

__all__ = [
    "Address",
    "AddressError",
    "ScannedPath",
    "format_unicode_domain",
    "parse_domain",
    "parse_forward_path",
    "parse_mailbox",
    "parse_reverse_path",
    "scan_forward_path",
    "scan_reverse_path",
]
