"""Threads for what a library does without being asked how long: few of them, a bounded queue, a deadline.

A call past its deadline is not waited for any longer, but keeps its thread until it ends by itself: a library that
hangs takes these threads and no others, and does not keep the server from stopping.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from mailsrv.auth.gssapi_settings import GssapiSettings
from mailsrv.errors import Unavailable

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
        self._under_way = 0
        self.refused = 0
        """Calls that found the queue full, or were too late, since the start."""

    def start(self) -> None:
        """The reactor runs."""
        self._pool.start()

    def stop(self) -> None:
        """Nothing comes after it; calls that are under way are let go."""
        if self._pool.started and not self._pool.joined:
            if self._under_way:
                # Those that are not known are not waited for.
                self._pool.threads.clear()
            self._pool.stop()

    def replace_settings(self, settings: GssapiSettings) -> None:
        """From now on."""
        self._pool.adjustPoolsize(0, settings.threads)
        self._settings = settings

    def run(self, function: Callable[[], _T]) -> Deferred[_T]:
        """What the function gives or raises; Unavailable if it takes too long, or too many wait already."""
        answer: Deferred[_T] = Deferred()
        if self._under_way >= self._settings.threads + self._settings.waiting:
            self.refused += 1
            answer.errback(Failure(Unavailable(cause="too many tickets are looked at")))
            return answer
        self._under_way += 1
        late = self._reactor.callLater(self._settings.timeout_seconds, self._give_up, answer)

        def done(result: Any) -> None:
            self._under_way -= 1
            if late.active():
                late.cancel()
                answer.callback(result)

        deferToThreadPool(self._reactor, self._pool, function).addBoth(done)
        return answer

    def _give_up(self, answer: Deferred[Any]) -> None:
        self.refused += 1
        answer.errback(Failure(Unavailable(cause="looking at a ticket takes too long")))
