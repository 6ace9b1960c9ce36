"""Which hosts take a domain's mail, and their addresses, in the order to try them (RFC 5321 5.1).

:class:`MxRoute` gives one :class:`Hop` after the other; the addresses of a host are asked for only when
its turn comes. Failures of the DNS are temporary, always; what the DNS knows for certain (no such
domain, a null MX, only ourselves) is a permanent :class:`~mailsrv.relay.outcomes.HopFailed`.
"""

from __future__ import annotations

import ipaddress
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby, zip_longest

from attrs import frozen

from mailsrv.interfaces.queue import AttemptProblem
from mailsrv.interfaces.resolver import DnsAnswer, DnsFailure, IResolver, MailExchange
from mailsrv.interfaces.tls_policy import DomainTlsPolicy, HostTlsPolicy, ITlsPolicies, TlsLevel, TlsResult
from mailsrv.relay.outcomes import ROUTING_FAILED, TLS_NOT_GOOD, HopFailed
from mailsrv.relay.settings import AddressFamilies, RelaySettings
from mailsrv.status import BAD_DOMAIN, ROUTING_LOOP, EnhancedStatus

NULL_MX = EnhancedStatus(5, 1, 10)
NO_ROUTE = EnhancedStatus(5, 4, 4)
REQUIRETLS_NEEDED = EnhancedStatus(5, 7, 30)

WAIVED = "waived"
"""Source of a policy by ``TLS-Required: No``."""
_UNDEMANDING = (TlsLevel.NONE, TlsLevel.OPPORTUNISTIC)

Shuffle = Callable[[list[MailExchange]], None]


@frozen
class Hop:
    """One address to connect to."""

    host: str
    """Its name, or the address literal; for TLS and for what is said of it."""
    address: str
    port: int
    policy: HostTlsPolicy
    domain: str
    """Whose mail it is, for reports."""
    local_address: str = ""
    """Where we connected from, once that is done."""


