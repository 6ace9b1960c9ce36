"""Messages opened for reading: in memory, or from a file piece by piece. Stores, queue and relay share them."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from mailsrv.disk import IDiskFile
from mailsrv.interfaces.content import IContent

RunInThread = Callable[[Callable[[], bytes]], Deferred[bytes]]


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
    """A large message, read piece by piece in a thread. It begins after the first ``skipped`` octets of its file."""

    octets: bytes | None = None

    def __init__(self, file: IDiskFile, size: int, run: RunInThread, *, skipped: int = 0) -> None:
        self.size = size
        self._file = file
        self._run = run
        self._skipped = skipped
        self._reading = 0
        self._is_closed = False

    def read(self, offset: int, count: int) -> Deferred[bytes]:
        if self._is_closed:
            return succeed(b"")
        self._reading += 1
        return self._run(lambda: self._file.read(self._skipped + offset, count)).addBoth(self._has_read)

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
