"""Replay of slots that no process holds: at a start before anything is accepted, and now and then after.

Each free slot is locked, replayed, synced and recycled as far as all its deliveries go; what an account
cannot take stays in its segment for whoever comes next.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from attrs import frozen
from twisted.logger import Logger

from mailsrv.disk import IDisk
from mailsrv.errors import MailError
from mailsrv.interfaces.content import FileContent
from mailsrv.interfaces.journal import Applied, DeliveryKey, IApplier
from mailsrv.journal.checkpoint import Checkpoints
from mailsrv.journal.entry import Lane, Task
from mailsrv.journal.replay import ControlState, read_control_state, replay_segment
from mailsrv.journal.settings import JournalSettings
from mailsrv.journal.slot import LiveSegment, Slot, slot_directories
from mailsrv.journal.spool import is_intact

_log = Logger()


@frozen
class Recovery:
    """What became of the free slots."""

    slots: int = 0
    """Those that held records."""
    deliveries: int = 0
    """Applied (now, or found applied)."""
    left: int = 0
    """Not applied: still in their slots."""


def recover_all_slots(
    settings: JournalSettings,
    directory: str,
    disk: IDisk,
    applier: IApplier,
    *,
    checkpoints: Checkpoints | None = None,
    sync_failed: Callable[[], object] = lambda: None,
) -> Recovery:
    """Replay every slot under ``directory`` (state_dir/journal) that is free. Blocking.

    ``sync_failed`` is called where a sync at the end of a replay failed: what was to be synced with it, whoever
    had it written, was taken from the applier and must be applied again.
    Raises OSError where a journal cannot be read, FormatError where a record is not understood:
    then the server must not start as if there were no mail in it.
    """
    slots = deliveries = left = 0
    if disk.status(directory) is None:
        return Recovery()
    checkpoints = checkpoints or Checkpoints(disk, directory)
    for path in list(slot_directories(disk, directory)):
        slot = Slot.claim(path, disk, settings)
        if slot is None:
            continue
        try:
            slot.open()
            if slot.live:
                slots += 1
                replayed = _recover(settings, slot, disk, applier, checkpoints)
                deliveries += replayed.deliveries
                left += replayed.left
                if not replayed.is_synced:
                    sync_failed()
            slot.remove_orphans()
        finally:
            slot.close()
    if slots:
        _log.info(
            "journal replayed: {slots} slots, {deliveries} deliveries, {left} left",
            slots=slots,
            deliveries=deliveries,
            left=left,
        )
    return Recovery(slots, deliveries, left)


class RecoveryOfOthers:
    """The free slots again and again, while a journal is open. In its apply thread."""

    def __init__(
        self,
        settings: JournalSettings,
        directory: str,
        disk: IDisk,
        applier: IApplier,
        *,
        checkpoints: Checkpoints,
        seconds: Callable[[], float],
        sync_failed: Callable[[], object],
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._disk = disk
        self._applier = applier
        self._checkpoints = checkpoints
        self._sync_failed = sync_failed
        self._seconds = seconds
        self._due = 0.0

    def recover(self) -> None:
        """Now; raises as :func:`recover_all_slots` does."""
        self._recover_all()
        self._due = self._seconds() + self._settings.recovery_interval

    def recover_when_due(self, *, at_once: bool = False) -> None:
        """Now and then (``at_once``: now); what cannot be replayed is logged and left for the next time."""
        now = self._seconds()
        if now < self._due and not at_once:
            return
        self._due = now + self._settings.recovery_interval
        try:
            self._recover_all()
        except (OSError, ValueError) as error:
            _log.error("the journal of an ended process was not replayed: {error}", error=error)

    def _recover_all(self) -> None:
        recover_all_slots(
            self._settings,
            self._directory,
            self._disk,
            self._applier,
            checkpoints=self._checkpoints,
            sync_failed=self._sync_failed,
        )


@frozen
class _Replayed:
    """What became of one slot."""

    deliveries: int
    left: int
    is_synced: bool


def _recover(
    settings: JournalSettings, slot: Slot, disk: IDisk, applier: IApplier, checkpoints: Checkpoints
) -> _Replayed:
    begun = checkpoints.failures
    is_doubtful = checkpoints.is_doubtful()
    state = read_control_state(slot)
    failing: set[Lane] = set()
    done: list[LiveSegment] = []
    keys: list[DeliveryKey] = []
    deliveries = left = 0
    for live in slot.live:
        failed = 0
        for batch in _batches(settings, slot, live, state):
            wanted = [task for task in batch if task.lane not in failing and _is_whole(disk, task)]
            failed += len(batch) - len(wanted)
            if is_doubtful:
                applier.checkpoint_failed([task.pending.key for task in wanted])
            answers = applier.apply([task.pending for task in wanted]) if wanted else ()
            for task, answer in zip(wanted, answers, strict=True):
                if isinstance(answer, Applied):
                    deliveries += 1
                    keys.append(task.pending.key)
                else:
                    failed += 1
                    failing.add(task.lane)
                    _log.warn(
                        "replayed delivery to {account} failed: {error}",
                        account=str(task.lane),
                        error=str(answer.error),
                    )
        left += failed
        if not left:
            done.append(live)
    try:
        checkpoints.sync(applier.take_touched(), begun=begun)
    except (OSError, MailError) as error:
        _log.critical("checkpoint after a replay failed: {error}", log_alarm="checkpoint", error=error)
        applier.checkpoint_failed(keys)
        return _Replayed(deliveries, left, is_synced=False)
    for live in done:
        slot.recycle(live)
    return _Replayed(deliveries, left, is_synced=True)


def _batches(settings: JournalSettings, slot: Slot, live: LiveSegment, state: ControlState) -> Iterator[list[Task]]:
    batch: list[Task] = []
    for record in replay_segment(slot, live, state):
        batch += record.tasks
        if len(batch) >= settings.apply_batch:
            yield batch
            batch = []
    if batch:
        yield batch


def _is_whole(disk: IDisk, task: Task) -> bool:
    content = task.pending.message.content
    if not isinstance(content, FileContent) or is_intact(disk, content):
        return True
    _log.critical("spool file {name} is damaged or missing", log_alarm="spool", name=os.path.basename(content.path))
    return False
