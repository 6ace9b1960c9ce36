"""Threads for disk work, with answers handed to the reactor in batches.

A call into the reactor costs more than most answers: what finishes while one is on its way goes
with it (DESIGN decision 5).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from mailsrv.errors import Unavailable

T = TypeVar("T")


class IThreads(Protocol):
    """Runs a function elsewhere and answers in the reactor thread."""

    def run(self, function: Callable[[], T]) -> Deferred[T]: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


class DiskThreads:
    """A few threads and one queue. Called in the reactor thread."""

    def __init__(self, reactor: IReactorFromThreads, count: int, limit: int) -> None:
        self._reactor = reactor
        self._count = count
        self._limit = limit
        self._condition = threading.Condition()
        self._waiting: deque[tuple[Callable[[], Any], Deferred[Any]]] = deque()
        self._answers: deque[tuple[Deferred[Any], Any]] = deque()
        self._threads: list[threading.Thread] = []
        self._is_stopping = False

    def start(self) -> None:
        self._is_stopping = False
        for number in range(self._count):
            thread = threading.Thread(target=self._work, name=f"mailsrv-store-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """What was asked for is still done; waits for it."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify_all()
        for thread in self._threads:
            thread.join()
        self._threads = []
        self._deliver()

    def run(self, function: Callable[[], T]) -> Deferred[T]:
        """Fails with Unavailable where too much is waiting already."""
        answer: Deferred[T] = Deferred()
        with self._condition:
            if self._is_stopping or len(self._waiting) >= self._limit:
                answer.errback(Failure(Unavailable(cause="too much work waits for the disk")))
                return answer
            self._waiting.append((function, answer))
            self._condition.notify()
        return answer

    def _work(self) -> None:
        while True:
            with self._condition:
                while not self._waiting:
                    if self._is_stopping:
                        return
                    self._condition.wait()
                function, answer = self._waiting.popleft()
            result: Any
            try:
                result = function()
            except BaseException:
                result = Failure()
            with self._condition:
                is_first = not self._answers
                self._answers.append((answer, result))
            if is_first:
                self._reactor.callFromThread(self._deliver)

    def _deliver(self) -> None:
        while True:
            with self._condition:
                answers, self._answers = self._answers, deque()
            if not answers:
                return
            for answer, result in answers:
                answer.callback(result)


class InlineThreads:
    """No threads: everything is done at once. For tests and for commands on the files."""

    def start(self) -> None:
        """Nothing to begin."""

    def stop(self) -> None:
        """Nothing to end."""

    def run(self, function: Callable[[], T]) -> Deferred[T]:
        return execute(function)
