"""Who waits to hear what became of a record, and when they are told.

Most are told when the record is applied or refused. A bound on the wait is kept by one timer for all:
what was synced ``apply_wait`` ago is durable, and answered although it is not applied yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from mailsrv.errors import MailError
from mailsrv.interfaces.journal import Applied
from mailsrv.journal.entry import Entry
from mailsrv.journal.worker import ICallFromThread


class IJournalReactor(ICallFromThread, Protocol):
    """What the journal needs of the reactor."""

    def callLater(self, delay: float, function: Callable[..., object], /, *arguments: object) -> IDelayedCall: ...


class Answers:
    """Reactor thread only."""

    def __init__(self, reactor: IJournalReactor, apply_wait: float, seconds: Callable[[], float]) -> None:
        self._reactor = reactor
        self._apply_wait = apply_wait
        self._seconds = seconds
        # Entries in the order of their commit, for the bound on the wait.
        self._waiting: deque[Entry] = deque()
        self._noting: set[Entry] = set()
        self._sweep_call: IDelayedCall | None = None

    def expect(self, entry: Entry) -> Deferred[None]:
        """Fires when the entry is applied, or durable for so long; fails with a MailError where it is refused."""
        waiter: Deferred[None] = Deferred()
        entry.waiter = waiter
        self._waiting.append(entry)
        if self._sweep_call is None:
            self._sweep_call = self._reactor.callLater(self._apply_wait / 4, self._sweep)
        return waiter

    def expect_note(self, entry: Entry) -> Deferred[Sequence[Applied]]:
        """Fires when all that the entry delivers is in its mailboxes, however long that takes."""
        waiter: Deferred[Sequence[Applied]] = Deferred()
        entry.waiter = waiter
        self._noting.add(entry)
        return waiter

    def give(self, entries: Sequence[Entry]) -> None:
        """Tell those who wait for these, if they were not told before."""
        for entry in entries:
            waiter = entry.waiter
            if waiter is not None:
                entry.waiter = None
                if entry.wants_note:
                    self._noting.discard(entry)
                if entry.error is not None:
                    waiter.errback(entry.error)
                elif entry.wants_note:
                    waiter.callback(tuple(entry.applied))
                else:
                    waiter.callback(None)

    def _sweep(self) -> None:
        self._sweep_call = None
        waiting = self._waiting
        limit = self._seconds() - self._apply_wait
        while waiting:
            entry = waiting[0]
            if entry.waiter is not None:
                if entry.synced_at is None or entry.synced_at > limit:
                    break
                self.give([entry])
            waiting.popleft()
        if waiting:
            self._sweep_call = self._reactor.callLater(self._apply_wait / 4, self._sweep)

    def stop_timer(self) -> None:
        """The bound is kept no longer."""
        if self._sweep_call is not None and self._sweep_call.active():
            self._sweep_call.cancel()

    def fail_all(self, error: MailError) -> None:
        """Tell everybody who still waits; ``error`` where nothing worse is known of the record."""
        for entry in (*self._waiting, *self._noting):
            if entry.waiter is not None:
                entry.error = entry.error or error
                self.give([entry])
        self._waiting.clear()
