"""Failed log-ins in a file that all workers map and that outlives them: what accounts, networks and pairs did lately.

Three hash tables of sets of eight records of 256 octets (:class:`FailureRecords`), and buckets for digests of passwords
(:mod:`mailsrv.wire.rates`). A record has a keyed tag, numbers, and the name, which is what ``mailsrvctl auth blocks``
shows. Each number is read and written as one aligned word, without a lock: two workers that count at the same moment
may lose one of the two counts. Nothing is remembered elsewhere, so what is forgotten here is forgotten by all at once.

Nothing waits for the disk: the kernel writes mapped pages by and by. In a full set the record that was used longest
ago makes room. The key is random, so a client cannot choose names that fall into one set. Times are of the wall clock.
"""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Iterator

from attrs import frozen
from twisted.logger import Logger

from mailsrv.wire.rates import SET_OCTETS, WAYS, Buckets, hash_position
from mailsrv.wire.shared_table import HEADER_OCTETS, key_of, label_of, map_existing, map_file

_RECORD_OCTETS = 256
_RECORD_WORDS = _RECORD_OCTETS // 8
_ARRIVAL, _LEVEL, _LEVEL_AT, _SINCE, _LAST_FAILURE, _LAST_SUCCESS, _FAILURES = range(1, 8)
_NAME = 64
_NAME_OCTETS = _RECORD_OCTETS - _NAME - 2
_MAGIC = b"mailsrv log-in failures 1 "
_DIGESTS_PER_ENTRY = 4


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
        return len(self.name.encode("utf-8", "surrogatepass")) >= _NAME_OCTETS - 3


class FailureRecords:
    """The records of one kind of names, in ``memory``; zeros are an empty table."""

    def __init__(self, memory: memoryview, key: bytes) -> None:
        self._key = key
        self._memory = memory
        self._sets = len(memory) // (WAYS * _RECORD_OCTETS)
        self._words = memory.cast("Q")
        self._times = memory.cast("d")

    @property
    def capacity(self) -> int:
        """How many names there is room for."""
        return self._sets * WAYS

    def get(self, name: str) -> FailureRecord:
        """What is known, which may be nothing."""
        tag, first = self._place(name)
        slot = self._find(tag, first)
        return FailureRecord(name) if slot is None else self._record(slot, name)

    def put(self, record: FailureRecord) -> None:
        """Remember it, in place of what was known of that name."""
        tag, first = self._place(record.name)
        slot = self._find(tag, first)
        if slot is None:
            tags = self._tags(first)
            slot = first + (tags.index(0) if 0 in tags else self._longest_unused(first))
            encoded = record.name.encode("utf-8", "surrogatepass")[:_NAME_OCTETS]
            # The tag comes last: nobody finds a record that is half somebody else's.
            self._words[slot * _RECORD_WORDS] = 0
            start = slot * _RECORD_OCTETS + _NAME
            self._memory[start : start + 2 + len(encoded)] = len(encoded).to_bytes(2, "little") + encoded
        word = slot * _RECORD_WORDS
        times = self._times
        times[word + _ARRIVAL] = record.arrival
        times[word + _LEVEL] = record.level
        times[word + _LEVEL_AT] = record.level_at
        times[word + _SINCE] = record.since
        times[word + _LAST_FAILURE] = record.last_failure
        times[word + _LAST_SUCCESS] = record.last_success
        self._words[word + _FAILURES] = record.failures & 0xFFFFFFFF
        self._words[word] = tag

    def forget(self, slot: int) -> None:
        """As if there had been nothing."""
        self._words[slot * _RECORD_WORDS] = 0

    def __iter__(self) -> Iterator[tuple[int, FailureRecord]]:
        """All of them with their slots; one that is being replaced just now is left out."""
        for slot in range(self.capacity):
            tag = self._words[slot * _RECORD_WORDS]
            if tag:
                record = self._record(slot, self._name(slot))
                if record.is_cut or self._place(record.name)[0] == tag:
                    yield slot, record

    def _record(self, slot: int, name: str) -> FailureRecord:
        word = slot * _RECORD_WORDS
        arrival, level, level_at, since, failure, success = self._times[word + _ARRIVAL : word + _FAILURES].tolist()
        return FailureRecord(name, arrival, level, level_at, since, failure, success, self._words[word + _FAILURES])

    def _name(self, slot: int) -> str:
        start = slot * _RECORD_OCTETS + _NAME
        length = min(int.from_bytes(self._memory[start : start + 2], "little"), _NAME_OCTETS)
        octets = bytes(self._memory[start + 2 : start + 2 + length])
        try:
            return octets.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return octets.decode("utf-8", "ignore")

    def _place(self, name: str) -> tuple[int, int]:
        tag, word = hash_position(self._key, name, self._sets)
        return tag, word // 2

    def _tags(self, first: int) -> list[int]:
        start = first * _RECORD_WORDS
        tags: list[int] = self._words[start : start + WAYS * _RECORD_WORDS : _RECORD_WORDS].tolist()
        return tags

    def _find(self, tag: int, first: int) -> int | None:
        tags = self._tags(first)
        return first + tags.index(tag) if tag in tags else None

    def _longest_unused(self, first: int) -> int:
        def used_at(way: int) -> float:
            word = (first + way) * _RECORD_WORDS
            return max(self._times[word + _LAST_FAILURE], self._times[word + _LAST_SUCCESS])

        return min(range(WAYS), key=used_at)


