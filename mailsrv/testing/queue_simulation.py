"""The queue in a world that breaks: one seed, one run, and at its end every recipient is accounted for.

Everything outside the queue's engine is simulated: the clock, the sender, the disk, DNS and the next
hops. The disk makes what was written durable a little later, in groups; it may be full for a while. The
process is killed at any event: what the disk had not made durable is lost, but for a beginning of it of random
length (it may have got there without anybody having been told), and a new process starts over what is left.
Attempts fail in every step of the dialogue: no DNS, no connection, 4xx, 5xx or nothing in answer to each command,
a connection lost before and after each reply, the one to the end of data too.

The account at the end, for every recipient the queue ever took over::

    deliveries at next hops + ends with a notice of failure + silent ends  =  1 + uncertain

where *uncertain* counts what SMTP cannot know (RFC 1047): the next hop has taken the message and we were not told, or
were killed before it was written down. A notice is in the sender's mailbox exactly once.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import ClassVar

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.errors import InsufficientStorage
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.envelope import NOTIFY_UNSAID, DeliverBy, EnvelopeParameters, Notify
from mailsrv.interfaces.journal import IJournal, JournaledMessage, JournalRecord, LocalDelivery
from mailsrv.interfaces.queue import (
    AttemptOutcome,
    AttemptProblem,
    Consignment,
    Declined,
    Destination,
    Ending,
    IQueueStore,
    ITransportAgent,
    OnwardDelivery,
    OnwardRecipient,
    QueueEntry,
    Taken,
    Transport,
)
from mailsrv.queue.bounce import Notices
from mailsrv.queue.local_agent import LocalAgent, Resolved
from mailsrv.queue.runner import QueueRunner
from mailsrv.queue.settings import QueueSettings, RetrySettings, ScheduleSettings
from mailsrv.status import EnhancedStatus
from mailsrv.testing.journal import MemorySpool
from mailsrv.testing.queue import MemoryQueueJournal, MemoryQueueStore, QueueState

START = 1_000_000.0
SENDER = Address("sender", "example.test")
POSTMASTER = Address("postmaster", "example.test")
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


class LostAccount(AssertionError):
    """A recipient was lost, or served twice without cause."""


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


class _Step:
    """Where a dialogue with a next hop breaks off."""

    DNS, CONNECT, GREETING, EHLO, MAIL, DATA, END_OF_DATA, AFTER_END = range(8)


@implementer(ITransportAgent)
class SimulatedHops:
    """All next hops. Each has its own inclination to fail; some are dead for a time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random

    def stop(self) -> Deferred[None]:
        raise NotImplementedError("processes are killed here")

    def attempt(self, consignment: Consignment) -> Deferred[Sequence[AttemptOutcome]]:
        world, draw = self._world, self._random
        answer: Deferred[Sequence[AttemptOutcome]] = Deferred()
        clock = world.clock
        trouble = world.trouble[consignment.destination]
        if draw.random() >= trouble:
            outcomes = self._accepting(consignment)
        else:
            step = draw.randrange(8)
            if step == _Step.AFTER_END:
                # The next hop has the message; its 250 is lost on the way.
                clock.callLater(1.0, self.takes, consignment, [each.id for each in consignment.recipients], True)
                outcomes = self._all(
                    consignment, "4.4.2", "Connection lost", AttemptProblem.DESTINATION, uncertain=True
                )
            else:
                outcomes = self._broken(consignment, step)
        delay = 300.0 if draw.random() < trouble / 4 else 2.0
        clock.callLater(delay, answer.callback, outcomes)
        return answer

    def _accepting(self, consignment: Consignment) -> list[AttemptOutcome]:
        """Each recipient has its own reply to RCPT; those that got 250 get the message."""
        draw, outcomes = self._random, list[AttemptOutcome]()
        taken: list[int] = []
        for recipient in consignment.recipients:
            chance = draw.random()
            if chance < 0.75:
                taken.append(recipient.id)
                outcomes.append(Taken(recipient.id, "mx", "250 2.0.0 Ok", offers_dsn=chance < 0.3))
            elif chance < 0.9:
                outcomes.append(Declined(recipient.id, EnhancedStatus(4, 2, 2), "452 4.2.2 Full", "mx"))
            else:
                outcomes.append(Declined(recipient.id, EnhancedStatus(5, 1, 1), "550 5.1.1 No", "mx"))
        if taken:
            self._world.clock.callLater(1.0, self.takes, consignment, taken, False)
        return outcomes

    def _broken(self, consignment: Consignment, step: int) -> list[AttemptOutcome]:
        """It fails at a step, by a reply or by silence, before the next hop has anything."""
        chance = self._random.random()
        if step <= _Step.CONNECT:
            text = "No answer from the DNS" if step == _Step.DNS else "Connection refused"
            if step == _Step.DNS and chance < 0.05:
                return self._all(consignment, "5.1.2", "No such domain", AttemptProblem.DESTINATION)
            return self._all(consignment, "4.4.1", text, AttemptProblem.DESTINATION)
        if chance < 0.4:
            return self._all(consignment, "4.4.2", "Connection lost", AttemptProblem.DESTINATION)
        scope = AttemptProblem.DESTINATION if step <= _Step.EHLO else AttemptProblem.MESSAGE
        if chance < 0.9:
            return self._all(consignment, "4.3.2", "421 4.3.2 Busy", scope, "mx")
        return self._all(consignment, "5.7.1", "554 5.7.1 Refused", AttemptProblem.MESSAGE, "mx")

    @staticmethod
    def _all(
        consignment: Consignment,
        status: str,
        reply: str,
        problem: AttemptProblem,
        host: str = "",
        *,
        uncertain: bool = False,
    ) -> list[AttemptOutcome]:
        code = EnhancedStatus(int(status[0]), int(status[2]), int(status[4]))
        return [Declined(each.id, code, reply, host, problem, uncertain) for each in consignment.recipients]

    def takes(self, consignment: Consignment, recipient_ids: Sequence[int], is_reply_lost: bool) -> None:
        """The next hop has taken the message."""
        world = self._world
        for recipient_id in recipient_ids:
            key = consignment.entry.id, recipient_id
            world.delivered[key] += 1
            if is_reply_lost:
                world.uncertain[key] += 1
            else:
                world.unwritten.add(key)


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
    delivered: Counter[tuple[int, int]] = field(factory=Counter)
    uncertain: Counter[tuple[int, int]] = field(factory=Counter)
    unwritten: set[tuple[int, int]] = field(factory=set)
    """Taken by a next hop; whether that is durable here is seen at a crash."""
    acknowledged: set[str] = field(factory=set)
    """Transactions the sender got a 250 for."""
    submitted: set[str] = field(factory=set)
    refused: set[str] = field(factory=set)
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
            self.acknowledged.add(record.transaction_id)

        # Who gets a 452 gives up here; that nothing of it may be delivered then is seen in the account.
        self.journal.commit(record).addCallbacks(acknowledge, lambda _: self.refused.add(record.transaction_id))

    # The queue; a world with another store has its own of these three, and of ``kept``.

    def open_queue(self, disk: SimulatedDisk) -> tuple[IQueueStore, IJournal]:
        """A process opens what is kept."""
        self.disk = disk
        self._store = MemoryQueueStore(self.clock.seconds, self.kept, disk)
        return self._store, MemoryQueueJournal(self._store, self.clock.seconds, disk)

    def open_relay(self) -> ITransportAgent:
        """What carries mail to the next hops, of a new process."""
        return SimulatedHops(self)

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
        taken, self.unwritten = self.unwritten, set()
        self._boot()
        for key in taken:
            # Neither on disk nor in the journal that has just been replayed: it will be tried again.
            if self.kept.row(*key) is not None:
                self.uncertain[key] += 1

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
                raise LostAccount(f"seed {self.seed}: mail that never ends: {list(self.kept.places)}")
            if self.events == crash_at and self.crashes < 4:
                self._crash()
                crash_at = self._next_crash()
                continue
            self.work()
            if clock.calls:
                clock.advance(max(0.0, clock.calls[0].getTime() - clock.seconds()))
            if self.unwritten:
                self.unwritten = {key for key in self.unwritten if self.kept.row(*key) is not None}
        self.note_taken()
        Account(self).check()
        return self

    def _next_crash(self) -> int | float:
        return self.events + self.random.randint(1, self.EVENTS_TO_CRASH) if self.random.random() < 0.8 else math.inf


