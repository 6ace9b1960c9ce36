"""A time limit of a connection that moves with nearly everything the peer does, over a timer that seldom moves.

A later limit is only noted: the timer fires at the old one, sees what is left, and waits for that. A
timer of the reactor is touched only where a limit comes before the one it waits for.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from twisted.internet.interfaces import IDelayedCall, IReactorTime


def _nobody() -> None:
    """Who is told of limits after the end."""


class Deadline:
    """``passed`` is called when the limit is reached; there is none then until the next ``set``."""

    __slots__ = ("_at", "_clock", "_passed", "_timer", "_timer_at")

    def __init__(self, clock: IReactorTime, passed: Callable[[], object]) -> None:
        self._clock = clock
        self._passed = passed
        self._at = self._timer_at = inf
        self._timer: IDelayedCall | None = None

    def set(self, seconds: float) -> None:
        """The limit is so far from now."""
        self._at = at = self._clock.seconds() + seconds
        if at < self._timer_at:
            self._cancel()
            self._start(seconds)

    def lift(self) -> None:
        """No limit until the next ``set``. The timer is left to fire in vain."""
        self._at = inf

    def stop(self) -> None:
        """No limit and no timer any more, for good: who was to be told is let go."""
        self._at = inf
        self._cancel()
        self._passed = _nobody

    def _start(self, seconds: float) -> None:
        self._timer_at = self._clock.seconds() + seconds
        self._timer = self._clock.callLater(seconds, self._fired)

    def _cancel(self) -> None:
        timer, self._timer, self._timer_at = self._timer, None, inf
        if timer is not None:
            timer.cancel()

    def _fired(self) -> None:
        self._timer, self._timer_at = None, inf
        left = self._at - self._clock.seconds()
        if left <= 0:
            self._passed()
        elif left < inf:
            self._start(left)
