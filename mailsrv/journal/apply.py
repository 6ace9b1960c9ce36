"""The apply stage: committed records → the accounts, through an :class:`IApplier`.

It runs in one thread and takes everything that was committed since it last looked in one call. A
delivery that fails stays in the journal: it and whatever comes later for that account wait in a line
of the account, are tried again with growing pauses, and after ``stuck_after`` failures (at once when
the journal fills up) are put into the folder for stuck mail, with an alarm. Other accounts go on.
For all this the queue is one account more.
A record that wants a note (APPEND) never waits behind a failure: it is withdrawn and refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from attrs import define, evolve, field, frozen
from twisted.logger import Logger

from mailsrv.disk import IDisk
from mailsrv.errors import MailError, Unavailable
from mailsrv.interfaces.content import FileContent
from mailsrv.interfaces.journal import Applied, DeliveryKey, IApplier, NotApplied
from mailsrv.journal.entry import Control, Entry, Job, Lane, Task, tasks_of
from mailsrv.journal.format import Place, RecordType, encode_key, encode_note, encode_place
from mailsrv.journal.replay import ControlState, read_control_state, replay_segment
from mailsrv.journal.settings import JournalSettings
from mailsrv.journal.slot import LiveSegment, Slot
from mailsrv.journal.spool import is_intact
from mailsrv.journal.stuck import StuckFolder

ApplyItem = list[Entry] | Job
_MOST_BATCH_OCTETS = 16 << 20


@define(eq=False)
class _BlockedLane:
    """An account (or the queue) whose deliveries fail: what waits, and until when."""

    tasks: deque[Task] = field(factory=deque)
    pause: float = 0.0
    next_try: float = 0.0


@frozen
class ApplyHooks:
    """Where the stage hands its results. All are called in its thread."""

    on_done: Callable[[Sequence[Entry]], None]
    """Answer those who wait for these: they are applied, put aside, noted, or failed for now."""
    write_control: Callable[[Control], None]
    on_segment_done: Callable[[], None]


class ApplyStage:
    """See the module. ``seconds`` is a clock that is never set."""

    _log = Logger()

    def __init__(
        self,
        settings: JournalSettings,
        *,
        slot: Slot,
        disk: IDisk,
        applier: IApplier,
        stuck: StuckFolder,
        hooks: ApplyHooks,
        seconds: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._slot = slot
        self._disk = disk
        self._applier = applier
        self._stuck = stuck
        self._hooks = hooks
        self._seconds = seconds
        self._blocked: dict[Lane, _BlockedLane] = {}
        self._done: list[Entry] = []
        # What was said in this run about records, on disk or on its way there.
        self._withdrawn: set[Place] = set()
        self._settled: set[DeliveryKey] = set()

    def handle(self, items: list[ApplyItem]) -> float | None:
        """One batch (a handler of :class:`~mailsrv.journal.worker.IWorker`)."""
        fresh: list[Entry] = []
        for item in items:
            if isinstance(item, list):
                fresh += item
            else:
                self._apply_entries(fresh)
                fresh = []
                item()
        self._apply_entries(fresh)
        self.retry()
        self._flush_done()
        if not self._blocked:
            return None
        return max(0.05, min(blocked.next_try for blocked in self._blocked.values()) - self._seconds())

    def replay(self, live: LiveSegment, state: ControlState) -> None:
        """Apply a whole segment (again), in batches, as it is read. Raises OSError and FormatError of the reading."""
        batch: list[Task] = []
        octets = 0
        for record in replay_segment(self._slot, live, state):
            with self._slot.lock:
                live.outstanding += 1
                self._slot.unapplied_octets += record.entry.octets
            for task in record.tasks:
                content = task.pending.message.content
                task.is_unreadable = isinstance(content, FileContent) and not is_intact(self._disk, content)
            batch += record.tasks
            octets += record.entry.octets
            if len(batch) >= self._settings.apply_batch or octets >= _MOST_BATCH_OCTETS:
                self._apply_tasks(batch)
                batch = []
                octets = 0
        self._apply_tasks(batch)
        self._flush_done()

    def redo(self, segments: Sequence[LiveSegment]) -> None:
        """A checkpoint failed: nothing that was applied from these segments can be trusted to be on disk."""
        state = read_control_state(self._slot)
        state.withdrawn |= self._withdrawn
        state.settled |= self._settled
        keys = [
            task.pending.key
            for live in segments
            for record in replay_segment(self._slot, live, state)
            for task in record.tasks
        ]
        self._applier.checkpoint_failed(keys)
        for live in segments:
            self.replay(live, state)

    def forget(self, segment_id: bytes) -> None:
        """A segment was recycled: what was said about its records is history."""
        self._withdrawn = {place for place in self._withdrawn if place.segment_id != segment_id}
        self._settled = {key for key in self._settled if key.segment_id != segment_id}

    def retry(self, *, at_once: bool = False) -> None:
        """Try the blocked accounts whose pause is over (all of them, with ``at_once``)."""
        now = self._seconds()
        for lane, blocked in list(self._blocked.items()):
            if not at_once and blocked.next_try > now:
                continue
            if not self._retry_lane(lane, blocked):
                blocked.pause = min(
                    self._settings.retry_most, blocked.pause * 2 if blocked.pause else self._settings.retry_first
                )
                blocked.next_try = self._seconds() + blocked.pause
        self._flush_done()

    @property
    def blocked_deliveries(self) -> int:
        """How many deliveries wait behind a failure."""
        return sum(len(blocked.tasks) for blocked in self._blocked.values())

    # -- a batch ------------------------------------------------------------------

    def _apply_entries(self, entries: list[Entry]) -> None:
        batch: list[Task] = []
        octets = 0
        for entry in entries:
            tasks = tasks_of(entry)
            if not tasks:
                self._entry_done(entry)
                continue
            if self._blocked and entry.wants_note and (error := self._error_ahead(tasks)) is not None:
                entry.error = error
                self._withdraw(entry)
                continue
            batch += tasks
            octets += entry.octets
            if len(batch) >= self._settings.apply_batch or octets >= _MOST_BATCH_OCTETS:
                self._apply_tasks(batch)
                batch = []
                octets = 0
        self._apply_tasks(batch)
        self._flush_done()

    def _error_ahead(self, tasks: Iterable[Task]) -> MailError | None:
        """What earlier deliveries of one of the accounts fail with."""
        for task in tasks:
            blocked = self._blocked.get(task.lane)
            if blocked is not None:
                return blocked.tasks[0].error or Unavailable(cause="earlier deliveries of the account fail")
        return None

    def _apply_tasks(self, batch: list[Task]) -> None:
        if self._blocked or any(task.is_unreadable for task in batch):
            batch = self._without_blocked(batch)
        if not batch:
            return
        answers = self._ask(batch)
        failed: list[Task] = []
        for task, answer in zip(batch, answers, strict=True):
            if type(answer) is Applied:
                self._task_applied(task, answer)
            else:
                task.error = answer.error if isinstance(answer, NotApplied) else None
                failed.append(task)
        if failed:
            self._some_failed(failed)

    def _without_blocked(self, batch: list[Task]) -> list[Task]:
        rest = []
        for task in batch:
            lane = task.lane
            if task.is_unreadable:
                task.error = Unavailable(cause="the content of the message is missing or damaged in the spool")
                task.attempts = self._settings.stuck_after
                self._queue(task)
            elif lane in self._blocked:
                self._queue(task)
            else:
                rest.append(task)
        return rest

    def _ask(self, batch: list[Task]) -> Sequence[Applied | NotApplied]:
        """The applier's answers. One that raises is asked account by account, so that only the guilty one fails."""
        try:
            answers = self._applier.apply([task.pending for task in batch])
            if len(answers) == len(batch):
                return answers
            error = f"{len(answers)} answers for {len(batch)} deliveries"
            self._log.error("the applier gave {error}", error=error)
        except Exception as raised:
            self._log.failure("the applier raised")
            error = type(raised).__name__
        lanes: dict[Lane, list[int]] = {}
        for index, task in enumerate(batch):
            lanes.setdefault(task.lane, []).append(index)
        if len(lanes) == 1:
            return [NotApplied(task.pending.key, Unavailable(cause=error)) for task in batch]
        result: list[Applied | NotApplied | None] = [None] * len(batch)
        for indexes in lanes.values():
            for index, answer in zip(indexes, self._ask([batch[index] for index in indexes]), strict=True):
                result[index] = answer
        return [answer for answer in result if answer is not None]

    # -- results ------------------------------------------------------------------

    def _task_applied(self, task: Task, answer: Applied) -> None:
        entry = task.entry
        entry.applied[task.index] = answer
        entry.remaining -= 1
        if entry.remaining == 0:
            if entry.wants_note:
                self._note(entry)
            else:
                self._entry_done(entry)

    def _note(self, entry: Entry) -> None:
        applied = [one for one in entry.applied if one is not None]
        if len(applied) < len(entry.applied):
            # Part of it was put aside (see _some_failed): there is no UID to tell.
            entry.error = entry.error or Unavailable()
        self._hooks.write_control(
            Control(RecordType.NOTE, encode_note(applied), lambda: self._on_control_synced(entry))
        )

    def _withdraw(self, entry: Entry) -> None:
        live = entry.live
        if live is not None:
            self._withdrawn.add(Place(live.segment.segment_id, entry.offset))
            payload = encode_place(live.segment.segment_id, entry.offset)
            self._hooks.write_control(Control(RecordType.WITHDRAWN, payload, lambda: self._on_control_synced(entry)))

    def _on_control_synced(self, entry: Entry) -> None:
        """In the committer's thread: the note or withdrawal is durable, the answer may go."""
        self._settle(entry)
        self._hooks.on_done([entry])

    def _entry_done(self, entry: Entry) -> None:
        self._settle(entry)
        self._done.append(entry)

    def _settle(self, entry: Entry) -> None:
        live = entry.live
        if live is not None and self._slot.settle(live, 1, entry.octets):
            self._hooks.on_segment_done()

    def _flush_done(self) -> None:
        done = [entry for entry in self._done if entry.waiter is not None]
        self._done = []
        if done:
            self._hooks.on_done(done)

    # -- failures -------------------------------------------------------------------

    def _some_failed(self, failed: list[Task]) -> None:
        withdrawn: set[int] = set()
        for task in failed:
            entry = task.entry
            if entry.wants_note and entry.remaining == len(entry.applied):
                # Nothing of it is in a mailbox: all or none is kept by none.
                if id(entry) not in withdrawn:
                    withdrawn.add(id(entry))
                    entry.error = task.error or Unavailable()
                    self._withdraw(entry)
                continue
            task.attempts += 1
            self._log.warn(
                "delivery to {account} failed: {error}",
                account=str(task.lane),
                error=str(task.error),
            )
            self._queue(task)

    def _queue(self, task: Task) -> None:
        lane = task.lane
        blocked = self._blocked.get(lane)
        if blocked is None:
            blocked = self._blocked[lane] = _BlockedLane(pause=self._settings.retry_first)
            blocked.next_try = self._seconds() + blocked.pause
        if not task.entry.wants_note:
            # It is durable: the answer need not wait for the account to recover.
            self._done.append(task.entry)
        # By then it may have been applied after all (a checkpoint that failed had everything applied again),
        # and expunged: the applier is to look.
        task.pending = evolve(task.pending, is_replay=True)
        blocked.tasks.append(task)

    def _retry_lane(self, lane: Lane, blocked: _BlockedLane) -> bool:
        """Go through what waits for one account; whether nothing is left."""
        limit = 1 if self._slot.is_under_pressure() else self._settings.stuck_after
        while blocked.tasks:
            if self._is_withdrawn(blocked.tasks[0]):
                self._drop(blocked.tasks.popleft())
                continue
            batch: list[Task] = []
            while blocked.tasks and not blocked.tasks[0].is_unreadable and not self._is_withdrawn(blocked.tasks[0]):
                # A record's deliveries are asked for together.
                if len(batch) >= self._settings.apply_batch and blocked.tasks[0].entry is not batch[-1].entry:
                    break
                batch.append(blocked.tasks.popleft())
            if not batch:
                if not self._put_aside(blocked.tasks[0]):
                    return False
                blocked.tasks.popleft()
                continue
            left = self._retry_batch(batch, limit)
            if left:
                blocked.tasks.extendleft(reversed(left))
                return False
        del self._blocked[lane]
        return True

    def _is_withdrawn(self, task: Task) -> bool:
        """Whether the record was refused after it had been read again (see ``redo``) and came to wait here."""
        key = task.pending.key
        return bool(self._withdrawn) and Place(key.segment_id, key.offset) in self._withdrawn

    def _drop(self, task: Task) -> None:
        task.entry.remaining -= 1
        if task.entry.remaining == 0:
            self._settle(task.entry)

    def _retry_batch(self, batch: list[Task], limit: int) -> list[Task]:
        left = []
        for task, answer in zip(batch, self._ask(batch), strict=True):
            if type(answer) is Applied:
                self._task_applied(task, answer)
                continue
            if isinstance(answer, NotApplied):
                task.error = answer.error
            task.attempts += 1
            if task.attempts < limit or not self._put_aside(task):
                left.append(task)
        return left

    def _put_aside(self, task: Task) -> bool:
        """Into the folder for stuck mail; whether it is there, synced."""
        pending = task.pending
        try:
            self._stuck.put(task)
        except (OSError, MailError) as error:
            self._log.critical("stuck mail could not be put aside: {error}", error=str(error))
            return False
        self._log.critical(
            "delivery to {account} is stuck after {attempts} attempts: {error}",
            log_alarm="stuck",
            account=str(task.lane),
            attempts=task.attempts,
            error=str(task.error),
        )
        entry = task.entry
        self._settled.add(pending.key)
        entry.remaining -= 1
        is_last = entry.remaining == 0

        def settled() -> None:
            if is_last and not entry.wants_note:
                self._settle(entry)

        if is_last and entry.wants_note:
            self._note(entry)
        self._hooks.write_control(Control(RecordType.SETTLED, encode_key(pending.key), settled))
        return True
