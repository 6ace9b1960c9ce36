"""What journal and store ask of a file system (:class:`IDisk`). See the package for what they may rely on."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence

from attrs import frozen
from zope.interface import Attribute, Interface

SYNCFS_TYPES = frozenset({"ext4", "xfs", "btrfs", "tmpfs"})
"""File systems whose ``syncfs`` covers files, names and directories and reports write errors."""


@frozen
class FileStatus:
    """What ``stat`` tells, as far as it matters here."""

    size: int
    is_directory: bool
    inode: int
    link_count: int
    modified_ns: int
    """mtime, nanoseconds since the epoch."""
    changed_ns: int
    """ctime: also moves with link, rename and unlink of the file."""


@frozen
class DirectoryEntry:
    """One name of a directory."""

    name: str
    is_directory: bool


@frozen
class SpaceLeft:
    """Room on a file system, for an ordinary user, in octets."""

    free_octets: int
    total_octets: int


class IDiskFile(Interface):
    """An open file. Not shared between threads without a lock, except for ``read``."""

    path: str = Attribute('The name it was opened under; "" for a temporary file without one.')

    def write(offset: int, buffers: Sequence[bytes]) -> int:
        """Write the buffers one after the other from ``offset`` on, all of them or raise; the octets written."""

    def read(offset: int, count: int) -> bytes:
        """``count`` octets from ``offset``; fewer only at the end of the file."""

    def size() -> int:
        """Length now."""

    def truncate(size: int) -> None:
        """Cut or extend with zeros."""

    def fill(offset: int, count: int) -> None:
        """Write ``count`` zeros: blocks that exist need no metadata at the next sync."""

    def sync() -> None:
        """Data and what is needed to read it are on disk (fdatasync). Not the name: see ``sync_directory``."""

    def try_lock() -> bool:
        """Take the exclusive open-file-description lock, if it is free. Ends with ``close`` or the process."""

    def close() -> None:
        """Safe to call twice. Never raises."""


class IDisk(Interface):
    """Files and directories by absolute path."""

    def open(path: str, *, write: bool = False) -> IDiskFile:
        """An existing file; symbolic links are not followed (R-Q-1), and what is no regular file is an error."""

    def create(path: str) -> IDiskFile:
        """A new file, mode 0600, for reading and writing; FileExistsError where the name is taken."""

    def open_or_create(path: str) -> IDiskFile:
        """For reading and writing, made where it is missing."""

    def create_temporary(directory: str) -> IDiskFile:
        """A file without a name on the file system of ``directory``; ``link_temporary`` gives it one.

        Raises OSError (EOPNOTSUPP, EISDIR) where the file system cannot do this.
        """

    def link_temporary(file: IDiskFile, path: str) -> None:
        """Name a temporary file; FileExistsError where the name is taken."""

    def link(source: str, target: str) -> None:
        """A second name; FileExistsError where it is taken; EMLINK, EXDEV, EPERM where links cannot be."""

    def rename(source: str, target: str) -> None:
        """Replaces ``target``, atomically."""

    def unlink(path: str) -> None:
        """Remove a name; FileNotFoundError where it is gone already."""

    def make_directory(path: str) -> None:
        """One level, mode 0700; FileExistsError where it is there."""

    def remove_directory(path: str) -> None:
        """An empty one."""

    def list_directory(path: str) -> Sequence[DirectoryEntry]:
        """Everything in it, in no order."""

    def status(path: str) -> FileStatus | None:
        """None where there is nothing of that name. Symbolic links are not followed."""

    def sync_directory(path: str) -> None:
        """Names added, changed and removed in it so far are on disk."""

    def watch_file_system(path: str) -> None:
        """Keep an open descriptor on the file system of ``path``: it is what later write errors are reported to."""

    def sync_paths(directories: Collection[str], changed_since_ns: int = 0) -> None:
        """Everything in these directories is on disk: contents, names and the directories themselves.

        One ``syncfs`` for each file system where that can be trusted (:data:`SYNCFS_TYPES`);
        elsewhere the files in them (not deeper) that changed since ``changed_since_ns`` (ctime)
        are synced one by one, of an SQLite database the log only. A directory that is gone is
        passed over. Raises the first error, after trying everything.
        """

    def sync_file_system(path: str) -> bool:
        """The whole file system of the directory ``path`` is on disk; False where one ``syncfs`` cannot do that.

        An error is raised here, and :meth:`sync_paths` still tells it to whom it is owed.
        """

    def cache_life() -> str:
        """Names the operating system's cache from one loss of it to the next: ASCII, another one after each boot."""

    def space_left(path: str) -> SpaceLeft:
        """Room on the file system of ``path``."""

    def avoid_copy_on_write(directory: str) -> None:
        """Files made in ``directory`` from now on are written in place (btrfs; elsewhere nothing happens).

        A block that is written in place needs no free space, so a file filled ahead stays
        writable on a full disk; our own checksums make up for the file system's.
        """

    def file_system_type(path: str) -> str:
        """``ext4``, ``xfs``, ``btrfs``, ``tmpfs``, ``nfs``, … or the magic number in hexadecimal."""


@contextlib.contextmanager
def opened(file: IDiskFile) -> Iterator[IDiskFile]:
    """Close ``file`` at the end of the block."""
    try:
        yield file
    finally:
        file.close()
