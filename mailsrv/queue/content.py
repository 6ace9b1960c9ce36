"""Content of queued messages: in memory while it is fresh, then a file each; damaged ones are set aside.

::

    queue/content/3f/1099511631872      the message as it was accepted, named by its id
    queue/corrupt/1099511631872         what is no longer what was accepted; never deleted

A file is not synced when it is written: until the journal's next checkpoint has done that, the journal
has the octets. It is verified, by its checksum, whenever it is opened.
"""

from __future__ import annotations

import os
import re
import threading
import zlib
from collections.abc import Collection

from attrs import frozen
from twisted.logger import Logger

from mailsrv.disk import IDisk, make_directories, opened
from mailsrv.interfaces.content import FileContent, IContent
from mailsrv.journal.spool import is_intact, new_digest, size_and_checksum
from mailsrv.opened_content import LoadedContent, OpenedContent, RunInThread

CORRUPT = "corrupt"
"""The folder, beside the queue's database, of what can no longer be read."""
LOAD_OCTETS = 1 << 20
"""Content up to this size is loaded whole."""
_PIECE = 1 << 20
_MOST_FIELD = 64 * 1024
# RFC 5322 2.2.3: a field goes on in lines that begin with white space.
_RETURN_PATH = re.compile(rb"return-path[ \t]*:(?:[^\r\n]|\r\n[ \t]|\r(?!\n)|(?<!\r)\n)*\r\n", re.IGNORECASE)


class DamagedContent(Exception):
    """The octets are not those that were accepted, or are gone."""


def return_path_octets(octets: bytes) -> int:
    """Length of the Return-Path field the content begins with: ours, which is not relayed (RFC 5321 4.4)."""
    # Anything else costs one comparison.
    if octets[:1] not in (b"R", b"r"):
        return 0
    found = _RETURN_PATH.match(octets, 0, _MOST_FIELD)
    return found.end() if found is not None else 0


@frozen
class Fresh:
    """A message in memory."""

    octets: bytes
    skipped: int


class ContentFolder:
    """The two folders, and what is in memory. For any thread."""

    _log = Logger()

    def __init__(self, disk: IDisk, directory: str, memory_octets: int) -> None:
        self.directory = os.path.join(directory, "content")
        self._corrupt = os.path.join(directory, CORRUPT)
        self._disk = disk
        self._memory_octets = memory_octets
        self._lock = threading.Lock()
        self._fresh: dict[int, Fresh] = {}
        self._held_octets = 0
        self._made: set[str] = set()
        self._touched: set[str] = set()

    # -- memory ---------------------------------------------------------------------

    def keep(self, message: int, octets: bytes, skipped: int) -> bool:
        """In memory; False where there is no room for it."""
        with self._lock:
            if message in self._fresh:
                return True
            if self._held_octets + len(octets) > self._memory_octets:
                return False
            self._fresh[message] = Fresh(octets, skipped)
            self._held_octets += len(octets)
        return True

    def fresh(self, message: int) -> Fresh | None:
        """Where it is in memory."""
        return self._fresh.get(message)

    def fresh_ids(self) -> list[int]:
        """All of these."""
        with self._lock:
            return list(self._fresh)

    def forget(self, message: int) -> None:
        """It has a file now, or is not needed any more."""
        with self._lock:
            found = self._fresh.pop(message, None)
            if found is not None:
                self._held_octets -= len(found.octets)

    # -- files ----------------------------------------------------------------------

    def path(self, message: int) -> str:
        """Where its file is, or would be."""
        return os.path.join(self.directory, f"{zlib.crc32(b'%d' % message) & 0xFF:02x}", str(message))

    def _place(self, message: int) -> str:
        path = self.path(message)
        directory = os.path.dirname(path)
        if directory not in self._made:
            make_directories(self._disk, directory)
            self._made.add(directory)
        with self._lock:
            self._touched.update((directory, self.directory))
        return path

    def write(self, message: int, octets: bytes) -> bytes:
        """The checksum. Unsynced. Raises OSError."""
        path = self._place(message)
        self._unlink(path)
        with opened(self._disk.create(path)) as file:
            file.write(0, [octets])
        return checksum_of(octets)

    def link(self, message: int, content: FileContent, *, is_copy: bool = False) -> None:
        """A second name for a spool file, or a copy of it where links cannot be. Raises OSError."""
        path = self._place(message)
        self._unlink(path)
        if not is_copy:
            try:
                self._disk.link(content.path, path)
            except FileNotFoundError:
                raise
            except OSError as error:
                self._log.debug("{path} was not linked: {error}", path=path, error=error)
            else:
                return
        with opened(self._disk.open(content.path)) as source, opened(self._disk.create(path)) as target:
            offset = 0
            while octets := source.read(offset, _PIECE):
                target.write(offset, [octets])
                offset += len(octets)

    def is_intact(self, message: int, size: int, checksum: bytes) -> bool:
        """Whether its file is what was accepted; it counts as touched.

        Who wrote it may have ended before a checkpoint, so that nothing says it is on the disk.
        """
        return is_intact(self._disk, FileContent(self._place(message), size, checksum))

    def head(self, content: FileContent) -> bytes:
        """Where a Return-Path field may stand. Raises OSError."""
        with opened(self._disk.open(content.path)) as file:
            octets = file.read(0, 4096)
            if return_path_octets(octets) or octets[:1] not in (b"R", b"r"):
                return octets
            return file.read(0, _MOST_FIELD)

    def remove(self, message: int) -> None:
        """Nobody is owed it any more. What cannot be removed now is removed at a later start."""
        try:
            self._unlink(self.path(message))
        except OSError as error:
            self._log.warn("content of {message} was not removed: {error}", message=message, error=error)

    def _unlink(self, path: str) -> None:
        try:
            self._disk.unlink(path)
        except FileNotFoundError:
            return

    def set_aside(self, message: int) -> None:
        """A damaged file goes to ``corrupt``. Raises OSError."""
        make_directories(self._disk, self._corrupt)
        try:
            self._disk.rename(self.path(message), os.path.join(self._corrupt, str(message)))
        except FileNotFoundError:
            return
        self._disk.sync_directory(self._corrupt)

    def open(self, message: int, *, size: int, skipped: int, checksum: bytes, run: RunInThread) -> IContent:
        """Verified. Raises DamagedContent and OSError (FileNotFoundError: it may just have been finished)."""
        file = self._disk.open(self.path(message))
        try:
            if file.size() != size:
                raise DamagedContent(f"{file.size()} octets, not {size}")
            if size <= LOAD_OCTETS:
                octets = file.read(0, size)
                if checksum_of(octets) != checksum:
                    raise DamagedContent("the checksum does not match")
                file.close()
                return LoadedContent(octets[skipped:])
            if size_and_checksum(file) != (size, checksum):
                raise DamagedContent("the checksum does not match")
        except BaseException:
            file.close()
            raise
        return OpenedContent(file, size - skipped, run, skipped=skipped)

    def take_touched(self) -> Collection[str]:
        """Folders written since the last call."""
        with self._lock:
            touched, self._touched = self._touched, set()
        return touched


def checksum_of(octets: bytes) -> bytes:
    """As the journal's spool has it."""
    digest = new_digest()
    digest.update(octets)
    return digest.digest()
