"""A file that several processes map: made once, of a size that is fixed then, with a random key of its own.

Its blocks are allocated when it is made: a write to a mapped page that finds the disk full would be a signal, not an
error. A :class:`FileKind` is one that outlives the run that made it. Where a file cannot be had, :class:`LateTable`
goes on in the memory of the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import secrets
import struct
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from attrs import frozen
from twisted.logger import Logger

HEADER_OCTETS = 4096
KEY_OCTETS = 32
_LABEL_OCTETS = 128
_SIZE = struct.Struct("<Q")

T = TypeVar("T")


def map_file(path: str, label: bytes, octets: int) -> tuple[mmap.mmap, int]:
    """Map a file of ``octets`` after its header, shared and writable; gives the descriptor too, which stays open.

    ``label`` (at most 128 octets) says what the file must be; any other file, symbolic links too, is
    replaced by one of zeros with a new random key. Raises OSError. Waits for the disk: at start only.
    """
    if len(label) > _LABEL_OCTETS:
        raise ValueError("the label is too long")
    label = label.ljust(_LABEL_OCTETS, b"\0")
    folder = os.path.dirname(path)
    for each in (os.path.dirname(folder), folder):  # makedirs gives the mode to the last one only
        os.makedirs(each, mode=0o700, exist_ok=True)
    with _locked(path + ".lock"):
        descriptor = _open_labelled(path, label, HEADER_OCTETS + octets)
        if descriptor is None:
            descriptor = _make(path, label, HEADER_OCTETS + octets)
    try:
        return mmap.mmap(descriptor, HEADER_OCTETS + octets), descriptor
    except BaseException:
        os.close(descriptor)
        raise


def map_existing(path: str) -> mmap.mmap | None:
    """A file that :func:`map_file` made, as it is; None where there is none. Raises OSError if it cannot be used."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        return mmap.mmap(descriptor, 0) if os.fstat(descriptor).st_size >= HEADER_OCTETS else None
    finally:
        os.close(descriptor)


def label_of(mapping: mmap.mmap) -> bytes:
    """The label of a mapped file, filled up with zeros to 128 octets."""
    return mapping[:_LABEL_OCTETS]


def key_of(mapping: mmap.mmap) -> bytes:
    """The random key of a mapped file."""
    return mapping[_LABEL_OCTETS : _LABEL_OCTETS + KEY_OCTETS]


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open_labelled(path: str, label: bytes, size: int) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    if os.fstat(descriptor).st_size == size and os.pread(descriptor, _LABEL_OCTETS, 0) == label:
        return descriptor
    os.close(descriptor)
    return None


def _make(path: str, label: bytes, size: int) -> int:
    """Under a name of its own first: who maps ``path`` never sees half a file."""
    fresh = path + ".new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)
    descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
        os.pwrite(descriptor, label + secrets.token_bytes(KEY_OCTETS), 0)
        os.rename(fresh, path)
    except BaseException:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise
    return descriptor


@frozen
class TableMemory:
    """What a table lies in; all zeros are an empty one."""

    octets: memoryview
    key: bytes
    size: int
    """In the unit of the :class:`FileKind`."""


@frozen
class FileKind:
    """What is counted in a file of this kind, and how large it is."""

    mark: bytes
    """What its label begins with; another layout needs another mark."""
    what: str
    """In the plural, for messages."""
    octets_of: Callable[[int], int]
    """How much memory a table of a size takes. The unit of sizes is the kind's own."""

    def in_memory(self, size: int) -> TableMemory:
        """Of this process alone, forgotten with it."""
        return TableMemory(memoryview(bytearray(self.octets_of(size))), secrets.token_bytes(KEY_OCTETS), size)

    def open(self, path: str, size: int) -> TableMemory:
        """The file at ``path``, made if need be; one of another kind or size is replaced by an empty one. OSError."""
        mapping, descriptor = map_file(path, self.mark + _SIZE.pack(size), self.octets_of(size))
        os.close(descriptor)  # the mapping has one of its own
        return TableMemory(memoryview(mapping)[HEADER_OCTETS:], key_of(mapping), size)

    def open_existing(self, path: str) -> TableMemory | None:
        """For who only looks or forgives: None where there is no file. OSError; ValueError for a foreign file."""
        mapping = map_existing(path)
        if mapping is None:
            return None
        label = label_of(mapping)
        (size,) = _SIZE.unpack_from(label, len(self.mark))
        if not label.startswith(self.mark) or not size or len(mapping) != HEADER_OCTETS + self.octets_of(size):
            raise ValueError(f"{path} is no table of {self.what}")
        return TableMemory(memoryview(mapping)[HEADER_OCTETS:], key_of(mapping), size)


class LateTable(Generic[T]):
    """A table that is opened late: after root was given up, for the file is the user's own."""

    _log = Logger()

    def __init__(self, path: str | None, what: str, open_file: Callable[[str], T], in_memory: Callable[[], T]) -> None:
        """Without a path, and where the file cannot be had, this process counts alone. ``what``: in the plural."""
        self._path = path
        self._what = what
        self._open_file = open_file
        self._in_memory = in_memory
        self._table: T | None = None

    def start(self) -> None:
        """Open the file; waits for the disk."""
        self._table = self._open()

    @property
    def table(self) -> T:
        """What is counted; opened now if nobody did before."""
        if self._table is None:
            self._table = self._open()
        return self._table

    def _open(self) -> T:
        if self._path is not None:
            try:
                return self._open_file(self._path)
            except OSError as error:
                self._log.error(
                    "{path} cannot be used ({reason}): {what} are counted in this process only",
                    path=self._path,
                    reason=error.strerror or str(error),
                    what=self._what,
                )
        return self._in_memory()
