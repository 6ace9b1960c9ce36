"""Small files of the operating system's that are replaced as a whole, for those who need no :class:`IDisk`.

They belong to one user and have mode 0600. Everything here waits for the disk and raises OSError.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable

_NAME_CHARACTERS = 50
"""What is kept of a name: the other one must not become too long for a file system."""


def replace_file(
    path: str, octets: bytes, *, prepare: Callable[[int], object] | None = None, is_durable: bool = True
) -> None:
    """Put a file with these octets in the place of ``path``: who reads finds the old ones or the new ones, whole.

    ``is_durable``: after a power cut too; when this returns, the new ones. ``prepare`` is called with the descriptor of
    the new file while it is empty, for its owner or mode.
    """
    folder, name = os.path.split(os.path.abspath(path))
    beside = os.path.join(folder, f".{name[:_NAME_CHARACTERS]}.{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:
            if prepare is not None:
                prepare(descriptor)
            file.write(octets)
            file.flush()
            if is_durable:
                os.fsync(descriptor)
        os.rename(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
    if is_durable:
        sync_directory(folder)


def make_private_directory(path: str) -> None:
    """``path`` and the directory above it, where they are missing, with mode 0700; what is above those must be there.

    Not durable by itself.
    """
    for each in (os.path.dirname(path), path):  # makedirs gives the mode to the last one only
        os.makedirs(each, mode=0o700, exist_ok=True)


def give_to_owner(target: str | int, directory: str) -> None:
    """What root makes in a directory, before it becomes the user of the server, belongs to the directory's owner.

    ``target``: a path, not followed where it is a link, or a descriptor.
    """
    if os.geteuid() == 0:
        owner = os.stat(directory)
        if isinstance(target, int):
            os.fchown(target, owner.st_uid, owner.st_gid)
        else:
            os.lchown(target, owner.st_uid, owner.st_gid)


def sync_directory(path: str) -> None:
    """Make the names in it durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
