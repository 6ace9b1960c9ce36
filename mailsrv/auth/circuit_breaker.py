"""Leaves a server alone that has failed a few times in a row: who asks gets the answer at once that there is none.

After the pause one question goes out; it decides whether there is another pause. The failures of questions that were
asked before a pause do not prolong it.
"""

from __future__ import annotations

import enum

from twisted.internet.interfaces import IReactorTime


class Permission(enum.Enum):
    """What may be done with a question."""

    ASK = "ask"
    TRY = "try"
    """Ask: it is the one after a pause."""
    WAIT = "wait"


class CircuitBreaker:
    """Have ``permission`` before each question, and tell of each that was asked how it went."""

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

    def permission(self) -> Permission:
        """Whether to ask."""
        if self._opened_at is None:
            return Permission.ASK
        if self._is_trying or self._clock.seconds() - self._opened_at < self._pause_seconds:
            return Permission.WAIT
        self._is_trying = True
        return Permission.TRY

    def succeeded(self) -> bool:
        """There was an answer. True: it is the first after a pause."""
        was_open = self.is_open
        self._failures, self._opened_at, self._is_trying = 0, None, False
        return was_open

    def failed(self, permission: Permission) -> bool:
        """There was none. True: with this a pause begins that was not there before."""
        if permission is Permission.TRY:
            self._is_trying = False
            self._opened_at = self._clock.seconds()
            return False
        self._failures += 1
        if self.is_open or self._failures < self._limit:
            return False
        self._opened_at = self._clock.seconds()
        return True
