"""What TLS is demanded of a domain and its hosts: configured, DANE, MTA-STS, or what can be had.

The first that says something decides. DANE is looked for at each host, where MX records are secure
(RFC 7672 2.2): it stands above MTA-STS, and its failure is never mended by it (RFC 8461 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from zope.interface import implementer

from mailsrv.coroutines import run_coroutine
from mailsrv.interfaces.resolver import DnsAnswer, DnsFailure, IResolver, MailExchange
from mailsrv.interfaces.tls_policy import DomainTlsPolicy, HostTlsPolicy, ITlsPolicies, TlsLevel, TlsResult
from mailsrv.tls import dane
from mailsrv.tls.mta_sts import StsMode, matches_pattern
from mailsrv.tls.mta_sts_policies import StsFinding, StsPolicies
from mailsrv.tls.policy_settings import TlsPolicySettings

CONFIGURED, DANE, MTA_STS, MTA_STS_TESTING, DEFAULT = "configured", "dane", "mta-sts", "mta-sts testing", "default"


@implementer(ITlsPolicies)
class TlsPolicies:
    """``sts`` None: MTA-STS is off. ``count`` takes results for reports; None: nobody does."""

    _log = Logger()

    def __init__(
        self,
        rules: Sequence[TlsPolicySettings],
        resolver: IResolver,
        sts: StsPolicies | None = None,
        count: Callable[[TlsResult], None] | None = None,
    ) -> None:
        self.replace_rules(rules)
        self._resolver = resolver
        self._sts = sts
        self._count = count

    def replace_rules(self, rules: Sequence[TlsPolicySettings]) -> None:
        """Obey these from now on."""
        self._rules = tuple(rules)

    def for_domain(self, domain: str) -> Deferred[DomainTlsPolicy]:
        return run_coroutine(self._for_domain(domain.lower()))

    def for_host(
        self, policy: DomainTlsPolicy, exchange: MailExchange, exchanges: DnsAnswer[MailExchange], port: int = 25
    ) -> Deferred[HostTlsPolicy]:
        return run_coroutine(self._for_host(policy, exchange.host, exchanges, port))

    def record(self, result: TlsResult) -> None:
        if self._count is None:
            return
        try:
            self._count(result)
        except Exception:
            self._log.failure("Counting a TLS connection to {host} failed", host=result.host)

    async def _for_domain(self, domain: str) -> DomainTlsPolicy:
        rule = next((rule for rule in self._rules if _is_for(rule.domain.lower(), domain)), None)
        if rule is not None:
            is_dane = rule.level is TlsLevel.DANE
            return DomainTlsPolicy(domain, rule.level, CONFIGURED, names=rule.names, tries_dane=is_dane)
        if self._sts is None or _is_address(domain):
            return DomainTlsPolicy(domain, TlsLevel.OPPORTUNISTIC, DEFAULT)
        try:
            found = await self._sts.find(domain)
        except CancelledError:
            raise
        except Exception:
            self._log.failure("Looking for the MTA-STS policy of {domain} failed", domain=domain)
            found = StsFinding()
        policy = _of_finding(domain, found)
        if found.fault:
            host_policy = HostTlsPolicy("", policy.level, MTA_STS)
            self.record(TlsResult(domain, "", "", host_policy, found.fault, found.detail))
        return policy

    async def _for_host(
        self, policy: DomainTlsPolicy, host: str, exchanges: DnsAnswer[MailExchange], port: int
    ) -> HostTlsPolicy:
        why_not = ""
        if policy.tries_dane and _is_address(host):
            why_not = "an address has no TLSA records"
        elif policy.tries_dane:
            found, why_not = await self._by_dane(policy, host, exchanges, port)
            if found is not None:
                return found
        if policy.source == CONFIGURED:
            why = f"configured for {policy.domain}" + (f"; {why_not}" if policy.level is TlsLevel.DANE else "")
            return HostTlsPolicy(host, policy.level, CONFIGURED, names=policy.names or (host,), why=why)
        if policy.level is TlsLevel.VERIFY:
            return self._by_mta_sts(policy, host)
        return HostTlsPolicy(host, policy.level, policy.source, why=why_not)

    def _by_mta_sts(self, policy: DomainTlsPolicy, host: str) -> HostTlsPolicy:
        is_named = matches_pattern(host, policy.mx_patterns)
        is_testing = policy.source == MTA_STS_TESTING
        said = "names" if is_named else "does not name"
        found = HostTlsPolicy(
            host,
            TlsLevel.VERIFY,
            policy.source,
            names=(host,),
            is_allowed=is_named or is_testing,
            is_testing=is_testing,
            why=f"the MTA-STS policy {policy.policy_id} of {policy.domain} {said} {host}",
        )
        if is_testing and not is_named:
            # Nothing of the connection itself will show it (RFC 8461 5: testing reports all failures).
            self.record(TlsResult(policy.domain, host, "", found, "validation-failure", found.why))
        return found

    async def _by_dane(
        self, policy: DomainTlsPolicy, host: str, exchanges: DnsAnswer[MailExchange], port: int
    ) -> tuple[HostTlsPolicy | None, str]:
        """The policy by TLSA records, or why there is none. Raises DnsFailure."""
        if not exchanges.is_secure:
            return None, f"the MX records of {policy.domain} are not secure"
        bases = await self._bases(host)
        if not bases:
            return None, f"the addresses of {host} are not secure"
        for base in bases:
            try:
                answer = await self._resolver.tlsa(f"_{port}._tcp.{base}")
            except DnsFailure as failure:
                self._note(policy, host, "dnssec-invalid", failure.cause)
                raise
            if not answer.is_secure or not answer.records:
                continue
            usable = dane.usable(answer.records)
            if usable:
                # RFC 7672 3.2.2: the base, what was asked for in the beginning, and where that led to.
                names = (base, policy.domain, exchanges.canonical_name)
                named = tuple(dict.fromkeys(name for name in names if name and not _is_address(name)))
                why = f"TLSA records of _{port}._tcp.{base}"
                return HostTlsPolicy(host, TlsLevel.DANE, DANE, names=named, tlsa=usable, why=why), ""
            self._note(policy, host, "tlsa-invalid", f"no record of _{port}._tcp.{base} can be used")
            if policy.level in {TlsLevel.VERIFY, TlsLevel.DANE}:
                # RFC 7672 2.2 demands TLS; what stands below demands more.
                return None, f"no TLSA record of _{port}._tcp.{base} can be used"
            why = f"no TLSA record of _{port}._tcp.{base} can be used: TLS with any certificate"
            return HostTlsPolicy(host, TlsLevel.ENCRYPT, DANE, why=why), ""
        return None, f"{host} has no secure TLSA records"

    def _note(self, policy: DomainTlsPolicy, host: str, result_type: str, detail: str) -> None:
        """Count what keeps a connection from being tried, or from being verified, by DANE."""
        self.record(TlsResult(policy.domain, host, "", HostTlsPolicy(host, TlsLevel.DANE, DANE), result_type, detail))

    async def _bases(self, host: str) -> tuple[str, ...]:
        """The TLSA base domains of a host, in the order they are tried (RFC 7672 2.2.2).

        Without secure addresses TLSA records are not asked for: name servers that cannot answer
        for unknown types would be taken for an attack.
        """
        addresses = await self._resolver.addresses(host)
        target = addresses.canonical_name or host
        if addresses.is_secure:
            return tuple(dict.fromkeys((target, host)))
        if target != host and (await self._resolver.aliases(host)).is_secure:
            return (host,)
        return ()


def _is_address(host: str) -> bool:
    """Of IPv4 or IPv6, in brackets or without: no name has a last label of digits."""
    return host.startswith("[") or ":" in host or host.rpartition(".")[2].isdigit()


def _is_for(pattern: str, domain: str) -> bool:
    """``*`` is for all, ``*.domain`` for what is below it at any depth."""
    if pattern == "*":
        return True
    return domain.endswith(pattern[1:]) if pattern.startswith("*.") else domain == pattern


def _of_finding(domain: str, found: StsFinding) -> DomainTlsPolicy:
    if found.stored is None or found.stored.policy.mode is StsMode.NONE:
        return DomainTlsPolicy(domain, TlsLevel.OPPORTUNISTIC, DEFAULT)
    policy = found.stored.policy
    return DomainTlsPolicy(
        domain,
        TlsLevel.VERIFY,
        MTA_STS if policy.mode is StsMode.ENFORCE else MTA_STS_TESTING,
        mx_patterns=policy.patterns,
        policy_id=found.stored.policy_id,
    )
