"""Something of an issuer's that is fetched when it is needed and kept for a while: its keys, its metadata.

Fetched once at a time, by nobody's log-in: whoever hangs up takes the fetching not along. When it is
due to be fetched again, the old one serves meanwhile; where it cannot be fetched, the old one serves until it is
stale. Then, or where there never was any, the answer is Unavailable (R-AUTH-7).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailsrv.errors import Unavailable

_T = TypeVar("_T")

AGAIN_SECONDS = 60.0
"""What was fetched is not fetched again within this time, whoever asks for it."""
_FIRST_PAUSE_SECONDS = 5.0
"""After a failure; it doubles with each to AGAIN_SECONDS."""


class KeptDocument(Generic[_T]):
    """``fetch`` may fail with anything; ``what`` is for the log."""

    _log = Logger()

    def __init__(
        self,
        what: str,
        fetch: Callable[[], Coroutine[Deferred[Any], Any, _T]],
        clock: IReactorTime,
        *,
        seconds: float,
        stale_seconds: float,
    ) -> None:
        self._what = what
        self._fetch = fetch
        self._clock = clock
        self._seconds = seconds
        self._stale_seconds = stale_seconds
        self._value: tuple[_T, float] | None = None
        self._tried_at = 0.0
        self._pause = 0.0
        self._failures = 0
        self._fetching: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []

    async def current(self) -> _T:
        """The document as it is known; raises Unavailable."""
        age = self._age()
        if age is None or (age >= 2 * self._seconds and not self._failures):
            # Nothing to serve with, or something that nobody has needed for a long time and may have been withdrawn.
            await self._refreshed()
        elif age >= self._seconds:
            self._refresh()
        return self._usable()

    async def renewed(self) -> _T:
        """The document after another look at it, unless there was one a moment ago; raises Unavailable."""
        await self._refreshed()
        return self._usable()

    def _age(self) -> float | None:
        """None: there is nothing that can be used."""
        if self._value is None:
            return None
        age = self._clock.seconds() - self._value[1]
        return age if age < max(self._stale_seconds, self._seconds) else None

    def _usable(self) -> _T:
        if self._value is None or self._age() is None:
            raise Unavailable(cause=f"{self._what} cannot be had")
        return self._value[0]

    async def _refreshed(self) -> None:
        self._refresh()
        if self._fetching is not None:
            waiter: Deferred[None] = Deferred()
            self._waiting.append(waiter)
            await waiter

    def _refresh(self) -> None:
        now = self._clock.seconds()
        if self._fetching is None and now - self._tried_at >= self._pause:
            self._tried_at = now
            # First the mark, for it may be done at once.
            self._fetching = Deferred()
            Deferred.fromCoroutine(self._fetch_it())

    async def _fetch_it(self) -> None:
        try:
            self._value = await self._fetch(), self._clock.seconds()
        except Exception as error:
            # Whatever a server far away does must not end log-ins that have nothing to do with it.
            self._failures += 1
            self._pause = min(_FIRST_PAUSE_SECONDS * 2 ** min(self._failures - 1, 10), AGAIN_SECONDS)
            self._log.error("{what} cannot be fetched: {error}", what=self._what, error=repr(error))
        else:
            self._failures, self._pause = 0, AGAIN_SECONDS
        self._fetching = None
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)
