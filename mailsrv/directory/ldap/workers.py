"""Threads with a connection each: a bounded number, with a bounded queue in front of them.

A thread begins when there is work and no other is idle, and ends after ``idle_seconds`` without; its connection ends
with it. So a directory that a reload has replaced needs no farewell. Threads are daemons: a server that hangs holds up
nobody's shutdown.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from attrs import define, frozen
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from mailsrv.directory.ldap.connection import LdapConnection
from mailsrv.errors import Unavailable

T = TypeVar("T")

_GRACE_SECONDS = 1.0
"""How long after its deadline a job is waited for: it has to say itself what went wrong."""


@define(eq=False)
class Lane:
    """What a thread keeps between jobs: its connection."""

    connection: LdapConnection | None = None

    def close(self) -> None:
        """Close what is open."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()


Job = Callable[[Lane, float], T]
"""Work for a thread; the float is the deadline on the monotonic clock."""


class IWorkers(Protocol):
    """Runs jobs somewhere; the Deferred fires in the reactor thread."""

    def run(self, job: Job[T], seconds: float) -> Deferred[T]: ...


@frozen(eq=False)
class _Order:
    job: Job[Any]
    answer: Deferred[Any]
    deadline: float


class Workers:
    """``run`` in the thread of ``reactor`` (IReactorTime, IReactorFromThreads).

    At most ``threads`` jobs run at a time, at most ``queued`` wait.
    """

    def __init__(self, name: str, *, reactor: Any, threads: int, queued: int, idle_seconds: float) -> None:
        self.pending = 0
        """Jobs running and waiting."""
        self.refused = 0
        self._name = name
        self._reactor = reactor
        self._threads = threads
        self._limit = threads + queued
        self._idle_seconds = idle_seconds
        self._orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._running = 0

    def run(self, job: Job[T], seconds: float) -> Deferred[T]:
        """What the job answers. Fails with Unavailable when too many wait, or at latest when the time is over."""
        if self.pending >= self._limit:
            self.refused += 1
            return fail(Unavailable(cause=f"too many requests wait for {self._name}"))
        self.pending += 1
        answer: Deferred[T] = Deferred()
        self._orders.put(_Order(job, answer, time.monotonic() + seconds))
        # A thread may be held up where no deadline reaches: by the look-up of a host's name.
        late = self._reactor.callLater(seconds + _GRACE_SECONDS, self._too_late, answer)
        answer.addBoth(_no_longer_late, late)
        with self._lock:
            if self._running < min(self._threads, self.pending):
                self._running += 1
                threading.Thread(target=self._work, name=f"ldap {self._name}", daemon=True).start()
        return answer

    def _too_late(self, answer: Deferred[Any]) -> None:
        if not answer.called:
            answer.errback(Unavailable(cause=f"{self._name} did not answer in time"))

    def _work(self) -> None:
        lane = Lane()
        try:
            while (order := self._next()) is not None:
                result: Any
                try:
                    if time.monotonic() >= order.deadline:
                        raise Unavailable(cause=f"{self._name} had no time for the request")
                    result = order.job(lane, order.deadline)
                except BaseException:
                    result = Failure()
                self._reactor.callFromThread(self._answer, order.answer, result)
        finally:
            lane.close()

    def _next(self) -> _Order | None:
        try:
            return self._orders.get(timeout=self._idle_seconds)
        except queue.Empty:
            with self._lock:
                self._running -= 1
            return self._last_call()

    def _last_call(self) -> _Order | None:
        """An order may have come in just when this thread gave up."""
        try:
            order = self._orders.get_nowait()
        except queue.Empty:
            return None
        with self._lock:
            self._running += 1
        return order

    def _answer(self, answer: Deferred[Any], result: Any) -> None:
        self.pending -= 1
        # It was too late, or who asked has gone.
        if not answer.called:
            answer.callback(result)


def _no_longer_late(result: T, late: IDelayedCall) -> T:
    if late.active():
        late.cancel()
    return result


class InPlace:
    """For commands: everything happens at once, in the thread that asks."""

    def __init__(self) -> None:
        self._lane = Lane()

    def run(self, job: Job[T], seconds: float) -> Deferred[T]:
        answer: Deferred[T] = Deferred()
        try:
            answer.callback(job(self._lane, time.monotonic() + seconds))
        except Exception:
            answer.errback()
        return answer

    def close(self) -> None:
        """End the connection."""
        self._lane.close()
