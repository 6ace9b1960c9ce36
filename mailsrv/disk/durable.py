"""Directories and small files that are there after a power cut, whole."""

from __future__ import annotations

import contextlib
import os
import secrets

from mailsrv.disk.interface import IDisk, opened


def make_directories(disk: IDisk, path: str) -> None:
    """``path`` with all its missing parents, each new name synced into its parent."""
    missing = []
    while path not in ("", "/") and disk.status(path) is None:
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        with contextlib.suppress(FileExistsError):
            disk.make_directory(directory)
        disk.sync_directory(os.path.dirname(directory))


def write_durably(disk: IDisk, path: str, octets: bytes) -> None:
    """Replace the file ``path`` by one with these octets: after a crash it holds the old or the new ones."""
    temporary = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(temporary)
    with opened(disk.create(temporary)) as file:
        file.write(0, [octets])
        file.sync()
    disk.rename(temporary, path)
    disk.sync_directory(os.path.dirname(path))


def create_whole(disk: IDisk, path: str, octets: bytes) -> None:
    """A new file with these octets; nothing happens where the name is taken: of several one makes it, all read that.

    They are synced before it has its name: after a power cut there is a whole file or none. The name itself is
    not durable yet.
    """
    temporary = f"{path}.{secrets.token_hex(6)}.new"
    try:
        with opened(disk.create(temporary)) as file:
            file.write(0, [octets])
            file.sync()
        with contextlib.suppress(FileExistsError):
            disk.link(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(temporary)
