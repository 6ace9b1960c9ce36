"""The journal as the rest of the server sees it (:class:`IJournal`), and its threads.

::

    reactor ──commit()──▶ commit thread ──▶ apply thread ──answers──▶ reactor
                               ▲   notes, withdrawals │
                               └──────────────────────┘
              keeper thread: spare segments, free space, checkpoints
              spool threads: large messages on their way in

A record costs the reactor thread one hand-over in (a queue) and a share of one hand-over back: all
that one batch finished is answered in one call. The wait for the apply is bounded by one timer for all.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from attrs import field, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.disk import IDisk
from mailsrv.errors import InsufficientStorage, MailError, Unavailable
from mailsrv.interfaces.content import FileContent
from mailsrv.interfaces.journal import Applied, IApplier, IJournal, JournalRecord
from mailsrv.journal.apply import ApplyHooks, ApplyItem, ApplyStage
from mailsrv.journal.commit import CommitHooks, CommitItem, CommitStage
from mailsrv.journal.entry import Entry, Job
from mailsrv.journal.keeper import Keeper, KeeperHooks
from mailsrv.journal.live_list import read_live_list
from mailsrv.journal.recovery import recover_all_slots
from mailsrv.journal.replay import read_control_state, weigh
from mailsrv.journal.settings import JournalSettings
from mailsrv.journal.slot import Slot, slot_directories
from mailsrv.journal.spool import Spool, SpoolFiles, SpoolJob, run_jobs
from mailsrv.journal.stuck import StuckDelivery, StuckFolder
from mailsrv.journal.worker import IWorker, ThreadWorker, WorkerFactory


class IJournalReactor(Protocol):
    """What the journal needs of the reactor."""

    def callLater(self, delay: float, function: Callable[..., object], /, *arguments: object) -> IDelayedCall: ...

    def callFromThread(self, function: Callable[..., object], /, *arguments: object) -> None: ...


@frozen
class JournalStatus:
    """For health and metrics."""

    is_running: bool
    live_segments: int
    unapplied_octets: int
    blocked_deliveries: int
    free_octets: int
    floor_octets: int
    failed_checkpoints: int


@frozen
class RetriedDelivery:
    """What ``retry_stuck`` did with one of them."""

    name: str
    is_delivered: bool
    error: str = ""


@frozen
class _Stages:
    """What exists once the slot is there."""

    slot: Slot
    commit: CommitStage
    apply: ApplyStage
    keeper: Keeper
    spool_files: SpoolFiles = field()


@implementer(IJournal)
class Journal:
    """See the module.

    ``directory`` is ``state_dir/journal``, shared by all processes of the server. ``recovers_others``:
    whether this process also replays the slots of processes that have ended.
    """

    _log = Logger()

    def __init__(
        self,
        settings: JournalSettings,
        directory: str,
        disk: IDisk,
        applier: IApplier,
        reactor: IJournalReactor,
        *,
        worker_factory: WorkerFactory[Any] = ThreadWorker,
        seconds: Callable[[], float] = time.monotonic,
        recovers_others: bool = True,
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._disk = disk
        self._applier = applier
        self._reactor = reactor
        # Not the reactor's clock: that one moves with the system's time, and threads ask, too.
        self._seconds = seconds
        self._recovers_others = recovers_others
        self._stages: _Stages | None = None
        self._refusal: MailError | None = Unavailable(cause="the journal is not open")
        self._stuck = StuckFolder(disk, os.path.join(directory, "stuck"))
        self._commit_worker: IWorker[CommitItem] = worker_factory("journal-commit", self._handle_commit)
        self._apply_worker: IWorker[ApplyItem] = worker_factory("journal-apply", self._handle_apply)
        self._keeper_worker: IWorker[Job] = worker_factory("journal-keeper", self._handle_keeper)
        spool_workers: list[IWorker[SpoolJob]] = [
            worker_factory(f"journal-spool-{number}", run_jobs) for number in range(max(1, settings.spool_threads))
        ]
        self._spool_workers = spool_workers
        self._spool_files = SpoolFiles(disk, lambda: self._open_stages().slot.spool_directory)
        self.spool = Spool(settings, self._spool_files, spool_workers, reactor)
        # Entries in the order of their commit, for the bound on the wait.
        self._waiting: deque[Entry] = deque()
        self._noting: set[Entry] = set()
        # Entries given to the apply thread (counted in the commit thread) and done with (in the apply thread).
        self._handed_on = 0
        self._handled = 0
        self._is_lingering = False
        self._sweep_call: IDelayedCall | None = None
        self._next_recovery = 0.0
        self._is_starting = False
        self._wants_stop: list[Deferred[None]] = []
        self._stopped: Deferred[None] | None = None

    # -- life -----------------------------------------------------------------

    def start(self) -> Deferred[None]:
        """Take a free slot, replay it and (unless told otherwise) those of ended processes; fires when all is applied.

        What an account cannot take now does not hold up the start. Fails with OSError where the
        journal cannot be read or written, FormatError where a record is not understood.
        """
        started: Deferred[None] = Deferred()
        self._is_starting = True
        for worker in self._workers():
            worker.start()
        self._apply_worker.post(lambda: self._open_in_thread(started))
        return started

    def _workers(self) -> list[IWorker[Any]]:
        return [self._commit_worker, self._apply_worker, self._keeper_worker, *self._spool_workers]

    def _open_in_thread(self, started: Deferred[None]) -> None:
        """In the apply thread."""
        slot: Slot | None = None
        try:
            slot = Slot.claim_free(self._directory, self._disk, self._settings)
            stages = self._make_stages(slot)
            self._replay_own(stages)
            if self._recovers_others:
                recover_all_slots(self._settings, self._directory, self._disk, self._applier)
        except Exception:
            failure = Failure()
            if slot is not None:
                slot.close()
            self._reactor.callFromThread(self._start_failed, started, failure)
            return
        self._reactor.callFromThread(self._started, stages, started)

    def _make_stages(self, slot: Slot) -> _Stages:
        slot.open()
        self._disk.watch_file_system(self._directory)
        commit = CommitStage(
            slot=slot,
            spool=self._spool_files,
            seconds=self._seconds,
            hooks=CommitHooks(
                self._synced_in_thread,
                self._refused_in_thread,
                self._wake_keeper,
            ),
        )
        apply = ApplyStage(
            self._settings,
            slot=slot,
            disk=self._disk,
            applier=self._applier,
            stuck=self._stuck,
            hooks=ApplyHooks(
                lambda entries: self._reactor.callFromThread(self._answer, entries),
                self._commit_worker.post,
                self._wake_keeper,
            ),
            seconds=self._seconds,
        )
        keeper = Keeper(
            self._settings,
            slot=slot,
            disk=self._disk,
            applier=self._applier,
            stage=apply,
            hooks=KeeperHooks(self._apply_worker.post, self._commit_worker.post, self._keeper_worker.post),
            seconds=self._seconds,
        )
        return _Stages(slot, commit, apply, keeper, self._spool_files)

    def _replay_own(self, stages: _Stages) -> None:
        slot = stages.slot
        state = read_control_state(slot)
        slot.remove_orphans()
        stages.keeper.look_at_space()
        # Replay may already have to write (stuck deliveries): the committer must find its stage.
        self._stages = stages
        segments = list(slot.live)
        for live in segments:
            stages.apply.replay(live, state)

    def _start_failed(self, started: Deferred[None], failure: Failure) -> None:
        self._stages = None
        for worker in self._workers():
            worker.stop()
        self._is_starting = False
        started.errback(failure)
        self._stop_as_wanted()

    def _started(self, stages: _Stages, started: Deferred[None]) -> None:
        self._stages = stages
        self._refusal = None
        self._next_recovery = self._seconds() + self._settings.recovery_interval
        self.spool.open()
        self._wake_keeper()
        self._is_starting = False
        started.callback(None)
        self._stop_as_wanted()

    def _stop_as_wanted(self) -> None:
        """``stop`` was called before the start was over."""
        waiting, self._wants_stop = self._wants_stop, []
        for stopped in waiting:
            self.stop().chainDeferred(stopped)

    def stop(self) -> Deferred[None]:
        """Finish what was accepted, make it durable in its mailboxes, let the slot go.

        After this a start replays nothing, except what an account could not take.
        """
        if self._is_starting:
            later: Deferred[None] = Deferred()
            self._wants_stop.append(later)
            return later
        if self._stopped is not None or self._stages is None:
            return succeed(None)
        self._refusal = Unavailable("Server is shutting down")
        self.spool.close()
        self._stopped = Deferred()
        stages = self._stages
        # Large messages that are being finished come first, then what was committed, then its notes.
        self._spool_workers[0].post(lambda: self._commit_worker.post(lambda: self._stop_apply(stages)))
        return self._stopped

    def _stop_apply(self, stages: _Stages) -> None:
        def retry_then_notes() -> None:
            stages.apply.retry(at_once=True)
            self._commit_worker.post(close_then_touched)

        def close_then_touched() -> None:
            stages.slot.close_current()
            self._apply_worker.post(ask_applier)

        def ask_applier() -> None:
            touched = stages.keeper.ask_touched()
            self._keeper_worker.post(lambda: self._stop_keeper(stages, touched))

        self._apply_worker.post(retry_then_notes)

    def _stop_keeper(self, stages: _Stages, touched: Collection[str] | Exception) -> None:
        """In the keeper's thread, after everything else."""
        stages.keeper.stop(touched)
        self._reactor.callFromThread(self._finish_stop, stages)

    def _finish_stop(self, stages: _Stages) -> None:
        if self._sweep_call is not None and self._sweep_call.active():
            self._sweep_call.cancel()
        for worker in self._spool_workers:
            worker.stop()
        self._commit_worker.post(lambda: self._end(stages, self._apply_worker, lambda: self._end_keeper(stages)))
        self._commit_worker.stop()

    def _end(self, stages: _Stages, worker: IWorker[Any], then: Job) -> None:
        worker.post(lambda: self._keeper_worker.post(then))
        worker.stop()

    def _end_keeper(self, stages: _Stages) -> None:
        """The last thing any of the threads does."""
        stages.slot.close()
        self._keeper_worker.stop()
        self._reactor.callFromThread(self._ended)

    def _ended(self) -> None:
        stopped, self._stopped = self._stopped, succeed(None)
        error = Unavailable("Server is shutting down")
        # All that is synced was answered; what is left met a disk that takes nothing more.
        for entry in (*self._waiting, *self._noting):
            if entry.waiter is not None:
                entry.error = entry.error or error
                self._answer([entry])
        self._waiting.clear()
        if stopped is not None:
            stopped.callback(None)

    # -- threads ----------------------------------------------------------------

    def _open_stages(self) -> _Stages:
        if self._stages is None:
            raise Unavailable(cause="the journal is not open")
        return self._stages

    def _handle_commit(self, items: list[CommitItem]) -> float | None:
        return self._open_stages().commit.handle(items) if self._stages is not None else None

    def _handle_apply(self, items: list[ApplyItem]) -> float | None:
        if self._stages is None:
            # Only the first job of all comes before there is a stage: the one that makes it.
            for item in items:
                if not isinstance(item, list):
                    item()
            return 0.0 if self._stages is not None else None
        handled = sum(len(item) for item in items if isinstance(item, list))
        try:
            delay = self._stages.apply.handle(items)
        finally:
            self._handled += handled
        if handled:
            # A busy server stores in larger batches, which cost a message half as much.
            self._is_lingering = handled >= self._settings.linger_from
            self._apply_worker.set_linger(self._settings.apply_linger if self._is_lingering else 0.0)
        self._recover_others()
        return delay

    def _handle_keeper(self, items: list[Job]) -> float | None:
        return self._stages.keeper.handle(items) if self._stages is not None else None

    def _wake_keeper(self) -> None:
        self._keeper_worker.post(_nothing)

    def recover(self) -> Deferred[None]:
        """Replay the slots of processes that ended, now; fires when that is done, well or not."""
        if self._refusal is not None:
            return succeed(None)
        recovered: Deferred[None] = Deferred()

        def job() -> None:
            self._next_recovery = 0.0
            try:
                self._recover_others()
            finally:
                self._reactor.callFromThread(recovered.callback, None)

        self._apply_worker.post(job)
        return recovered

    def _recover_others(self) -> None:
        """In the apply thread, now and then: the slots of processes that ended since."""
        now = self._seconds()
        if not self._recovers_others or self._refusal is not None or now < self._next_recovery:
            return
        self._next_recovery = now + self._settings.recovery_interval
        try:
            recover_all_slots(self._settings, self._directory, self._disk, self._applier)
        except (OSError, ValueError) as error:
            self._log.error("the journal of an ended process was not replayed: {error}", error=error)

    # -- IJournal ---------------------------------------------------------------

    def check_acceptance(self, octets: int) -> MailError | None:
        if self._refusal is not None:
            return self._refusal
        stages = self._open_stages()
        slot, keeper = stages.slot, stages.keeper
        if slot.unapplied_octets + octets > self._settings.backlog_octets and slot.unapplied_octets:
            return InsufficientStorage(cause="too much mail is not in its mailboxes yet")
        if keeper.space.free_octets - octets < keeper.floor:
            return InsufficientStorage(cause="free disk space is below the floor")
        # The last segment is for notes and withdrawals.
        if len(slot.live) >= self._settings.most_segments:
            return InsufficientStorage(cause="all journal segments hold mail that is not stored yet")
        return None

    def commit(self, record: JournalRecord) -> Deferred[None]:
        entry = Entry(record, weigh(record))
        refused = self._begin(entry)
        if refused is not None:
            return fail(refused)
        waiter: Deferred[None] = Deferred()
        entry.waiter = waiter
        self._waiting.append(entry)
        if self._sweep_call is None:
            self._sweep_call = self._reactor.callLater(self._settings.apply_wait / 4, self._sweep)
        self._commit_worker.post(entry)
        return waiter

    def commit_and_note(self, record: JournalRecord) -> Deferred[Sequence[Applied]]:
        entry = Entry(record, weigh(record), wants_note=True)
        refused = self._begin(entry)
        if refused is not None:
            return fail(refused)
        waiter: Deferred[Sequence[Applied]] = Deferred()
        entry.waiter = waiter
        self._noting.add(entry)
        self._commit_worker.post(entry)
        return waiter

    def live_segments(self) -> frozenset[bytes]:
        stages = self._open_stages()
        ids: set[bytes] = set(stages.slot.live_ids())
        try:
            for directory in slot_directories(self._disk, self._directory):
                if directory != stages.slot.directory:
                    ids |= read_live_list(self._disk, directory)
            ids |= self._stuck.segment_ids()
        except OSError as error:
            raise Unavailable(cause=str(error)) from error
        return frozenset(ids)

    # -- a record's way -----------------------------------------------------------

    def _begin(self, entry: Entry) -> MailError | None:
        error = self.check_acceptance(entry.octets)
        stages = self._stages
        if stages is None or error is not None:
            self._discard(entry.record)
            return error or Unavailable()
        for message in entry.record.messages:
            content = message.content
            if isinstance(content, FileContent) and os.path.dirname(content.path) != stages.slot.spool_directory:
                return Unavailable(cause="file content that is not of this journal's spool")
        with stages.slot.lock:
            stages.slot.unapplied_octets += entry.octets
        return None

    def _discard(self, record: JournalRecord) -> None:
        for message in record.messages:
            self.spool.discard(message.content)

    def _synced_in_thread(self, entries: Sequence[Entry]) -> None:
        """In the commit thread: these are durable.

        Where the apply thread is behind, waiting for it would only keep its batches small and so
        make it slower still: the answer goes now. Too far behind, everybody waits for it again.
        """
        behind = self._handed_on - self._handled
        self._handed_on += len(entries)
        self._apply_worker.post(list(entries))
        if (behind or self._is_lingering) and behind + len(entries) <= self._settings.apply_ahead:
            self._reactor.callFromThread(self._answer, [entry for entry in entries if not entry.wants_note])

    def _refused_in_thread(self, entries: Sequence[Entry]) -> None:
        """In the commit thread: nothing of these will be delivered."""
        stages = self._open_stages()
        with stages.slot.lock:
            for entry in entries:
                stages.slot.unapplied_octets -= entry.octets
        for entry in entries:
            self._discard(entry.record)
        self._reactor.callFromThread(self._answer, list(entries))

    def _answer(self, entries: Sequence[Entry]) -> None:
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
        """Answer what was synced ``apply_wait`` ago and is still not applied: it is durable."""
        self._sweep_call = None
        waiting = self._waiting
        limit = self._seconds() - self._settings.apply_wait
        while waiting:
            entry = waiting[0]
            if entry.waiter is not None:
                if entry.synced_at is None or entry.synced_at > limit:
                    break
                self._answer([entry])
            waiting.popleft()
        if waiting:
            self._sweep_call = self._reactor.callLater(self._settings.apply_wait / 4, self._sweep)

    # -- for the administrator ------------------------------------------------------

    def status(self) -> JournalStatus:
        """Numbers, from memory."""
        stages = self._stages
        if stages is None:
            return JournalStatus(False, 0, 0, 0, 0, 0, 0)
        return JournalStatus(
            self._refusal is None,
            len(stages.slot.live),
            stages.slot.unapplied_octets,
            stages.apply.blocked_deliveries,
            stages.keeper.space.free_octets,
            stages.keeper.floor,
            stages.keeper.failed_checkpoints,
        )

    def list_stuck(self) -> Deferred[list[StuckDelivery]]:
        """Deliveries that were put aside."""
        return self._in_apply_thread(self._stuck.list)

    def retry_stuck(self, names: Sequence[str] | None = None) -> Deferred[list[RetriedDelivery]]:
        """Try these (or all) again, under their old keys; a file goes when its mail is durable in the mailbox."""
        return self._in_apply_thread(lambda: self._retry_stuck(names))

    def remove_stuck(self, name: str) -> Deferred[None]:
        """Give one up for good."""
        return self._in_apply_thread(lambda: self._stuck.remove(name))

    def _retry_stuck(self, names: Sequence[str] | None) -> list[RetriedDelivery]:
        wanted = [stuck.name for stuck in self._stuck.list()] if names is None else names
        return [self._retry_one_stuck(name) for name in wanted]

    def _retry_one_stuck(self, name: str) -> RetriedDelivery:
        stages = self._open_stages()
        pending = self._stuck.load(name, stages.slot.spool_directory)
        if pending is None:
            return RetriedDelivery(name, False, "no such file, or it is damaged")
        try:
            (answer,) = self._applier.apply([pending])
            if not isinstance(answer, Applied):
                return RetriedDelivery(name, False, answer.error.text)
            try:
                self._disk.sync_paths(self._applier.take_touched())
            except (OSError, MailError) as error:
                self._applier.checkpoint_failed([pending.key])
                with stages.slot.lock:
                    segments = list(stages.slot.live)
                stages.apply.redo(segments)
                text = error.text if isinstance(error, MailError) else os.strerror(error.errno or 0)
                return RetriedDelivery(name, False, text)
            self._stuck.remove(name)
        finally:
            if isinstance(pending.message.content, FileContent):
                stages.slot.remove_spool_file(pending.message.content.path)
        return RetriedDelivery(name, True)

    def _in_apply_thread(self, function: Callable[[], Any]) -> Deferred[Any]:
        if self._stages is None or self._stopped is not None:
            return fail(Unavailable(cause="the journal is not open"))
        result: Deferred[Any] = Deferred()

        def job() -> None:
            try:
                value = function()
            except Exception:
                self._reactor.callFromThread(result.errback, Failure())
            else:
                self._reactor.callFromThread(result.callback, value)

        self._apply_worker.post(job)
        return result


def _nothing() -> None:
    """Only wakes a thread."""
