"""Work in threads, from the reactor thread: a callable, so that tests run everything in place, and a bounded queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from mailsrv.errors import Unavailable

T = TypeVar("T")


class RunInThread(Protocol):
    """Runs a function in a thread; the Deferred fires in the reactor thread with what it returned or raised.

    ``functools.partial(deferToThreadPool, reactor, pool)`` is one.
    """

    def __call__(self, function: Callable[[], T], /) -> Deferred[T]: ...


class ThreadQueue:
    """Calls of which only so many may run and wait."""

    def __init__(self, run_in_thread: RunInThread, limit: int, what: str) -> None:
        """``what`` too many of are refused, for the log."""
        self._run_in_thread = run_in_thread
        self._what = what
        self.limit = limit
        """How many may run and wait; may be put to another number."""
        self.pending = 0
        """How many do. A call counts until its thread is done, even if whoever asked has cancelled and gone."""
        self.refused = 0
        """Calls that found too many."""

    def run(self, function: Callable[[], T]) -> Deferred[T]:
        """What the function gives or raises; fails with Unavailable when too many wait. May be cancelled."""
        if self.pending >= self.limit:
            self.refused += 1
            return fail(Unavailable(cause=f"too many {self._what} wait"))
        self.pending += 1
        answer: Deferred[T] = Deferred()

        def finished(result: T | Failure) -> None:
            self.pending -= 1
            if answer.called:
                return
            if isinstance(result, Failure):
                answer.errback(result)
            else:
                answer.callback(result)

        self._run_in_thread(function).addBoth(finished)
        return answer
