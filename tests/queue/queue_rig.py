"""A runner over a queue in memory, and a transport agent that does as it is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.envelope import EnvelopeParameters
from mailsrv.interfaces.journal import JournaledMessage, JournalRecord
from mailsrv.interfaces.queue import (
    AttemptOutcome,
    AttemptProblem,
    Consignment,
    Declined,
    Destination,
    ITransportAgent,
    OnwardDelivery,
    OnwardRecipient,
    Taken,
    Transport,
)
from mailsrv.queue.bounce import Notices
from mailsrv.queue.runner import QueueRunner
from mailsrv.queue.settings import QueueSettings, RetrySettings
from mailsrv.status import EnhancedStatus
from mailsrv.testing.queue import MemoryQueueJournal, MemoryQueueStore, PromptDisk

ALICE = Address("alice", "example.test")
POSTMASTER = Address("postmaster", "example.test")
CONTENT = b"From: alice@example.test\r\nMessage-ID: <one@example.test>\r\nSubject: one\r\n\r\nHello\r\n"
START = 1_000_000.0
STEADY = QueueSettings(retry=RetrySettings(jitter=0.0))


def mx(domain: str = "example.org") -> Destination:
    return Destination(Transport.MX, domain)


def bob(domain: str = "example.org", name: str = "bob") -> Address:
    return Address(name, domain)


def taken(consignment: Consignment, **more: bool) -> list[AttemptOutcome]:
    return [Taken(each.id, "mx.example.org", "250 2.0.0 Ok", **more) for each in consignment.recipients]


def declined(
    consignment: Consignment,
    status: str = "4.2.1",
    reply: str = "",
    problem: AttemptProblem = AttemptProblem.RECIPIENT,
    host: str = "mx.example.org",
) -> list[AttemptOutcome]:
    numbers = EnhancedStatus(*map(int, status.split(".")))
    text = reply or f"{numbers.kind}50 {status} No"
    return [Declined(each.id, numbers, text, host, problem) for each in consignment.recipients]


def unreachable(consignment: Consignment) -> list[AttemptOutcome]:
    return declined(consignment, "4.4.1", "Connection refused", AttemptProblem.DESTINATION, "")


Answer = Callable[[Consignment], Sequence[AttemptOutcome] | Deferred[Sequence[AttemptOutcome]]]


@implementer(ITransportAgent)
class ScriptedAgent:
    """Answers by ``answer``; keeps what it was given."""

    def __init__(self, answer: Answer = taken) -> None:
        self.answer = answer
        self.consignments: list[Consignment] = []
        self.stopped = 0

    def attempt(self, consignment: Consignment) -> Deferred[Sequence[AttemptOutcome]]:
        self.consignments.append(consignment)
        answer = self.answer(consignment)
        return answer if isinstance(answer, Deferred) else succeed(answer)

    def stop(self) -> Deferred[None]:
        self.stopped += 1
        return succeed(None)

    @property
    def addresses(self) -> list[str]:
        return [str(each.address) for one in self.consignments for each in one.recipients]


class Rig:
    """Everything a runner needs. ``start`` starts it."""

    def __init__(self, settings: QueueSettings = STEADY, answer: Answer = taken) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.disk, self.journal_disk = PromptDisk(), PromptDisk()
        self.store = MemoryQueueStore(self.clock.seconds, disk=self.disk)
        self.journal = MemoryQueueJournal(self.store, self.clock.seconds, self.journal_disk)
        self.agent = ScriptedAgent(answer)
        self.local = ScriptedAgent(lambda consignment: Deferred())
        self.settings = settings
        self.ids = 0
        self.notices = Notices(
            settings.notices,
            self.store,
            hostname="mail.example.test",
            postmaster=POSTMASTER,
            new_transaction_id=self.new_id,
            seconds=self.clock.seconds,
        )
        self.runner = self.make_runner()

    def make_runner(self) -> QueueRunner:
        return QueueRunner(
            self.settings,
            self.store,
            self.journal,
            {Transport.MX: self.agent, Transport.LOCAL: self.local},
            self.notices,
            clock=self.clock,
            random=lambda: 0.5,
        )

    def start(self) -> Self:
        self.runner.startService()
        return self

    def new_id(self) -> str:
        self.ids += 1
        return f"N{self.ids:04d}"

    def send(
        self,
        *recipients: OnwardRecipient | Address,
        reverse_path: Address | None = ALICE,
        account: str = "",
        content: bytes = CONTENT,
        **parameters: Any,
    ) -> None:
        """Mail is accepted."""
        onward = tuple(
            each if isinstance(each, OnwardRecipient) else OnwardRecipient(each, mx(each.domain))
            for each in recipients or (bob(),)
        )
        delivery = OnwardDelivery(reverse_path, onward, evolve(EnvelopeParameters(), **parameters), account=account)
        message = JournaledMessage(InlineContent(content), (delivery,), int(self.clock.seconds()))
        self.journal.commit(JournalRecord((message,), self.new_id()))

    def advance(self, seconds: float) -> None:
        """Time goes by, from event to event."""
        end = self.clock.seconds() + seconds
        while self.clock.calls and self.clock.calls[0].getTime() <= end:
            self.clock.advance(max(0.0, self.clock.calls[0].getTime() - self.clock.seconds()))
        self.clock.advance(end - self.clock.seconds())

    @property
    def notices_sent(self) -> list[tuple[str, str]]:
        """(whom to, text) of all notices that wait for the local agent or have been there."""
        kept = self.store.kept
        return [
            (str(row.recipient.address), kept.contents[row.entry.id].decode())
            for rows in kept.rows.values()
            for row in rows.values()
            if row.destination.transport is Transport.LOCAL
        ]

    @property
    def endings(self) -> list[tuple[str, str]]:
        return [(str(recipient.address), ending.value) for _, recipient, ending in self.store.kept.ended]
