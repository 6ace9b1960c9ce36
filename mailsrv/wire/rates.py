"""How often something may happen: a rate with a burst, and buckets that measure against it.

A bucket is one number, the *theoretical arrival time* of the generic cell rate algorithm (ITU-T I.371):
each event pushes it on by the time between two events, and an event is over the rate when that would
push it further ahead of the clock than the burst reaches. So a bucket needs no timer, and one that
has recovered is as good as none.

The buckets lie in memory of fixed size, which several processes may share (:mod:`mailsrv.wire.shared_table`):
a hash table of sets of eight, each bucket a 64-bit keyed tag and a time. Reading and writing are aligned
stores of eight octets, without lock or system call. Two processes that count at the same moment may
lose one of the two counts, and no more than that. In a full set the bucket that has recovered
longest makes room. The key is random, so a client cannot choose names that fall into one set.
"""

from __future__ import annotations

import functools
import hashlib
import re

from attrs import field, frozen, validators

WAYS = 8
"""Buckets in a set; a set is two cache lines."""
SET_OCTETS = WAYS * 16
_WORDS = 2 * WAYS
_POSITIONS_REMEMBERED = 8192
_NAME_REMEMBERED = 200
_ROUNDING = 0.01
"""An event may come this part of the time between two events too early: times are rounded."""

_UNITS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
_RATE = re.compile(
    r"(?P<count>[0-9]{1,9}) per (?:(?P<many>[0-9]{1,6}) )?(?P<unit>second|minute|hour|day)s?"
    r"(?:, burst (?P<burst>[0-9]{1,9}))?"
)


@frozen
class Rate:
    """``count`` events in ``seconds``, evenly, and ``burst`` at once after a quiet time."""

    count: int = field(validator=validators.ge(1))
    seconds: float = field(validator=validators.gt(0))
    burst: int = field(validator=validators.ge(1))

    @property
    def interval(self) -> float:
        """Seconds from one event to the next."""
        return self.seconds / self.count


def parse_rate(text: str) -> Rate | None:
    """``300 per minute, burst 600``, ``5 per 10 seconds``; without a burst it is the count. "" is no limit.

    Raises ``ValueError`` with a sentence for the administrator.
    """
    if not text:
        return None
    match = _RATE.fullmatch(text)
    if match is not None:
        count = int(match["count"])
        seconds = int(match["many"] or 1) * _UNITS[match["unit"]]
        burst = int(match["burst"] or count)
        if count and seconds and burst:
            return Rate(count, seconds, burst)
    raise ValueError(f'{text}: expected a rate such as "300 per minute" or "300 per minute, burst 600", or "" for none')


Position = tuple[int, int]
"""A tag, never 0, and where its set begins, in words."""


class Buckets:
    """Buckets by kind and name, in ``memory`` of a multiple of :data:`SET_OCTETS`; zeros are an empty table.

    Times are seconds of the wall clock: it is the same in all processes. When it is set back, a
    bucket counts as just filled up and recovers from there.
    """

    def __init__(self, memory: memoryview, key: bytes) -> None:
        """``key``: 16 to 64 random octets, the same for all who share the memory."""
        self._sets = len(memory) // SET_OCTETS
        if not self._sets or len(memory) % SET_OCTETS:
            raise ValueError("memory of whole sets is needed")
        self._tags = memory.cast("Q")
        self._times = memory.cast("d")
        self._key = key
        self._known_position = functools.lru_cache(_POSITIONS_REMEMBERED)(self._compute_position)

    @property
    def capacity(self) -> int:
        """How many buckets there is room for."""
        return self._sets * WAYS

    def derive_key(self, purpose: bytes) -> bytes:
        """A key of 32 octets for another purpose, the same for all who share the memory."""
        return hashlib.blake2b(purpose, key=self._key, digest_size=32).digest()

    def take(self, kind: str, name: str, rate: Rate, now: float, amount: int = 1) -> bool:
        """Count ``amount`` events of ``name``, if they are within the rate; else nothing is counted."""
        tag, base = self._position(kind, name)
        interval = rate.interval
        reach = rate.burst * interval
        slot = self._find(tag, base)
        arrival = self._arrival(slot, now, reach) + amount * interval
        if arrival > now + reach + interval * _ROUNDING:
            return False
        if slot is None:
            times = self._times[base + WAYS : base + _WORDS].tolist()
            slot = base + times.index(min(times))
            self._times[slot + WAYS] = arrival
            self._tags[slot] = tag
        else:
            self._times[slot + WAYS] = arrival
        return True

    def give_back(self, kind: str, name: str, rate: Rate, now: float) -> None:
        """One event did not count after all."""
        slot = self._find(*self._position(kind, name))
        if slot is not None:
            reach = rate.burst * rate.interval
            self._times[slot + WAYS] = self._arrival(slot, now, reach) - rate.interval

    def clear(self, kind: str, name: str) -> None:
        """As if nothing had happened."""
        slot = self._find(*self._position(kind, name))
        if slot is not None:
            self._times[slot + WAYS] = 0.0
            self._tags[slot] = 0

    def used(self, kind: str, name: str, rate: Rate, now: float) -> float:
        """How much of the burst is used up, from 0 to ``rate.burst``."""
        slot = self._find(*self._position(kind, name))
        reach = rate.burst * rate.interval
        return max(0.0, (self._arrival(slot, now, reach) - now) / rate.interval)

    def _arrival(self, slot: int | None, now: float, reach: float) -> float:
        """The theoretical arrival time, never before now and never past the burst.

        What is past it is of a clock that was set back, or of another rate; it is put right, to recover from now on.
        """
        if slot is None:
            return now
        stored = self._times[slot + WAYS]
        if stored <= now:
            return now
        if stored <= now + reach:
            return stored
        self._times[slot + WAYS] = now + reach
        return now + reach

    def _find(self, tag: int, base: int) -> int | None:
        tags = self._tags[base : base + WAYS].tolist()
        return base + tags.index(tag) if tag in tags else None

    def _position(self, kind: str, name: str) -> Position:
        """Long names are not remembered: clients choose them."""
        return (self._known_position if len(name) <= _NAME_REMEMBERED else self._compute_position)(kind, name)

    def _compute_position(self, kind: str, name: str) -> Position:
        return hash_position(self._key, f"{kind}\0{name}", self._sets)


def sets_for(entries: int) -> int:
    """Sets for this many entries with as much room again: hashes do not fill sets evenly."""
    return -(-2 * entries // WAYS)


def hash_position(key: bytes, name: str, sets: int) -> Position:
    """Where ``name`` belongs in a table of this many sets."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), key=key, digest_size=16).digest()
    tag = int.from_bytes(digest[:8], "little") or 1
    return tag, int.from_bytes(digest[8:], "little") % sets * _WORDS
