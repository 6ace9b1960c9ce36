"""The queue in a world that breaks: one seed, one run, and at its end every recipient is accounted for.

Everything outside the queue's engine is simulated: the clock, the sender, the disk, DNS and the next
hops. The disk makes what was written durable a little later, in groups; it may be full for a while. The
process is killed at any event: what the disk had not made durable is lost, but for a beginning of it of random
length (it may have got there without anybody having been told), and a new process starts over what is left.
Attempts fail in every step of the dialogue (:mod:`mailsrv.testing.queue_hops`). At the end
:mod:`mailsrv.testing.queue_account` says whether all is well.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import ClassVar

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailsrv.address import Address
from mailsrv.errors import InsufficientStorage
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.envelope import NOTIFY_UNSAID, DeliverBy, EnvelopeParameters, Notify
from mailsrv.interfaces.journal import IJournal, JournaledMessage, JournalRecord, LocalDelivery
from mailsrv.interfaces.queue import (
    Destination,
    IQueueStore,
    ITransportAgent,
    OnwardDelivery,
    OnwardRecipient,
    QueueEntry,
    Transport,
)
from mailsrv.queue.bounce import Notices
from mailsrv.queue.local_agent import LocalAgent, Resolved
from mailsrv.queue.runner import QueueRunner
from mailsrv.queue.settings import QueueSettings, RetrySettings, ScheduleSettings
from mailsrv.testing.journal import MemorySpool
from mailsrv.testing.queue import MemoryQueueJournal, MemoryQueueStore, QueueState
from mailsrv.testing.queue_account import POSTMASTER, SENDER, Account, LostAccount
from mailsrv.testing.queue_hops import SimulatedHops

START = 1_000_000.0
DESTINATIONS = tuple(Destination(Transport.MX, f"d{number}.example") for number in range(4))
RECIPIENTS = tuple(Address(f"r{number}", each.target) for each in DESTINATIONS for number in range(3))
# A short life: few attempts show all there is to see.
SETTINGS = QueueSettings(
    retry=RetrySettings(
        first_seconds=300.0,
        longest_seconds=1200.0,
        max_age_seconds=3000.0,
        bounce_max_age_seconds=2000.0,
        delay_notice_seconds=1000.0,
    ),
    schedule=ScheduleSettings(
        first_probe_seconds=300.0,
        longest_probe_seconds=900.0,
        review_seconds=600.0,
        resync_seconds=4000.0,
        recipients_per_transaction=2,
    ),
)


class SimulatedDisk:
    """Durable ``latency`` seconds later, all that waits at once; full in some spans of time."""

    def __init__(self, clock: Clock, latency: float, full: Sequence[tuple[float, float]]) -> None:
        self.clock = clock
        self._latency = latency
        self._full = full
        self._waiting: list[tuple[Callable[[], None], Deferred[None]]] = []

    def write(self, operation: Callable[[], None]) -> Deferred[None]:
        answer: Deferred[None] = Deferred()
        if not self._waiting:
            self.clock.callLater(self._latency, self._sync)
        self._waiting.append((operation, answer))
        return answer

    def _sync(self) -> None:
        waiting, self._waiting = self._waiting, []
        now = self.clock.seconds()
        if any(start <= now < end for start, end in self._full):
            for _, answer in waiting:
                answer.errback(InsufficientStorage())
            return
        for operation, _ in waiting:
            operation()
        for _, answer in waiting:
            answer.callback(None)

    def crash(self, survivors: random.Random) -> None:
        """Of what waits a beginning got to the platter."""
        for operation, _ in self._waiting[: survivors.randint(0, len(self._waiting))]:
            operation()
        self._waiting = []


@define(eq=False)
class World:
    """One run. ``seed`` decides everything."""

    MOST_EVENTS: ClassVar[int] = 4000
    """A run that takes more never ends."""
    EVENTS_TO_CRASH: ClassVar[int] = 25
    """The next is at most so many events away."""

    seed: int
    random: random.Random = field(init=False)
    clock: Clock = field(init=False)
    kept: QueueState = field(factory=QueueState)
    account: Account = field(factory=Account)
    submitted: set[str] = field(factory=set)
    """Transactions of the sender."""
    trouble: dict[Destination, float] = field(factory=dict)
    crashes: int = 0
    events: int = 0
    _ids: int = 0
    _unsent: list[tuple[float, JournalRecord]] = field(factory=list)
    _full: tuple[tuple[float, float], ...] = ()
    disk: SimulatedDisk = field(init=False)
    journal: IJournal = field(init=False)
    _store: MemoryQueueStore = field(init=False)
    _runner: QueueRunner = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.random = random.Random(self.seed)  # noqa: S311  # a simulation repeats itself
        draw = self.random
        self.clock = Clock()
        self.clock.rightNow = START
        for destination in DESTINATIONS:
            self.trouble[destination] = draw.choice((0.0, 0.2, 0.5, 1.0))
        if draw.random() < 0.3:
            begin = START + draw.uniform(0, 1500)
            self._full = ((begin, begin + draw.choice((3.0, 60.0, 600.0))),)
        self._unsent = [(START + draw.uniform(0, 30), self._message()) for _ in range(draw.choice((1, 1, 2)))]

    def new_id(self) -> str:
        """A transaction id."""
        self._ids += 1
        return f"T{self._ids}"

    # The sender

    def _message(self) -> JournalRecord:
        draw = self.random
        addresses = draw.sample(RECIPIENTS, draw.choice((1, 1, 2, 3)))
        notify = draw.choice(
            (NOTIFY_UNSAID, NOTIFY_UNSAID, NOTIFY_UNSAID, Notify.NEVER, Notify.SUCCESS | Notify.FAILURE)
        )
        parameters = EnvelopeParameters()
        chance = draw.random()
        if chance < 0.05:
            parameters = evolve(parameters, hold_until=int(START) + 400)
        elif chance < 0.1:
            parameters = evolve(parameters, deliver_by=DeliverBy(int(START) + 500, must_return=chance < 0.075))
        delivery = OnwardDelivery(
            None if draw.random() < 0.1 else SENDER,
            tuple(OnwardRecipient(each, Destination(Transport.MX, each.domain), notify) for each in addresses),
            parameters,
            account=draw.choice(("", str(SENDER))),
        )
        transaction_id = self.new_id()
        content = InlineContent(f"Message-ID: <{transaction_id}@sender>\r\n\r\n{self.seed}\r\n".encode())
        return JournalRecord((JournaledMessage(content, (delivery,), int(START)),), transaction_id)

    def _submit(self, record: JournalRecord) -> None:
        self.submitted.add(record.transaction_id)

        def acknowledge(_: None) -> None:
            self.account.acknowledged.add(record.transaction_id)

        # Who gets a 452 gives up here; that nothing of it may be delivered then is seen in the account.
        self.journal.commit(record).addCallbacks(acknowledge, lambda _: self.account.refused.add(record.transaction_id))

    # The queue; a world with another store has its own of these three, and of ``kept``.

    def open_queue(self, disk: SimulatedDisk) -> tuple[IQueueStore, IJournal]:
        """A process opens what is kept."""
        self.disk = disk
        self._store = MemoryQueueStore(self.clock.seconds, self.kept, disk)
        return self._store, MemoryQueueJournal(self._store, self.clock.seconds, disk)

    def open_relay(self) -> ITransportAgent:
        """What carries mail to the next hops, of a new process."""
        return SimulatedHops(self.clock, self.random, self.trouble, self.account)

    def note_taken(self) -> None:
        """Before a crash and at the end: what next hops have taken gets into ``delivered`` and the others."""

    @property
    def has_work(self) -> bool:
        """Whether threads have something to do."""
        return False

    def work(self) -> None:
        """Before each event: threads have their turn."""

    def lose_memory(self) -> None:
        """The process is killed."""
        self._store.silence()
        self.disk.crash(self.random)

    # The process

    def _boot(self) -> None:
        """A new process over what is on the disk."""
        clock, draw = self.clock, self.random
        store, self.journal = self.open_queue(SimulatedDisk(clock, draw.choice((0.001, 0.5)), self._full))
        notices = Notices(
            SETTINGS.notices,
            store,
            hostname="mail.example.test",
            postmaster=POSTMASTER,
            new_transaction_id=self.new_id,
            seconds=clock.seconds,
        )
        local = LocalAgent(store, self.journal, MemorySpool(), notices, self._resolve, seconds=clock.seconds)
        agents: dict[Transport, ITransportAgent] = {Transport.MX: self.open_relay(), Transport.LOCAL: local}
        self._runner = QueueRunner(SETTINGS, store, self.journal, agents, notices, clock=clock, random=draw.random)
        self._runner.startService()
        now = clock.seconds()
        for at, record in self._unsent:
            if record.transaction_id not in self.submitted:
                clock.callLater(max(0.0, at - now), self._submit, record)

    async def _resolve(self, address: Address, entry: QueueEntry) -> Resolved:
        return Resolved((LocalDelivery(address, recipient=str(address)),))

    def _crash(self) -> None:
        """Kill the process: its timers and its memory are gone."""
        self.crashes += 1
        self.note_taken()
        self.lose_memory()
        self.clock.calls.clear()
        self._boot()
        self.account.crashed(self.kept)

    def run(self) -> World:
        """To the end of all mail, then the account. Raises :class:`LostAccount`."""
        clock = self.clock
        self._boot()
        crash_at = self._next_crash()
        last_sending = max(at for at, _ in self._unsent)
        while (clock.calls or self.has_work) and (
            self.kept.rows or clock.seconds() <= last_sending + 1 or self.events < 3
        ):
            self.events += 1
            if self.events > self.MOST_EVENTS:
                raise self._lost(f"mail that never ends: {list(self.kept.places)}")
            if self.events == crash_at and self.crashes < 4:
                self._crash()
                crash_at = self._next_crash()
                continue
            self.work()
            if clock.calls:
                clock.advance(max(0.0, clock.calls[0].getTime() - clock.seconds()))
            self.account.look(self.kept)
        self.note_taken()
        try:
            self.account.check(self.kept)
        except LostAccount as complaint:
            raise self._lost(str(complaint)) from None
        return self

    def _lost(self, text: str) -> LostAccount:
        return LostAccount(f"seed {self.seed}: {text}")

    def _next_crash(self) -> int | float:
        return self.events + self.random.randint(1, self.EVENTS_TO_CRASH) if self.random.random() < 0.8 else math.inf
