"""Failed log-ins in a file that all workers map and that outlives them: what accounts, networks and pairs did lately.

Three tables of records of 256 octets (:mod:`mailsrv.wire.named_records`), and buckets for digests of passwords
(:mod:`mailsrv.wire.rates`). Nothing is remembered elsewhere, so what is forgotten here is forgotten by all at once. In
a full set the record that was used longest ago makes room.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from attrs import frozen

from mailsrv.wire.mapped_file import FileKind, LateTable, TableMemory
from mailsrv.wire.named_records import NamedRecord, NamedRecords, RecordShape
from mailsrv.wire.rates import SET_OCTETS, WAYS, Buckets

_DIGESTS_PER_ENTRY = 4
_SHAPE = RecordShape(256, lasting=slice(4, 6))
"""Who failed or succeeded lately is remembered."""


@frozen
class FailureRecord:
    """What is known of one name. Times are seconds since the epoch, 0 for never."""

    name: str
    """Cut to 190 octets."""
    arrival: float = 0.0
    """The theoretical arrival time of the limit (:mod:`mailsrv.wire.rates`)."""
    level: float = 0.0
    """How often the delay has doubled, as of ``level_at``."""
    level_at: float = 0.0
    since: float = 0.0
    """The first failure of those that are not forgotten yet."""
    last_failure: float = 0.0
    last_success: float = 0.0
    failures: int = 0
    """Since ``since``."""

    @property
    def is_cut(self) -> bool:
        """Whether the name may have been longer."""
        return _SHAPE.may_be_cut(self.name)


class FailureRecords:
    """The records of one kind of names."""

    def __init__(self, memory: memoryview, key: bytes) -> None:
        self._records = NamedRecords(memory, key, _SHAPE)

    @property
    def capacity(self) -> int:
        """How many names there is room for."""
        return self._records.capacity

    def get(self, name: str) -> FailureRecord:
        """What is known, which may be nothing."""
        slot = self._records.find(name)
        return FailureRecord(name) if slot is None else _failure_record(self._records.record(slot), name)

    def put(self, record: FailureRecord) -> None:
        """Remember it, in place of what was known of that name."""
        times = (
            record.arrival,
            record.level,
            record.level_at,
            record.since,
            record.last_failure,
            record.last_success,
        )
        self._records.store(NamedRecord(record.name, times, record.failures))

    def forget(self, slot: int) -> None:
        """As if there had been nothing."""
        self._records.forget(slot)

    def __iter__(self) -> Iterator[tuple[int, FailureRecord]]:
        """All of them with their slots; one that is being replaced just now is left out."""
        for slot, stored in self._records.stored():
            yield slot, _failure_record(stored, stored.name)


def _failure_record(stored: NamedRecord, name: str) -> FailureRecord:
    arrival, level, level_at, since, failure, success = stored.times
    return FailureRecord(name, arrival, level, level_at, since, failure, success, stored.count)


class FailureTable:
    """All of the file: ``accounts``, ``networks``, ``pairs`` of both, and ``digests``."""

    def __init__(self, memory: TableMemory) -> None:
        """The size of ``memory`` is in entries. Use the class methods."""
        digests, records = _sets_of(memory.size)
        end = digests * SET_OCTETS
        size = records * _SHAPE.set_octets
        self._memory = memory.octets
        self.digests = Buckets(self._memory[:end], memory.key)
        self.accounts, self.networks, self.pairs = (
            FailureRecords(self._memory[start : start + size], memory.key)
            for start in range(end, len(self._memory), size)
        )

    @classmethod
    def in_memory(cls, entries: int) -> FailureTable:
        """Of this process alone, forgotten with it."""
        return cls(_KIND.in_memory(entries))

    @classmethod
    def open(cls, path: str, entries: int) -> FailureTable:
        """The file at ``path``, made if need be; one of another size is replaced, and all is forgotten. OSError."""
        return cls(_KIND.open(path, entries))

    @classmethod
    def open_existing(cls, path: str) -> FailureTable | None:
        """For who only looks or forgives: None where there is no file. OSError; ValueError for a foreign file."""
        memory = _KIND.open_existing(path)
        return None if memory is None else cls(memory)

    def forget_all(self) -> None:
        """As if nobody had ever logged in, or failed to. Piece by piece: no copy of it all is made."""
        piece = bytes(4096)
        for start in range(0, len(self._memory), len(piece)):
            end = min(start + len(piece), len(self._memory))
            self._memory[start:end] = piece[: end - start]


class FailureFile(LateTable[FailureTable]):
    """The table of a server."""

    def __init__(self, path: str | None, entries: int) -> None:
        """Without a path, and where the file cannot be had, this process remembers alone."""
        super().__init__(
            path, _KIND.what, lambda path: FailureTable.open(path, entries), lambda: FailureTable.in_memory(entries)
        )


class ExistingFailures(LateTable[FailureTable]):
    """A table that is there already, for who only looks or forgives: nothing is made or replaced."""

    def __init__(self, table: FailureTable) -> None:
        super().__init__(None, _KIND.what, lambda _: table, lambda: table)

    @classmethod
    def open(cls, path: str) -> ExistingFailures | None:
        """As :meth:`FailureTable.open_existing`."""
        table = FailureTable.open_existing(path)
        return None if table is None else cls(table)


def failures_path(state_dir: str) -> str:
    """The file of a server."""
    return os.path.join(state_dir, "rates", "logins")


def _sets_of(entries: int) -> tuple[int, int]:
    """Sets of digests and of records of a kind, with some room more: hashes do not fill sets evenly."""
    return -(-2 * _DIGESTS_PER_ENTRY * entries // WAYS), -(-5 * entries // (4 * WAYS))


def _octets_of(entries: int) -> int:
    digests, records = _sets_of(entries)
    return digests * SET_OCTETS + 3 * records * _SHAPE.set_octets


_KIND = FileKind(b"mailsrv log-in failures 1 ", "failed log-ins", _octets_of)
