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
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.disk import IDisk
from mailsrv.errors import InsufficientStorage, MailError, Unavailable
from mailsrv.interfaces.content import FileContent
from mailsrv.interfaces.journal import Applied, IApplier, IJournal, JournalRecord
from mailsrv.journal.answers import Answers, IJournalReactor
from mailsrv.journal.apply import ApplyHooks, ApplyItem, ApplyStage
from mailsrv.journal.checkpoint import Checkpoints
from mailsrv.journal.commit import CommitHooks, CommitItem, CommitStage
from mailsrv.journal.ending import Ending
from mailsrv.journal.entry import Entry, Job
from mailsrv.journal.hand_over import HandOver
from mailsrv.journal.keeper import Keeper, KeeperHooks
from mailsrv.journal.live_list import read_live_list
from mailsrv.journal.pace import Pace
from mailsrv.journal.recovery import RecoveryOfOthers
from mailsrv.journal.replay import read_control_state, weigh
from mailsrv.journal.retry import RetriedDelivery, retry_stuck
from mailsrv.journal.settings import JournalSettings
from mailsrv.journal.slot import Slot, slot_directories
from mailsrv.journal.spool import Spool, SpoolFiles, run_jobs
from mailsrv.journal.stages import Stages, Threads
from mailsrv.journal.status import JournalStatus, status_of
from mailsrv.journal.stuck import StuckDelivery, StuckFolder
from mailsrv.journal.worker import ThreadWorker, WorkerFactory, ask_worker

_log = Logger()


