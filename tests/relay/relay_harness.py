"""What the tests of this folder share: a network of hosts in memory, a DNS of two tables, and messages to send."""

from __future__ import annotations

from typing import Any

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.interfaces.content import IContent
from mailsrv.interfaces.envelope import BodyType, EnvelopeParameters
from mailsrv.interfaces.queue import Consignment, Destination, QueuedRecipient, QueueEntry
from mailsrv.interfaces.resolver import DnsAnswer, DnsFailure, IResolver, MailExchange
from mailsrv.interfaces.tls_policy import DomainTlsPolicy, HostTlsPolicy, ITlsPolicies, TlsLevel, TlsResult
from mailsrv.relay.adaptation import Sign
from mailsrv.relay.agent import RelayParts, make_relay_parts
from mailsrv.relay.lmtp_agent import LmtpAgent
from mailsrv.relay.mx_agent import MxAgent
from mailsrv.relay.settings import RelaySettings
from mailsrv.relay.smarthost_agent import SmarthostAgent
from mailsrv.routing.rules import Smarthost
from mailsrv.testing.next_hop import NextHop
from mailsrv.testing.next_hop_network import MemoryNetwork

MESSAGE = b"From: a@example.test\r\nSubject: hello\r\n\r\n.dots\r\n..and more\r\n"
NOW = 1_700_000_000.0


@implementer(IContent)
class MemoryContent:
    """A message; ``is_large``: it has to be read piece by piece."""

    def __init__(self, octets: bytes, *, is_large: bool = False, broken_at: int | None = None) -> None:
        self.octets: bytes | None = None if is_large else octets
        self._octets = octets
        self.size = len(octets)
        self.is_closed = False
        self.reads: list[int] = []
        self._broken_at = broken_at

    def read(self, offset: int, count: int) -> Deferred[bytes]:
        if self._broken_at is not None and offset >= self._broken_at:
            return fail(OSError("disk"))
        self.reads.append(count)
        return succeed(self._octets[offset : offset + count])

    def close(self) -> None:
        self.is_closed = True


@implementer(IResolver)
@define(eq=False)
class MemoryResolver:
    """``mx`` and ``hosts`` say what there is; names in ``broken`` have no answer; others do not exist."""

    mx: dict[str, list[tuple[int, str]]] = field(factory=dict)
    hosts: dict[str, list[str]] = field(factory=dict)
    broken: set[str] = field(factory=set)
    asked: list[str] = field(factory=list)

    def mail_exchanges(self, domain: str) -> Deferred[DnsAnswer[MailExchange]]:
        self.asked.append(f"MX {domain}")
        if domain in self.broken:
            return fail(DnsFailure(domain))
        exists = domain in self.mx or domain in self.hosts
        records = tuple(sorted(MailExchange(*pair) for pair in self.mx.get(domain, ())))
        return succeed(DnsAnswer(records, name_exists=exists, canonical_name=domain))

    def addresses(self, host: str) -> Deferred[DnsAnswer[str]]:
        self.asked.append(f"A {host}")
        if host in self.broken:
            return fail(DnsFailure(host))
        return succeed(DnsAnswer(tuple(self.hosts.get(host, ())), name_exists=host in self.hosts))

    def aliases(self, name: str) -> Deferred[Any]:
        raise NotImplementedError

    def texts(self, name: str) -> Deferred[Any]:
        raise NotImplementedError

    def tlsa(self, name: str) -> Deferred[Any]:
        raise NotImplementedError

    def services(self, name: str) -> Deferred[Any]:
        raise NotImplementedError

    def pointers(self, address: str) -> Deferred[Any]:
        raise NotImplementedError

    def name_servers(self, domain: str) -> Deferred[Any]:
        raise NotImplementedError


@implementer(ITlsPolicies)
@define(eq=False)
class MemoryPolicies:
    """``levels`` by host or domain, else opportunistic."""

    levels: dict[str, TlsLevel] = field(factory=dict)
    forbidden: set[str] = field(factory=set)
    testing: set[str] = field(factory=set)
    broken: set[str] = field(factory=set)
    results: list[TlsResult] = field(factory=list)

    def for_domain(self, domain: str) -> Deferred[DomainTlsPolicy]:
        return succeed(DomainTlsPolicy(domain, self.levels.get(domain, TlsLevel.OPPORTUNISTIC), "default"))

    def for_host(
        self,
        policy: DomainTlsPolicy,
        exchange: MailExchange,
        exchanges: DnsAnswer[MailExchange],
        port: int = 25,
    ) -> Deferred[HostTlsPolicy]:
        host = exchange.host
        if host in self.broken:
            return fail(DnsFailure(host))
        return succeed(
            HostTlsPolicy(
                host,
                self.levels.get(host, policy.level),
                "test",
                is_allowed=host not in self.forbidden,
                is_testing=host in self.testing,
            )
        )

    def record(self, result: TlsResult) -> None:
        self.results.append(result)


@frozen
class Verdict:
    is_ok: bool
    result_type: str = ""
    detail: str = ""


