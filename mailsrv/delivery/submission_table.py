"""What users have sent, in a file that all workers map and that outlives them.

A hash table of sets of eight records of 384 octets. A record is a keyed tag, the four theoretical
arrival times of the limits (:mod:`mailsrv.wire.rates` says how they measure), when the user was last
refused, when that was last logged, how often it happened, and the user's name, which is what
``mailsrvctl rates`` shows. Each number is read and written as one aligned word, without a lock: two
workers that count at the same moment may lose one of the two counts.

Nothing waits for the disk: the kernel writes mapped pages by and by. A process that dies loses
nothing; after a power cut the last half minute of counts may be missing. Times are of the wall clock.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
from collections.abc import Iterator

from attrs import frozen

from mailsrv.wire.rates import WAYS, hash_position
from mailsrv.wire.shared_table import HEADER_OCTETS, key_of, label_of, map_existing, map_file

LIMITS = 4
"""Arrival times in a record."""
_RECORD_OCTETS = 384
_RECORD_WORDS = _RECORD_OCTETS // 8
_REFUSED_AT, _LOGGED_AT, _REFUSALS = 5, 6, 7
_NAME = 64
_NAME_OCTETS = _RECORD_OCTETS - _NAME - 2
_MAGIC = b"mailsrv submission table 1 "


@frozen
class UserRecord:
    """One user's numbers. Times are seconds since the epoch, 0 for never."""

    name: str
    arrivals: tuple[float, ...]
    refused_at: float
    refusals: int


