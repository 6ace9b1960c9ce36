"""Which workers live: each holds a lock on a file of its own, which ends with the process however it ends.

::

    queue/seats/OWNER       of the worker whose leases bear that number

Without it the leases of a worker nobody replaces (one of those that were being replaced anyway) would last until
they expire, and a new run of the server would take what a worker of the last one is still sending.
"""

from __future__ import annotations

import fcntl
import os
import time

_ATTEMPTS = 20
_PAUSE_SECONDS = 0.01
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class Seats:
    """Of the folder ``directory``/seats. Every method raises OSError where it cannot be used."""

    def __init__(self, directory: str) -> None:
        self._directory = os.path.join(directory, "seats")
        self._held: tuple[int, str] | None = None

    def claim(self, owner: int) -> bool:
        """Hold ours; whether that succeeded. False: somebody else holds it, against all order."""
        path = self._path(owner)
        if self._held is not None:
            return self._held[1] == path
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        for _ in range(_ATTEMPTS):
            descriptor = os.open(path, _FLAGS | os.O_CREAT, 0o600)
            # Somebody may just be looking whether it is free, or removing it.
            if _is_locked_by_us(descriptor) and os.fstat(descriptor).st_nlink:
                self._held = descriptor, path
                return True
            os.close(descriptor)
            time.sleep(_PAUSE_SECONDS)
        return False

    def is_alive(self, owner: int) -> bool:
        """Whether that worker lives. What is left of one that does not is removed."""
        path = self._path(owner)
        if self._held is not None and self._held[1] == path:
            return True
        try:
            descriptor = os.open(path, _FLAGS)
        except FileNotFoundError:
            return False
        try:
            if not _is_locked_by_us(descriptor):
                return True
            if os.fstat(descriptor).st_nlink:
                os.unlink(path)
            return False
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """At the end, in good order. Safe to call twice."""
        if self._held is not None:
            descriptor, path = self._held
            self._held = None
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            finally:
                os.close(descriptor)

    def _path(self, owner: int) -> str:
        return os.path.join(self._directory, str(owner))


def _is_locked_by_us(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
