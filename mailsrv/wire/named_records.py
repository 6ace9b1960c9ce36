"""Counters by name in memory that several processes share and that outlives them: :class:`NamedRecords`.

A hash table of sets of eight records, zeros where there is none. A record is a keyed 64-bit tag, six times, a count,
and the name, which is what an administrator is shown. Each number is read and written as one aligned word, without a
lock: two processes that count at the same moment may lose one of the two counts. In a full set the record that is used
least makes room. The key is random, so a client cannot choose names that fall into one set.

Nothing waits for the disk: the kernel writes mapped pages by and by. A process that dies loses nothing; after a power
cut the last half minute of counts may be missing. What is stored may be anything; times are of the wall clock.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import field, frozen

from mailsrv.wire.rates import WAYS, hash_position

TIMES = 6
NO_TIMES = (0.0,) * TIMES
_COUNT = TIMES + 1
_COUNT_LIMIT = (1 << 32) - 1
_NAME_AT = 8 * (_COUNT + 1)
_LENGTH_OCTETS = 2
_CHARACTER_OCTETS = 4


@frozen
class RecordShape:
    """What differs from table to table."""

    octets: int = field()
    """Of a record, a multiple of 8. What the numbers leave is for the name."""
    lasting: slice
    """Of the six times: the one whose latest is the earliest makes room first."""

    @octets.validator
    def _check_octets(self, attribute: object, value: int) -> None:
        if value % 8 or not 0 < self.name_octets < 1 << 16:
            raise ValueError("a record is whole words, and has room for a name")

    @property
    def name_octets(self) -> int:
        """Longer names are cut; they count as themselves all the same."""
        return self.octets - _NAME_AT - _LENGTH_OCTETS

    @property
    def set_octets(self) -> int:
        """Memory for a table is a multiple of this."""
        return self.octets * WAYS

    def may_be_cut(self, name: str) -> bool:
        """Whether a stored name may have been longer: it is cut between characters."""
        return len(_encode(name)) > self.name_octets - _CHARACTER_OCTETS


@frozen
class NamedRecord:
    """What is stored of a name."""

    name: str
    times: tuple[float, ...]
    """Six."""
    count: int


class NamedRecords:
    """The table. Slots are numbers that stay valid as long as the name is remembered."""

    def __init__(self, memory: memoryview, key: bytes, shape: RecordShape) -> None:
        """``key``: 16 to 64 random octets, the same for all who share the memory."""
        self._sets = len(memory) // shape.set_octets
        if not self._sets or len(memory) % shape.set_octets:
            raise ValueError("memory of whole sets is needed")
        self._key = key
        self._shape = shape
        self._step = shape.octets // 8
        self._memory = memory
        self._words = memory.cast("Q")
        self._times = memory.cast("d")

    @property
    def capacity(self) -> int:
        """How many names there is room for."""
        return self._sets * WAYS

    def find(self, name: str) -> int | None:
        """The slot of a name, if it is remembered."""
        tag, first = self._place(name)
        tags = self._tags(first)
        return first + tags.index(tag) if tag in tags else None

    def find_or_make(self, name: str) -> int:
        """The slot of a name; one that was not remembered begins with zeros."""
        slot = self.find(name)
        return self._make(name, NO_TIMES, 0) if slot is None else slot

    def store(self, record: NamedRecord) -> None:
        """Remember it, in place of what was known of that name."""
        slot = self.find(record.name)
        if slot is None:
            self._make(record.name, record.times, record.count)
        else:
            self._write(slot, record.times, record.count)

    def record(self, slot: int) -> NamedRecord:
        """What is known; only a name that may be cut can differ from the one it was stored by."""
        return NamedRecord(self._name(slot), self._times_of(slot), self._words[slot * self._step + _COUNT])

    def time(self, slot: int, number: int) -> float:
        """One of the six."""
        return self._times[slot * self._step + 1 + number]

    def set_time(self, slot: int, number: int, value: float) -> None:
        """The others may be written by another process just now."""
        self._times[slot * self._step + 1 + number] = value

    def add_to_count(self, slot: int) -> None:
        """One more. It begins anew after 32 bits."""
        word = slot * self._step + _COUNT
        self._words[word] = self._words[word] + 1 & _COUNT_LIMIT

    def forget(self, slot: int) -> None:
        """As if there had been nothing."""
        self._words[slot * self._step] = 0

    def stored(self) -> Iterator[tuple[int, NamedRecord]]:
        """All of them with their slots; one that is being replaced just now is left out."""
        for slot in range(self.capacity):
            word = slot * self._step
            tag = self._words[word]
            if not tag:
                continue
            record = self.record(slot)
            is_of_tag = self._shape.may_be_cut(record.name) or self._place(record.name)[0] == tag
            if is_of_tag and self._words[word] == tag:
                yield slot, record

    def _make(self, name: str, times: tuple[float, ...], count: int) -> int:
        tag, first = self._place(name)
        tags = self._tags(first)
        slot = first + (tags.index(0) if 0 in tags else self._least_used(first))
        # The tag comes last: nobody finds a record that is half somebody else's.
        self.forget(slot)
        encoded = _cut(_encode(name), self._shape.name_octets)
        start = slot * self._shape.octets + _NAME_AT
        self._memory[start : start + _LENGTH_OCTETS + len(encoded)] = (
            len(encoded).to_bytes(_LENGTH_OCTETS, "little") + encoded
        )
        self._write(slot, times, count)
        self._words[slot * self._step] = tag
        return slot

    def _write(self, slot: int, times: tuple[float, ...], count: int) -> None:
        word = slot * self._step
        for number, value in enumerate(times, word + 1):
            self._times[number] = value
        self._words[word + _COUNT] = count & _COUNT_LIMIT

    def _times_of(self, slot: int) -> tuple[float, ...]:
        word = slot * self._step
        return tuple(self._times[word + 1 : word + _COUNT].tolist())

    def _name(self, slot: int) -> str:
        start = slot * self._shape.octets + _NAME_AT
        length = int.from_bytes(self._memory[start : start + _LENGTH_OCTETS], "little")
        start += _LENGTH_OCTETS
        octets = bytes(self._memory[start : start + min(length, self._shape.name_octets)])
        try:
            return octets.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:  # damaged
            return octets.decode("utf-8", "ignore")

    def _place(self, name: str) -> tuple[int, int]:
        """The tag, and the first slot of the set."""
        tag, word = hash_position(self._key, name, self._sets)
        return tag, word // 2

    def _tags(self, first: int) -> list[int]:
        start = first * self._step
        tags: list[int] = self._words[start : start + WAYS * self._step : self._step].tolist()
        return tags

    def _least_used(self, first: int) -> int:
        return min(range(WAYS), key=lambda way: max(self._times_of(first + way)[self._shape.lasting]))


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def _cut(encoded: bytes, octets: int) -> bytes:
    if len(encoded) > octets:
        while encoded[octets] & 0xC0 == 0x80:
            octets -= 1
    return encoded[:octets]
