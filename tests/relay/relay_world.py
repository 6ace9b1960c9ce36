"""The queue's simulation with the relay in it: its client engine speaks to hosts in memory that fail at every step.

What :mod:`mailsrv.testing.queue_simulation` draws as outcomes comes about here: questions to the DNS, connections,
replies and octets, by the clock. A process is killed between any two events; what it had written by then may still get
to the hosts, in part. So whether a host took a message, and whether we were told, is known from the hosts alone.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from attrs import define
from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from mailsrv.interfaces.journal import JournalRecord
from mailsrv.interfaces.queue import ITransportAgent, OnwardDelivery
from mailsrv.interfaces.resolver import DnsAnswer, DnsFailure, IResolver, MailExchange
from mailsrv.relay.agent import make_relay_parts
from mailsrv.relay.mx_agent import MxAgent
from mailsrv.relay.settings import RelaySettings
from mailsrv.testing.next_hop import EVERYTHING, Fault, Kind, NextHop
from mailsrv.testing.next_hop_network import MemoryNetwork, MemoryTransport
from mailsrv.testing.queue_account import LostAccount
from mailsrv.testing.queue_simulation import DESTINATIONS, World
from tests.relay.relay_harness import MemoryClientTls, MemoryPolicies, MemoryResolver

KEYWORDS: tuple[dict[str, str], ...] = (
    EVERYTHING,
    {**EVERYTHING, "STARTTLS": ""},
    {"PIPELINING": ""},
    {"CHUNKING": "", "DSN": ""},
    {},
)
REFUSALS = (b"452 4.2.2 Full\r\n", b"452 4.2.2 Full\r\n", b"550 5.1.1 No\r\n")
REPLIES = (
    b"421 4.3.2 Busy\r\n",
    b"451 4.3.0 Later\r\n",
    b"554 5.7.1 Refused\r\n",
    b"junk\r\n",
    b"451-endless\r\n" * 300,
)
_FAULTS_PER_STEP = 0.15
_TRANSACTION_ID = re.compile(rb"Message-ID: <([^@]+)@sender>")


@define(eq=False)
class TroubledHop(NextHop):
    """A host that draws what goes wrong at each step."""

    world: Any = None
    trouble: float = 0.0

    def fault_at(self, step: str) -> Fault | None:
        draw = self.world.random
        if step == "RCPT" and draw.random() < 0.25:
            return Fault(step, Kind.REPLY, draw.choice(REFUSALS))
        if draw.random() >= self.trouble * _FAULTS_PER_STEP:
            return None
        kind = draw.choice(list(Kind))
        if step == "content" and kind is Kind.REPLY:
            # No to a message that it goes on to take: nobody could know.
            kind = Kind.REPLY_AND_CLOSE
        reply = draw.choice(REPLIES)
        if kind is Kind.REPLY and reply.startswith(b"421"):
            # RFC 5321 3.8: it closes; one that went on, and took what follows, would lie.
            kind = Kind.REPLY_AND_CLOSE
        return Fault(step, kind, reply)


@implementer(IResolver)
@define(eq=False)
class TroubledResolver(MemoryResolver):
    """Does not answer at times, or says that there is no such domain."""

    world: Any = None

    def mail_exchanges(self, domain: str) -> Deferred[DnsAnswer[MailExchange]]:
        draw, trouble = self.world.random, self.world.trouble_of(domain)
        if draw.random() < trouble / 8:
            return fail(DnsFailure(domain))
        if draw.random() < trouble / 40:
            return MemoryResolver().mail_exchanges(domain)
        return super().mail_exchanges(domain)

    def addresses(self, host: str) -> Deferred[DnsAnswer[str]]:
        draw, hop = self.world.random, self.world.hops[host]
        hop.is_up = draw.random() >= hop.trouble / 2
        if draw.random() < hop.trouble / 8:
            return fail(DnsFailure(host))
        return super().addresses(host)


class RelayWorld(World):
    """Each destination has a host of its own, some a second one."""

    MOST_EVENTS: ClassVar[int] = 40_000
    EVENTS_TO_CRASH: ClassVar[int] = 60

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.network = MemoryNetwork(self.clock, latency=0.05)
        self.resolver = TroubledResolver(world=self)
        self.hops: dict[str, TroubledHop] = {}
        self._addressees: dict[str, tuple[str, ...]] = {}
        draw = self.random
        for number, destination in enumerate(DESTINATIONS):
            names = [f"mx{preference}.{destination.target}" for preference in range(draw.choice((1, 1, 2)))]
            self.resolver.mx[destination.target] = list(enumerate(names))
            for preference, name in enumerate(names):
                hop = TroubledHop(
                    keywords=dict(draw.choice(KEYWORDS)),
                    breaks_handshake=draw.random() < 0.2,
                    world=self,
                    trouble=self.trouble[destination],
                )
                self.hops[name] = hop
                self.resolver.hosts[name] = [f"192.0.2.{number * 8 + preference}"]
                self.network.hops[f"192.0.2.{number * 8 + preference}"] = hop

    def trouble_of(self, domain: str) -> float:
        """How often things go wrong on the way there."""
        return next(self.trouble[destination] for destination in DESTINATIONS if destination.target == domain)

    def _submit(self, record: JournalRecord) -> None:
        (message,) = record.messages
        (delivery,) = message.deliveries
        if isinstance(delivery, OnwardDelivery):
            self._addressees[record.transaction_id] = tuple(str(each.address) for each in delivery.recipients)
        super()._submit(record)

    def open_relay(self) -> ITransportAgent:
        parts = make_relay_parts(
            RelaySettings(),
            "mail.example.test",
            resolver=self.resolver,
            tls_policies=MemoryPolicies(),
            client_tls=MemoryClientTls(),
            open_content=self._store.open_content,
            reactor=self.clock,
            dialer=self.network,
            wall_clock=self.clock.seconds,
        )
        return MxAgent(parts)

    def _crash(self) -> None:
        self._let_arrive()
        super()._crash()

    def _let_arrive(self) -> None:
        """What the process had handed to its kernel gets through, up to some point of each connection."""
        is_cut: set[MemoryTransport] = set()
        calls: list[Any] = sorted(self.clock.getDelayedCalls(), key=lambda each: each.getTime())
        for call in calls:
            transport = getattr(call.func, "__self__", None)
            if not isinstance(transport, MemoryTransport) or call.func.__name__ != "arrive" or transport in is_cut:
                continue
            if self.random.random() < 0.5:
                is_cut.add(transport)
            elif not transport.conversation.is_over:
                transport.conversation.receive(*call.args)

    def note_taken(self) -> None:
        ids = {entry.transaction_id: entry.id for entry in self.kept.added}
        for hop in self.hops.values():
            for conversation in hop.conversations:
                for number, message in enumerate(conversation.taken):
                    found = _TRANSACTION_ID.search(message.content)
                    if found is None:
                        raise LostAccount(f"seed {self.seed}: a message that nobody sent: {message}")
                    transaction_id = found[1].decode()
                    for recipient in message.recipients:
                        key = ids[transaction_id], self._addressees[transaction_id].index(recipient)
                        self.account.taken(key, is_reply_lost=number >= conversation.told)
            hop.conversations.clear()
