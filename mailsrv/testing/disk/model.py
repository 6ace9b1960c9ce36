"""The disk of the model, and its open files."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Collection, Sequence

from attrs import define
from zope.interface import implementer

from mailsrv.disk import DirectoryEntry, FileStatus, IDisk, IDiskFile, SpaceLeft
from mailsrv.testing.disk.faults import FaultyOperations, PowerCut
from mailsrv.testing.disk.inode import Change, Inode
from mailsrv.testing.disk.power_cut import copy_survivors


@implementer(IDiskFile)
class ModelFile:
    """A handle of a :class:`ModelDisk`."""

    def __init__(self, disk: ModelDisk, inode: Inode, path: str, *, writable: bool) -> None:
        self._disk = disk
        self._inode = inode
        self._writable = writable
        self._closed = False
        self._errors_seen = inode.errors
        self.path = path

    def _operate(self, name: str) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "closed", self.path)
        self._disk.operate(name, self.path)

    def write(self, offset: int, buffers: Sequence[bytes]) -> int:
        with self._disk._lock:
            octets = b"".join(buffers)
            if not self._writable:
                raise OSError(errno.EBADF, "not open for writing", self.path)
            try:
                self._operate("write")
            except PowerCut:
                # The call was under way: any part of it may have reached the disk.
                self._inode.put(offset, octets)
                raise
            self._disk._take_space(max(0, offset + len(octets) - len(self._inode.octets)))
            self._inode.put(offset, octets)
            return len(octets)

    def read(self, offset: int, count: int) -> bytes:
        with self._disk._lock:
            self._operate("read")
            return bytes(self._inode.octets[offset : offset + count])

    def size(self) -> int:
        with self._disk._lock:
            self._operate("size")
            return len(self._inode.octets)

    def truncate(self, size: int) -> None:
        with self._disk._lock:
            self._operate("truncate")
            current = len(self._inode.octets)
            if size > current:
                self._inode.put(current, bytes(size - current))
            else:
                del self._inode.octets[size:]
                self._disk.space.give(current - size)

    def fill(self, offset: int, count: int) -> None:
        with self._disk._lock:
            self._operate("fill")
            self._disk._take_space(max(0, offset + count - len(self._inode.octets)))
            self._inode.put(offset, bytes(count))

    def sync(self) -> None:
        with self._disk._lock:
            self._inode.sync(self._begin_sync)

    def _begin_sync(self) -> None:
        self._operate("sync")
        if self._errors_seen != self._inode.errors:
            self._errors_seen = self._inode.errors
            raise OSError(errno.EIO, os.strerror(errno.EIO), self.path)

    def try_lock(self) -> bool:
        with self._disk._lock:
            self._operate("lock")
            if self._inode.lock_owner not in (None, self):
                return False
            self._inode.lock_owner = self
            return True

    def close(self) -> None:
        self._closed = True
        if self._inode.lock_owner is self:
            self._inode.lock_owner = None


@define
class _Space:
    total: int
    free: int

    def give(self, octets: int) -> None:
        self.free += octets


@implementer(IDisk)
class ModelDisk(FaultyOperations):
    """See the module. ``capacity`` is the room for file contents in octets."""

    def __init__(self, capacity: int = 1 << 34) -> None:
        super().__init__()
        self._lock = threading.RLock()
        self._numbers = 1
        self._life = 1
        self._root = self._new_inode(is_directory=True)
        self.space = _Space(capacity, capacity)

    # -- contents -----------------------------------------------------------

    def _new_inode(self, *, is_directory: bool = False) -> Inode:
        self._numbers += 1
        return Inode(self._numbers, is_directory)

    def _take_space(self, octets: int) -> None:
        if octets > self.space.free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.space.free -= octets

    # -- names --------------------------------------------------------------

    def _find(self, path: str) -> Inode | None:
        inode: Inode | None = self._root
        for name in path.strip("/").split("/"):
            if inode is None or not inode.is_directory:
                return None
            if name:
                inode = inode.entries.get(name)
        return inode

    def _existing(self, path: str) -> Inode:
        inode = self._find(path)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return inode

    def _directory(self, path: str) -> Inode:
        inode = self._existing(path)
        if not inode.is_directory:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return inode

    def _parent(self, path: str) -> tuple[Inode, str]:
        directory, name = os.path.split(path.rstrip("/"))
        return self._directory(directory), name

    def _free_name(self, path: str) -> tuple[Inode, str]:
        parent, name = self._parent(path)
        if name in parent.entries:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        return parent, name

    def _change(self, *steps: tuple[Inode, str, Inode | None]) -> None:
        change = Change(list(steps))
        for directory, name, inode in steps:
            old = directory.entries.pop(name, None)
            if inode is not None:
                directory.entries[name] = inode
            elif old is not None and not old.is_directory and self._link_count(old) == 0:
                self.space.give(len(old.octets))
            directory.changed_ns += 1
            if not directory.pending or directory.pending[-1] is not change:
                directory.pending.append(change)

    def _link_count(self, inode: Inode) -> int:
        def count(directory: Inode) -> int:
            return sum(
                (found is inode) + (count(found) if found.is_directory else 0) for found in directory.entries.values()
            )

        return count(self._root)

    # -- IDisk --------------------------------------------------------------

    def open(self, path: str, *, write: bool = False) -> ModelFile:
        with self._lock:
            self.operate("open", path)
            return ModelFile(self, self._existing(path), path, writable=write)

    def create(self, path: str) -> ModelFile:
        with self._lock:
            self.operate("create", path)
            parent, name = self._free_name(path)
            inode = self._new_inode()
            self._change((parent, name, inode))
            return ModelFile(self, inode, path, writable=True)

    def open_or_create(self, path: str) -> ModelFile:
        with self._lock:
            return self.create(path) if self._find(path) is None else self.open(path, write=True)

    def create_temporary(self, directory: str) -> ModelFile:
        with self._lock:
            self.operate("create_temporary", directory)
            self._directory(directory)
            return ModelFile(self, self._new_inode(), "", writable=True)

    def link_temporary(self, file: IDiskFile, path: str) -> None:
        with self._lock:
            if not isinstance(file, ModelFile):
                raise TypeError("not a file of this disk")
            self.operate("link", path)
            parent, name = self._free_name(path)
            self._change((parent, name, file._inode))
            file.path = path

    def link(self, source: str, target: str) -> None:
        with self._lock:
            self.operate("link", target)
            inode = self._existing(source)
            parent, name = self._free_name(target)
            self._change((parent, name, inode))

    def rename(self, source: str, target: str) -> None:
        with self._lock:
            self.operate("rename", target)
            inode = self._existing(source)
            from_parent, from_name = self._parent(source)
            to_parent, to_name = self._parent(target)
            if to_parent.entries.get(to_name) is not inode:
                self._change((to_parent, to_name, inode), (from_parent, from_name, None))

    def unlink(self, path: str) -> None:
        with self._lock:
            self.operate("unlink", path)
            if self._existing(path).is_directory:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            parent, name = self._parent(path)
            self._change((parent, name, None))

    def make_directory(self, path: str) -> None:
        with self._lock:
            self.operate("make_directory", path)
            parent, name = self._free_name(path)
            self._change((parent, name, self._new_inode(is_directory=True)))

    def remove_directory(self, path: str) -> None:
        with self._lock:
            self.operate("remove_directory", path)
            if self._directory(path).entries:
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
            parent, name = self._parent(path)
            self._change((parent, name, None))

    def list_directory(self, path: str) -> Sequence[DirectoryEntry]:
        with self._lock:
            self.operate("list", path)
            found = self._directory(path).entries
            return [DirectoryEntry(name, inode.is_directory) for name, inode in found.items()]

    def status(self, path: str) -> FileStatus | None:
        with self._lock:
            self.operate("status", path)
            inode = self._find(path)
            if inode is None:
                return None
            links = 1 if inode.is_directory else self._link_count(inode)
            return FileStatus(
                len(inode.octets), inode.is_directory, inode.number, links, inode.changed_ns, inode.changed_ns
            )

    def sync_directory(self, path: str) -> None:
        with self._lock:
            directory = self._directory(path)
            self.operate("sync_directory", path)
            directory.sync_names()

    def watch_file_system(self, path: str) -> None:
        with self._lock:
            self._existing(path)

    def sync_paths(self, directories: Collection[str], changed_since_ns: int = 0) -> None:
        with self._lock:
            found = [inode for inode in map(self._find, directories) if inode is not None]
            self._operate_on_everything("sync_paths")
            if found:
                self._walk(self._root, lambda inode: inode.sync(lambda: None))

    def sync_file_system(self, path: str) -> bool:
        with self._lock:
            self._existing(path)
            self._operate_on_everything("sync_file_system")
            self._walk(self._root, lambda inode: inode.sync(lambda: None))
            return True

    def _operate_on_everything(self, operation: str) -> None:
        try:
            self.operate(operation, "")
        except PowerCut:
            raise
        except OSError as error:
            self._doubt_everything(error)
            raise

    def _doubt_everything(self, error: OSError) -> None:
        def fail() -> None:
            raise error

        def doubt(inode: Inode) -> None:
            if inode.versions:
                inode.errors += 1
            try:
                inode.sync(fail)
            except OSError:
                return

        self._walk(self._root, doubt, names=False)

    def _walk(self, directory: Inode, each: Callable[[Inode], None], *, names: bool = True) -> None:
        if names:
            directory.sync_names()
        for inode in directory.entries.values():
            if inode.is_directory:
                self._walk(inode, each, names=names)
            else:
                each(inode)

    def cache_life(self) -> str:
        return str(self._life)

    def space_left(self, path: str) -> SpaceLeft:
        with self._lock:
            self.operate("space_left", path)
            return SpaceLeft(self.space.free, self.space.total)

    def avoid_copy_on_write(self, directory: str) -> None:
        with self._lock:
            self._existing(directory)

    def file_system_type(self, path: str) -> str:
        return "ext4"

    # -- what a power cut leaves --------------------------------------------

    def kill(self) -> None:
        """The process ended, perhaps in the middle of what it did; the machine goes on, with all that was written."""
        with self._lock:
            self.cut_power_at(None)
            self.is_dead = False

            def unlock(inode: Inode) -> None:
                inode.lock_owner = None

            self._walk(self._root, unlock, names=False)

    def after_power_cut(self, seed: int) -> ModelDisk:
        """The disk as the machine may find it. Seed 0: nothing unsynced survived; seed 1: all of it; else by chance."""
        with self._lock:
            result = ModelDisk(self.space.total)
            result._numbers = self._numbers
            result._life = self._life + 1
            used = copy_survivors(self._root, result._root, seed)
            result.space.free = max(0, result.space.total - used)
            return result

    # -- to and from the real world -----------------------------------------

    def materialise(self, path: str, directory: str) -> None:
        """Write what is under ``path`` now into the existing, empty, real ``directory``."""
        with self._lock:
            for name, inode in self._directory(path).entries.items():
                target = os.path.join(directory, name)
                if inode.is_directory:
                    os.mkdir(target)
                    self.materialise(f"{path}/{name}", target)
                else:
                    with open(target, "wb") as file:
                        file.write(inode.octets)
