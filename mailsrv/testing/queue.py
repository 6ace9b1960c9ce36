"""A queue in memory, with a journal that feeds it, and what both do in a crash.

:class:`QueueState` is what is on disk: it only ever changes by whole operations. A :class:`MemoryQueueStore`
is one process's view of it, with the leases of that process; a :class:`MemoryQueueJournal` carries records into
mailboxes and queue. Both write by an :class:`IDisk`, which says when an operation is durable, or fails
it. To crash is to throw the views away and make new ones over the same state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Protocol

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from mailsrv.errors import MailError, Unavailable
from mailsrv.interfaces.content import FileContent, IContent
from mailsrv.interfaces.journal import Applied, IJournal, JournaledMessage, JournalRecord, LocalDelivery
from mailsrv.interfaces.queue import (
    Consignment,
    Delivered,
    Destination,
    DestinationState,
    Ending,
    Finished,
    IQueueStore,
    OnwardDelivery,
    Postponed,
    QueuedRecipient,
    QueueEntry,
    QueueSettlement,
    Settlement,
)


class IDisk(Protocol):
    """Makes operations durable, in order."""

    def write(self, operation: Callable[[], None]) -> Deferred[None]:
        """Run the operation when it is durable, then fire; or fail with a MailError and never run it."""


class PromptDisk:
    """Durable at once. With ``failure`` every write fails."""

    failure: MailError | None = None

    def write(self, operation: Callable[[], None]) -> Deferred[None]:
        if self.failure is not None:
            return fail(self.failure)
        operation()
        return succeed(None)


@define(eq=False)
class WaitingRecipient:
    """A row of the queue."""

    entry: QueueEntry
    recipient: QueuedRecipient
    destination: Destination
    due: float
    number: int


@implementer(IContent)
class OctetsContent:
    """Content that is in memory."""

    def __init__(self, octets: bytes) -> None:
        self.octets: bytes | None = octets
        self.size = len(octets)
        self._octets = octets
        self.is_closed = False

    def read(self, offset: int, count: int) -> Deferred[bytes]:
        return succeed(self._octets[offset : offset + count])

    def close(self) -> None:
        self.is_closed = True


@define(eq=False)
class QueueState:
    """The disk. ``ended`` holds how every recipient came to its end, in order."""

    rows: dict[Destination, dict[int, WaitingRecipient]] = field(factory=dict)
    places: dict[tuple[int, int], tuple[Destination, int]] = field(factory=dict)
    """(entry id, recipient id) → where its row is."""
    contents: dict[int, bytes] = field(factory=dict)
    mailboxes: list[tuple[LocalDelivery, bytes]] = field(factory=list)
    ended: list[tuple[QueueEntry, QueuedRecipient, Ending]] = field(factory=list)
    added: list[QueueEntry] = field(factory=list)
    numbers: count[int] = field(factory=lambda: count(1))

    def add(self, delivery: OnwardDelivery, octets: bytes, transaction_id: str, now: float) -> list[Destination]:
        """A message comes in. Says for where."""
        if octets[:12].lower() == b"return-path:":
            octets = octets[octets.index(b"\r\n") + 2 :]
        entry = QueueEntry(
            next(self.numbers),
            transaction_id,
            delivery.reverse_path,
            delivery.parameters,
            delivery.account,
            now,
            len(octets),
        )
        self.contents[entry.id] = octets
        self.added.append(entry)
        due = max(now, delivery.parameters.hold_until or 0)
        for number, onward in enumerate(delivery.recipients):
            recipient = QueuedRecipient(number, onward.address, onward.notify, onward.original_recipient)
            self._put(WaitingRecipient(entry, recipient, onward.destination, due, next(self.numbers)))
        return [onward.destination for onward in delivery.recipients]

    def _put(self, row: WaitingRecipient) -> None:
        self.rows.setdefault(row.destination, {})[row.number] = row
        self.places[row.entry.id, row.recipient.id] = row.destination, row.number

    def row(self, entry_id: int, recipient_id: int) -> WaitingRecipient | None:
        """None where the recipient has ended."""
        place = self.places.get((entry_id, recipient_id))
        return None if place is None else self.rows[place[0]][place[1]]

    def end(self, entry_id: int, recipient_id: int, ending: Ending) -> None:
        """Once; what has ended stays so."""
        place = self.places.pop((entry_id, recipient_id), None)
        if place is None:
            return
        rows = self.rows[place[0]]
        row = rows.pop(place[1])
        if not rows:
            del self.rows[place[0]]
        self.ended.append((row.entry, row.recipient, ending))

    def postpone(self, entry_id: int, settlement: Postponed) -> None:
        """It waits on."""
        row = self.row(entry_id, settlement.recipient_id)
        if row is None:
            return
        row.due = settlement.until
        row.recipient = evolve(
            row.recipient,
            attempts=row.recipient.attempts + settlement.is_attempt,
            last_reply=settlement.text,
            is_delay_told=settlement.is_delay_told,
        )
        if settlement.destination is not None and settlement.destination != row.destination:
            del self.rows[row.destination][row.number]
            row.destination = settlement.destination
            self._put(row)

    def settle(self, entry_id: int, settlement: Settlement) -> None:
        """One recipient's."""
        if isinstance(settlement, Postponed):
            self.postpone(entry_id, settlement)
        elif isinstance(settlement, Finished):
            self.end(entry_id, settlement.recipient_id, settlement.ending)
        elif isinstance(settlement, Delivered):
            self.end(entry_id, settlement.recipient_id, Ending.DELIVERED)


