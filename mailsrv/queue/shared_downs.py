"""Destinations that are down, as all workers of a run know them: a file that each of them maps.

A worker that found nobody at a destination notes until when it is left alone; so the others do not find out
each for itself, and one probe an interval is made, not one a worker. Before a probe its worker notes the end
of the next interval: who comes later leaves it to the probe. Whoever dies in between holds nobody up for
longer than that.

An entry is a hash of the name and one word, the instant and the number of failures, so it is never
half written. Nothing depends on it: where a set is full the entry that ends first goes, and what
cannot be true is passed over.
"""

from __future__ import annotations

import math
import os

from attrs import frozen
from twisted.logger import Logger

from mailsrv.interfaces.queue import Destination
from mailsrv.wire.mapped_file import HEADER_OCTETS, key_of, map_file
from mailsrv.wire.rates import SET_OCTETS, WAYS, hash_position, sets_for

_FAILURE_BITS = 8
_MOST_FAILURES = (1 << _FAILURE_BITS) - 1


@frozen
class KnownDown:
    """What is known of a destination that is down. ``until`` in whole seconds since the epoch."""

    until: float
    failures: int


class SharedDowns:
    """The table at ``path`` of the run ``run_id``, for so many destinations. Until ``open`` it knows nothing."""

    _log = Logger()

    def __init__(self, path: str, run_id: bytes, entries: int) -> None:
        self._path = path
        self._run_id = run_id
        self._sets = sets_for(entries)
        self._key = b""
        self._words: memoryview | None = None

    def open(self) -> None:
        """Waits for the disk. Where that has trouble each worker finds out for itself."""
        label = b"mailsrv destinations down 1 %d " % self._sets + self._run_id[:64]
        try:
            mapping, descriptor = map_file(self._path, label, self._sets * SET_OCTETS)
        except OSError as error:
            self._log.warn("{path} cannot be used: {error}", path=self._path, error=str(error))
            return
        os.close(descriptor)
        self._key = key_of(mapping)
        self._words = memoryview(mapping)[HEADER_OCTETS:].cast("Q")

    def find(self, destination: Destination, now: float, longest: float) -> KnownDown | None:
        """None where nobody noted it, or it is over; ``longest`` is how far ahead an entry can be."""
        words = self._words
        if words is None:
            return None
        tag, base = hash_position(self._key, str(destination), self._sets)
        tags = words[base : base + WAYS].tolist()
        if tag not in tags:
            return None
        word = words[base + WAYS + tags.index(tag)]
        until, failures = float(word >> _FAILURE_BITS), word & _MOST_FAILURES
        return KnownDown(until, failures) if failures and now < until <= now + longest else None

    def note(self, destination: Destination, until: float, failures: int) -> float:
        """It is down; gives ``until`` as others will read it."""
        rounded = math.ceil(until)
        words = self._words
        if words is not None:
            tag, base = hash_position(self._key, str(destination), self._sets)
            tags = words[base : base + WAYS].tolist()
            ends = words[base + WAYS : base + 2 * WAYS].tolist()
            place = tags.index(tag) if tag in tags else ends.index(min(ends))
            if tag not in tags:
                # For no moment does the new name stand before the old word.
                words[base + WAYS + place] = 0
                words[base + place] = tag
            words[base + WAYS + place] = rounded << _FAILURE_BITS | min(failures, _MOST_FAILURES)
        return float(rounded)

    def clear(self, destination: Destination) -> None:
        """Somebody answered."""
        words = self._words
        if words is not None:
            tag, base = hash_position(self._key, str(destination), self._sets)
            tags = words[base : base + WAYS].tolist()
            if tag in tags:
                words[base + WAYS + tags.index(tag)] = 0
