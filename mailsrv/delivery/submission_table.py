"""What users have sent, in a file that all workers map and that outlives them.

A table of records of 384 octets (:mod:`mailsrv.wire.named_records`). A record is the four theoretical arrival times of
the limits (:mod:`mailsrv.wire.rates` says how they measure), when the user was last refused, when that was last logged,
how often it happened, and the user's name, which is what ``mailsrvctl rates`` shows. In a full set who has the least
left to recover from makes room.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from attrs import frozen

from mailsrv.wire.mapped_file import FileKind, TableMemory
from mailsrv.wire.named_records import NamedRecord, NamedRecords, RecordShape
from mailsrv.wire.rates import sets_for

LIMITS = 4
"""Arrival times in a record."""
_REFUSED_AT, _LOGGED_AT = 4, 5
_SHAPE = RecordShape(384, lasting=slice(LIMITS))
_KIND = FileKind(b"mailsrv submission table 1 ", "submission rates", lambda sets: sets * _SHAPE.set_octets)


@frozen
class UserRecord:
    """One user's numbers. Times are seconds since the epoch, 0 for never."""

    name: str
    arrivals: tuple[float, ...] = (0.0,) * LIMITS
    refused_at: float = 0.0
    refusals: int = 0


class SubmissionTable:
    """The records. Slots are numbers that stay valid as long as the user is remembered."""

    what = _KIND.what
    """For messages, in the plural."""

    def __init__(self, memory: TableMemory) -> None:
        """The size of ``memory`` is in sets. Use the class methods."""
        self._size = memory.size
        self._records = NamedRecords(memory.octets, memory.key, _SHAPE)

    @classmethod
    def in_memory(cls, users: int) -> SubmissionTable:
        """Of this process alone, forgotten with it."""
        return cls(_KIND.in_memory(sets_for(users)))

    @classmethod
    def open(cls, path: str, users: int) -> SubmissionTable:
        """The file at ``path``, made if need be. With another size it is made anew from the old one. Raises OSError."""
        before = None
        with contextlib.suppress(OSError, ValueError):
            before = cls.open_existing(path)
        table = cls(_KIND.open(path, sets_for(users)))
        if before is not None and before._size != table._size:
            table._take_over(before)
        return table

    @classmethod
    def open_existing(cls, path: str) -> SubmissionTable | None:
        """For who only looks or lifts: None where there is no file. Raises OSError, ValueError for a foreign file."""
        memory = _KIND.open_existing(path)
        return None if memory is None else cls(memory)

    def find_or_make(self, name: str) -> int:
        """The slot of a user."""
        return self._records.find_or_make(name)

    def arrival(self, slot: int, limit: int) -> float:
        """A theoretical arrival time as it is stored; it may be anything."""
        return self._records.time(slot, limit)

    def set_arrival(self, slot: int, limit: int, arrival: float) -> None:
        self._records.set_time(slot, limit, arrival)

    def note_refusal(self, slot: int, now: float, quiet_seconds: float) -> bool:
        """Count a refusal; whether it is to be logged, as none was for ``quiet_seconds``."""
        records = self._records
        records.set_time(slot, _REFUSED_AT, now)
        records.add_to_count(slot)
        is_due = not now - quiet_seconds < records.time(slot, _LOGGED_AT) <= now
        if is_due:
            records.set_time(slot, _LOGGED_AT, now)
        return is_due

    def get(self, name: str) -> UserRecord:
        """What is known of a user, which may be nothing."""
        slot = self._records.find(name)
        return UserRecord(name) if slot is None else _user_record(self._records.record(slot), name)

    def forget(self, name: str) -> bool:
        """As if the user had sent nothing; False if nothing was known."""
        slot = self._records.find(name)
        if slot is None:
            return False
        self._records.forget(slot)
        return True

    def __iter__(self) -> Iterator[UserRecord]:
        """All users; a record that is being replaced just now is left out."""
        for _, stored in self._records.stored():
            yield _user_record(stored, stored.name)

    def _take_over(self, before: SubmissionTable) -> None:
        for _, stored in before._records.stored():
            if self._records.find(stored.name) is None:
                self._records.store(stored)


def _user_record(stored: NamedRecord, name: str) -> UserRecord:
    return UserRecord(name, stored.times[:LIMITS], stored.times[_REFUSED_AT], stored.count)
