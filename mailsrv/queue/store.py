"""The durable queue as the rest of the server sees it (:class:`IQueueStore`), and its threads.

::

    journal's apply thread ── QueueApplier ──▶ queue.db ◀── database thread ◀── reactor: take, settle, …
                                  │ content                      ▲ every second: what did others do?
                                  ▼                              │
                            content/xx/id  ◀── content thread ◀──┘ opens and verifies files

What waits for the database thread when it gets there shares one transaction, and one sync where anything
of it has to be durable. Order of start: this object, the journal (whose replay fills the queue), ``start``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import apsw
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.disk import IDisk, make_directories
from mailsrv.errors import InsufficientStorage, MailError, Unavailable
from mailsrv.interfaces.content import IContent
from mailsrv.interfaces.queue import (
    Consignment,
    Destination,
    DestinationState,
    IQueueStore,
    QueueEntry,
    Settlement,
)
from mailsrv.journal.lookup import JournalReader
from mailsrv.journal.worker import ThreadWorker, WorkerFactory
from mailsrv.queue.applier import QueueApplier
from mailsrv.queue.content import ContentFolder
from mailsrv.queue.content_thread import ContentThread
from mailsrv.queue.database import QueueDatabase
from mailsrv.queue.database_thread import DatabaseThread, IQueueReactor
from mailsrv.queue.housekeeping import (
    LiveSegments,
    forget_destinations,
    forget_finished,
    forget_segments,
    sweep_content,
)
from mailsrv.queue.leasing import Leases
from mailsrv.queue.rows import owner_number, run_number
from mailsrv.queue.salvage import DAMAGED
from mailsrv.queue.seats import Seats
from mailsrv.queue.settings import QueueSettings
from mailsrv.queue.settling import Settler
from mailsrv.queue.workers import Workers

_HOUSEKEEPING_SECONDS = 60.0
_FORGETTING_SECONDS = 6 * 3600.0
"""How often destinations nobody has mail for are forgotten: a table of all there ever were would only grow."""
_CLOCK_JUMP_SECONDS = 5.0


@implementer(IQueueStore)
class QueueStore:
    """See the module.

    ``directory`` is ``state_dir/queue``, shared by all workers; ``run_id`` names a run of the server,
    ``worker`` the process in it (of so many ``workers``, counted from 0). ``live_segments`` is the journal's,
    to be set before ``start``. ``applier`` is what the journal gives the queue's deliveries to.
    """

    _log = Logger()

    def __init__(
        self,
        settings: QueueSettings,
        directory: str,
        disk: IDisk,
        reactor: IQueueReactor,
        *,
        run_id: bytes,
        worker: int = 0,
        workers: int = 1,
        journal_directory: str = "",
        live_segments: LiveSegments | None = None,
        worker_factory: WorkerFactory[Any] = ThreadWorker,
        clock: Callable[[], float] = time.time,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._storage = settings.storage
        self._directory = directory
        self._disk = disk
        self._reactor = reactor
        run = run_number(run_id)
        self._owner = owner_number(run, worker)
        self.live_segments = live_segments
        self._clock = clock
        self._seconds = seconds
        self._lock = threading.Lock()
        self._seats = Seats(directory)
        self.recover_journal: Callable[[], Deferred[Any]] = lambda: succeed(None)
        """The journal's ``recover``, to be set before ``start``: applies what those who died left in theirs."""
        self.content = ContentFolder(disk, directory, self._storage.memory_octets)
        self.applier = QueueApplier(
            self._open_database,
            self.content,
            directory,
            most_events=self._storage.events_per_message,
            seconds=clock,
        )
        self.applier.on_enqueued = self._applied
        self._thread = DatabaseThread(
            worker_factory, reactor, self._idle, gather_seconds=self._storage.gather_seconds, seconds=seconds
        )
        self._content_thread = ContentThread(
            self.content,
            JournalReader(disk, journal_directory) if journal_directory else None,
            self._thread,
            reactor,
            worker_factory,
        )
        self._others = Workers(
            self._seats,
            self._thread,
            reactor,
            run=run,
            number=worker,
            count=workers,
            clock=clock,
            recover_journal=lambda: self.recover_journal(),  # noqa: PLW0108 - it is set later
            news=self._tell_news,
        )
        self._enqueued: Callable[[Sequence[DestinationState]], None] | None = None
        self._is_open = False
        self._is_stopped = False
        # Of the database thread.
        self._sweeper: threading.Thread | None = None
        self._leases: Leases | None = None
        self._settler: Settler | None = None
        self._data_version: object = None
        self._next_poll = 0.0
        self._next_housekeeping = 0.0
        self._next_forgetting = seconds() + _FORGETTING_SECONDS
        self._clock_ahead = clock() - seconds()
        self._unreturned: list[Consignment] = []
        self._is_poll_posted = False
        # Read by the reactor thread.
        self._messages = 0
        self._octets = 0
        self._is_disk_low = False

    def _open_database(self) -> QueueDatabase:
        make_directories(self._disk, self._directory)
        return QueueDatabase(self._directory, self._lock, self._storage.busy_seconds, replaces_damaged=True)

    # -- life -----------------------------------------------------------------------

    def start(self) -> Deferred[None]:
        """After the journal's replay: frees the leases of those who are dead. Fails with Unavailable."""
        self._thread.worker.start()
        self._content_thread.start()
        return self._thread.ask(self._start_in_thread).addErrback(self._start_failed)

    def _start_failed(self, failure: Failure) -> Failure:
        self._thread.stop()
        self._content_thread.stop()
        return failure

    def _start_in_thread(self) -> None:
        db = self._thread.db = self._open_database()
        self._disk.watch_file_system(self._directory)
        self._leases = Leases(db, self._owner, self._storage.lease_seconds)
        self._settler = Settler(db, self._owner, self._storage.events_per_message)
        try:
            self._take_seat(db, self._leases)
        except (apsw.FullError, apsw.IOError, OSError) as error:
            # A full disk is no reason not to start: who reads mail can make room. Nothing is sent until then.
            self._log.error("the queue waits for its disk: {error}", log_alarm="queue", error=repr(error))
        self._thread.told = db.wake_number()
        self._refresh(db)
        self._is_open = True

    def _take_seat(self, db: QueueDatabase, leases: Leases) -> None:
        """The first of a run also tidies up."""
        if self._others.take_seat(db, leases):
            forget_destinations(db)
            self._sweeper = threading.Thread(target=self._sweep, name="queue-sweep", daemon=True)
            self._sweeper.start()

    def _sweep(self) -> None:
        """In a thread of its own, once."""
        try:
            db = self._open_database()
            try:
                db.check()
                removed = sweep_content(db, self._disk, self.content, lambda: self._is_stopped)
            finally:
                db.close()
        except (OSError, MailError, apsw.Error) as error:
            self._log.warn("the content of the queue was not tidied: {error}", error=str(error))
            return
        if removed:
            self._log.info("{count} files of messages that have left were removed", count=removed)

    def stop(self) -> Deferred[None]:
        """After the journal has stopped. What was asked before is done; leases stay until the next start."""
        if not self._is_open or self._is_stopped:
            return succeed(None)
        self._is_stopped = True
        stopped = self._thread.ask(self._stop_in_thread)
        self._thread.stop()
        self._content_thread.stop()
        return stopped

    def _stop_in_thread(self) -> None:
        if self._sweeper is not None:
            self._sweeper.join()
        self.applier.close()
        if self._thread.db is not None:
            self._thread.db.close()
            self._thread.db = None
        self._seats.release()

    # -- the database thread -----------------------------------------------------------

    def _idle(self, db: QueueDatabase) -> float:
        """What is done now and then; seconds until the next time."""
        now = self._seconds()
        if now >= self._next_poll:
            self._next_poll = now + self._storage.poll_seconds
            try:
                self._poll(db)
                if now >= self._next_housekeeping:
                    self._next_housekeeping = now + _HOUSEKEEPING_SECONDS
                    if self._keep_house(db):
                        self._next_housekeeping = now
            except (apsw.Error, OSError, MailError) as error:
                if isinstance(error, DAMAGED):
                    db.mend(error)
                self._log.error("the queue cannot be looked through: {error}", log_alarm="queue", error=repr(error))
        return max(0.0, self._next_poll - self._seconds())

    def _poll(self, db: QueueDatabase) -> None:
        if not self._others.has_seat and self._leases is not None:
            self._take_seat(db, self._leases)
        if self._unreturned:
            unreturned = tuple(self._unreturned)
            with db.transaction(is_durable=False):
                for consignment in unreturned:
                    self._give_back(consignment)
            del self._unreturned[: len(unreturned)]
            # Nobody else changed anything, and yet it is news: nothing waited here meanwhile.
            self._tell_news()
        db.follow()
        version = db.generation, db.connection.pragma("data_version")
        if version != self._data_version:
            self._tell_news()
            self._data_version = version
        if self._leases is not None:
            self._others.look_for_dead(db, self._leases)
        self._refresh(db)
        space = self._disk.space_left(self._directory)
        self._is_disk_low = space.free_octets < self._storage.free_space_floor

    def _tell_news(self) -> None:
        self._is_poll_posted = False
        if self._leases is None:
            return
        self._thread.told, states = self._leases.news(self._thread.told)
        if states and self._enqueued is not None:
            self._reactor.callFromThread(self._enqueued, states)

    def _refresh(self, db: QueueDatabase) -> None:
        self._messages, self._octets = db.row("SELECT messages, octets FROM queue")

    def _keep_house(self, db: QueueDatabase) -> bool:
        """Whether there is more to do."""
        if self._leases is not None:
            ahead = self._clock() - self._seconds()
            jumped, self._clock_ahead = ahead - self._clock_ahead, ahead
            with db.transaction(is_durable=False):
                if jumped > _CLOCK_JUMP_SECONDS:
                    # The system's time was set: what is under way took no longer for that.
                    self._leases.lengthen(jumped)
                freed = self._leases.free_expired(self._clock())
            if freed:
                self._log.error("{count} recipients were taken and never settled; they wait again", count=freed)
                self._tell_news()
        if self._seconds() >= self._next_forgetting:
            self._next_forgetting = self._seconds() + _FORGETTING_SECONDS
            forget_destinations(db)
        if self.live_segments is None:
            return False
        forget_segments(db, self.live_segments)
        return forget_finished(db, self._storage, self.live_segments, self._clock())

    # -- IQueueStore ----------------------------------------------------------------------

    def check_acceptance(self, octets: int, recipients: int) -> MailError | None:
        if not self._is_open or self._is_stopped:
            return Unavailable(cause="the queue is not open")
        if self._messages >= self._settings.max_messages:
            return InsufficientStorage(cause="too many messages in the queue")
        if self._octets + octets > self._storage.max_octets:
            return InsufficientStorage(cause="too much mail in the queue")
        if self._is_disk_low:
            return InsufficientStorage(cause="too little free disk for the queue")
        return None

    def listen(self, enqueued: Callable[[Sequence[DestinationState]], None]) -> None:
        self._enqueued = enqueued

    def _applied(self, messages: int, octets: int) -> None:
        """In the journal's apply thread: mail came in."""
        # Counted twice or not at all for a moment; the next look at the database puts it right.
        self._messages += messages
        self._octets += octets
        if self._is_open and not self._is_poll_posted:
            self._is_poll_posted = True
            self._thread.post(self._tell_news)

    def destinations(self) -> Deferred[Sequence[DestinationState]]:
        return self._thread.ask(lambda: self._open_leases().destinations())

    def state(self, destination: Destination) -> Deferred[DestinationState]:
        return self._thread.ask(lambda: self._open_leases().state(destination))

    def _open_leases(self) -> Leases:
        if self._leases is None or self._thread.db is None:
            raise Unavailable(cause="the queue is not open")
        if not self._others.has_seat:
            raise InsufficientStorage(cause="the queue waits for its disk")
        return self._leases

    def take(
        self, destination: Destination, now: float, messages: int, recipients: int
    ) -> Deferred[Sequence[Consignment]]:
        return self._thread.change(
            lambda: self._open_leases().take(destination, now, messages, recipients), is_durable=False
        )

    def settle(self, entry: QueueEntry, settlements: Sequence[Settlement]) -> Deferred[None]:
        return self._thread.change_soon(lambda: self._settle(entry.id, settlements))

    def _settle(self, message: int, settlements: Sequence[Settlement]) -> None:
        if self._settler is not None and self._settler.settle(message, settlements, self._clock()):
            self._thread.after_commit.append(lambda: self._finished(message))

    def _finished(self, message: int) -> None:
        """In the database thread, when it is durable that nobody is owed it any more."""
        if self.content.fresh(message) is not None:
            self.content.forget(message)
        else:
            self.content.remove(message)

    def give_back(self, consignment: Consignment) -> None:
        given = self._thread.change(lambda: self._give_back(consignment), is_durable=False)
        # The database thread tries again until it is done.
        given.addErrback(lambda _: self._unreturned.append(consignment))

    def _give_back(self, consignment: Consignment) -> None:
        if self._settler is not None:
            self._settler.give_back(consignment)

    def renew(self, entry_ids: Sequence[int]) -> None:
        renewed = self._thread.change(lambda: self._open_leases().renew(entry_ids, self._clock()), is_durable=False)
        renewed.addErrback(lambda failure: self._log.warn("leases stay: {error}", error=failure.getErrorMessage()))

    def open_content(self, entry: QueueEntry) -> Deferred[IContent]:
        return self._content_thread.open(entry)
