"""What TLS a message needs on its way to a domain, and why.

The sources, first match wins: REQUIRETLS of the message, a configured policy for the domain, DANE
(RFC 7672), MTA-STS (RFC 8461), opportunistic TLS (RFC 7435).
"""

from __future__ import annotations

import enum

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface

from mailsrv.interfaces.resolver import DnsAnswer, MailExchange, TlsaRecord


class TlsLevel(enum.Enum):
    """How much is demanded before mail may flow."""

    NONE = "none"
    """Never STARTTLS."""
    OPPORTUNISTIC = "opportunistic"
    """STARTTLS where offered, any certificate; plaintext where the handshake fails."""
    ENCRYPT = "encrypt"
    """TLS, any certificate."""
    VERIFY = "verify"
    """TLS with a certificate of a trusted CA for one of ``names``."""
    DANE = "dane"
    """TLS with a certificate that matches ``tlsa`` (usages 2 and 3)."""


@frozen
class DomainTlsPolicy:
    """What is known of a domain before its hosts are looked at."""

    domain: str
    level: TlsLevel
    source: str
    """``configured``, ``mta-sts``, ``mta-sts testing`` or ``default``."""
    mx_patterns: tuple[str, ...] = ()
    """MTA-STS: only hosts that match one (``*.example.net`` for one label) may be used; empty: any."""
    names: tuple[str, ...] = ()
    """Configured: the names a certificate may have instead of the host's."""
    tries_dane: bool = True
    """False where the configuration decided."""
    policy_id: str = ""


@frozen
class HostTlsPolicy:
    """What one connection has to fulfil."""

    host: str
    level: TlsLevel
    source: str
    names: tuple[str, ...] = ()
    """For the certificate (VERIFY; DANE with usage 2): host, or what was configured."""
    tlsa: tuple[TlsaRecord, ...] = ()
    is_allowed: bool = True
    """False: MTA-STS does not name this host."""
    is_testing: bool = False
    """MTA-STS mode ``testing``: a failure is reported and mail flows."""
    why: str = ""
    """One line for ``mailsrvctl tls-policy``, log and notices."""

    @property
    def is_verified(self) -> bool:
        """Whether it is good enough for REQUIRETLS (RFC 8689 4.2.1)."""
        return self.level in {TlsLevel.VERIFY, TlsLevel.DANE} and not self.is_testing


@frozen
class TlsResult:
    """How TLS went on one connection, for reports (RFC 8460). ``result_type`` "" is a success."""

    domain: str
    host: str
    address: str
    policy: HostTlsPolicy
    result_type: str = ""
    """``starttls-not-supported``, ``certificate-host-mismatch``, ``certificate-expired``, ``certificate-not-trusted``,
    ``validation-failure``, ``tlsa-invalid``, ``dnssec-invalid``, ``dane-required``, ``sts-policy-fetch-error``, …
    (RFC 8460 4.3)"""
    detail: str = ""
    local_address: str = ""
    """Where we connected from; "" where no connection was made."""


class ITlsPolicies(Interface):
    """Finds policies; keeps MTA-STS policies on disk."""

    def for_domain(domain: str) -> Deferred[DomainTlsPolicy]:
        """May fetch an MTA-STS policy (bounded in time). Never fails: a policy that cannot
        be had is none (RFC 8461 3.3), unless a cached one still counts.
        """

    def for_host(
        policy: DomainTlsPolicy, exchange: MailExchange, exchanges: DnsAnswer[MailExchange], port: int = 25
    ) -> Deferred[HostTlsPolicy]:
        """The policy for one MX host. ``exchanges`` says whether the MX records were secure. Fails with
        DnsFailure where TLSA records may exist but cannot be had: that host is not to be used now (RFC 7672 2.1.2).

        A next hop that was configured by name is as good as a secure MX record: pass
        ``DnsAnswer((exchange,), is_secure=True)`` and its port.
        """

    def record(result: TlsResult) -> None:
        """Count a connection for the day's report. Does not wait; never raises."""
