"""What the store tells of destinations with mail that waits: at once of what is new, and now and then of all.

For news can be missed: where another process wrote it, or this one could not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.interfaces.queue import DestinationState, IQueueStore


class DestinationNews:
    """``heard`` is told, from ``start`` to ``stop``; of what is new also after that."""

    _log = Logger()

    def __init__(
        self,
        store: IQueueStore,
        clock: IReactorTime,
        heard: Callable[[Iterable[DestinationState]], None],
        *,
        resync_seconds: float,
        retry_seconds: float,
    ) -> None:
        self._store = store
        self._clock = clock
        self._heard = heard
        self._resync_seconds = resync_seconds
        self._retry_seconds = retry_seconds
        self._call: IDelayedCall | None = None
        self._is_stopped = False

    def start(self) -> None:
        """Ask for all that waits."""
        self._store.listen(self._heard)
        self._ask()

    def stop(self) -> None:
        """Ask no more."""
        self._is_stopped = True
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _ask(self) -> None:
        self._call = None
        self._store.destinations().addCallbacks(self._answered, self._failed)

    def _answered(self, states: Sequence[DestinationState]) -> None:
        self._ask_in(self._resync_seconds)
        self._heard(states)

    def _failed(self, failure: Failure) -> None:
        self._log.warn("The queue cannot be read: {error}", error=failure.getErrorMessage())
        self._ask_in(self._retry_seconds)

    def _ask_in(self, seconds: float) -> None:
        if not self._is_stopped:
            self._call = self._clock.callLater(seconds, self._ask)