class MxRoute:
    """The way to one domain, for one attempt."""

    def __init__(
        self,
        domain: str,
        settings: RelaySettings,
        own_names: frozenset[str],
        resolver: IResolver,
        policies: ITlsPolicies,
        *,
        requires_tls: bool,
        waives_tls: Callable[[], Awaitable[bool]] | None = None,
        shuffle: Shuffle = random.shuffle,
    ) -> None:
        """``waives_tls`` says whether the message does without what the domain demands of TLS (RFC 8689 3)."""
        self._domain = domain
        self._settings = settings
        self._own_names = own_names
        self._resolver = resolver
        self._policies = policies
        self._requires_tls = requires_tls
        self._waives_tls = waives_tls
        self._shuffle = shuffle
        self._exchanges: deque[MailExchange] = deque()
        self._answer: DnsAnswer[MailExchange] = DnsAnswer(())
        self._policy: DomainTlsPolicy | None = None
        self._has_begun = False
        self._hops: deque[Hop] = deque()
        self.failure: HopFailed | None = None
        """Why the last host could not be used."""

    async def next_hop(self) -> Hop | None:
        """The next address, None after the last. Raises HopFailed where the domain has no hosts for mail."""
        if not self._has_begun:
            self._has_begun = True
            await self._begin()
        while not self._hops:
            if not self._exchanges:
                return None
            await self._look_at(self._exchanges.popleft())
        return self._hops.popleft()

    async def _begin(self) -> None:
        domain = self._domain
        if domain.startswith("["):
            # RFC 5321 4.1.3: an address literal is its own host; nobody asks the DNS.
            self._exchanges.append(MailExchange(0, domain))
            self._answer = DnsAnswer(tuple(self._exchanges))
        else:
            self._answer = await self._ask_for_exchanges()
            self._exchanges.extend(self._without_ourselves(self._in_order(self._answer.records)))
        self._policy = await self._policies.for_domain(domain)

    async def _ask_for_exchanges(self) -> DnsAnswer[MailExchange]:
        domain = self._domain
        try:
            answer = await self._resolver.mail_exchanges(domain)
        except DnsFailure as failure:
            raise HopFailed(failure.status, failure.text) from failure
        if not answer.name_exists:
            raise HopFailed(BAD_DOMAIN, f"Domain {domain} does not exist")
        if not answer.records:
            # RFC 5321 5.1: the implicit MX.
            return DnsAnswer(
                (MailExchange(0, answer.canonical_name or domain),), answer.is_secure, True, answer.canonical_name
            )
        if all(not exchange.host for exchange in answer.records):
            raise HopFailed(NULL_MX, f"Domain {domain} does not accept mail (null MX)")
        return answer

    def _in_order(self, exchanges: Sequence[MailExchange]) -> list[MailExchange]:
        """By preference, equal ones in random order. A null MX among others is a mistake and passed over."""
        ordered: list[MailExchange] = []
        usable = sorted((one for one in exchanges if one.host), key=lambda one: one.preference)
        for _preference, equals in groupby(usable, lambda one: one.preference):
            group = list(equals)
            self._shuffle(group)
            ordered += group
        return ordered

    def _without_ourselves(self, exchanges: list[MailExchange]) -> list[MailExchange]:
        """RFC 5321 5.1: never to ourselves, and never to a host that would give it to us."""
        ours = [one.preference for one in exchanges if one.host in self._own_names]
        if not ours:
            return exchanges
        better = [one for one in exchanges if one.preference < min(ours)]
        if not better:
            raise HopFailed(ROUTING_LOOP, f"Mail for {self._domain} loops back to this server")
        return better

    async def _look_at(self, exchange: MailExchange) -> None:
        """Fill ``_hops`` with one host's addresses, or say in ``failure`` why not."""
        host = exchange.host
        try:
            addresses = await self._addresses(host)
            policy = await self._host_policy(exchange)
        except DnsFailure as failure:
            self.failure = HopFailed(failure.status, failure.text)
            return
        except HopFailed as failure:
            self._note(failure)
            return
        if self._settings.own_addresses and not set(addresses).isdisjoint(self._settings.own_addresses):
            # What comes after it would give the message to us.
            self._exchanges.clear()
            self._note(HopFailed(ROUTING_LOOP, f"Mail for {self._domain} loops back to this server"))
            return
        self._hops.extend(Hop(host, address, self._settings.port, policy, self._domain) for address in addresses)

    async def _addresses(self, host: str) -> list[str]:
        if host.startswith("["):
            found: Sequence[str] = (host[1:-1].removeprefix("ipv6:"),)
        else:
            answer = await self._resolver.addresses(host)
            found = answer.records
            if not found:
                raise HopFailed(NO_ROUTE, f"Host {host} for mail to {self._domain} has no address")
        return arrange_addresses(found, self._settings, host)

    async def _host_policy(self, exchange: MailExchange) -> HostTlsPolicy:
        if self._policy is None:
            raise HopFailed(ROUTING_FAILED, "no TLS policy")
        try:
            policy = await self._policies.for_host(self._policy, exchange, self._answer, self._settings.port)
        except DnsFailure:
            if not await self._is_waived():
                raise
            policy = HostTlsPolicy(exchange.host, TlsLevel.OPPORTUNISTIC, WAIVED)
        if policy.level not in _UNDEMANDING and await self._is_waived():
            policy = HostTlsPolicy(exchange.host, TlsLevel.OPPORTUNISTIC, WAIVED)
        check_policy(policy, self._domain, self._policies, requires_tls=self._requires_tls)
        return policy

    async def _is_waived(self) -> bool:
        """What the administrator demands is not for a message to waive."""
        if self._waives_tls is None or self._policy is None or self._policy.source == "configured":
            return False
        return await self._waives_tls()

    def _note(self, failure: HopFailed) -> None:
        # That one host may be had later says more than that another is not to be had.
        if self.failure is None or not self.failure.status.is_temporary:
            self.failure = failure


def check_policy(policy: HostTlsPolicy, domain: str, policies: ITlsPolicies, *, requires_tls: bool) -> None:
    """Whether a host may be spoken to at all; raises HopFailed."""
    if not policy.is_allowed:
        policies.record(TlsResult(domain, policy.host, "", policy, "validation-failure", "not named by the policy"))
        if not policy.is_testing:
            raise HopFailed(TLS_NOT_GOOD, f"Host {policy.host} is not named by the MTA-STS policy of {domain}")
    if requires_tls and (not policy.is_verified or policy.is_testing):
        # RFC 8689 4.2.1: without a verified name there is no verified TLS.
        raise HopFailed(
            REQUIRETLS_NEEDED,
            f"REQUIRETLS: the identity of {policy.host} cannot be verified",
            problem=AttemptProblem.MESSAGE,
        )


def arrange_addresses(found: Sequence[str], settings: RelaySettings, host: str) -> list[str]:
    """Those that may be tried, the families in turn, so that one broken family does not use up all tries."""
    families = settings.address_families
    version6 = [one for one in found if ":" in one] if families is not AddressFamilies.IPV4 else []
    version4 = [one for one in found if ":" not in one] if families is not AddressFamilies.IPV6 else []
    arranged = [one for pair in zip_longest(version6, version4) for one in pair if one is not None]
    if not arranged:
        raise HopFailed(NO_ROUTE, f"Host {host} has no address of a family that is used")
    if settings.refuses_private_addresses:
        arranged = [one for one in arranged if _is_public(one)]
        if not arranged:
            raise HopFailed(NO_ROUTE, f"Host {host} has only private addresses")
    return arranged


def _is_public(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        embedded = address.ipv4_mapped or address.sixtofour
        if embedded is not None:
            return embedded.is_global
    return address.is_global and not address.is_multicast