@frozen
class Account:
    """What became of every recipient of a run."""

    world: World

    def check(self) -> None:
        """Raises :class:`LostAccount`."""
        world, kept = self.world, self.world.kept
        if kept.places:
            self._fail(f"still waiting: {list(kept.places)}")
        known = {entry.transaction_id for entry in kept.added}
        if not world.acknowledged <= known:
            self._fail(f"accepted and lost: {world.acknowledged - known}")
        if world.refused & known:
            self._fail(f"refused and queued: {world.refused & known}")
        notices = self._notices()
        for entry, recipient, ending in kept.ended:
            if recipient.address in {SENDER, POSTMASTER}:
                continue
            key = entry.id, recipient.id
            total = world.delivered[key] + (ending is not Ending.DELIVERED)
            if total != 1 + world.uncertain[key]:
                self._fail(f"{key}: delivered {world.delivered[key]}, {ending}, uncertain {world.uncertain[key]}")
            is_told = ending is not Ending.DELIVERED and not recipient.notify & Notify.NEVER
            told = notices[entry.transaction_id, str(recipient.address), "failed"]
            if told != is_told:
                self._fail(f"{key}: {ending}, {recipient.notify!r}: told {told} times")
            successes = notices[entry.transaction_id, str(recipient.address), "relayed"]
            # With DELIVERBY, also who asked for nothing learns where it is not kept (RFC 2852 4.1.4.2).
            may_be_told = recipient.notify & Notify.SUCCESS or (
                entry.parameters.deliver_by is not None and not recipient.notify & Notify.NEVER
            )
            if successes > (ending is Ending.DELIVERED and bool(may_be_told)):
                self._fail(f"{key}: {successes} notices of success")
            if notices[entry.transaction_id, str(recipient.address), "delayed"] > 1:
                self._fail(f"{key}: told of the delay more than once")

    def _notices(self) -> Counter[tuple[str, str, str]]:
        """(transaction id of the message, recipient, action) of all notices in mailboxes."""
        found: Counter[tuple[str, str, str]] = Counter()
        for _, octets in self.world.kept.mailboxes:
            text = octets.decode()
            about = text[text.index("name the message:") + 17 :].split(None, 1)[0]
            for part in text.split("Final-Recipient: rfc822; ")[1:]:
                address, action, _ = part.split("\r\n", 2)
                found[about, address, action.removeprefix("Action: ")] += 1
        return found

    def _fail(self, text: str) -> None:
        raise LostAccount(f"seed {self.world.seed}: {text}")
