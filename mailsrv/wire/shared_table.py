"""A table that all workers of a run share: rates, and how many connections there are.

It is a file that every worker maps. The first one makes it, of a size that is fixed then, with a key
of its own; a file of another run or another size is replaced, and who still has the old one mapped
goes on with that. Its blocks are allocated when it is made: a write to a mapped page that finds the
disk full would be a signal, not an error.

Rates are :class:`~mailsrv.wire.rates.Buckets`. What is counted exactly, the connections, is not: each
worker has a *column* of its own in which it alone writes how many it has by name, and the others
read it. So nothing is ever counted twice or lost in a race. A column belongs to who holds its lock,
which ends with its holder however that ends; whoever comes next clears all the columns nobody holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import mmap
import os
import secrets
import struct
from collections.abc import Iterator

from mailsrv.wire.rates import SET_OCTETS, WAYS, Buckets, Position, hash_position

HEADER_OCTETS = 4096
_LABEL_OCTETS = 128
_KEY_OCTETS = 32
_WORDS = 2 * WAYS
# struct flock: l_type, l_whence, l_start, l_len, l_pid (0 for OFD locks), padded as the compiler does.
_FLOCK = struct.Struct("hhqqi4x")
_LOCKS_BEGIN = 1 << 40
"""Columns are locked by octets far behind the end of the file: nobody locks what is written."""
_POSITIONS_REMEMBERED = 8192


class NoColumn(Exception):
    """More processes than the table was made for."""


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
    return mapping[_LABEL_OCTETS : _LABEL_OCTETS + _KEY_OCTETS]


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
        os.pwrite(descriptor, label + secrets.token_bytes(_KEY_OCTETS), 0)
        os.rename(fresh, path)
    except BaseException:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise
    return descriptor


def _sets_for(entries: int) -> int:
    """Sets for this many entries with as much room again: hashes do not fill sets evenly."""
    return -(-2 * entries // WAYS)


class SharedTable:
    """Buckets and columns; made by :meth:`in_memory` for one process, by :meth:`open` for several."""

    def __init__(self, memory: memoryview, key: bytes, *, bucket_sets: int, columns: int, column_sets: int) -> None:
        """``memory`` is what follows the header. Use the two class methods."""
        self._key = key
        end = bucket_sets * SET_OCTETS
        self.buckets = Buckets(memory[:end], key)
        self._column_memory = memory[end:]
        self._counts = self._column_memory.cast("Q")
        self._columns = columns
        self._column_sets = column_sets
        self._column: int | None = None
        self._descriptor: int | None = None
        self._position = functools.lru_cache(_POSITIONS_REMEMBERED)(self._compute_position)

    @classmethod
    def in_memory(cls, buckets: int) -> SharedTable:
        """A table of one process: nobody else is counted."""
        sets = _sets_for(buckets)
        memory = memoryview(bytearray(sets * SET_OCTETS))
        return cls(memory, secrets.token_bytes(_KEY_OCTETS), bucket_sets=sets, columns=0, column_sets=0)

    @classmethod
    def open(cls, path: str, run_id: bytes, *, buckets: int, connections: int, workers: int) -> SharedTable:
        """The table of the run ``run_id`` in the file at ``path``, made if it is not there yet.

        ``buckets`` rates are remembered, and names of ``connections`` connections of each of ``workers``
        processes, and as many again that take their places. Raises OSError, and :class:`NoColumn`.
        """
        bucket_sets, column_sets = _sets_for(buckets), _sets_for(connections)
        columns = 2 * workers + 2
        label = b"mailsrv shared table 1 " + struct.pack("<QQQ", bucket_sets, columns, column_sets) + run_id[:64]
        mapping, descriptor = map_file(path, label, (bucket_sets + columns * column_sets) * SET_OCTETS)
        memory = memoryview(mapping)[HEADER_OCTETS:]
        table = cls(memory, key_of(mapping), bucket_sets=bucket_sets, columns=columns, column_sets=column_sets)
        table._descriptor = descriptor
        try:
            table._claim_column()
        except BaseException:
            os.close(descriptor)
            raise
        return table

    def close(self) -> None:
        """Clear our column and let it go. The table must not be used after that."""
        if self._descriptor is not None and self._column is not None:
            self._clear(self._column)
            # Closing would not do: the mapping has a descriptor of its own for the same open file.
            self._lock(self._column, fcntl.F_UNLCK)
            os.close(self._descriptor)
            self._descriptor = self._column = None

    # Columns

    def publish(self, name: str, count: int) -> None:
        """We have ``count`` of ``name`` now. Nothing happens in a table of one process, or in a full set."""
        if self._column is None:
            return
        tag, base = self._position(name)
        base += self._column * self._column_sets * _WORDS
        tags = self._counts[base : base + WAYS].tolist()
        wanted = tag if tag in tags else 0
        if wanted not in tags:
            return
        slot = base + tags.index(wanted)
        self._counts[slot + WAYS] = count
        self._counts[slot] = tag if count > 0 else 0

    def elsewhere(self, name: str) -> int:
        """How many of ``name`` the other processes have."""
        if self._column is None:
            return 0
        tag, base = self._position(name)
        counts, step = self._counts, self._column_sets * _WORDS
        found = 0
        for column in range(self._columns):
            if column != self._column:
                start = base + column * step
                tags = counts[start : start + WAYS].tolist()
                if tag in tags:
                    found += counts[start + tags.index(tag) + WAYS]
        return found

    def _claim_column(self) -> None:
        """Take the first column that is nobody's; the others of the dead are cleared on the way."""
        for column in range(self._columns):
            if not self._lock(column, fcntl.F_WRLCK):
                continue
            self._clear(column)
            if self._column is None:
                self._column = column
            else:
                self._lock(column, fcntl.F_UNLCK)
        if self._column is None:
            raise NoColumn(f"{self._columns} processes use the table already")

    def _lock(self, column: int, kind: int) -> bool:
        if self._descriptor is None:
            return False
        try:
            fcntl.fcntl(
                self._descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, _LOCKS_BEGIN + column, 1, 0)
            )
        except BlockingIOError:
            return False
        return True

    def _clear(self, column: int) -> None:
        octets = self._column_sets * SET_OCTETS
        self._column_memory[column * octets : (column + 1) * octets] = bytes(octets)

    def _compute_position(self, name: str) -> Position:
        return hash_position(self._key, name, self._column_sets)
