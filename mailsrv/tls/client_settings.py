"""What can be adjusted about TLS towards other hosts, MTA-STS and the daily reports."""

from __future__ import annotations

from attrs import frozen

from mailsrv.address import AddressError, parse_mailbox
from mailsrv.setting import setting


@frozen
class TlsClientSettings:
    """``[tls_client]``: whom we trust where a certificate must be verified."""

    ca_file: str = setting(
        "",
        "PEM file of the certification authorities that are trusted; empty: those of the system.",
        example="/etc/ssl/certs/ca-certificates.crt",
    )
    ciphers: str = setting(
        "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES256:ECDHE+AES128:!aNULL:!eNULL:!MD5:!DSS",
        "Ciphers for TLS 1.2 where the certificate is verified, as OpenSSL writes them.",
    )
    remembered_sessions: int = setting(
        500,
        "Hosts whose TLS session is kept, so that the next connection needs no full handshake "
        "(only where the certificate need not be verified); 0: none.",
        at_least=0,
    )


@frozen
class MtaStsSettings:
    """``[mta_sts]``: policies other domains publish (RFC 8461)."""

    enabled: bool = setting(True, "Whether MTA-STS policies are looked for and obeyed.")
    fetch_timeout: float = setting(
        60.0, "How long fetching a policy may take, from the first octet to the last.", above=0.0, unit="seconds"
    )
    max_octets: int = setting(65536, "A larger policy is not taken.", at_least=1024, unit="octets")
    max_age: int = setting(
        31_557_600, "A policy is kept no longer, whatever it says itself.", at_least=0, unit="seconds"
    )
    retry_after: float = setting(300.0, "After a fetch failed, none is tried for so long.", above=0.0, unit="seconds")
    cached_policies: int = setting(
        10_000, "Policies that are kept on disk; the one that was fetched longest ago goes first.", at_least=1
    )
    concurrent_fetches: int = setting(
        20, "Policies that are fetched at the same time; more wait for their turn.", at_least=1
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

    enabled: bool = setting(False, "Whether reports are made and sent. Needs organization and contact.")
    organization: str = setting("", "The name of who sends the reports.", example="Example Ltd")
    contact: str = setting(
        "", "Who can be asked about them: an address.", check=_check_contact, example="postmaster@example.test"
    )
    max_domains: int = setting(
        10_000, "Domains that are counted on one day; connections to further ones are not reported.", at_least=1
    )
    max_failures: int = setting(
        100, "Kinds of failure (result, address, host) told apart for one domain on one day.", at_least=1
    )
    flush_seconds: float = setting(60.0, "How often the counts are written to disk.", above=0.0, unit="seconds")

    def __attrs_post_init__(self) -> None:
        if self.enabled and not (self.organization and self.contact):
            raise ValueError("tls_reports needs organization and contact where it is enabled")
