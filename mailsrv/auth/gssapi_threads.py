"""Threads for what a library does without being asked how long: few of them, a bounded queue, a deadline.

A call past its deadline is not waited for any longer, but keeps its thread until it ends by itself: a library that
hangs takes these threads and no others, and does not keep the server from stopping.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from mailsrv.auth.gssapi_settings import GssapiSettings
from mailsrv.errors import Unavailable
from mailsrv.threads import ThreadQueue

_T = TypeVar("_T")


class _DaemonThread(Thread):
    """The interpreter ends without it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, daemon=True, **kwargs)


class _Pool(ThreadPool):
    threadFactory = _DaemonThread


class TicketThreads:
    """``reactor`` also is the clock. Threads begin with :meth:`start`, and at first need."""

    def __init__(self, reactor: Any, settings: GssapiSettings) -> None:
        self._reactor = reactor
        self._pool = _Pool(0, settings.threads, "mailsrv-gssapi")
        self._settings = settings
        self._queue = ThreadQueue(self._defer, _limit(settings), "tickets")

    def start(self) -> None:
        """The reactor runs."""
        self._pool.start()

    def stop(self) -> None:
        """Nothing comes after it; calls that are under way are let go."""
        if self._pool.started and not self._pool.joined:
            if self._queue.pending:
                # Those that are not known are not waited for.
                self._pool.threads.clear()
            self._pool.stop()

    def replace_settings(self, settings: GssapiSettings) -> None:
        """From now on."""
        self._pool.adjustPoolsize(0, settings.threads)
        self._settings = settings
        self._queue.limit = _limit(settings)

    @property
    def refused(self) -> int:
        """Calls that found the queue full, or were too late, since the start."""
        return self._queue.refused

    def run(self, function: Callable[[], _T]) -> Deferred[_T]:
        """What the function gives or raises; Unavailable if it takes too long, or too many wait already."""
        answer = self._queue.run(function)
        if not answer.called:
            late = self._reactor.callLater(self._settings.timeout_seconds, self._give_up, answer)
            answer.addBoth(_in_time, late)
        return answer

    def _defer(self, function: Callable[[], _T]) -> Deferred[_T]:
        return deferToThreadPool(self._reactor, self._pool, function)

    def _give_up(self, answer: Deferred[Any]) -> None:
        self._queue.refused += 1
        answer.errback(Unavailable(cause="looking at a ticket takes too long"))


def _limit(settings: GssapiSettings) -> int:
    return settings.threads + settings.waiting


def _in_time(result: Any, late: IDelayedCall) -> Any:
    if late.active():
        late.cancel()
    return result
