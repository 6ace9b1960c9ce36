"""A file system in memory that forgets what was not synced.

:class:`ModelDisk` does what :class:`~mailsrv.disk.RealDisk` does, keeps apart what is on disk from
what is only in the cache, and can be asked, at any moment, what a power cut would leave:

* of each file, every sector (512 octets) written since the last sync holds its old or any of its
  newer contents; its length is the old or the new one;
* of each directory, the changes since its last sync happened up to some point, in order; a rename
  between directories happened in both or in neither (as on ext4, XFS and btrfs; more than POSIX promises);
* what was synced is there. After a sync that failed, what it was to write stays in doubt for good,
  and the next sync does not say so (R-DUR-4).

Every call is one *operation* with a number. ``fail_at`` makes one of them (or all from one on)
raise, ``cut_power_at`` stops the disk at one: that call and all later ones raise
:class:`PowerCut`, and :meth:`ModelDisk.after_power_cut` gives the disk that the machine finds at
its next start. All choices come from the seed given there.

Programs that must have real files (SQLite) join through :meth:`ModelDisk.materialise`, which writes
the current state into a real directory.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable, Collection, Sequence

from attrs import define, field
from zope.interface import implementer

from mailsrv.disk import DirectoryEntry, FileStatus, IDisk, IDiskFile, SpaceLeft

SECTOR = 512


class PowerCut(OSError):
    """The machine is off. An OSError, so that nothing but the disk's own callers sees it."""

    def __init__(self) -> None:
        super().__init__(errno.EIO, "power cut")


@define(eq=False)
class _Inode:
    number: int
    is_directory: bool = False
    octets: bytearray = field(factory=bytearray)
    durable: bytearray = field(factory=bytearray)
    versions: dict[int, list[bytes]] = field(factory=dict)
    """Sector → contents it had since the last sync."""
    in_doubt: dict[int, list[bytes]] = field(factory=dict)
    """The same, of syncs that failed: no later sync settles it."""
    entries: dict[str, _Inode] = field(factory=dict)
    durable_entries: dict[str, _Inode] = field(factory=dict)
    pending: list[_Change] = field(factory=list)
    changed_ns: int = 0
    lock_owner: object = None
    errors: int = 0
    """Write errors met by somebody else's sync: each handle open at the time is told once, as Linux does."""


@define(eq=False)
class _Change:
    """One step on directories: names that go and names that come, each with its directory."""

    steps: list[tuple[_Inode, str, _Inode | None]]


