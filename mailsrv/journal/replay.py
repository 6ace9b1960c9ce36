"""What a slot's segments say, read at a start.

Two passes: the first takes in what records say about other records (notes, withdrawals, seals,
deliveries put aside), the second hands out the deliveries that are left, in order, a segment at a
time. Both stop, in each segment, at the first octets that are no whole record (R-DUR-6).
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, field, frozen

from mailsrv.interfaces.content import FileContent, InlineContent
from mailsrv.interfaces.journal import Applied, DeliveryKey, JournalRecord
from mailsrv.interfaces.queue import OnwardDelivery
from mailsrv.journal.entry import Entry, Task, tasks_of
from mailsrv.journal.format import (
    Place,
    RecordType,
    decode_deliveries,
    decode_key,
    decode_note,
    decode_place,
)
from mailsrv.journal.octets import FormatError
from mailsrv.journal.slot import LiveSegment, Slot

RECORD_OVERHEAD = 512
"""Counted for each record besides its contents."""
DELIVERY_OVERHEAD = 128
"""For each recipient."""


def weigh(record: JournalRecord) -> int:
    """Octets a record takes, in memory and in the journal, about."""
    octets = RECORD_OVERHEAD
    for message in record.messages:
        if isinstance(message.content, InlineContent):
            octets += len(message.content.octets)
        octets += DELIVERY_OVERHEAD * len(message.deliveries)
        for delivery in message.deliveries:
            if type(delivery) is OnwardDelivery:
                octets += DELIVERY_OVERHEAD * len(delivery.recipients)
    return octets


@define
class ControlState:
    """What is known of records besides themselves."""

    notes: dict[DeliveryKey, Applied] = field(factory=dict)
    withdrawn: set[Place] = field(factory=set)
    settled: set[DeliveryKey] = field(factory=set)


@frozen
class ReplayedRecord:
    """A record to be applied again: its entry, and the deliveries that are left of it."""

    entry: Entry
    tasks: tuple[Task, ...]


def read_control_state(slot: Slot) -> ControlState:
    """The first pass. Also finds where sealed segments end, and which spool files are named.

    Raises FormatError where a record is not understood (written by a later version): then nothing
    may be thrown away, and the start fails.
    """
    state = ControlState()
    ends: dict[bytes, int] = {}
    # A seal lies in a later segment than the one it is about: the youngest is read first.
    with slot.lock:
        segments = list(slot.live)
    for live in reversed(segments):
        if live.is_from_earlier_run:
            live.valid_end = ends.get(live.segment.segment_id)
            if live.segment.find_damage(live.valid_end):
                slot.keep_damaged(live)
        for record in live.segment.records(live.readable_end()):
            kind = record.type
            if kind == RecordType.DELIVERIES:
                for message in decode_deliveries(record.payload, slot.spool_directory).messages:
                    if isinstance(message.content, FileContent):
                        live.spool_files.add(message.content.path)
            elif kind == RecordType.NOTE:
                state.notes.update((note.key, note) for note in decode_note(record.payload))
            elif kind == RecordType.WITHDRAWN:
                state.withdrawn.add(decode_place(record.payload))
            elif kind == RecordType.SETTLED:
                state.settled.add(decode_key(record.payload))
            elif kind == RecordType.SEALED:
                place = decode_place(record.payload)
                ends[place.segment_id] = place.offset
            else:
                raise FormatError(f"a record of type {kind} in {live.segment.path}")
    return state


def replay_segment(slot: Slot, live: LiveSegment, state: ControlState) -> Iterator[ReplayedRecord]:
    """The second pass, for one segment: its deliveries in order, read as they are asked for."""
    settled = frozenset(state.settled)
    for stored in live.segment.records(live.readable_end()):
        if stored.type != RecordType.DELIVERIES:
            continue
        if Place(live.segment.segment_id, stored.offset) in state.withdrawn:
            continue
        record = decode_deliveries(stored.payload, slot.spool_directory)
        entry = Entry(record, weigh(record), live=live, offset=stored.offset)
        tasks = tasks_of(entry, settled, state.notes, is_replay=True)
        if tasks:
            yield ReplayedRecord(entry, tuple(tasks))