@implementer(IQueueStore)
class MemoryQueueStore:
    """A process's view. ``refusal`` is what ``check_acceptance`` says, ``failure`` what reading fails with."""

    def __init__(
        self, seconds: Callable[[], float], state: QueueState | None = None, disk: IDisk | None = None
    ) -> None:
        self._seconds = seconds
        self.kept = state if state is not None else QueueState()
        self._disk: IDisk = disk if disk is not None else PromptDisk()
        self.leased: set[tuple[int, int]] = set()
        self._listeners: list[Callable[[Sequence[DestinationState]], None]] = []
        self.refusal: MailError | None = None
        self.failure: MailError | None = None
        self.takes = 0
        self.renewed: list[tuple[int, ...]] = []

    def check_acceptance(self, octets: int, recipients: int) -> MailError | None:
        return self.refusal

    def listen(self, enqueued: Callable[[Sequence[DestinationState]], None]) -> None:
        self._listeners.append(enqueued)

    def silence(self) -> None:
        """The process is gone: nobody hears of anything."""
        self._listeners.clear()

    def announce(self, destinations: Iterable[Destination]) -> None:
        """Tell the listeners of these destinations."""
        if self._listeners:
            states = [self._state_of(destination) for destination in dict.fromkeys(destinations)]
            for listener in self._listeners:
                listener(states)

    def _state_of(self, destination: Destination) -> DestinationState:
        leased = self.leased
        dues = [
            row.due
            for row in self.kept.rows.get(destination, {}).values()
            if (row.entry.id, row.recipient.id) not in leased
        ]
        return DestinationState(destination, len(dues), min(dues, default=math.inf))

    def destinations(self) -> Deferred[Sequence[DestinationState]]:
        if self.failure is not None:
            return fail(self.failure)
        return succeed([self._state_of(destination) for destination in self.kept.rows])

    def take(
        self, destination: Destination, now: float, messages: int, recipients: int
    ) -> Deferred[Sequence[Consignment]]:
        if self.failure is not None:
            return fail(self.failure)
        self.takes += 1
        by_entry: dict[int, list[WaitingRecipient]] = {}
        for row in self.kept.rows.get(destination, {}).values():
            if row.due <= now and (row.entry.id, row.recipient.id) not in self.leased:
                by_entry.setdefault(row.entry.id, []).append(row)
        consignments = []
        for entry_id in self._in_turn(by_entry)[:messages]:
            rows = by_entry[entry_id][:recipients]
            self.leased.update((entry_id, row.recipient.id) for row in rows)
            consignments.append(Consignment(rows[0].entry, destination, tuple(row.recipient for row in rows)))
        return succeed(consignments)

    @staticmethod
    def _in_turn(by_entry: dict[int, list[WaitingRecipient]]) -> list[int]:
        """Highest priority first, then a message of each sender in turn, then oldest first."""
        if len(by_entry) == 1:
            return list(by_entry)
        turns: dict[tuple[int, str], int] = {}
        keys: list[tuple[int, int, float, int]] = []
        for entry in sorted((rows[0].entry for rows in by_entry.values()), key=lambda e: (e.accepted_at, e.id)):
            sender = entry.parameters.priority, entry.account or str(entry.reverse_path)
            turn = turns[sender] = turns.get(sender, 0) + 1
            keys.append((-entry.parameters.priority, turn, entry.accepted_at, entry.id))
        return [key[3] for key in sorted(keys)]

    def state(self, destination: Destination) -> Deferred[DestinationState]:
        if self.failure is not None:
            return fail(self.failure)
        return succeed(self._state_of(destination))

    def open_content(self, entry: QueueEntry) -> Deferred[IContent]:
        if self.failure is not None:
            return fail(self.failure)
        octets = self.contents_of(entry)
        return fail(Unavailable(cause="no content")) if octets is None else succeed(OctetsContent(octets))

    def contents_of(self, entry: QueueEntry) -> bytes | None:
        """The octets as they go out."""
        return self.kept.contents.get(entry.id)

    def settle(self, entry: QueueEntry, settlements: Sequence[Settlement]) -> Deferred[None]:
        def operation() -> None:
            for settlement in settlements:
                self.kept.settle(entry.id, settlement)
                self.leased.discard((entry.id, settlement.recipient_id))

        return self._disk.write(operation)

    def give_back(self, consignment: Consignment) -> None:
        self.leased.difference_update((consignment.entry.id, recipient.id) for recipient in consignment.recipients)

    def renew(self, entry_ids: Sequence[int]) -> None:
        self.renewed.append(tuple(entry_ids))


