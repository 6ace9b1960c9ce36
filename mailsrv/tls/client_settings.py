"""What can be adjusted about TLS towards other hosts, MTA-STS and the daily reports."""

from __future__ import annotations

from attrs import field, frozen, validators

from mailsrv.address import AddressError, parse_mailbox


@frozen
class TlsClientSettings:
    """``[tls_client]``: whom we trust where a certificate must be verified."""

    ca_file: str = field(
        default="",
        metadata={
            "help": "PEM file of the certification authorities that are trusted; empty: those of the system.",
            "example": "/etc/ssl/certs/ca-certificates.crt",
        },
    )
    ciphers: str = field(
        default="ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES256:ECDHE+AES128:!aNULL:!eNULL:!MD5:!DSS",
        metadata={"help": "Ciphers for TLS 1.2 where the certificate is verified, as OpenSSL writes them."},
    )
    remembered_sessions: int = field(
        default=500,
        validator=validators.ge(0),
        metadata={
            "help": "Hosts whose TLS session is kept, so that the next connection needs no full handshake "
            "(only where the certificate need not be verified); 0: none."
        },
    )


@frozen
class MtaStsSettings:
    """``[mta_sts]``: policies other domains publish (RFC 8461)."""

    enabled: bool = field(default=True, metadata={"help": "Whether MTA-STS policies are looked for and obeyed."})
    fetch_timeout: float = field(
        default=60.0,
        validator=validators.gt(0.0),
        metadata={"help": "How long fetching a policy may take, from the first octet to the last.", "unit": "seconds"},
    )
    max_octets: int = field(
        default=65536,
        validator=validators.ge(1024),
        metadata={"help": "A larger policy is not taken.", "unit": "octets"},
    )
    max_age: int = field(
        default=31_557_600,
        validator=validators.ge(0),
        metadata={"help": "A policy is kept no longer, whatever it says itself.", "unit": "seconds"},
    )
    retry_after: float = field(
        default=300.0,
        validator=validators.gt(0.0),
        metadata={"help": "After a fetch failed, none is tried for so long.", "unit": "seconds"},
    )
    cached_policies: int = field(
        default=10_000,
        validator=validators.ge(1),
        metadata={"help": "Policies that are kept on disk; the one that was fetched longest ago goes first."},
    )
    concurrent_fetches: int = field(
        default=20,
        validator=validators.ge(1),
        metadata={"help": "Policies that are fetched at the same time; more wait for their turn."},
    )


def _check_contact(_: object, __: object, text: str) -> None:
    try:
        if text:
            parse_mailbox(text)
    except AddressError as error:
        raise ValueError("expected an address such as postmaster@example.test") from error


@frozen
class TlsReportSettings:
    """``[tls_reports]``: telling domains once a day how TLS to them went (RFC 8460)."""

    enabled: bool = field(
        default=False,
        metadata={"help": "Whether reports are made and sent. Needs organization and contact."},
    )
    organization: str = field(
        default="",
        metadata={"help": "The name of who sends the reports.", "example": "Example Ltd"},
    )
    contact: str = field(
        default="",
        validator=_check_contact,
        metadata={"help": "Who can be asked about them: an address.", "example": "postmaster@example.test"},
    )
    max_domains: int = field(
        default=10_000,
        validator=validators.ge(1),
        metadata={"help": "Domains that are counted on one day; connections to further ones are not reported."},
    )
    max_failures: int = field(
        default=100,
        validator=validators.ge(1),
        metadata={"help": "Kinds of failure (result, address, host) told apart for one domain on one day."},
    )
    flush_seconds: float = field(
        default=60.0,
        validator=validators.gt(0.0),
        metadata={"help": "How often the counts are written to disk.", "unit": "seconds"},
    )

    def __attrs_post_init__(self) -> None:
        if self.enabled and not (self.organization and self.contact):
            raise ValueError("tls_reports needs organization and contact where it is enabled")