class FailureTable:
    """All of the file: ``accounts``, ``networks``, ``pairs`` of both, and ``digests``."""

    def __init__(self, memory: memoryview, key: bytes, *, entries: int) -> None:
        """``memory``: zeros are an empty table. Use the class methods."""
        digests, records = _sets_of(entries)
        end = digests * SET_OCTETS
        size = records * WAYS * _RECORD_OCTETS
        self._memory = memory
        self.digests = Buckets(memory[:end], key)
        self.accounts, self.networks, self.pairs = (
            FailureRecords(memory[end + index * size : end + (index + 1) * size], key) for index in range(3)
        )

    @classmethod
    def in_memory(cls, entries: int) -> FailureTable:
        """Of this process alone, forgotten with it."""
        return cls(memoryview(bytearray(_octets_of(entries))), secrets.token_bytes(32), entries=entries)

    @classmethod
    def open(cls, path: str, entries: int) -> FailureTable:
        """The file at ``path``, made if need be; one of another size is replaced, and all is forgotten. OSError."""
        mapping, descriptor = map_file(path, _MAGIC + struct.pack("<Q", entries), _octets_of(entries))
        os.close(descriptor)  # the mapping has one of its own
        return cls(memoryview(mapping)[HEADER_OCTETS:], key_of(mapping), entries=entries)

    @classmethod
    def open_existing(cls, path: str) -> FailureTable | None:
        """For who only looks or forgives: None where there is no file. OSError; ValueError for a foreign file."""
        mapping = map_existing(path)
        if mapping is None:
            return None
        label = label_of(mapping)
        entries = int.from_bytes(label[len(_MAGIC) : len(_MAGIC) + 8], "little")
        if not label.startswith(_MAGIC) or not entries or len(mapping) != HEADER_OCTETS + _octets_of(entries):
            raise ValueError(f"{path} is no table of failed log-ins")
        return cls(memoryview(mapping)[HEADER_OCTETS:], key_of(mapping), entries=entries)

    def forget_all(self) -> None:
        """As if nobody had ever logged in, or failed to. Piece by piece: no copy of it all is made."""
        piece = bytes(4096)
        for start in range(0, len(self._memory), len(piece)):
            end = min(start + len(piece), len(self._memory))
            self._memory[start:end] = piece[: end - start]


class FailureFile:
    """The table of a server, opened late: after root was given up, for the file is the user's own."""

    _log = Logger()

    def __init__(self, path: str | None, entries: int) -> None:
        """Without a path, and where the file cannot be had, this process remembers alone."""
        self._path = path
        self._entries = entries
        self._table: FailureTable | None = None

    def start(self) -> None:
        """Open the file; waits for the disk."""
        self._table = self._open()

    @property
    def table(self) -> FailureTable:
        """What is remembered; opened now if nobody did before."""
        if self._table is None:
            self._table = self._open()
        return self._table

    def _open(self) -> FailureTable:
        if self._path is not None:
            try:
                return FailureTable.open(self._path, self._entries)
            except OSError as error:
                self._log.error(
                    "{path} cannot be used ({reason}): failed log-ins are counted in this process only",
                    path=self._path,
                    reason=error.strerror or str(error),
                )
        return FailureTable.in_memory(self._entries)


class ExistingFailures(FailureFile):
    """A table that is there already, for who only looks or forgives: nothing is made or replaced."""

    def __init__(self, table: FailureTable) -> None:
        super().__init__(None, 1)
        self._table = table

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
    return digests * SET_OCTETS + 3 * records * WAYS * _RECORD_OCTETS
