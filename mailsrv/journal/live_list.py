"""The list a slot publishes of the segments that may be replayed: the file ``live`` in its folder.

It names a new id before the segment has it and an old one until after it is gone for good, so at any
moment, also after a power cut, it names at least what is there. Other processes read it to learn which
deliveries may come again; a list that names more than there is harms nobody.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Iterable

from twisted.logger import Logger

from mailsrv.disk import IDisk, write_durably
from mailsrv.errors import Unavailable

ID_OCTETS = 16
"""Of a segment's id."""
_HEAD = struct.Struct(">8sI")
_MAGIC = b"MSLIVE\x00\x01"


class LiveList:
    """One slot's list, by the process that has the slot. Safe for threads."""

    _log = Logger()

    def __init__(self, slot_directory: str, disk: IDisk) -> None:
        self._slot_directory = slot_directory
        self._disk = disk
        self._lock = threading.Lock()
        self._ids: set[bytes] = set()

    def begin(self, ids: Iterable[bytes]) -> None:
        """Publish just these. Raises OSError."""
        with self._lock:
            self._ids = set(ids)
            try:
                self._write()
            except OSError:
                # On a full disk the list there is will do, if it names all: a server that does not start
                # is one whose users cannot make room (R-FULL-1).
                if not self._is_sufficient():
                    raise

    def _is_sufficient(self) -> bool:
        try:
            return self._ids <= read_live_list(self._disk, self._slot_directory)
        except Unavailable:
            return False

    def announce(self, segment_id: bytes) -> None:
        """A segment is about to have this id. Raises OSError; then it must not."""
        with self._lock:
            self._ids.add(segment_id)
            self._write()

    def retire(self, segment_id: bytes) -> None:
        """No segment has this id any more."""
        with self._lock:
            self._ids.discard(segment_id)
            try:
                self._write()
            except OSError as error:
                # It names more than there is until the next time: that harms nobody.
                self._log.warn("list of live segments was not written: {error}", error=error)

    def forget(self, segment_id: bytes) -> None:
        """The same of one that never had a record; it stays published until the next list is written."""
        # Without the lock, which is held while the disk writes: who calls may hold the slot's own.
        self._ids.discard(segment_id)

    def ids(self) -> frozenset[bytes]:
        """What is published."""
        with self._lock:
            return frozenset(self._ids)

    def _write(self) -> None:
        write_durably(self._disk, os.path.join(self._slot_directory, "live"), _encode(frozenset(self._ids)))


def read_live_list(disk: IDisk, slot_directory: str) -> frozenset[bytes]:
    """What the slot publishes; ``Unavailable`` where that cannot be read."""
    try:
        file = disk.open(os.path.join(slot_directory, "live"))
    except FileNotFoundError:
        # The folder was made this moment: nothing can be in it before the list is.
        return frozenset()
    except OSError as error:
        raise Unavailable(cause=f"{slot_directory}: {error}") from error
    try:
        octets = file.read(0, 1 << 20)
    except OSError as error:
        raise Unavailable(cause=f"{slot_directory}: {error}") from error
    finally:
        file.close()
    body, checksum = octets[:-4], octets[-4:]
    if len(body) < _HEAD.size or zlib.crc32(body).to_bytes(4, "big") != checksum:
        raise Unavailable(cause=f"{slot_directory}: the list of live segments is damaged")
    magic, count = _HEAD.unpack_from(body)
    ids = body[_HEAD.size :]
    if magic != _MAGIC or len(ids) != count * ID_OCTETS:
        raise Unavailable(cause=f"{slot_directory}: the list of live segments is damaged")
    return frozenset(ids[at : at + ID_OCTETS] for at in range(0, len(ids), ID_OCTETS))


def _encode(ids: frozenset[bytes]) -> bytes:
    body = _HEAD.pack(_MAGIC, len(ids)) + b"".join(sorted(ids))
    return body + zlib.crc32(body).to_bytes(4, "big")
