"""What TLS is demanded of other hosts: one rule of the file's ``[[tls_policy]]`` tables."""

from __future__ import annotations

from attrs import field, frozen

from mailsrv.interfaces.tls_policy import TlsLevel


@frozen
class TlsPolicySettings:
    """A policy that stands above DANE and MTA-STS; the first that matches the domain wins."""

    domain: str = field(
        metadata={"help": "A domain, *.domain for those below it, or * for all.", "example": "partner.example"},
    )
    level: TlsLevel = field(
        default=TlsLevel.VERIFY,
        metadata={
            "help": "What a connection must fulfil before mail is sent. With dane nothing is sent to a host without "
            "TLSA records."
        },
    )
    names: tuple[str, ...] = field(
        default=(),
        metadata={"help": "Names a certificate may have instead of the host's (level verify)."},
    )
