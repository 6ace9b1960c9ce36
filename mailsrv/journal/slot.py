"""A slot: the folder with the segments of one process, held by a lock while the process lives.

::

    state_dir/journal/slot-3/lock               held by the process (open-file-description lock)
                            /live               ids of the segments that may be replayed (:mod:`.live_list`)
                            /000000000007.segment
                            /spool/             messages too large for a segment

The first process takes ``slot-0``, the next one ``slot-1``; a process that ended leaves its slot to
whoever comes next, who replays it.

Segments are in use oldest first and are given back oldest first: notes and seals about a record lie
in its own segment or in a later one, never in an earlier one. The slot's own state is under one lock;
files are touched outside of it, except where the order matters.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Iterator

from attrs import define, field
from twisted.logger import Logger

from mailsrv.disk import IDisk, IDiskFile, make_directories, opened
from mailsrv.errors import InsufficientStorage, Unavailable
from mailsrv.journal.live_list import ID_OCTETS, LiveList
from mailsrv.journal.segment import Segment
from mailsrv.journal.settings import JournalSettings

_SUFFIX = ".segment"
_MOST_IDLE = 2


@define(eq=False)
class LiveSegment:
    """A segment in use: records lie in it that may have to be replayed."""

    segment: Segment
    outstanding: int = 0
    """Records that are not settled yet. Guarded by the slot's lock."""
    is_closed: bool = False
    """It takes no more records."""
    has_failed: bool = False
    """It met a disk error: its file is never used again."""
    valid_end: int | None = None
    """Where it met the error; what follows was refused."""
    opened_at: float = 0.0
    """When the first record came (seconds of a clock that is never set)."""
    opened_ns: int = 0
    """The same on the wall clock, for file times."""
    spool_files: set[str] = field(factory=set)
    """Files its records name."""
    is_in_checkpoint: bool = False
    is_from_earlier_run: bool = False

    def readable_end(self) -> int | None:
        """How far its records count; None: as far as they are whole."""
        if self.valid_end is not None or self.is_from_earlier_run:
            return self.valid_end
        # What is being written may yet be refused.
        return self.segment.end


def slot_directories(disk: IDisk, journal_directory: str) -> Iterator[str]:
    """All slots, by number."""
    found = []
    for entry in disk.list_directory(journal_directory):
        number = entry.name.removeprefix("slot-")
        if entry.is_directory and entry.name != number and number.isdecimal():
            found.append((int(number), entry.name))
    for _, name in sorted(found):
        yield os.path.join(journal_directory, name)


