"""Syncs of what was applied, and the doubt that stays after one has failed.

The keeper syncs, the replay of another's slot does, and a delivery that was put aside and is tried again. The kernel
tells a write error once, to whoever syncs next, and takes the pages for clean from then on (R-DUR-4): what any of them
meets concerns all who have written, and a file that can be read whole proves nothing until the cache it is read from
is gone. So a failure counts for every sync under way, and the file ``doubtful`` tells it to whoever replays next, be it
another process::

    state_dir/journal/doubtful      names the life of the cache (a boot of the machine) that is not to be trusted

It need not be durable: it is there as long as that cache is.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Collection
from errno import EIO

from twisted.logger import Logger

from mailsrv.disk import IDisk, opened

_MOST_OCTETS = 200


class Checkpoints:
    """Of one process; ``directory`` is that of all slots. Safe for threads."""

    _log = Logger()

    def __init__(self, disk: IDisk, directory: str) -> None:
        self._disk = disk
        self._path = os.path.join(directory, "doubtful")
        self._lock = threading.Lock()
        self.failures = 0
        """Syncs that have failed so far."""

    def sync(self, directories: Collection[str], *, begun: int, changed_since_ns: int = 0) -> None:
        """As :meth:`IDisk.sync_paths`; an error, too, where another one has failed since ``failures`` was ``begun``."""
        try:
            self._disk.sync_paths(directories, changed_since_ns)
        except OSError:
            with self._lock:
                self.failures += 1
            self._note_doubt()
            raise
        if self.failures != begun:
            raise OSError(EIO, "a sync at the same time has failed")

    def _note_doubt(self) -> None:
        try:
            with opened(self._disk.open_or_create(self._path)) as file:
                file.truncate(0)
                file.write(0, [self._disk.cache_life().encode("ascii")])
        except OSError as error:
            self._log.error("that a checkpoint failed could not be noted: {error}", error=error)

    def is_doubtful(self) -> bool:
        """Whether what can be read may yet not be on the disk, whoever wrote it."""
        try:
            with opened(self._disk.open(self._path)) as file:
                found = file.read(0, _MOST_OCTETS)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        if found == self._disk.cache_life().encode("ascii") or not found:
            return True
        # Of an earlier boot: what is read now comes from the disk.
        with contextlib.suppress(OSError):
            self._disk.unlink(self._path)
        return False
