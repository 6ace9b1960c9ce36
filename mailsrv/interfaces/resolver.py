"""The Domain Name System as mail needs it.

Every answer is bounded (R-DNS-1: at most 100 records; names validated). A failure of the DNS
(SERVFAIL, timeout, refused) is :class:`DnsFailure`, temporary; that a name or a type does not exist is an
answer without records.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface

from mailsrv.errors import MailError
from mailsrv.status import EnhancedStatus

Record = TypeVar("Record")

DNS_FAILED = EnhancedStatus(4, 4, 3)


class DnsFailure(MailError):
    """The DNS gave no answer: try again later (RFC 5321 5.1; 4.4.3 of RFC 3463)."""

    def __init__(self, name: str, *, cause: str = "") -> None:
        super().__init__(DNS_FAILED, f"No answer from the DNS for {name}", cause=cause)


@frozen
class DnsAnswer(Generic[Record]):
    """Records in the order of the answer; none where there are none."""

    records: tuple[Record, ...]
    is_secure: bool = False
    """Validated by DNSSEC: the resolver is marked as validating, has proved it, and set AD (RFC 7672 2.1)."""
    name_exists: bool = True
    """False: NXDOMAIN."""
    canonical_name: str = ""
    """Where CNAMEs led to (lower case, no final dot); the name asked for where there were none."""


@frozen(order=True)
class MailExchange:
    """An MX record. ``host`` is lower case without its final dot; "" is a null MX (RFC 7505)."""

    preference: int
    host: str


@frozen
class TlsaRecord:
    """RFC 6698 2.1, numbers as on the wire."""

    usage: int
    selector: int
    matching_type: int
    data: bytes


@frozen
class ServiceRecord:
    """SRV (RFC 2782)."""

    priority: int
    weight: int
    port: int
    host: str


class IResolver(Interface):
    """Asks, remembers for the records' time to live (bounded), and asks once where several wait for the same.

    Names are ASCII domain names (A-labels) without a final dot. All may fail with :class:`DnsFailure`.
    """

    def mail_exchanges(domain: str) -> Deferred[DnsAnswer[MailExchange]]:
        """MX, sorted by preference; no implicit MX, no shuffling."""

    def addresses(host: str) -> Deferred[DnsAnswer[str]]:
        """AAAA and A as text, IPv6 first; fails only where neither gave an answer and one failed."""

    def texts(name: str) -> Deferred[DnsAnswer[bytes]]:
        """TXT, the strings of each record joined."""

    def tlsa(name: str) -> Deferred[DnsAnswer[TlsaRecord]]:
        """TLSA; for DANE only ``is_secure`` answers count."""

    def services(name: str) -> Deferred[DnsAnswer[ServiceRecord]]:
        """SRV."""

    def pointers(address: str) -> Deferred[DnsAnswer[str]]:
        """PTR of an IP address."""

    def name_servers(domain: str) -> Deferred[DnsAnswer[str]]:
        """NS."""

    def aliases(name: str) -> Deferred[DnsAnswer[str]]:
        """The CNAME record of the name itself, not followed: is the first step of a chain secure (RFC 7672 2.1.3)?"""
