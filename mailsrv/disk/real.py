"""The file system of the operating system: the thin layer under :class:`RealDisk`."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
import threading
from collections.abc import Collection, Container, Sequence

from zope.interface import implementer

from mailsrv.disk.interface import SYNCFS_TYPES, DirectoryEntry, FileStatus, IDisk, IDiskFile, SpaceLeft, opened
from mailsrv.disk.private_files import sync_directory

ZERO_BLOCK = bytes(1 << 20)
"""What files are filled with ahead of use, piece by piece."""

# statfs(2): f_type is the first word of the structure, on every Linux architecture we run on.
_FILE_SYSTEM_MAGIC = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x01021994: "tmpfs",
    0x6969: "nfs",
    0x794C7630: "overlay",
    0xFF534D42: "cifs",
    0x65735546: "fuse",
    0x2FC12FC1: "zfs",
    0xF2F52010: "f2fs",
}
_MOST_ROUNDS = 50
"""In which files are looked for that were renamed in the one before."""
_MOST_BUFFERS = 512
"""Below IOV_MAX (1024) everywhere."""
# linux/fs.h; files made in a directory with the flag inherit it.
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_NOCOW_FL = 0x00800000
# struct flock: l_type, l_whence, l_start, l_len, l_pid (0 for OFD locks), padded as the compiler does.
_FLOCK = struct.Struct("@hhqqi4x")

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object, path: str = "") -> None:
    """A libc function that answers -1 on error."""
    while getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number), path)


def _is_kept_by_sqlite(name: str, beside: Container[str]) -> bool:
    """A database and its shared memory, which are locked: to close any descriptor of them drops the process's locks.

    What is committed is in the log, which has no locks. SQLite syncs the database whenever it has written to it.
    """
    is_shared_memory = name.endswith("-shm") and name.removesuffix("-shm") in beside
    return is_shared_memory or f"{name}-wal" in beside or f"{name}-shm" in beside


@implementer(IDiskFile)
class RealFile:
    """A file descriptor."""

    __slots__ = ("_descriptor", "path")

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor = descriptor
        self.path = path

    def __repr__(self) -> str:
        return f"<RealFile {self.path!r}>"

    def write(self, offset: int, buffers: Sequence[bytes]) -> int:
        total = 0
        for start in range(0, len(buffers), _MOST_BUFFERS):
            part = buffers[start : start + _MOST_BUFFERS] if len(buffers) > _MOST_BUFFERS else buffers
            expected = sum(map(len, part))
            written = os.pwritev(self._descriptor, part, offset + total)
            if written != expected:
                written = self._write_rest(offset + total, b"".join(part), written)
            total += written
        return total

    def _write_rest(self, offset: int, octets: bytes, written: int) -> int:
        # A short write is how the kernel says that the rest met an error: the next call tells which.
        view = memoryview(octets)
        while written < len(view):
            count = os.pwrite(self._descriptor, view[written:], offset + written)
            if count == 0:
                raise OSError(errno.EIO, "nothing was written", self.path)
            written += count
        return written

    def read(self, offset: int, count: int) -> bytes:
        octets = os.pread(self._descriptor, count, offset)
        if len(octets) in (0, count):
            return octets
        parts = [octets]
        got = len(octets)
        while got < count and (more := os.pread(self._descriptor, count - got, offset + got)):
            parts.append(more)
            got += len(more)
        return b"".join(parts)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def fill(self, offset: int, count: int) -> None:
        # Allocate first: a disk that is too full says so before anything was written.
        if count:
            try:
                os.posix_fallocate(self._descriptor, offset, count)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
        for start in range(0, count, len(ZERO_BLOCK)):
            self.write(offset + start, [ZERO_BLOCK[: count - start]])

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def try_lock(self) -> bool:
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def descriptor(self) -> int:
        """For what only a real file can do; -1 once closed."""
        return self._descriptor


@implementer(IDisk)
class RealDisk:
    """The operating system's file system."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[int, tuple[int, str]] = {}

    def open(self, path: str, *, write: bool = False) -> RealFile:
        mode = os.O_RDWR if write else os.O_RDONLY
        # O_NONBLOCK means nothing to a file, but to open a pipe without it is to wait for who writes into it.
        descriptor = os.open(path, mode | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a regular file", path)
        return RealFile(descriptor, path)

    def create(self, path: str) -> RealFile:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return RealFile(os.open(path, flags, 0o600), path)

    def open_or_create(self, path: str) -> RealFile:
        return RealFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), path)

    def create_temporary(self, directory: str) -> RealFile:
        return RealFile(os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), "")

    def link_temporary(self, file: IDiskFile, path: str) -> None:
        if not isinstance(file, RealFile):
            raise TypeError("not a file of this disk")
        # Without a directory descriptor os.link does not ask for the link to be followed.
        directory = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.link(str(file.descriptor()), path, src_dir_fd=directory, follow_symlinks=True)
        finally:
            os.close(directory)
        file.path = path

    def link(self, source: str, target: str) -> None:
        os.link(source, target, follow_symlinks=False)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def make_directory(self, path: str) -> None:
        os.mkdir(path, 0o700)

    def remove_directory(self, path: str) -> None:
        os.rmdir(path)

    def list_directory(self, path: str) -> Sequence[DirectoryEntry]:
        with os.scandir(path) as entries:
            return [DirectoryEntry(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]

    def status(self, path: str) -> FileStatus | None:
        try:
            result = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return FileStatus(
            result.st_size,
            stat.S_ISDIR(result.st_mode),
            result.st_ino,
            result.st_nlink,
            result.st_mtime_ns,
            result.st_ctime_ns,
        )

    def sync_directory(self, path: str) -> None:
        sync_directory(path)

    def watch_file_system(self, path: str) -> None:
        device = os.stat(path).st_dev
        with self._lock:
            self._watch(device, path)

    def _watch(self, device: int, path: str) -> tuple[int, str]:
        known = self._watched.get(device)
        if known is None:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            known = self._watched[device] = (descriptor, self.file_system_type(path))
        return known

    def sync_paths(self, directories: Collection[str], changed_since_ns: int = 0) -> None:
        whole: dict[int, str] = {}
        single: list[str] = []
        first_error: OSError | None = None
        for directory in directories:
            try:
                device = os.stat(directory).st_dev
            except FileNotFoundError:
                continue
            with self._lock:
                descriptor, kind = self._watch(device, directory)
            if kind in SYNCFS_TYPES:
                whole[descriptor] = directory
            else:
                single.append(directory)
        for descriptor, directory in whole.items():
            try:
                _call("syncfs", descriptor, path=directory)
            except OSError as error:
                first_error = first_error or error
        try:
            self._sync_one_by_one(single, changed_since_ns)
        except OSError as error:
            first_error = first_error or error
        if first_error is not None:
            raise first_error

    def sync_file_system(self, path: str) -> bool:
        if self.file_system_type(path) not in SYNCFS_TYPES:
            return False
        # Each descriptor is told of an error once: that of ``sync_paths`` must not lose it to us.
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _call("syncfs", descriptor, path=path)
        finally:
            os.close(descriptor)
        return True

    def _sync_one_by_one(self, directories: Sequence[str], changed_since_ns: int) -> None:
        first_error: OSError | None = None
        done: set[tuple[int, int]] = set()
        # Messages go from "new" to "cur" meanwhile: in this order none is missed, unless it went after it was listed.
        ordered = sorted(directories, reverse=True)
        for _ in range(_MOST_ROUNDS):
            is_again = False
            for directory in ordered:
                try:
                    is_again |= self._sync_files(directory, changed_since_ns, done)
                except OSError as error:
                    first_error = first_error or error
            if first_error is not None:
                raise first_error
            if not is_again:
                return
        raise OSError(errno.EBUSY, "files are renamed faster than they are synced")

    def _sync_files(self, directory: str, changed_since_ns: int, done: set[tuple[int, int]]) -> bool:
        """Whether one of the files that are not ``done`` was renamed (or removed) meanwhile."""
        try:
            with os.scandir(directory) as entries:
                files = {entry.name: entry for entry in entries if entry.is_file(follow_symlinks=False)}
        except FileNotFoundError:
            return False
        is_again = False
        for name, entry in files.items():
            try:
                status = entry.stat(follow_symlinks=False)
                identity = status.st_dev, status.st_ino
                if status.st_ctime_ns < changed_since_ns or identity in done or _is_kept_by_sqlite(name, files):
                    continue
                with opened(self.open(entry.path)) as file:
                    file.sync()
                done.add(identity)
            except FileNotFoundError:
                is_again = True
        with contextlib.suppress(FileNotFoundError):
            self.sync_directory(directory)
        return is_again

    def cache_life(self) -> str:
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
                return file.read().strip()
        except OSError:
            return "unknown"

    def space_left(self, path: str) -> SpaceLeft:
        result = os.statvfs(path)
        return SpaceLeft(result.f_bavail * result.f_frsize, result.f_blocks * result.f_frsize)

    def file_system_type(self, path: str) -> str:
        buffer = ctypes.create_string_buffer(256)
        _call("statfs", os.fsencode(path), buffer, path=path)
        magic = ctypes.c_ulong.from_buffer(buffer).value & 0xFFFFFFFF
        return _FILE_SYSTEM_MAGIC.get(magic, hex(magic))

    def avoid_copy_on_write(self, directory: str) -> None:
        if self.file_system_type(directory) != "btrfs":
            return
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = bytearray(8)
            fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, flags)
            value = struct.unpack_from("@i", flags)[0] | _FS_NOCOW_FL
            fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, struct.pack("@q", value))
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of the watched file systems."""
        with self._lock:
            for descriptor, _ in self._watched.values():
                os.close(descriptor)
            self._watched.clear()
