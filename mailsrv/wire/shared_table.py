"""A table that all workers of a run share: rates, and how many connections there are.

It is a file that every worker maps (:mod:`mailsrv.wire.mapped_file`). A file of another run or another
size is replaced, and who still has the old one mapped goes on with that.

Rates are :class:`~mailsrv.wire.rates.Buckets`. What is counted exactly, the connections, is not: each
worker has a *column* of its own in which it alone writes how many it has by name, and the others
read it. So nothing is ever counted twice or lost in a race. A column belongs to who holds its lock,
which ends with its holder however that ends; whoever comes next clears all the columns nobody holds.
"""

from __future__ import annotations

import fcntl
import functools
import os
import secrets
import struct

from mailsrv.wire.mapped_file import HEADER_OCTETS, KEY_OCTETS, key_of, map_file
from mailsrv.wire.rates import SET_OCTETS, WAYS, Buckets, Position, hash_position, sets_for

_WORDS = 2 * WAYS
# struct flock: l_type, l_whence, l_start, l_len, l_pid (0 for OFD locks), padded as the compiler does.
_FLOCK = struct.Struct("hhqqi4x")
_LOCKS_BEGIN = 1 << 40
"""Columns are locked by octets far behind the end of the file: nobody locks what is written."""
_POSITIONS_REMEMBERED = 8192


class NoColumn(Exception):
    """More processes than the table was made for."""


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
        sets = sets_for(buckets)
        memory = memoryview(bytearray(sets * SET_OCTETS))
        return cls(memory, secrets.token_bytes(KEY_OCTETS), bucket_sets=sets, columns=0, column_sets=0)

    @classmethod
    def open(cls, path: str, run_id: bytes, *, buckets: int, connections: int, workers: int) -> SharedTable:
        """The table of the run ``run_id`` in the file at ``path``, made if it is not there yet.

        ``buckets`` rates are remembered, and names of ``connections`` connections of each of ``workers``
        processes, and as many again that take their places. Raises OSError, and :class:`NoColumn`.
        """
        bucket_sets, column_sets = sets_for(buckets), sets_for(connections)
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