@define(eq=False)
class MemoryClientTls:
    """``bad``: hosts whose certificates are no good for VERIFY and DANE."""

    bad: set[str] = field(factory=set)
    seen: list[HostTlsPolicy] = field(factory=list)
    """What was checked."""

    def connection_creator(self, policy: HostTlsPolicy) -> Any:
        return policy

    def check(self, policy: HostTlsPolicy, transport: Any) -> Verdict:
        self.seen.append(policy)
        if policy.host in self.bad and policy.level in {TlsLevel.VERIFY, TlsLevel.DANE}:
            return Verdict(policy.is_testing, "certificate-expired", "too old")
        return Verdict(True)


@define(eq=False)
class World:
    """Everything around the agents."""

    clock: Clock
    network: MemoryNetwork
    resolver: MemoryResolver
    policies: MemoryPolicies
    tls: MemoryClientTls
    parts: RelayParts
    mx: MxAgent
    smarthost: SmarthostAgent
    lmtp: LmtpAgent
    contents: dict[int, MemoryContent] = field(factory=dict)
    _next_id: int = 1

    def add_host(self, name: str, *addresses: str, hop: NextHop | None = None) -> NextHop:
        hop = hop or NextHop()
        self.resolver.hosts[name] = list(addresses)
        for address in addresses:
            self.network.hops[address] = hop
        return hop

    def add_domain(self, domain: str, *exchanges: tuple[int, str]) -> None:
        self.resolver.mx[domain] = list(exchanges)

    def entry(self, content: MemoryContent | bytes = MESSAGE, **changes: Any) -> QueueEntry:
        if isinstance(content, bytes):
            content = MemoryContent(content)
        number = self._next_id
        self._next_id += 1
        self.contents[number] = content
        entry = QueueEntry(
            number, f"t{number}", Address("ann", "example.test"), EnvelopeParameters(), "", NOW, content.size
        )
        parameters = {key: changes.pop(key) for key in tuple(changes) if hasattr(entry.parameters, key)}
        return evolve(entry, parameters=evolve(entry.parameters, **parameters), **changes)

    def consign(
        self, destination: str, *recipients: str | QueuedRecipient, entry: QueueEntry | None = None
    ) -> Consignment:
        queued = tuple(
            one if isinstance(one, QueuedRecipient) else QueuedRecipient(number, address(one))
            for number, one in enumerate(recipients, 1)
        )
        return Consignment(entry or self.entry(), Destination.parse(destination), queued)

    def begin(self, consignment: Consignment) -> list[Any]:
        """Start an attempt; its outcomes come into the list."""
        agent: Any = {"mx": self.mx, "smtp": self.smarthost, "lmtp": self.lmtp}[consignment.destination.transport.value]
        outcomes: list[Any] = []
        agent.attempt(consignment).addCallback(outcomes.append)
        self.run()
        return outcomes

    def run(self) -> None:
        latency = self.network.latency
        for _ in range(30):
            if not latency and not self._is_due():
                break
            self.clock.advance(latency)

    def _is_due(self) -> bool:
        calls = self.clock.getDelayedCalls()
        return bool(calls) and min(call.getTime() for call in calls) <= self.clock.seconds()

    def send(self, destination: str, *recipients: str | QueuedRecipient, entry: QueueEntry | None = None) -> Any:
        """A whole attempt: its outcomes, the one where there is one."""
        outcomes = self.begin(self.consign(destination, *recipients, entry=entry))
        for _ in range(60):
            if outcomes:
                break
            self.clock.advance(61)
            self.run()
        (all_outcomes,) = outcomes
        return all_outcomes[0] if len(all_outcomes) == 1 else list(all_outcomes)


def address(text: str) -> Address:
    local_part, _, domain = text.rpartition("@")
    return Address(local_part, domain)


def make_world(
    settings: RelaySettings | None = None,
    smarthosts: dict[Destination, Smarthost] | None = None,
    sign: Sign | None = None,
    **changes: Any,
) -> World:
    """Host mx.example.net at 192.0.2.1 takes mail for example.net."""
    clock = Clock()
    settings = evolve(settings or RelaySettings(), **changes)
    network = MemoryNetwork(clock)
    resolver, policies, tls = MemoryResolver(), MemoryPolicies(), MemoryClientTls()
    contents: dict[int, MemoryContent] = {}
    parts = make_relay_parts(
        settings,
        "mail.example.test",
        resolver=resolver,
        tls_policies=policies,
        client_tls=tls,
        open_content=lambda entry: succeed(contents[entry.id]),
        reactor=clock,
        dialer=network,
        wall_clock=lambda: NOW + clock.seconds(),
        sign=sign,
    )
    smarthost = SmarthostAgent(parts, smarthosts or {}, read=lambda path: succeed("secret"))
    world = World(clock, network, resolver, policies, tls, parts, MxAgent(parts), smarthost, LmtpAgent(parts), contents)
    world.add_domain("example.net", (10, "mx.example.net"))
    world.add_host("mx.example.net", "192.0.2.1")
    return world


def host(world: World, where: str = "192.0.2.1") -> NextHop:
    return world.network.hops[where]


__all__ = ["MESSAGE", "NOW", "BodyType", "MemoryContent", "World", "address", "host", "make_world"]
