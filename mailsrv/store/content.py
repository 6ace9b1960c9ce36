"""Messages opened for reading, always with CRLF line ends (R-SIZE-1).

A file that another program stored with bare LF is never changed; it is converted while it is
read: in memory when it is loaded whole, into a nameless temporary file when it is large.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from mailsrv.disk import IDisk, IDiskFile
from mailsrv.interfaces.content import IContent
from mailsrv.store.threads import IThreads

_CHUNK = 1 << 20


def with_crlf(octets: bytes) -> bytes:
    """Every line end as CRLF; lone CRs stay."""
    if octets.count(b"\n") == octets.count(b"\r\n"):
        return octets
    return octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


@implementer(IContent)
class LoadedContent:
    """A message in memory."""

    __slots__ = ("octets", "size")

    def __init__(self, octets: bytes) -> None:
        self.octets: bytes | None = octets
        self.size = len(octets)

    def read(self, offset: int, count: int) -> Deferred[bytes]:
        return succeed(self.octets[offset : offset + count] if self.octets is not None else b"")

    def close(self) -> None:
        """Nothing is held open."""


@implementer(IContent)
class OpenedContent:
    """A large message, read piece by piece in a thread."""

    octets: bytes | None = None

    def __init__(self, file: IDiskFile, size: int, threads: IThreads) -> None:
        self.size = size
        self._file = file
        self._threads = threads
        self._reading = 0
        self._is_closed = False

    def read(self, offset: int, count: int) -> Deferred[bytes]:
        if self._is_closed:
            return succeed(b"")
        self._reading += 1
        return self._threads.run(lambda: self._file.read(offset, count)).addBoth(self._has_read)

    def _has_read(self, result: bytes) -> bytes:
        self._reading -= 1
        if self._is_closed and not self._reading:
            self._file.close()
        return result

    def close(self) -> None:
        self._is_closed = True
        # A descriptor closed under a thread's read could by then be somebody else's file.
        if not self._reading:
            self._file.close()

    def __del__(self) -> None:
        self._file.close()


def open_content(
    disk: IDisk, path: str, *, stored: int, size: int, temporary_directory: str, threads: IThreads, load_octets: int
) -> LoadedContent | OpenedContent:
    """Open a message; whole where it has at most ``load_octets``. In a thread.

    Raises FileNotFoundError, and OSError where the file has not the size the index knows.
    """
    file = disk.open(path)
    try:
        if file.size() != stored:
            raise OSError(f"{path} has {file.size()} octets, not {stored}")
        if stored <= load_octets:
            octets = file.read(0, stored)
            if stored != size:
                octets = with_crlf(octets)
            file.close()
            return LoadedContent(octets)
        if stored != size:
            converted = _converted(disk, file, temporary_directory)
            file.close()
            return OpenedContent(converted, size, threads)
        return OpenedContent(file, size, threads)
    except BaseException:
        file.close()
        raise


def _converted(disk: IDisk, file: IDiskFile, temporary_directory: str) -> IDiskFile:
    target = disk.create_temporary(temporary_directory)
    try:
        read = written = 0
        held = b""
        while chunk := file.read(read, _CHUNK):
            read += len(chunk)
            octets = held + chunk
            # A CR at the end may belong to an LF that the next piece begins with.
            held = b"\r" if octets.endswith(b"\r") else b""
            converted = with_crlf(octets[: len(octets) - len(held)])
            written += target.write(written, [converted])
        if held:
            target.write(written, [held])
    except BaseException:
        target.close()
        raise
    return target


def close_all(contents: Sequence[IContent | None]) -> None:
    """Close what was opened."""
    for content in contents:
        if content is not None:
            content.close()
