"""What a process of the server says of itself, in a file of its own: ``state_dir/status/NAME.json``.

Files rather than a socket: a process that hangs is seen by the age of its file, one that died leaves its last words,
nothing is read that somebody sent, and a command needs no process's attention. A file is replaced as a whole, so nobody
reads half of one. It is locked (``flock``) for as long as its writer lives: who can lock it knows that the writer is
gone, whatever the number of its process means by now. Files and folder are the server's user's alone (0600, 0700).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from mailsrv.disk import make_private_directory

MAX_OCTETS = 2 << 20
"""Nobody writes more, or reads more."""
SERVER = "server"
"""The process that watches over the workers, or that serves alone."""
_SUFFIX = ".json"
_TRIES = 20


def status_folder(state_dir: str) -> str:
    """Where the files of a server are."""
    return os.path.join(state_dir, "status")


class StatusFile:
    """One process's file. Methods wait for the disk and raise OSError."""

    def __init__(self, folder: str, name: str) -> None:
        self._folder = folder
        self._path = os.path.join(folder, name + _SUFFIX)
        self._descriptor: int | None = None

    def write(self, content: Mapping[str, Any]) -> None:
        """Say something new. Not synced: after a power cut nobody is running anyway."""
        octets = json.dumps(content, separators=(",", ":")).encode("ascii")
        if len(octets) > MAX_OCTETS:
            raise OSError(f"{self._path}: too much to say")
        make_private_directory(self._folder)
        fresh = self._path + ".new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            view = memoryview(octets)
            while view:
                view = view[os.write(descriptor, view) :]
            os.rename(fresh, self._path)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(fresh)
            raise
        self.close()
        self._descriptor = descriptor

    def close(self) -> None:
        """Let go: the file is a dead process's from now on."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def clear_statuses(folder: str) -> None:
    """Remove what an earlier run left, as far as that can be done."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))


@frozen
class FoundStatus:
    """A file as somebody else finds it."""

    name: str
    is_alive: bool
    """Its writer still runs."""
    content: Mapping[str, Any]
    modified_at: float
    """When it was written, in seconds since the epoch."""


def read_statuses(folder: str) -> list[FoundStatus]:
    """All files of a server, by name. One that is no file of ours is left out. Raises OSError but for no folder."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        if name.endswith(_SUFFIX):
            status = _read(os.path.join(folder, name), name.removesuffix(_SUFFIX))
            if status is not None:
                found.append(status)
    return found


def _read(path: str, name: str) -> FoundStatus | None:
    """Again, if it was replaced meanwhile: the old one is locked by nobody then."""
    for _ in range(_TRIES):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        try:
            octets = os.read(descriptor, MAX_OCTETS + 1)
            status = os.fstat(descriptor)
            is_alive = not _lock(descriptor)
            if not is_alive and not _is_still(path, status):
                continue
        finally:
            os.close(descriptor)
        try:
            content = json.loads(octets)
        except (ValueError, RecursionError):
            return None
        return FoundStatus(name, is_alive, content, status.st_mtime) if isinstance(content, dict) else None
    return None


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(path: str, status: os.stat_result) -> bool:
    try:
        now = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (now.st_dev, now.st_ino) == (status.st_dev, status.st_ino)
