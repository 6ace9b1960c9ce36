"""Who may use the queue's database, and who may put another one in its place.

::

    queue/queue.lock            held shared during each transaction, alone by who replaces the database
    queue/queue.db.salvaged     a whole, synced database that is to become queue.db (see mailsrv.queue.salvage)
    queue/corrupt/queue.db-*    what was replaced; never deleted

A connection to a file that was replaced must not be used, nor closed as if it were the last one: SQLite would
remove the new database's log by its name.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from mailsrv.disk import sync_directory
from mailsrv.queue.content import CORRUPT

LOCK_FILE = "queue.lock"
_SALVAGED = ".salvaged"
_PARTS = ("", "-wal")


class Gate:
    """For one connection. Raises OSError where the folder cannot be used."""

    def __init__(self, path: str) -> None:
        self._path = path
        lock = os.path.join(os.path.dirname(path), LOCK_FILE)
        self._descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._identity = (0, 0)
        self._is_alone = False

    def close(self) -> None:
        """Safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Nobody replaces the database meanwhile. Waits while somebody does; within :meth:`alone` it does nothing."""
        if self._is_alone:
            yield
            return
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """No transaction of anybody is under way meanwhile."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self._is_alone = True
        try:
            yield
        finally:
            self._is_alone = False
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def note(self) -> None:
        """The connection that was just opened is to the file that has the name now."""
        self._identity = self._current()

    @property
    def is_replaced(self) -> bool:
        """Whether another file has the name since :meth:`note`."""
        return self._current() != self._identity

    def _current(self) -> tuple[int, int]:
        status = os.stat(self._path)
        return status.st_dev, status.st_ino


def salvaged_path(path: str) -> str:
    """Where a new database waits until everything of the old one has been put away."""
    return path + _SALVAGED


def finish_replacement(path: str) -> None:
    """Put the old database away and the new one in its place. Within :meth:`Gate.alone`. Raises OSError.

    After a crash anywhere in it, it is begun again: as long as there is a salvaged file it is not over.
    """
    directory = os.path.dirname(path)
    corrupt = os.path.join(directory, CORRUPT)
    os.makedirs(corrupt, mode=0o700, exist_ok=True)
    name = f"{os.path.basename(path)}-{time.time_ns()}"
    for part in _PARTS:
        with contextlib.suppress(FileNotFoundError):
            os.link(path + part, os.path.join(corrupt, name + part))
    sync_directory(corrupt)
    # The log before the name changes hands: it would be read into the new database.
    for part in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + part)
    sync_directory(directory)
    os.rename(salvaged_path(path), path)
    sync_directory(directory)
