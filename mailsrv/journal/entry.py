"""What travels between the reactor and the journal's threads.

An :class:`Entry` is one record from ``commit`` on until it is settled. Each field is written by one
stage only, in the order reactor → committer → apply → committer (note) → reactor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred

from mailsrv.address import Address
from mailsrv.errors import MailError
from mailsrv.interfaces.journal import Applied, Delivery, DeliveryKey, JournalRecord, LocalDelivery, PendingDelivery
from mailsrv.journal.format import RecordType
from mailsrv.journal.slot import LiveSegment


@define(eq=False)
class Entry:
    """One record on its way."""

    record: JournalRecord
    octets: int
    """What it holds in memory and in the journal."""
    wants_note: bool = False
    waiter: Deferred[Any] | None = None
    """Reactor thread only; None once it is answered (or where nobody waits: replay)."""
    live: LiveSegment | None = None
    """Where it lies, from the commit on."""
    offset: int = 0
    synced_at: float | None = None
    applied: list[Applied | None] = field(factory=list)
    remaining: int = 0
    """Deliveries that are neither applied nor put aside."""
    error: MailError | None = None
    """Why it is refused or withdrawn, or the last trouble with applying it."""


@define(eq=False)
class Control:
    """A record of ours about other records. It is written again until it is durable."""

    kind: RecordType
    payload: list[bytes]
    on_synced: Callable[[], None] | None = None
    """Called in the committer's thread."""


Lane = Address | str
"""What is applied in order, fails and waits together: an account, or the queue."""

QUEUE_LANE: Final = "the queue"


def lane_of(delivery: Delivery) -> Lane:
    """The lane a delivery belongs to."""
    return delivery.account if isinstance(delivery, LocalDelivery) else QUEUE_LANE


@define(eq=False)
class Task:
    """One delivery of an entry, for the apply stage."""

    pending: PendingDelivery[Delivery]
    entry: Entry
    index: int
    """Which one of the entry's."""
    attempts: int = 0
    error: MailError | None = None
    is_unreadable: bool = False
    """Its file content is missing or damaged: no applier is asked."""

    @property
    def lane(self) -> Lane:
        """Whose deliveries stay in order with this one."""
        return lane_of(self.pending.delivery)


Job = Callable[[], object]
"""Something to be done in a stage's thread, in order with the rest."""


def tasks_of(
    entry: Entry,
    settled: frozenset[DeliveryKey] = frozenset(),
    notes: dict[DeliveryKey, Applied] | None = None,
    *,
    is_replay: bool = False,
) -> Sequence[Task]:
    """The deliveries of a committed entry that are to be applied."""
    live = entry.live
    if live is None:
        raise ValueError("the entry was not committed")
    segment_id, offset = live.segment.segment_id, entry.offset
    name = entry.record.transaction_id
    tasks: list[Task] = []
    number = 0
    for message in entry.record.messages:
        for delivery in message.deliveries:
            key = DeliveryKey(segment_id, offset, number)
            if key not in settled:
                noted = notes.get(key) if notes else None
                pending = PendingDelivery(key, message, delivery, is_replay, noted, name)
                tasks.append(Task(pending, entry, number))
            number += 1
    entry.applied = [None] * number
    entry.remaining = len(tasks)
    return tasks
