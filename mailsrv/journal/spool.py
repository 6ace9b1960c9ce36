"""Messages on their way in: small ones in memory, large ones in files of the slot's spool.

A writer keeps octets in memory up to the inline limit; past it a spool thread writes them to a file
of its own, with a checksum (BLAKE2b, 16 octets) taken on the way. ``finish`` gives content that is
synced, name and all. The sender is held back while more than ``spool_buffer`` octets wait for the disk.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from zope.interface import implementer

from mailsrv.disk import IDisk, IDiskFile
from mailsrv.disk.failure import as_mail_error
from mailsrv.errors import MailError, Unavailable
from mailsrv.interfaces.content import Content, FileContent, InlineContent, ISpool, ISpoolWriter
from mailsrv.journal.settings import JournalSettings
from mailsrv.journal.worker import IWorker

DIGEST_OCTETS = 16
_PIECE = 1 << 20


def new_digest() -> hashlib.blake2b:
    """The checksum of file content."""
    return hashlib.blake2b(digest_size=DIGEST_OCTETS)


def is_intact(disk: IDisk, content: FileContent) -> bool:
    """Whether the file is there with the octets it was written with. Waits for the disk."""
    try:
        file = disk.open(content.path)
    except OSError:
        return False
    try:
        return size_and_checksum(file) == (content.size, content.checksum)
    except OSError:
        return False
    finally:
        file.close()


def size_and_checksum(file: IDiskFile) -> tuple[int, bytes]:
    """Of all there is in it. Waits for the disk; raises OSError."""
    digest = new_digest()
    size = 0
    while octets := file.read(size, _PIECE):
        digest.update(octets)
        size += len(octets)
    return size, digest.digest()


class ICallFromThread(Protocol):
    """What is needed of the reactor."""

    def callFromThread(self, function: Callable[..., object], /, *arguments: object) -> None: ...


class SpoolFiles:
    """Makes the files. For threads."""

    def __init__(self, disk: IDisk, directory: Callable[[], str]) -> None:
        self.disk = disk
        self._directory = directory

    def create(self) -> IDiskFile:
        """A new, empty one. Its name carries nothing of the message."""
        return self.disk.create(os.path.join(self._directory(), secrets.token_hex(12)))

    def finish(self, file: IDiskFile) -> None:
        """Sync contents and name."""
        file.sync()
        file.close()
        self.disk.sync_directory(os.path.dirname(file.path))

    def write_whole(self, octets: bytes) -> FileContent:
        """A whole message, synced. Raises OSError and has then removed what it wrote."""
        file = self.create()
        try:
            file.write(0, [octets])
            self.finish(file)
        except OSError:
            self.remove(file)
            raise
        digest = new_digest()
        digest.update(octets)
        return FileContent(file.path, len(octets), digest.digest())

    def remove(self, file: IDiskFile) -> None:
        """Forget a file that is not finished."""
        file.close()
        try:
            self.disk.unlink(file.path)
        except OSError:
            return  # It goes at the next start.


SpoolJob = Callable[[], object]


def run_jobs(jobs: list[SpoolJob]) -> None:
    """The handler of a spool thread."""
    for job in jobs:
        job()


@implementer(ISpool)
class Spool:
    """Reactor thread only."""

    _log = Logger()

    def __init__(
        self,
        settings: JournalSettings,
        files: SpoolFiles,
        workers: Sequence[IWorker[SpoolJob]],
        reactor: ICallFromThread,
    ) -> None:
        self._settings = settings
        self._files = files
        self._workers = workers
        self._reactor = reactor
        self._next = 0
        self._is_open = False

    def open(self) -> None:
        """The slot is there: large messages may come."""
        self._is_open = True

    def close(self) -> None:
        """No more large messages."""
        self._is_open = False

    def begin(self) -> SpoolWriter:
        self._next = (self._next + 1) % len(self._workers)
        worker = self._workers[self._next] if self._is_open else None
        return SpoolWriter(self._settings, self._files, worker, self._reactor)

    def discard(self, content: Content) -> None:
        if isinstance(content, FileContent):
            path = content.path
            self._workers[0].post(lambda: self._remove(path))

    def _remove(self, path: str) -> None:
        try:
            self._files.disk.unlink(path)
        except OSError as error:
            self._log.debug("spool file {path} was not removed: {error}", path=path, error=error)


@implementer(ISpoolWriter)
class SpoolWriter:
    """One message. The methods are called in the reactor thread, ``_in_thread…`` in a spool thread."""

    __slots__ = (
        "_buffer",
        "_buffered",
        "_digest",
        "_error",
        "_file",
        "_files",
        "_finished",
        "_is_aborted",
        "_is_busy",
        "_is_spooling",
        "_paused",
        "_reactor",
        "_settings",
        "_worker",
        "_written",
        "size",
    )

    def __init__(
        self,
        settings: JournalSettings,
        files: SpoolFiles,
        worker: IWorker[SpoolJob] | None,
        reactor: ICallFromThread,
    ) -> None:
        self._settings = settings
        self._files = files
        self._worker = worker
        self._reactor = reactor
        self.size = 0
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._is_spooling = False
        self._is_busy = False
        self._is_aborted = False
        self._paused: Deferred[None] | None = None
        self._finished: Deferred[Content] | None = None
        self._error: MailError | None = None
        # Of the spool thread, one job at a time:
        self._file: IDiskFile | None = None
        self._digest = new_digest()
        self._written = 0

    def write(self, octets: bytes) -> Deferred[None] | None:
        self.size += len(octets)
        if self._error is not None:
            return None
        self._buffer.append(octets)
        self._buffered += len(octets)
        if self.size <= self._settings.inline_limit:
            return None
        self._is_spooling = True
        if not self._is_busy:
            self._post()
        if self._buffered <= self._settings.spool_buffer or self._error is not None:
            return None
        if self._paused is None:
            self._paused = Deferred()
        return self._paused

    def finish(self) -> Deferred[Content]:
        if self._error is not None:
            return fail(self._error)
        if not self._is_spooling:
            octets = b"".join(self._buffer)
            self._buffer = []
            return succeed(InlineContent(octets))
        self._finished = Deferred()
        if not self._is_busy:
            self._post()
        return self._finished

    def abort(self) -> None:
        self._is_aborted = True
        self._buffer = []
        self._buffered = 0
        self._release()
        if self._is_spooling and not self._is_busy and self._error is None:
            self._post()

    # -- to the thread and back -------------------------------------------------

    def _post(self) -> None:
        if self._worker is None:
            self._fail(Unavailable(cause="the journal is not open"))
            return
        buffer, self._buffer = self._buffer, []
        is_last = self._finished is not None
        self._is_busy = True
        if self._is_aborted:
            self._worker.post(self._in_thread_abort)
        else:
            self._worker.post(lambda: self._in_thread_write(buffer, is_last=is_last))

    def _in_thread_write(self, buffer: list[bytes], *, is_last: bool) -> None:
        count = sum(map(len, buffer))
        try:
            if self._file is None:
                self._file = self._files.create()
            if buffer:
                self._file.write(self._written, buffer)
                for octets in buffer:
                    self._digest.update(octets)
                self._written += count
            if is_last:
                self._files.finish(self._file)
        except OSError as error:
            if self._file is not None:
                self._files.remove(self._file)
            self._reactor.callFromThread(self._fail, as_mail_error(error))
            return
        self._reactor.callFromThread(self._written_out, count, is_last)

    def _in_thread_abort(self) -> None:
        if self._file is not None:
            self._files.remove(self._file)

    def _written_out(self, count: int, is_last: bool) -> None:
        self._is_busy = False
        self._buffered -= count
        if self._is_aborted:
            self._post()
            return
        if is_last and self._finished is not None and self._file is not None:
            content = FileContent(self._file.path, self._written, self._digest.digest())
            finished, self._finished = self._finished, None
            finished.callback(content)
            return
        if self._buffered <= self._settings.spool_buffer // 2:
            self._release()
        if not self._is_busy and (self._buffer or self._finished is not None or self._is_aborted):
            self._post()

    def _fail(self, error: MailError) -> None:
        self._is_busy = False
        self._error = error
        self._buffer = []
        self._buffered = 0
        self._release()
        if self._finished is not None:
            finished, self._finished = self._finished, None
            finished.errback(error)

    def _release(self) -> None:
        if self._paused is not None:
            paused, self._paused = self._paused, None
            paused.callback(None)
