"""The commit stage: waiting records → one write, one sync → committed.

It runs in one thread. Everything that waited while the last sync ran goes with the next one. An
error of a write or sync closes the segment for good (R-DUR-4): where the batch began is written as a
seal into the next segment, so that a replay will not find what was refused, and only then are those
who waited told. Records of our own (notes, withdrawals, seals) are kept and written again.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence

from attrs import evolve, frozen
from twisted.logger import Logger

from mailsrv.disk.failure import as_mail_error
from mailsrv.errors import InsufficientStorage, MailError, Unavailable
from mailsrv.interfaces.content import FileContent, InlineContent
from mailsrv.interfaces.journal import JournalRecord
from mailsrv.journal.entry import Control, Entry, Job
from mailsrv.journal.format import (
    FLAG_WANTS_NOTE,
    HEAD_OCTETS,
    RecordType,
    encode_deliveries,
    encode_place,
)
from mailsrv.journal.segment import FIRST_RECORD
from mailsrv.journal.slot import LiveSegment, Slot
from mailsrv.journal.spool import SpoolFiles

CommitItem = Entry | Control | Job
_SEAL_ATTEMPTS = 3
_RETRY_SECONDS = 1.0


@frozen
class CommitHooks:
    """Where the stage hands its results. All are called in its thread."""

    on_committed: Callable[[Sequence[Entry]], None]
    on_refused: Callable[[Sequence[Entry]], None]
    on_segment_used: Callable[[], None]
    """The current segment was closed: another will be needed."""


class CommitStage:
    """See the module. ``seconds`` is a clock that is never set."""

    _log = Logger()

    def __init__(
        self,
        *,
        slot: Slot,
        spool: SpoolFiles,
        seconds: Callable[[], float],
        hooks: CommitHooks,
    ) -> None:
        self._slot = slot
        self._spool = spool
        self._seconds = seconds
        self._hooks = hooks
        self._kept: list[Control] = []

    def handle(self, items: list[CommitItem]) -> float | None:
        """One batch (a handler of :class:`~mailsrv.journal.worker.IWorker`)."""
        waiting: list[Entry | Control] = [*self._kept]
        self._kept = []
        for item in items:
            if isinstance(item, Entry | Control):
                waiting.append(item)
            else:
                self._write_all(waiting)
                waiting = [*self._kept]
                self._kept = []
                item()
        self._write_all(waiting)
        return _RETRY_SECONDS if self._kept else None

    @property
    def unwritten(self) -> Sequence[Control]:
        """Records of our own that the disk has not taken."""
        return self._kept

    def _write_all(self, waiting: list[Entry | Control]) -> None:
        while waiting:
            try:
                live = self._slot.current(self._seconds(), time.time_ns())
            except MailError as error:
                self._give_up(waiting, error)
                return
            except OSError as error:
                self._log.error("no journal segment could be made: {error}", error=error)
                self._give_up(waiting, as_mail_error(error))
                return
            waiting = self._write_some(live, waiting)

    def _give_up(self, waiting: Sequence[Entry | Control], error: MailError) -> None:
        self._kept += [item for item in waiting if isinstance(item, Control)]
        self._refuse([item for item in waiting if isinstance(item, Entry)], error)

    def _refuse(self, entries: list[Entry], error: MailError) -> None:
        for entry in entries:
            entry.error = entry.error or error
        if entries:
            self._hooks.on_refused(entries)

    def _write_some(self, live: LiveSegment, waiting: list[Entry | Control]) -> list[Entry | Control]:
        """Write what fits; answers with what does not."""
        segment = live.segment
        at = segment.end
        buffers: list[bytes] = []
        written: list[Entry | Control] = []
        refused: list[Entry] = []
        entries: list[Entry] = []
        files: list[str] = []
        rest: list[Entry | Control] = []
        for index, item in enumerate(waiting):
            is_control = isinstance(item, Control)
            try:
                kind, flags, payload = self._encode(item)
            except (ValueError, struct.error, OSError) as error:
                # Only an entry can fail here.
                if isinstance(item, Entry):
                    item.error = as_mail_error(error) if isinstance(error, OSError) else Unavailable(cause=str(error))
                    refused.append(item)
                continue
            length = sum(map(len, payload))
            if not segment.has_room(length, at, is_control=is_control):
                if at > FIRST_RECORD:
                    rest = waiting[index:]
                    break
                # It would not fit into an empty segment either.
                if isinstance(item, Entry):
                    item.error = InsufficientStorage(cause="a record larger than a journal segment")
                    refused.append(item)
                continue
            buffers += segment.encode(kind, flags, at, payload)
            if isinstance(item, Entry):
                item.live = live
                item.offset = at
                entries.append(item)
                files += _files_of(item.record)
            written.append(item)
            at += HEAD_OCTETS + length
        if buffers:
            self._count(live, entries, files)
            try:
                segment.append(buffers)
            except OSError as error:
                self._fail(live, written, error)
                written = []
        if refused:
            self._refuse(refused, Unavailable())
        if written:
            self._finish(written)
        if rest:
            self._slot.close_current()
            self._hooks.on_segment_used()
        # After an error its records of our own go first.
        rest = [*self._kept, *rest]
        self._kept = []
        return rest

    def _count(self, live: LiveSegment, entries: list[Entry], files: list[str]) -> None:
        with self._slot.lock:
            live.outstanding += len(entries)
            live.spool_files.update(files)

    def _finish(self, written: list[Entry | Control]) -> None:
        now = self._seconds()
        entries = []
        for item in written:
            if isinstance(item, Entry):
                item.synced_at = now
                entries.append(item)
            elif item.on_synced is not None:
                item.on_synced()
        if entries:
            self._hooks.on_committed(entries)

    def _fail(self, live: LiveSegment, written: list[Entry | Control], error: OSError) -> None:
        self._log.critical("journal segment {path} is given up: {error}", path=live.segment.path, error=error)
        entries = [item for item in written if isinstance(item, Entry)]
        with self._slot.lock:
            live.is_closed = True
            live.has_failed = True
            live.valid_end = live.segment.end
            live.outstanding -= len(entries)
            for entry in entries:
                live.spool_files.difference_update(_files_of(entry.record))
        self._kept += [item for item in written if isinstance(item, Control)]
        self._kept.append(Control(RecordType.SEALED, encode_place(live.segment.segment_id, live.segment.end)))
        self._hooks.on_segment_used()
        self._write_kept()
        self._refuse(entries, as_mail_error(error))

    def _write_kept(self) -> None:
        """Seal before those who waited are told. Where the whole disk is gone, they are told all the same."""
        for _ in range(_SEAL_ATTEMPTS):
            controls = self._kept
            try:
                live = self._slot.current(self._seconds(), time.time_ns())
                segment = live.segment
                at = segment.end
                buffers: list[bytes] = []
                for control in controls:
                    buffers += segment.encode(control.kind, 0, at, control.payload)
                    at += HEAD_OCTETS + sum(map(len, control.payload))
                segment.append(buffers)
            except (OSError, MailError) as error:
                self._log.error("a seal could not be written: {error}", error=error)
                with self._slot.lock:
                    if self._slot.live and not self._slot.live[-1].is_closed:
                        failed = self._slot.live[-1]
                        failed.is_closed = failed.has_failed = True
                        failed.valid_end = failed.segment.end
                continue
            self._kept = []
            self._finish(list(controls))
            return

    def _encode(self, item: Entry | Control) -> tuple[RecordType, int, list[bytes]]:
        if isinstance(item, Control):
            return item.kind, 0, item.payload
        record = item.record
        if item.octets > self._slot.most_record_octets:
            record = item.record = self._spill(record)
        return RecordType.DELIVERIES, FLAG_WANTS_NOTE if item.wants_note else 0, encode_deliveries(record)

    def _spill(self, record: JournalRecord) -> JournalRecord:
        """Many small messages that are one unit (MULTIAPPEND) are too large together: into files with them."""
        messages = []
        try:
            for message in record.messages:
                content = message.content
                messages.append(
                    evolve(message, content=self._spool.write_whole(content.octets))
                    if isinstance(content, InlineContent)
                    else message
                )
        except OSError:
            for message in messages:
                if isinstance(message.content, FileContent):
                    self._slot.remove_spool_file(message.content.path)
            raise
        return evolve(record, messages=tuple(messages))


def _files_of(record: JournalRecord) -> list[str]:
    return [message.content.path for message in record.messages if isinstance(message.content, FileContent)]
