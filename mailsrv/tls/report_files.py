"""Counts on disk: ``<state_dir>/tls-reports/DAY/WORKER``, and which of them were reported already.

Each process writes a file of its own, whole and renamed, so nothing is shared. Who reports a day
holds a lock that ends with the process; ``DAY/sent`` lists the domains that are done. Everything
here waits for the disk: call it in a thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from typing import Any

from mailsrv.disk import replace_file
from mailsrv.tls.client_settings import TlsReportSettings
from mailsrv.tls.reports import DayCounts

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_MAX_OCTETS = 64 * 1024 * 1024
_MAX_FILES = 1000
_SENT = "sent"


class ReportFiles:
    """The folder and this process's place in it."""

    def __init__(self, folder: str, settings: TlsReportSettings) -> None:
        self._folder = folder
        self._settings = settings
        self._name = f"worker-{secrets.token_hex(8)}"
        self._lock: int | None = None

    def write(self, day: str, table: Mapping[str, Any]) -> None:
        """Put this process's counts of a day in place of those it wrote before. Raises OSError."""
        folder = os.path.join(self._folder, day)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        replace_file(os.path.join(folder, self._name), json.dumps(table).encode(), is_durable=False)

    def days_before(self, today: str) -> list[str]:
        """The days that are over and not yet done, oldest first."""
        try:
            return sorted(name for name in os.listdir(self._folder) if _DAY.match(name) and name < today)
        except OSError:
            return []

    def lock(self) -> bool:
        """Become the one who reports; False where another process is. Raises OSError."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        descriptor = os.open(os.path.join(self._folder, "lock"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._lock = descriptor
        return True

    def unlock(self) -> None:
        """Let another one report."""
        descriptor, self._lock = self._lock, None
        if descriptor is not None:
            os.close(descriptor)

    def read(self, day: str) -> tuple[DayCounts, set[str]]:
        """The counts of all processes, and the domains that are done. What cannot be read is passed over."""
        counts, done = DayCounts(day), set[str]()
        folder = os.path.join(self._folder, day)
        try:
            names = sorted(os.listdir(folder))[:_MAX_FILES]
        except OSError:
            return counts, done
        for name in names:
            try:
                with open(os.path.join(folder, name), "rb") as file:
                    octets = file.read(_MAX_OCTETS)
                if name == _SENT:
                    done.update(octets.decode("ascii", "replace").split("\n"))
                elif name.startswith("worker-"):
                    counts.merge(json.loads(octets), self._settings)
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue
        return counts, done

    def note_done(self, day: str, domain: str) -> None:
        """The domain has its report, or wants none. Raises OSError."""
        with open(os.path.join(self._folder, day, _SENT), "a", encoding="ascii") as file:
            file.write(f"{domain}\n")

    def drop(self, day: str) -> None:
        """The day is done."""
        if _DAY.match(day):
            with contextlib.suppress(OSError):
                shutil.rmtree(os.path.join(self._folder, day))