class SubmissionTable:
    """The records. Slots are numbers that stay valid as long as the user is remembered."""

    def __init__(self, memory: memoryview, key: bytes) -> None:
        """``memory``: zeros are an empty table. Use the class methods."""
        self._key = key
        self._memory = memory
        self._sets = len(memory) // (WAYS * _RECORD_OCTETS)
        self._words = memory.cast("Q")
        self._times = memory.cast("d")

    @classmethod
    def in_memory(cls, users: int) -> SubmissionTable:
        """Of this process alone, forgotten with it."""
        return cls(memoryview(bytearray(_sets_for(users) * WAYS * _RECORD_OCTETS)), secrets.token_bytes(32))

    @classmethod
    def open(cls, path: str, users: int) -> SubmissionTable:
        """The file at ``path``, made if need be. With another size it is made anew from the old one. Raises OSError."""
        sets = _sets_for(users)
        label = _MAGIC + struct.pack("<Q", sets)
        before = None
        with contextlib.suppress(OSError, ValueError):
            before = cls.open_existing(path)
        mapping, descriptor = map_file(path, label, sets * WAYS * _RECORD_OCTETS)
        os.close(descriptor)  # the mapping has one of its own
        table = cls(memoryview(mapping)[HEADER_OCTETS:], key_of(mapping))
        if before is not None and before._sets != sets:
            table._take_over(before)
        return table

    @classmethod
    def open_existing(cls, path: str) -> SubmissionTable | None:
        """For who only looks or lifts: None where there is no file. Raises OSError, ValueError for a foreign file."""
        mapping = map_existing(path)
        if mapping is None:
            return None
        label = label_of(mapping)
        sets = int.from_bytes(label[len(_MAGIC) : len(_MAGIC) + 8], "little")
        if not label.startswith(_MAGIC) or len(mapping) != HEADER_OCTETS + sets * WAYS * _RECORD_OCTETS or not sets:
            raise ValueError(f"{path} is no table of submission rates")
        return cls(memoryview(mapping)[HEADER_OCTETS:], key_of(mapping))

    def find(self, name: str) -> int | None:
        """The slot of a user, if remembered."""
        tag, first = self._place(name)
        tags = self._column(self._words, first, 0)
        return first + tags.index(tag) if tag in tags else None

    def find_or_make(self, name: str) -> int:
        """The slot of a user; in a full set who has the least left to recover from makes room."""
        tag, first = self._place(name)
        tags = self._column(self._words, first, 0)
        if tag in tags:
            return first + tags.index(tag)
        slot = first + (tags.index(0) if 0 in tags else self._least_used(first))
        encoded = name.encode("utf-8", "surrogatepass")[:_NAME_OCTETS]
        word = slot * _RECORD_WORDS
        # The tag comes last: nobody finds a record that is half somebody else's.
        self._words[word] = 0
        for each in range(1, _NAME // 8):
            self._words[word + each] = 0
        start = slot * _RECORD_OCTETS + _NAME
        self._memory[start : start + 2 + len(encoded)] = len(encoded).to_bytes(2, "little") + encoded
        self._words[word] = tag
        return slot

    def arrival(self, slot: int, limit: int) -> float:
        """A theoretical arrival time as it is stored; it may be anything."""
        return self._times[slot * _RECORD_WORDS + 1 + limit]

    def set_arrival(self, slot: int, limit: int, arrival: float) -> None:
        self._times[slot * _RECORD_WORDS + 1 + limit] = arrival

    def note_refusal(self, slot: int, now: float, quiet_seconds: float) -> bool:
        """Count a refusal; whether it is to be logged, as none was for ``quiet_seconds``."""
        word = slot * _RECORD_WORDS
        self._times[word + _REFUSED_AT] = now
        self._words[word + _REFUSALS] = self._words[word + _REFUSALS] + 1 & 0xFFFFFFFF
        is_due = not now - quiet_seconds < self._times[word + _LOGGED_AT] <= now
        if is_due:
            self._times[word + _LOGGED_AT] = now
        return is_due

    def forget(self, name: str) -> bool:
        """As if the user had sent nothing; False if nothing was known."""
        slot = self.find(name)
        if slot is None:
            return False
        word = slot * _RECORD_WORDS
        for each in range(1, _NAME // 8):
            self._words[word + each] = 0
        return True

    def record(self, slot: int) -> UserRecord:
        """What is known of the user in a slot."""
        word = slot * _RECORD_WORDS
        return UserRecord(
            self._name(slot),
            tuple(self._times[word + 1 : word + 1 + LIMITS].tolist()),
            self._times[word + _REFUSED_AT],
            self._words[word + _REFUSALS],
        )

    def __iter__(self) -> Iterator[UserRecord]:
        """All users; a record that is being replaced just now is left out."""
        for slot in range(self._sets * WAYS):
            tag = self._words[slot * _RECORD_WORDS]
            if tag:
                record = self.record(slot)
                if self._place(record.name)[0] == tag:
                    yield record

    def _take_over(self, before: SubmissionTable) -> None:
        for record in before:
            if self.find(record.name) is None:
                slot = self.find_or_make(record.name)
                for limit, arrival in enumerate(record.arrivals):
                    self.set_arrival(slot, limit, arrival)

    def _name(self, slot: int) -> str:
        start = slot * _RECORD_OCTETS + _NAME
        length = min(int.from_bytes(self._memory[start : start + 2], "little"), _NAME_OCTETS)
        return bytes(self._memory[start + 2 : start + 2 + length]).decode("utf-8", "replace")

    def _place(self, name: str) -> tuple[int, int]:
        tag, word = hash_position(self._key, name, self._sets)
        return tag, word // 2

    @staticmethod
    def _column(view: memoryview, first: int, word: int) -> list[int]:
        start = first * _RECORD_WORDS + word
        column: list[int] = view[start : start + WAYS * _RECORD_WORDS : _RECORD_WORDS].tolist()
        return column

    def _least_used(self, first: int) -> int:
        def recovered_at(way: int) -> float:
            word = (first + way) * _RECORD_WORDS
            return max(self._times[word + 1 : word + 1 + LIMITS].tolist())

        return min(range(WAYS), key=recovered_at)


def _sets_for(users: int) -> int:
    """Sets with as much room again: hashes do not fill sets evenly."""
    return -(-2 * users // WAYS)
