"""Checkpoints, spare segments and the watch on free space: what may take its time.

A *checkpoint* makes durable, where they belong, the deliveries of segments that are done, and then
forgets the records. When a sync fails nothing is forgotten: everything that was applied from the live
segments is applied again. It takes two threads: the applier is asked in the apply thread what it has
touched, the syncs run in the keeper's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from functools import partial

from attrs import frozen
from twisted.logger import Logger

from mailsrv.disk import IDisk, SpaceLeft
from mailsrv.errors import MailError
from mailsrv.interfaces.journal import IApplier
from mailsrv.journal.apply import ApplyStage
from mailsrv.journal.checkpoint import Checkpoints
from mailsrv.journal.entry import Job
from mailsrv.journal.octets import FormatError
from mailsrv.journal.settings import JournalSettings
from mailsrv.journal.slot import LiveSegment, Slot

TICK_SECONDS = 1.0
_LONGEST_PAUSE = 30.0
_CLOCK_ALLOWANCE_NS = 3600 * 10**9
"""File times may come from a clock that was set a little; syncing a file too many harms nobody."""


@frozen
class KeeperHooks:
    """The other threads."""

    post_apply: Callable[[Job], object]
    post_commit: Callable[[Job], object]
    post_keeper: Callable[[Job], object]


@frozen
class Touched:
    """What a checkpoint has to sync."""

    directories: Collection[str]
    failures: int
    """How many syncs had failed when that was written."""


class Keeper:
    """See the module. ``space`` may be read from any thread."""

    _log = Logger()

    def __init__(
        self,
        settings: JournalSettings,
        *,
        slot: Slot,
        disk: IDisk,
        applier: IApplier,
        checkpoints: Checkpoints,
        stage: ApplyStage,
        hooks: KeeperHooks,
        seconds: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._slot = slot
        self._disk = disk
        self._applier = applier
        self._checkpoints = checkpoints
        self._stage = stage
        self._hooks = hooks
        self._seconds = seconds
        self.space = SpaceLeft(0, 0)
        self.floor = 0
        self.failed_checkpoints = 0
        self._is_stopping = False
        self._pause = TICK_SECONDS / 2
        self._next_checkpoint = 0.0
        self._redo_owed: list[LiveSegment] = []
        """Segments of a checkpoint that failed, until they were applied again."""
        self._owes_redo = False
        """Whether somebody else's sync failed and nothing has been applied again since. In the apply thread."""
        self._is_doubtful = False
        """Whether the last checkpoint failed: the kernel tells an error once, so the next sync alone proves nothing."""

    def handle(self, jobs: list[Job]) -> float | None:
        """One batch (a handler of :class:`~mailsrv.journal.worker.IWorker`)."""
        for job in jobs:
            job()
        if self._is_stopping:
            return None
        self.look_at_space()
        self._keep_spare()
        self._follow_clock()
        self._limit_age()
        self.begin_checkpoint()
        return TICK_SECONDS

    # -- space ------------------------------------------------------------------

    def look_at_space(self) -> None:
        """Refresh what ``check_acceptance`` goes by."""
        try:
            self.space = self._disk.space_left(self._slot.directory)
        except OSError as error:
            self._log.error("free space is not known: {error}", error=error)
            return
        share = min(
            int(self.space.total_octets * self._settings.free_space_floor_percent / 100),
            self._settings.free_space_floor_most,
        )
        self.floor = max(self._settings.free_space_floor, share)

    def _keep_spare(self) -> None:
        size = self._settings.segment_octets
        if self._slot.has_spare():
            # So full that not even the floor was of use: others write here too. Flags and expunges
            # need a little room, and only they can make more (R-FULL-1).
            if self.space.free_octets < size // 8 and self._slot.give_up_spare():
                self._log.critical("the disk is full: the spare journal segment was given up", log_alarm="disk-full")
            return
        if self.space.free_octets < size + min(self.floor, size):
            return
        try:
            self._slot.make_spare()
        except OSError as error:
            self._log.error("no spare journal segment could be made: {error}", error=error)

    # -- checkpoints --------------------------------------------------------------

    def _follow_clock(self) -> None:
        """Where the clock was set back, files written since bear earlier times than the segment."""
        now, now_ns = self._seconds(), time.time_ns()
        with self._slot.lock:
            for live in self._slot.live:
                live.opened_ns = max(0, min(live.opened_ns, now_ns - int((now - live.opened_at) * 1e9)))

    def _limit_age(self) -> None:
        with self._slot.lock:
            current = self._slot.live[-1] if self._slot.live else None
            is_old = (
                current is not None
                and not current.is_closed
                and self._seconds() - current.opened_at > self._settings.checkpoint_interval
            )
        if is_old:
            self._hooks.post_commit(self._slot.close_current)

    def begin_checkpoint(self) -> None:
        """If segments are done (and, after a failure, its pause is over)."""
        if self._seconds() < self._next_checkpoint:
            return
        if self._redo_owed:
            self._hooks.post_apply(self._redo)
            return
        finished = self._slot.take_finished()
        if finished:
            self._hooks.post_apply(lambda: self._ask_applier(finished))

    def _ask_applier(self, finished: Sequence[LiveSegment]) -> None:
        """In the apply thread."""
        touched = self.ask_touched()
        self._hooks.post_keeper(lambda: self.finish_checkpoint(finished, touched))

    def ask_touched(self) -> Touched | Exception:
        """What a checkpoint has to sync, or why there can be none. In the apply thread."""
        try:
            if self._owes_redo:
                self._redo_all()
            return Touched(frozenset(self._applier.take_touched()), self._checkpoints.failures)
        except (OSError, MailError, FormatError) as error:
            return error

    def other_sync_failed(self) -> None:
        """What the next checkpoint would sync was taken by one that failed. In the apply thread, and at once there."""
        self._owes_redo = True
        # Where it cannot be now, it is tried again before the next checkpoint, which fails where this fails.
        self._try_to_redo_all()

    def _try_to_redo_all(self) -> bool:
        try:
            self._redo_all()
        except (OSError, FormatError) as error:
            self._log.critical("the journal could not be read again: {error}", log_alarm="checkpoint", error=error)
            return False
        return True

    def _redo_all(self) -> None:
        with self._slot.lock:
            segments = list(self._slot.live)
        self._stage.redo(segments)
        self._owes_redo = False

    def finish_checkpoint(self, finished: Sequence[LiveSegment], touched: Touched | Exception) -> bool:
        """Sync and recycle; whether all went well."""
        if self._is_stopping:
            # Asked for before the stop and answered after it: what it is about was finished by the stop.
            return False
        return self._finish_checkpoint(finished, touched)

    def _finish_checkpoint(self, finished: Sequence[LiveSegment], touched: Touched | Exception) -> bool:
        self._follow_clock()
        since = min((live.opened_ns for live in finished), default=0)
        try:
            if isinstance(touched, Exception):
                raise touched
            self._checkpoints.sync(
                touched.directories, begun=touched.failures, changed_since_ns=max(0, since - _CLOCK_ALLOWANCE_NS)
            )
        except (OSError, MailError, FormatError) as error:
            self.failed_checkpoints += 1
            self._pause = min(_LONGEST_PAUSE, self._pause * 2)
            self._next_checkpoint = self._seconds() + self._pause
            self._log.critical("checkpoint failed: {error}", log_alarm="checkpoint", error=error)
            self._redo_owed = list(finished)
            self._is_doubtful = True
            self._hooks.post_apply(self._redo)
            return False
        self._pause = TICK_SECONDS / 2
        self._is_doubtful = False
        for index, live in enumerate(finished):
            segment_id = live.segment.segment_id
            try:
                self._slot.recycle(live)
            except OSError as error:
                self._log.error("segment {path} was not recycled: {error}", path=live.segment.path, error=error)
                # Only ever the oldest first: the rest waits for it.
                for waiting in finished[index:]:
                    waiting.is_in_checkpoint = False
                self._next_checkpoint = self._seconds() + TICK_SECONDS
                return False
            self._hooks.post_apply(partial(self._stage.forget, segment_id))
        return True

    def _redo(self) -> None:
        """In the apply thread: apply again whatever the failed sync may have lost."""
        owed = self._redo_owed
        if not owed or not self._try_to_redo_all():
            return
        self._redo_owed = []
        for live in owed:
            live.is_in_checkpoint = False

    def stop(self, touched: Touched | Exception) -> None:
        """The last checkpoint; in the keeper's thread, when nothing is applied any more.

        Where an earlier one failed and none has succeeded since, nothing is recycled: the next start
        applies it all again.
        """
        self._is_stopping = True
        if self._is_doubtful:
            return
        # Those of a checkpoint under way are made durable here.
        with self._slot.lock:
            for live in self._slot.live:
                live.is_in_checkpoint = False
        self._finish_checkpoint(self._slot.take_finished(), touched)
