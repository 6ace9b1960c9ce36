"""From the reactor to a thread, a turn at a time.

Waking a thread that waits costs the reactor more than all it does with a command, and the thread more than it does
with a record: it asks for the interpreter, gets it between two things of the reactor's, and gives it back. Records
that end in one turn of the reactor, as those of several busy connections do, wake it once, and share a sync as well.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from mailsrv.journal.answers import IJournalReactor
from mailsrv.journal.worker import IWorker

T = TypeVar("T")


class HandOver(Generic[T]):
    """Posts to ``worker`` at the end of the turn. Reactor thread only."""

    def __init__(self, worker: IWorker[T], reactor: IJournalReactor) -> None:
        self._worker = worker
        self._reactor = reactor
        self._waiting: list[T] = []

    def post(self, item: T) -> None:
        """In order, before the reactor waits for anybody."""
        if not self._waiting:
            self._reactor.callLater(0, self.flush)
        self._waiting.append(item)

    def flush(self) -> None:
        """Now: something that must come after it is posted otherwise."""
        waiting, self._waiting = self._waiting, []
        for item in waiting:
            self._worker.post(item)