class Slot:
    """The segments of one process."""

    _log = Logger()

    def __init__(self, directory: str, lock_file: IDiskFile, disk: IDisk, settings: JournalSettings) -> None:
        self.directory = directory
        self.spool_directory = os.path.join(directory, "spool")
        self.lock = threading.Lock()
        self.live: list[LiveSegment] = []
        """Oldest first; guarded by ``lock``."""
        self.unapplied_octets = 0
        """Accepted or waiting, and not in its mailboxes; guarded by ``lock``."""
        self._lock_file = lock_file
        self._disk = disk
        self._settings = settings
        self._idle: list[Segment] = []
        self._next_sequence = 1
        self._last_used = 0
        self._live_list = LiveList(directory, disk)

    @classmethod
    def claim(cls, directory: str, disk: IDisk, settings: JournalSettings) -> Slot | None:
        """The slot of this folder, made if it is missing; None where another process has it."""
        make_directories(disk, directory)
        lock_file = disk.open_or_create(os.path.join(directory, "lock"))
        if lock_file.try_lock():
            return cls(directory, lock_file, disk, settings)
        lock_file.close()
        return None

    @classmethod
    def claim_free(cls, journal_directory: str, disk: IDisk, settings: JournalSettings) -> Slot:
        """The first slot that nobody has."""
        make_directories(disk, journal_directory)
        for number in range(settings.most_slots):
            slot = cls.claim(os.path.join(journal_directory, f"slot-{number}"), disk, settings)
            if slot is not None:
                return slot
        raise Unavailable(cause=f"all {settings.most_slots} journal slots are taken")

    def open(self) -> None:
        """Find the segments: those with records are live (and closed), the others idle."""
        make_directories(self._disk, self.spool_directory)
        self._disk.avoid_copy_on_write(self.directory)
        for entry in self._disk.list_directory(self.directory):
            path = os.path.join(self.directory, entry.name)
            if entry.name.endswith(f"{_SUFFIX}.new"):
                self._disk.unlink(path)
            elif entry.name.endswith(_SUFFIX):
                self._open_segment(path)
        self.live.sort(key=lambda live: live.segment.sequence)
        self._idle.sort(key=lambda segment: segment.sequence)
        self._live_list.begin(
            [*(live.segment.segment_id for live in self.live), *(segment.segment_id for segment in self._idle)]
        )

    def _open_segment(self, path: str) -> None:
        segment = Segment.open(self._disk, path)
        if segment is None:
            # Segments get their name complete, and a sector is written whole: this is a damaged disk.
            self._log.critical("journal segment {path} is damaged and was set aside", path=path)
            self._disk.rename(path, f"{path}.damaged")
            self._disk.sync_directory(self.directory)
            return
        self._next_sequence = max(self._next_sequence, segment.sequence + 1)
        if segment.find_damage() or next(segment.records(), None) is not None:
            self.live.append(LiveSegment(segment, is_closed=True, is_from_earlier_run=True))
        elif segment.size == self._settings.segment_octets:
            self._idle.append(segment)
        else:
            # The setting was changed.
            segment.close()
            self._disk.unlink(path)

    @property
    def most_record_octets(self) -> int:
        """A record with more content than this has its messages put into files."""
        return self._settings.segment_octets // 4

    def keep_damaged(self, live: LiveSegment) -> None:
        """Copy a segment that lost records to a file for the administrator."""
        copy = f"{live.segment.path}.{live.segment.segment_id.hex()}.damaged"
        if self._disk.status(copy) is not None:
            return
        with opened(self._disk.create(copy)) as file:
            offset = 0
            while octets := live.segment.file.read(offset, 1 << 20):
                offset += file.write(offset, [octets])
            file.sync()
        self._log.critical(
            "the disk damaged journal records that were synced; a copy of the segment is {path}",
            log_alarm="journal-damaged",
            path=copy,
        )

    # -- in use ---------------------------------------------------------------

    def current(self, now: float, now_ns: int) -> LiveSegment:
        """The segment that takes records now.

        Raises InsufficientStorage where none can be had within the bound, OSError where none can be made.
        """
        with self.lock:
            if self.live and not self.live[-1].is_closed:
                return self.live[-1]
            segment = self._take_idle()
            count = len(self.live)
        if segment is None:
            if count >= self._settings.most_segments:
                raise InsufficientStorage(cause="all journal segments hold mail that is not stored yet")
            segment = self._make_segment()
        live = LiveSegment(segment, opened_at=now, opened_ns=now_ns)
        with self.lock:
            self._last_used = segment.sequence
            self.live.append(live)
        return live

    def _take_idle(self) -> Segment | None:
        while self._idle:
            segment = self._idle.pop(0)
            # Replay goes by sequence numbers, so they are used in order. One that was in the making
            # while a later one came into use stays unused.
            if segment.sequence > self._last_used:
                return segment
            self._remove(segment)
        return None

    def close_current(self) -> None:
        """The next record begins another segment."""
        with self.lock:
            if self.live:
                self.live[-1].is_closed = True

    def has_spare(self) -> bool:
        """Whether a segment lies ready for when the current one is full."""
        with self.lock:
            return bool(self._idle)

    def make_spare(self) -> None:
        """Fill a segment ahead. Raises OSError."""
        with self.lock:
            if len(self.live) + len(self._idle) > self._settings.most_segments:
                return
        segment = self._make_segment()
        with self.lock:
            self._idle.append(segment)
            self._idle.sort(key=lambda idle: idle.sequence)

    def give_up_spare(self) -> bool:
        """Give the room of a spare segment back to a disk that is full (R-FULL-1)."""
        with self.lock:
            segment = self._idle.pop() if self._idle else None
        if segment is None:
            return False
        self._remove(segment)
        return True

    def settle(self, live: LiveSegment, records: int, octets: int = 0) -> bool:
        """So many records less to do; whether the segment is ready for a checkpoint."""
        with self.lock:
            live.outstanding -= records
            self.unapplied_octets -= octets
            return live.is_closed and live.outstanding == 0

    def is_under_pressure(self) -> bool:
        """Whether what cannot be delivered now is in the way of what can."""
        with self.lock:
            return (
                len(self.live) * 2 > self._settings.most_segments
                or self.unapplied_octets * 2 > self._settings.backlog_octets
            )

    def take_finished(self) -> list[LiveSegment]:
        """The oldest segments that are closed and done, marked as being in a checkpoint."""
        finished = []
        with self.lock:
            for live in self.live:
                if not live.is_closed or live.outstanding or live.is_in_checkpoint:
                    break
                live.is_in_checkpoint = True
                finished.append(live)
        return finished

    # -- new lives ------------------------------------------------------------

    def recycle(self, live: LiveSegment) -> None:
        """Everything in it is durable elsewhere: forget its records. Raises OSError; then it is still live.

        Its spool files are removed when nothing names them any more.
        """
        segment = live.segment
        old_id = segment.segment_id
        with self.lock:
            is_wanted = (
                not live.has_failed and segment.size == self._settings.segment_octets and len(self._idle) < _MOST_IDLE
            )
            sequence = self._next_sequence
            self._next_sequence += 1
        if is_wanted:
            new_id = secrets.token_bytes(ID_OCTETS)
            self._live_list.announce(new_id)
            try:
                segment.renew(new_id, sequence)
            except OSError:
                # Which life it has on disk is not known, and this descriptor will not tell (R-DUR-4).
                live.has_failed = True
                raise
        else:
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(segment.path)
            self._disk.sync_directory(self.directory)
            segment.close()
        with self.lock:
            self.live.remove(live)
            if is_wanted:
                self._idle.append(segment)
                self._idle.sort(key=lambda idle: idle.sequence)
        self._live_list.retire(old_id)
        for path in live.spool_files:
            self.remove_spool_file(path)

    def remove_spool_file(self, path: str) -> None:
        """One that nothing needs any more. What cannot be removed now is removed at the next start."""
        try:
            self._disk.unlink(path)
        except OSError as error:
            self._log.debug("spool file {path} was not removed: {error}", path=path, error=error)

    def remove_orphans(self) -> None:
        """Spool files that no live record names: left by a process that ended while a message arrived."""
        with self.lock:
            named = {path for live in self.live for path in live.spool_files}
        for entry in self._disk.list_directory(self.spool_directory):
            path = os.path.join(self.spool_directory, entry.name)
            if path not in named:
                self.remove_spool_file(path)

    def _make_segment(self) -> Segment:
        with self.lock:
            sequence = self._next_sequence
            self._next_sequence += 1
        segment_id = secrets.token_bytes(ID_OCTETS)
        path = os.path.join(self.directory, f"{sequence:012}{_SUFFIX}")
        self._live_list.announce(segment_id)
        try:
            segment = Segment.initialise(self._disk, path, segment_id, sequence, self._settings.segment_octets)
            self._disk.sync_directory(self.directory)
        except OSError:
            self._remove_half_made(path)
            raise
        return segment

    def _remove_half_made(self, path: str) -> None:
        for name in (f"{path}.new", path):
            try:
                self._disk.unlink(name)
            except OSError as error:
                self._log.debug("{path} was not removed: {error}", path=name, error=error)

    def _remove(self, segment: Segment) -> None:
        """An idle one. Its id stays published until the next list is written."""
        segment.close()
        self._remove_half_made(segment.path)
        self._live_list.forget(segment.segment_id)

    def live_ids(self) -> frozenset[bytes]:
        """What the list of live segments names."""
        return self._live_list.ids()

    def close(self) -> None:
        """Let the slot go."""
        with self.lock:
            segments = [live.segment for live in self.live] + self._idle
            self.live = []
            self._idle = []
        for segment in segments:
            segment.close()
        self._lock_file.close()
