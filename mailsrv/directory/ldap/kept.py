"""Answers of any kind, kept for a while within bounds: fresh ones save a question, old ones an outage."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from attrs import frozen

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@frozen
class KeepingTimes:
    """How long answers serve, and how many are kept. ``clock`` tells seconds."""

    clock: Callable[[], float]
    seconds: float
    outage_seconds: float
    entries: int


class Kept(Generic[K, V]):
    """Those unused for longest go first."""

    def __init__(self, times: KeepingTimes) -> None:
        self._times = times
        self._kept: OrderedDict[K, tuple[float, int, V]] = OrderedDict()
        self._age = 0
        """Answers of an earlier one are no longer fresh."""

    def __len__(self) -> int:
        return len(self._kept)

    def fresh(self, key: K) -> V | None:
        """An answer from lately."""
        found = self._kept.get(key)
        if found is None or found[1] != self._age:
            return None
        return self._within(key, self._times.seconds)

    def stale(self, key: K) -> V | None:
        """An answer, old as it may be while nobody can be asked."""
        return self._within(key, max(self._times.seconds, self._times.outage_seconds))

    def _within(self, key: K, seconds: float) -> V | None:
        found = self._kept.get(key)
        if found is None or self._times.clock() - found[0] >= seconds:
            return None
        self._kept.move_to_end(key)
        return found[2]

    def add(self, key: K, answer: V) -> None:
        """Keep it from now."""
        self._kept[key] = (self._times.clock(), self._age, answer)
        self._kept.move_to_end(key)
        while len(self._kept) > self._times.entries:
            self._kept.popitem(last=False)

    def age_all(self) -> None:
        """Anything may have changed: no answer is fresh any more."""
        self._age += 1