@implementer(IJournal)
class MemoryQueueJournal:
    """Carries records into the mailboxes and the queue of a store."""

    def __init__(self, store: MemoryQueueStore, seconds: Callable[[], float], disk: IDisk | None = None) -> None:
        self._store = store
        self._seconds = seconds
        self._disk: IDisk = disk if disk is not None else PromptDisk()

    def check_acceptance(self, octets: int) -> MailError | None:
        return None

    def commit(self, record: JournalRecord) -> Deferred[None]:
        return self._disk.write(lambda: self._apply(record))

    def commit_and_note(self, record: JournalRecord) -> Deferred[Sequence[Applied]]:
        raise NotImplementedError("nobody is told of UIDs here")

    def live_segments(self) -> frozenset[bytes]:
        return frozenset()

    def _apply(self, record: JournalRecord) -> None:
        touched: list[Destination] = []
        for message in record.messages:
            touched.extend(self._apply_message(message, record.transaction_id))
        if touched:
            self._store.announce(touched)

    def _apply_message(self, message: JournaledMessage, transaction_id: str) -> Iterable[Destination]:
        content = message.content
        if isinstance(content, FileContent):
            with open(content.path, "rb") as file:
                octets = file.read()
        else:
            octets = content.octets
        state, touched = self._store.kept, list[Destination]()
        for delivery in message.deliveries:
            if isinstance(delivery, LocalDelivery):
                state.mailboxes.append((delivery, octets))
            elif isinstance(delivery, OnwardDelivery):
                touched.extend(state.add(delivery, octets, transaction_id, self._seconds()))
            elif isinstance(delivery, QueueSettlement):
                for recipient_id in delivery.recipient_ids:
                    state.end(delivery.entry_id, recipient_id, delivery.ending)
                    self._store.leased.discard((delivery.entry_id, recipient_id))
        return touched
