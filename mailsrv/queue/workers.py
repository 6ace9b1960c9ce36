"""The workers that share the queue: who lives, and what becomes of what the dead had leased.

Leases of a worker mean something until its journal was replayed: it may hold settlements of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailsrv.queue.database import QueueDatabase
from mailsrv.queue.database_thread import DatabaseThread, IQueueReactor
from mailsrv.queue.leasing import Leases
from mailsrv.queue.rows import owner_number
from mailsrv.queue.salvage import DAMAGED
from mailsrv.queue.seats import Seats

_AFTER_DEATH_SECONDS = 5.0
_FORGET_WORKER = "DELETE FROM worker WHERE run=? AND number=?"


class Workers:
    """Seen from worker ``number`` of ``count`` of a ``run``. Its methods are for the database thread.

    ``recover_journal`` applies what those who died left in their journals; ``news`` is to be called in the database
    thread when recipients wait again.
    """

    _log = Logger()

    def __init__(
        self,
        seats: Seats,
        thread: DatabaseThread,
        reactor: IQueueReactor,
        *,
        run: int,
        number: int,
        count: int,
        clock: Callable[[], float],
        recover_journal: Callable[[], Deferred[Any]],
        news: Callable[[], None],
    ) -> None:
        self._seats = seats
        self._thread = thread
        self._reactor = reactor
        self._run = run
        self._number = number
        self._count = count
        self._clock = clock
        self._recover_journal = recover_journal
        self._news = news
        self._owner = owner_number(run, number)
        self._mourned: set[int] = set()
        self.has_seat = False

    def take_seat(self, db: QueueDatabase, leases: Leases) -> bool:
        """Free what the dead had leased: before it nothing may be taken. Raises OSError and apsw.Error.

        Answers whether no other worker of this run was here before.
        """
        if not self._seats.claim(self._owner):
            self._log.error("another process says that it is this worker")
        try:
            freed, is_first = self._free_leases(db, leases)
        except DAMAGED:
            # What could be read is in another database now.
            freed, is_first = self._free_leases(db, leases)
        self.has_seat = True
        self._log_freed(freed)
        return is_first

    def _free_leases(self, db: QueueDatabase, leases: Leases) -> tuple[int, bool]:
        """How many; whether no other worker of this run was here before."""
        with db.transaction(is_durable=False) as connection:
            others = self._others(db)
            dead = [other for other in others if not self._seats.is_alive(owner_number(*other))]
            connection.executemany(_FORGET_WORKER, [other for other in dead if other[0] != self._run])
            is_first = not db.row("SELECT count(*) FROM worker WHERE run=?", (self._run,))[0]
            connection.execute("INSERT OR IGNORE INTO worker VALUES(?, ?)", (self._run, self._number))
            # Another worker may be replaying the journal of the one before us at this moment; alone there is none.
            freed = leases.free_worker(self._owner, self._after_death())
            # A worker of the last run may have left a settlement in a journal that another one of this run is
            # still replaying: only when all have done that its leases mean nothing any more. Where it still lives
            # (its supervisor was killed), they mean something until it has ended.
            if db.row("SELECT count(*) FROM worker WHERE run=?", (self._run,))[0] >= self._count:
                living = [owner_number(*other) for other in others if other not in dead]
                freed += leases.free_other_runs(self._run, living)
        return freed, is_first

    def _after_death(self) -> float:
        """When what a dead worker had leased is due at the earliest."""
        return self._clock() + _AFTER_DEATH_SECONDS if self._count > 1 else 0.0

    def _others(self, db: QueueDatabase) -> list[tuple[int, int]]:
        rows: list[Any] = db.connection.execute("SELECT run, number FROM worker").fetchall()
        return [(row[0], row[1]) for row in rows if row != (self._run, self._number)]

    def look_for_dead(self, db: QueueDatabase, leases: Leases) -> None:
        """Leases of workers that died and whose place nobody took go back, after what their journals hold."""
        if self._count == 1:
            return
        for run, number in self._others(db):
            owner = owner_number(run, number)
            if owner not in self._mourned and not self._seats.is_alive(owner):
                self._mourned.add(owner)
                self._reactor.callFromThread(self._bury, leases, run, number)

    def _bury(self, leases: Leases, run: int, number: int) -> None:
        """In the reactor thread."""
        self._recover_journal().addBoth(
            lambda _: self._thread.change(lambda: self._forget(leases, run, number), is_durable=False)
        ).addErrback(lambda failure: self._log.warn("leases stay: {error}", error=failure.getErrorMessage()))

    def _forget(self, leases: Leases, run: int, number: int) -> None:
        owner = owner_number(run, number)
        self._mourned.discard(owner)
        if self._seats.is_alive(owner):
            # Its place was taken meanwhile, and its leases freed by who took it.
            return
        self._thread.open_database().connection.execute(_FORGET_WORKER, (run, number))
        freed = leases.free_worker(owner, self._after_death())
        if freed:
            self._log_freed(freed)
            self._thread.after_commit.append(lambda: self._thread.post(self._news))

    def _log_freed(self, count: int) -> None:
        if count:
            self._log.info("{count} recipients an ended process had taken wait again", count=count)
