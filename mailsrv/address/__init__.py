"""Addresses (RFC 5321 4.1.2, RFC 5322 3.4, RFC 6531, RFC 6532)."""

from __future__ import annotations

from attrs import frozen


@frozen(order=True)
class Address:
    """A mailbox address: a local part as meant (unquoted) and a domain in lower case."""

    local_part: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local_part}@{self.domain}"
