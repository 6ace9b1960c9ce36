"""A thread with an inbox: the only kind of thread in the journal.

Whatever lies in the inbox when the thread gets to it is handled in one go: while the disk was busy
with the last batch, the next one grew. That is the whole of group commit.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class IWorker(Protocol[T_contra]):
    """Handles what is posted, in order, one batch at a time, somewhere else than in the reactor thread."""

    def start(self) -> None: ...

    def post(self, item: T_contra) -> None:
        """From any thread. Never waits."""

    def stop(self) -> None:
        """Handle what was posted before, then end. Does not wait for it."""

    def set_linger(self, seconds: float) -> None:
        """From the handler: how long the next batch may gather after its first item. 0 until told otherwise."""


Handler = Callable[[list[T]], float | None]
"""Takes a batch (empty where only time has passed); answers when it wants to be called next at the latest."""


class ThreadWorker(Generic[T]):
    """An :class:`IWorker` on a thread of its own."""

    _log = Logger()

    def __init__(self, name: str, handler: Handler[T]) -> None:
        self._handler = handler
        self._inbox: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        # A daemon: a process that ends without stopping the journal is one more crash it survives,
        # and better than one that hangs.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._linger = 0.0
        self._is_stopping = threading.Event()

    def start(self) -> None:
        self._thread.start()

    def post(self, item: T) -> None:
        self._inbox.put(item)

    def stop(self) -> None:
        self._inbox.put(None)
        self._is_stopping.set()

    def set_linger(self, seconds: float) -> None:
        self._linger = seconds

    def join(self) -> None:
        """Wait for the end. Not in the reactor thread."""
        self._thread.join()

    def _run(self) -> None:
        delay: float | None = None
        is_running = True
        inbox = self._inbox
        while is_running:
            batch: list[T] = []
            try:
                item = inbox.get(timeout=delay)
                if self._linger:
                    self._is_stopping.wait(self._linger)
                while item is not None:
                    batch.append(item)
                    item = inbox.get_nowait()
                is_running = False
            except queue.Empty:
                pass
            try:
                delay = self._handler(batch)
            except Exception:
                # A bug, not a disk error (those are handled inside). Going on is better than silence:
                # the records are on disk, and a restart replays them.
                self._log.failure("journal thread {name} met an error of ours", name=self._thread.name)
                delay = 1.0


WorkerFactory = Callable[[str, Handler[T]], IWorker[T]]


class ICallFromThread(Protocol):
    """Of a reactor."""

    def callFromThread(self, function: Callable[..., object], /, *arguments: object) -> None: ...


def ask_worker(worker: IWorker[Any], reactor: ICallFromThread, function: Callable[[], T]) -> Deferred[T]:
    """What ``function`` gives or raises, called by the worker in order with what was posted before."""
    result: Deferred[T] = Deferred()

    def job() -> None:
        try:
            value = function()
        except Exception:
            reactor.callFromThread(result.errback, Failure())
        else:
            reactor.callFromThread(result.callback, value)

    worker.post(job)
    return result
