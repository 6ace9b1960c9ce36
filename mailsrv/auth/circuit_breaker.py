"""Leaves a server alone that has failed a few times in a row: who asks gets the answer at once that there is none.

After the pause one question goes out; it decides whether there is another pause.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime


class CircuitBreaker:
    """Ask ``may_try`` before each question, and tell of each how it went."""

    def __init__(self, clock: IReactorTime, *, failures: int, pause_seconds: float) -> None:
        self._clock = clock
        self._limit = failures
        self._pause_seconds = pause_seconds
        self._failures = 0
        self._opened_at: float | None = None
        self._is_trying = False

    @property
    def is_open(self) -> bool:
        """Whether questions fail now without being asked, but for a first one after the pause."""
        return self._opened_at is not None

    def may_try(self) -> bool:
        """Whether to ask. Who gets a yes has to tell how it went."""
        if self._opened_at is None:
            return True
        if self._is_trying or self._clock.seconds() - self._opened_at < self._pause_seconds:
            return False
        self._is_trying = True
        return True

    def succeeded(self) -> bool:
        """There was an answer. True: it is the first after a pause."""
        was_open = self.is_open
        self._failures, self._opened_at, self._is_trying = 0, None, False
        return was_open

    def failed(self) -> bool:
        """There was none. True: with this a pause begins that was not there before."""
        was_open = self.is_open
        self._failures += 1
        self._is_trying = False
        if self._failures >= self._limit:
            self._opened_at = self._clock.seconds()
        return self.is_open and not was_open