@implementer(IJournal)
class Journal:
    """See the module.

    ``directory`` is ``state_dir/journal``, shared by all processes of the server. ``recovers_others``:
    whether this process also replays the slots of processes that have ended.
    """

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
        self._checkpoints = Checkpoints(disk, directory)
        others = RecoveryOfOthers(
            settings,
            directory,
            disk,
            applier,
            checkpoints=self._checkpoints,
            seconds=seconds,
            sync_failed=self._sync_failed,
        )
        self._others = others if recovers_others else None
        self._stages: Stages | None = None
        self._refusal: MailError | None = Unavailable(cause="the journal is not open")
        self._stuck = StuckFolder(disk, os.path.join(directory, "stuck"))
        self._threads = Threads(
            worker_factory("journal-commit", self._handle_commit),
            worker_factory("journal-apply", self._handle_apply),
            worker_factory("journal-keeper", self._handle_keeper),
            [worker_factory(f"journal-spool-{number}", run_jobs) for number in range(max(1, settings.spool_threads))],
        )
        self._spool_files = SpoolFiles(disk, lambda: self._open_stages().slot.spool_directory)
        self.spool = Spool(settings, self._spool_files, self._threads.spool, reactor)
        self._to_commit = HandOver(self._threads.commit, reactor)
        self._answers = Answers(reactor, settings.apply_wait, seconds)
        self._pace = Pace(settings, seconds)
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
        for worker in self._threads.all():
            worker.start()
        self._threads.apply.post(lambda: self._open_in_thread(started))
        return started

    def _open_in_thread(self, started: Deferred[None]) -> None:
        """In the apply thread."""
        slot: Slot | None = None
        try:
            slot = Slot.claim_free(self._directory, self._disk, self._settings)
            stages = self._make_stages(slot)
            self._replay_own(stages)
            if self._others is not None:
                self._others.recover()
        except Exception:
            failure = Failure()
            if slot is not None:
                slot.close()
            self._reactor.callFromThread(self._start_failed, started, failure)
            return
        self._reactor.callFromThread(self._started, stages, started)

    def _make_stages(self, slot: Slot) -> Stages:
        slot.open()
        self._disk.watch_file_system(self._directory)
        commit = CommitStage(
            slot=slot,
            spool=self._spool_files,
            seconds=self._seconds,
            hooks=CommitHooks(self._synced_in_thread, self._refused_in_thread, self._wake_keeper),
        )
        apply = ApplyStage(
            self._settings,
            slot=slot,
            disk=self._disk,
            applier=self._applier,
            stuck=self._stuck,
            hooks=ApplyHooks(
                lambda entries: self._reactor.callFromThread(self._answers.give, entries),
                self._threads.commit.post,
                self._wake_keeper,
            ),
            seconds=self._seconds,
        )
        keeper = Keeper(
            self._settings,
            slot=slot,
            disk=self._disk,
            applier=self._applier,
            checkpoints=self._checkpoints,
            stage=apply,
            hooks=KeeperHooks(self._threads.apply.post, self._threads.commit.post, self._threads.keeper.post),
            seconds=self._seconds,
        )
        return Stages(slot, commit, apply, keeper)

    def _replay_own(self, stages: Stages) -> None:
        slot = stages.slot
        state = read_control_state(slot)
        slot.remove_orphans()
        stages.keeper.look_at_space()
        # Replay may already have to write (stuck deliveries): the committer must find its stage.
        self._stages = stages
        if self._checkpoints.is_doubtful():
            stages.apply.redo(list(slot.live))
            return
        for live in list(slot.live):
            stages.apply.replay(live, state)

    def _sync_failed(self) -> None:
        """In the apply thread, after the replay of another's slot."""
        if self._stages is not None:
            self._stages.keeper.other_sync_failed()

    def _start_failed(self, started: Deferred[None], failure: Failure) -> None:
        self._stages = None
        for worker in self._threads.all():
            worker.stop()
        self._is_starting = False
        started.errback(failure)
        self._stop_as_wanted()

    def _started(self, stages: Stages, started: Deferred[None]) -> None:
        self._stages = stages
        self._refusal = None
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
        self._to_commit.flush()
        self._stopped = Deferred()
        Ending(self._threads, self._stages, self._answers, self._reactor, self._ended).begin()
        return self._stopped

    def _ended(self) -> None:
        stopped, self._stopped = self._stopped, succeed(None)
        # All that is synced was answered; what is left met a disk that takes nothing more.
        self._answers.fail_all(Unavailable("Server is shutting down"))
        if stopped is not None:
            stopped.callback(None)

    # -- threads ----------------------------------------------------------------

    def _open_stages(self) -> Stages:
        if self._stages is None:
            raise Unavailable(cause="the journal is not open")
        return self._stages

    def _handle_commit(self, items: list[CommitItem]) -> float | None:
        return self._stages.commit.handle(items) if self._stages is not None else None

    def _handle_apply(self, items: list[ApplyItem]) -> float | None:
        if self._stages is None:
            # Only the first job of all comes before there is a stage: the one that makes it.
            for item in items:
                if not isinstance(item, list):
                    item()
            return 0.0 if self._stages is not None else None
        entries = [entry for item in items if isinstance(item, list) for entry in item]
        try:
            delay = self._stages.apply.handle(items)
        finally:
            self._pace.done_with(len(entries))
        if entries:
            # Who waits for a UID does not count: an import of one message after the other would slow itself.
            messages = sum(not entry.wants_note for entry in entries)
            self._threads.apply.set_linger(self._pace.linger_after(messages))
        self._recover_others()
        return delay

    def _handle_keeper(self, items: list[Job]) -> float | None:
        return self._stages.keeper.handle(items) if self._stages is not None else None

    def _wake_keeper(self) -> None:
        self._threads.keeper.post(lambda: None)

    def recover(self) -> Deferred[None]:
        """Replay the slots of processes that ended, now; fires when that is done, well or not."""
        if self._refusal is not None:
            return succeed(None)
        recovered = ask_worker(self._threads.apply, self._reactor, lambda: self._recover_others(at_once=True))
        return recovered.addErrback(lambda failure: _log.failure("journals of others were not replayed", failure))

    def _recover_others(self, *, at_once: bool = False) -> None:
        if self._others is not None and self._refusal is None:
            self._others.recover_when_due(at_once=at_once)

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
        waiter = self._answers.expect(entry)
        self._to_commit.post(entry)
        return waiter

    def commit_and_note(self, record: JournalRecord) -> Deferred[Sequence[Applied]]:
        entry = Entry(record, weigh(record), wants_note=True)
        refused = self._begin(entry)
        if refused is not None:
            return fail(refused)
        waiter = self._answers.expect_note(entry)
        self._to_commit.post(entry)
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
        """In the commit thread: these are durable."""
        goes_ahead = self._pace.handed_on(len(entries))
        self._threads.apply.post(list(entries))
        if goes_ahead:
            self._reactor.callFromThread(self._answers.give, [entry for entry in entries if not entry.wants_note])

    def _refused_in_thread(self, entries: Sequence[Entry]) -> None:
        """In the commit thread: nothing of these will be delivered."""
        stages = self._open_stages()
        with stages.slot.lock:
            for entry in entries:
                stages.slot.unapplied_octets -= entry.octets
        for entry in entries:
            self._discard(entry.record)
        self._reactor.callFromThread(self._answers.give, list(entries))

    # -- for the administrator ------------------------------------------------------

    def status(self) -> JournalStatus:
        """Numbers, from memory."""
        return status_of(self._stages, is_running=self._refusal is None)

    def list_stuck(self) -> Deferred[list[StuckDelivery]]:
        """Deliveries that were put aside."""
        return self._in_apply_thread(self._stuck.list)

    def retry_stuck(self, names: Sequence[str] | None = None) -> Deferred[list[RetriedDelivery]]:
        """Try these (or all) again, under their old keys; a file goes when its mail is durable in the mailbox."""
        return self._in_apply_thread(lambda: self._retry_stuck(names))

    def _retry_stuck(self, names: Sequence[str] | None) -> list[RetriedDelivery]:
        wanted = [stuck.name for stuck in self._stuck.list()] if names is None else names
        stages = self._open_stages()
        return [retry_stuck(name, self._stuck, stages, self._checkpoints, self._applier) for name in wanted]

    def _in_apply_thread(self, function: Callable[[], Any]) -> Deferred[Any]:
        if self._stages is None or self._stopped is not None:
            return fail(Unavailable(cause="the journal is not open"))
        return ask_worker(self._threads.apply, self._reactor, function)
