"""The file system as journal and store use it.

Everything that has to survive a power cut is written through :class:`IDisk`, so that a test can
put a model in its place that forgets what was not synced (:mod:`mailsrv.testing.disk`).
:class:`RealDisk` is the thin layer over the operating system.

Every method may wait for the disk: call them from threads only. Errors are :class:`OSError`, as
the operating system gives them. After an error of a sync nothing is known about what was written
through that handle, and trying again on it proves nothing (the kernel has dropped the pages):
write anew under another name, or refuse (R-DUR-4).

A new name is durable only when its directory was synced (R-DUR-1).
"""

from mailsrv.disk.durable import create_whole, make_directories, write_durably
from mailsrv.disk.interface import SYNCFS_TYPES, DirectoryEntry, FileStatus, IDisk, IDiskFile, SpaceLeft, opened
from mailsrv.disk.private_files import give_to_owner, make_private_directory, replace_file, sync_directory
from mailsrv.disk.real import RealDisk, RealFile

__all__ = [
    "SYNCFS_TYPES",
    "DirectoryEntry",
    "FileStatus",
    "IDisk",
    "IDiskFile",
    "RealDisk",
    "RealFile",
    "SpaceLeft",
    "create_whole",
    "give_to_owner",
    "make_directories",
    "make_private_directory",
    "opened",
    "replace_file",
    "sync_directory",
    "write_durably",
]