@implementer(IDiskFile)
class ModelFile:
    """A handle of a :class:`ModelDisk`."""

    def __init__(self, disk: ModelDisk, inode: _Inode, path: str, *, writable: bool) -> None:
        self._disk = disk
        self._inode = inode
        self._writable = writable
        self._closed = False
        self._errors_seen = inode.errors
        self.path = path

    def _operate(self, name: str) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "closed", self.path)
        self._disk._operate(name, self.path)

    def write(self, offset: int, buffers: Sequence[bytes]) -> int:
        with self._disk._lock:
            octets = b"".join(buffers)
            if not self._writable:
                raise OSError(errno.EBADF, "not open for writing", self.path)
            try:
                self._operate("write")
            except PowerCut:
                # The call was under way: any part of it may have reached the disk.
                self._disk._put(self._inode, offset, octets)
                raise
            self._disk._take_space(max(0, offset + len(octets) - len(self._inode.octets)))
            self._disk._put(self._inode, offset, octets)
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
                self._disk._put(self._inode, current, bytes(size - current))
            else:
                del self._inode.octets[size:]
                self._disk.space.give(current - size)

    def fill(self, offset: int, count: int) -> None:
        with self._disk._lock:
            self._operate("fill")
            self._disk._take_space(max(0, offset + count - len(self._inode.octets)))
            self._disk._put(self._inode, offset, bytes(count))

    def sync(self) -> None:
        with self._disk._lock:
            self._disk._sync_inode(self._inode, self._begin_sync)

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
class ModelDisk:
    """See the module. ``capacity`` is the room for file contents in octets."""

    def __init__(self, capacity: int = 1 << 34) -> None:
        self._lock = threading.RLock()
        self._numbers = 1
        self._root = self._new_inode(is_directory=True)
        self.space = _Space(capacity, capacity)
        self.operations: list[tuple[str, str]] = []
        """Everything that was asked: what, and of which path."""
        self.is_dead = False
        self._cut_at: int | None = None
        self._failures: dict[int, int] = {}
        self._fail_from: tuple[int, int, frozenset[str]] | None = None
        self.on_operation: Callable[[str, str], None] | None = None

    # -- faults -------------------------------------------------------------

    def cut_power_at(self, number: int | None) -> None:
        """Stop at the operation of this number (0 is the first one ever); None: at none."""
        self._cut_at = number

    def fail_at(self, number: int, error_number: int) -> None:
        """Let one operation fail, e.g. with ``errno.EIO``."""
        self._failures[number] = error_number

    def fail_from(self, number: int, error_number: int, names: Collection[str] = ()) -> None:
        """Let all operations (of these names, if given) from ``number`` on fail, until :meth:`heal`."""
        self._fail_from = (number, error_number, frozenset(names))

    def heal(self) -> None:
        """No more failures. What was in doubt stays so."""
        self._failures.clear()
        self._fail_from = None

    def _operate(self, name: str, path: str) -> None:
        number = len(self.operations)
        if self.is_dead:
            raise PowerCut
        self.operations.append((name, path))
        if self.on_operation is not None:
            self.on_operation(name, path)
        if self._cut_at is not None and number >= self._cut_at:
            self.is_dead = True
            raise PowerCut
        error_number = self._failures.get(number)
        if error_number is None and self._fail_from is not None:
            first, wanted, names = self._fail_from
            if number >= first and (not names or name in names):
                error_number = wanted
        if error_number is not None:
            raise OSError(error_number, os.strerror(error_number), path)

    # -- contents -----------------------------------------------------------

    def _new_inode(self, *, is_directory: bool = False) -> _Inode:
        self._numbers += 1
        return _Inode(self._numbers, is_directory)

    def _take_space(self, octets: int) -> None:
        if octets > self.space.free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.space.free -= octets

    def _put(self, inode: _Inode, offset: int, octets: bytes) -> None:
        end = offset + len(octets)
        if len(inode.octets) < end:
            inode.octets.extend(bytes(end - len(inode.octets)))
        inode.octets[offset:end] = octets
        inode.changed_ns += 1
        for sector in range(offset // SECTOR, (end + SECTOR - 1) // SECTOR):
            content = bytes(inode.octets[sector * SECTOR : (sector + 1) * SECTOR])
            inode.versions.setdefault(sector, []).append(content)

    def _sync_inode(self, inode: _Inode, operate: Callable[[], None]) -> None:
        try:
            operate()
        except PowerCut:
            raise
        except OSError:
            # The kernel marks the pages clean all the same: they are in doubt from now on.
            for sector, contents in inode.versions.items():
                inode.in_doubt.setdefault(sector, []).extend(contents)
            inode.versions.clear()
            raise
        length = len(inode.octets)
        del inode.durable[length:]
        inode.durable.extend(bytes(length - len(inode.durable)))
        for sector in inode.versions:
            start = sector * SECTOR
            inode.durable[start : start + SECTOR] = inode.octets[start : start + SECTOR]
            inode.in_doubt.pop(sector, None)
        inode.versions.clear()

    # -- names --------------------------------------------------------------

    def _find(self, path: str) -> _Inode | None:
        inode: _Inode | None = self._root
        for name in path.strip("/").split("/"):
            if inode is None or not inode.is_directory:
                return None
            if name:
                inode = inode.entries.get(name)
        return inode

    def _existing(self, path: str) -> _Inode:
        inode = self._find(path)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return inode

    def _directory(self, path: str) -> _Inode:
        inode = self._existing(path)
        if not inode.is_directory:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return inode

    def _parent(self, path: str) -> tuple[_Inode, str]:
        directory, name = os.path.split(path.rstrip("/"))
        return self._directory(directory), name

    def _free_name(self, path: str) -> tuple[_Inode, str]:
        parent, name = self._parent(path)
        if name in parent.entries:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        return parent, name

    def _change(self, *steps: tuple[_Inode, str, _Inode | None]) -> None:
        change = _Change(list(steps))
        for directory, name, inode in steps:
            old = directory.entries.pop(name, None)
            if inode is not None:
                directory.entries[name] = inode
            elif old is not None and not old.is_directory and self._link_count(old) == 0:
                self.space.give(len(old.octets))
            directory.changed_ns += 1
            if not directory.pending or directory.pending[-1] is not change:
                directory.pending.append(change)

    def _link_count(self, inode: _Inode) -> int:
        def count(directory: _Inode) -> int:
            return sum(
                (found is inode) + (count(found) if found.is_directory else 0) for found in directory.entries.values()
            )

        return count(self._root)

    # -- IDisk --------------------------------------------------------------

    def open(self, path: str, *, write: bool = False) -> ModelFile:
        with self._lock:
            self._operate("open", path)
            return ModelFile(self, self._existing(path), path, writable=write)

    def create(self, path: str) -> ModelFile:
        with self._lock:
            self._operate("create", path)
            parent, name = self._free_name(path)
            inode = self._new_inode()
            self._change((parent, name, inode))
            return ModelFile(self, inode, path, writable=True)

    def open_or_create(self, path: str) -> ModelFile:
        with self._lock:
            return self.create(path) if self._find(path) is None else self.open(path, write=True)

    def create_temporary(self, directory: str) -> ModelFile:
        with self._lock:
            self._operate("create_temporary", directory)
            self._directory(directory)
            return ModelFile(self, self._new_inode(), "", writable=True)

    def link_temporary(self, file: IDiskFile, path: str) -> None:
        with self._lock:
            if not isinstance(file, ModelFile):
                raise TypeError("not a file of this disk")
            self._operate("link", path)
            parent, name = self._free_name(path)
            self._change((parent, name, file._inode))
            file.path = path

    def link(self, source: str, target: str) -> None:
        with self._lock:
            self._operate("link", target)
            inode = self._existing(source)
            parent, name = self._free_name(target)
            self._change((parent, name, inode))

    def rename(self, source: str, target: str) -> None:
        with self._lock:
            self._operate("rename", target)
            inode = self._existing(source)
            from_parent, from_name = self._parent(source)
            to_parent, to_name = self._parent(target)
            if to_parent.entries.get(to_name) is not inode:
                self._change((to_parent, to_name, inode), (from_parent, from_name, None))

    def unlink(self, path: str) -> None:
        with self._lock:
            self._operate("unlink", path)
            if self._existing(path).is_directory:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            parent, name = self._parent(path)
            self._change((parent, name, None))

    def make_directory(self, path: str) -> None:
        with self._lock:
            self._operate("make_directory", path)
            parent, name = self._free_name(path)
            self._change((parent, name, self._new_inode(is_directory=True)))

    def remove_directory(self, path: str) -> None:
        with self._lock:
            self._operate("remove_directory", path)
            if self._directory(path).entries:
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
            parent, name = self._parent(path)
            self._change((parent, name, None))

    def list_directory(self, path: str) -> Sequence[DirectoryEntry]:
        with self._lock:
            self._operate("list", path)
            found = self._directory(path).entries
            return [DirectoryEntry(name, inode.is_directory) for name, inode in found.items()]

    def status(self, path: str) -> FileStatus | None:
        with self._lock:
            self._operate("status", path)
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
            self._operate("sync_directory", path)
            self._sync_names(directory)

    def _sync_names(self, directory: _Inode) -> None:
        for change in directory.pending:
            # A change that spans two directories becomes durable as one.
            for other, name, inode in change.steps:
                if inode is None:
                    other.durable_entries.pop(name, None)
                else:
                    other.durable_entries[name] = inode
                if other is not directory and change in other.pending:
                    other.pending.remove(change)
        directory.pending.clear()

    def watch_file_system(self, path: str) -> None:
        with self._lock:
            self._existing(path)

    def sync_paths(self, directories: Collection[str], changed_since_ns: int = 0) -> None:
        with self._lock:
            found = [inode for inode in map(self._find, directories) if inode is not None]
            try:
                self._operate("sync_paths", "")
            except PowerCut:
                raise
            except OSError as error:
                self._doubt_everything(error)
                raise
            if found:
                self._walk(self._root, lambda inode: self._sync_inode(inode, lambda: None))

    def _doubt_everything(self, error: OSError) -> None:
        def fail() -> None:
            raise error

        def doubt(inode: _Inode) -> None:
            if inode.versions:
                inode.errors += 1
            try:
                self._sync_inode(inode, fail)
            except OSError:
                return

        self._walk(self._root, doubt, names=False)

    def _walk(self, directory: _Inode, each: Callable[[_Inode], None], *, names: bool = True) -> None:
        if names:
            self._sync_names(directory)
        for inode in directory.entries.values():
            if inode.is_directory:
                self._walk(inode, each, names=names)
            else:
                each(inode)

    def space_left(self, path: str) -> SpaceLeft:
        with self._lock:
            self._operate("space_left", path)
            return SpaceLeft(self.space.free, self.space.total)

    def avoid_copy_on_write(self, directory: str) -> None:
        with self._lock:
            self._existing(directory)

    def file_system_type(self, path: str) -> str:
        return "ext4"

    # -- what a power cut leaves --------------------------------------------

    def after_power_cut(self, seed: int) -> ModelDisk:
        """The disk as the machine may find it. Seed 0: nothing unsynced survived; seed 1: all of it; else by chance."""
        with self._lock:
            chance = random.Random(seed)  # noqa: S311 # reproducible, not secret
            result = ModelDisk(self.space.total)
            result._numbers = self._numbers
            cuts = self._choose_cuts(seed, chance)
            copies: dict[int, _Inode] = {self._root.number: result._root}
            self._copy_directory(self._root, result._root, cuts, copies, (seed, chance))
            used = sum(len(inode.octets) for inode in copies.values() if not inode.is_directory)
            result.space.free = max(0, result.space.total - used)
            return result

    def _all_directories(self) -> list[_Inode]:
        found: dict[int, _Inode] = {}

        def visit(directory: _Inode) -> None:
            if directory.number in found:
                return
            found[directory.number] = directory
            for inode in (*directory.entries.values(), *directory.durable_entries.values()):
                if inode.is_directory:
                    visit(inode)

        visit(self._root)
        return list(found.values())

    def _choose_cuts(self, seed: int, chance: random.Random) -> dict[int, int]:
        """How many pending changes of each directory happened; one that is in two directories: in both or neither."""
        directories = self._all_directories()
        cuts = {}
        for directory in directories:
            most = len(directory.pending)
            cuts[directory.number] = 0 if seed == 0 else most if seed == 1 else chance.randint(0, most)
        is_settled = False
        while not is_settled:
            is_settled = True
            for directory in directories:
                for index, change in enumerate(directory.pending[: cuts[directory.number]]):
                    for other, _, _ in change.steps:
                        if other is directory or other.number not in cuts:
                            continue
                        if change not in other.pending[: cuts[other.number]]:
                            cuts[directory.number] = index
                            is_settled = False
                            break
                    if not is_settled:
                        break
        return cuts

    def _copy_directory(
        self,
        source: _Inode,
        target: _Inode,
        cuts: dict[int, int],
        copies: dict[int, _Inode],
        choice: tuple[int, random.Random],
    ) -> None:
        entries = dict(source.durable_entries)
        for change in source.pending[: cuts[source.number]]:
            for directory, name, inode in change.steps:
                if directory is not source:
                    continue
                if inode is None:
                    entries.pop(name, None)
                else:
                    entries[name] = inode
        for name, inode in entries.items():
            copy = copies.get(inode.number)
            if copy is None:
                copy = _Inode(inode.number, inode.is_directory)
                copies[inode.number] = copy
                if inode.is_directory:
                    self._copy_directory(inode, copy, cuts, copies, choice)
                else:
                    copy.octets = self._surviving_octets(inode, *choice)
                    copy.durable = bytearray(copy.octets)
            target.entries[name] = target.durable_entries[name] = copy

    @staticmethod
    def _surviving_octets(inode: _Inode, seed: int, chance: random.Random) -> bytearray:
        octets = bytearray(inode.durable)
        if seed == 0:
            return octets
        if seed == 1 and not inode.in_doubt:
            return bytearray(inode.octets)
        if chance.random() < 0.5:
            del octets[len(inode.octets) :]
            octets.extend(bytes(max(0, len(inode.octets) - len(octets))))
        length = len(octets)
        for contents in (inode.in_doubt, inode.versions):
            for sector in sorted(contents):
                choice = chance.randint(-1, len(contents[sector]) - 1)
                start = sector * SECTOR
                if choice >= 0 and start < length:
                    content = contents[sector][choice]
                    octets[start : start + len(content)] = content
        del octets[length:]
        return octets

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
