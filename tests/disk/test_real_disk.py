"""The real disk: what the operating system is asked for, and how refusals come back."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from pathlib import Path

import pytest
from zope.interface.verify import verifyObject

from mailsrv.disk import IDisk, IDiskFile, RealDisk, RealFile, create_whole, make_directories, opened, write_durably
from mailsrv.disk.interface import SYNCFS_TYPES


@pytest.fixture
def disk():
    real = RealDisk()
    yield real
    real.close()


def test_provides_the_interfaces(disk, tmp_path):
    assert verifyObject(IDisk, disk)
    with opened(disk.create(f"{tmp_path}/a")) as file:
        assert verifyObject(IDiskFile, file)


def test_write_and_read_at_offsets(disk, tmp_path):
    with opened(disk.create(f"{tmp_path}/a")) as file:
        file.fill(0, 8192)
        assert file.size() == 8192
        assert file.write(100, [b"one", b"", b"two"]) == 6
        file.sync()
        assert file.read(99, 8) == b"\0onetwo\0"
        assert file.read(8190, 10) == b"\0\0"
        file.truncate(103)
        assert file.read(100, 50) == b"one"


def test_more_buffers_than_one_call_takes(disk, tmp_path):
    buffers = [b"%05d" % number for number in range(3000)]
    with opened(disk.create(f"{tmp_path}/a")) as file:
        assert file.write(7, buffers) == 15000
        assert file.read(7, 15000) == b"".join(buffers)


def test_r_q_1_files_are_private_exclusive_and_never_links(disk, tmp_path):
    disk.create(f"{tmp_path}/a").close()
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == 0o600
    with pytest.raises(FileExistsError):
        disk.create(f"{tmp_path}/a")
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(OSError, match="link") as refused:
        disk.open(f"{tmp_path}/link")
    assert refused.value.errno == errno.ELOOP
    with pytest.raises(OSError, match="link"):
        disk.open_or_create(f"{tmp_path}/link")


def test_locks_are_of_the_open_file(disk, tmp_path):
    """Two handles in one process exclude each other, and closing a third lets nothing go."""
    with opened(disk.open_or_create(f"{tmp_path}/lock")) as first:
        assert first.try_lock()
        second = disk.open_or_create(f"{tmp_path}/lock")
        assert not second.try_lock()
        second.close()
        third = disk.open_or_create(f"{tmp_path}/lock")
        assert not third.try_lock()
    assert third.try_lock()
    third.close()
    third.close()


def test_temporary_file_gets_a_name(disk, tmp_path):
    with opened(disk.create_temporary(f"{tmp_path}")) as file:
        file.write(0, [b"text"])
        assert os.listdir(tmp_path) == []
        disk.link_temporary(file, f"{tmp_path}/named")
        with pytest.raises(FileExistsError):
            disk.link_temporary(file, f"{tmp_path}/named")
    assert (tmp_path / "named").read_bytes() == b"text"


def test_status_of_nothing_is_none(disk, tmp_path):
    assert disk.status(f"{tmp_path}/none") is None
    assert disk.status(f"{tmp_path}/none/below") is None
    found = disk.status(f"{tmp_path}")
    assert found is not None
    assert found.is_directory


@pytest.mark.parametrize("write", [False, True])
def test_r_q_1_what_is_no_regular_file_is_not_opened_and_not_waited_for(disk, tmp_path, write):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "directory").mkdir()
    for name in ("pipe", "link", "directory"):
        with pytest.raises(OSError, match=r"not a regular file|symbolic links|Is a directory"):
            disk.open(f"{tmp_path}/{name}", write=write)


def test_sync_paths_with_and_without_syncfs(disk, tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "file").write_bytes(b"x")
    disk.sync_paths([f"{tmp_path}/one", f"{tmp_path}/gone"])
    synced: list[str] = []
    monkeypatch.setattr(RealDisk, "file_system_type", lambda self, path: "fuse")
    elsewhere = RealDisk()
    monkeypatch.setattr("mailsrv.disk.RealFile.sync", lambda file: synced.append(file.path))
    elsewhere.sync_paths([f"{tmp_path}/one", f"{tmp_path}/gone"])
    assert synced == [f"{tmp_path}/one/file"]
    elsewhere.sync_paths([f"{tmp_path}/one"], changed_since_ns=time.time_ns() + 10**12)
    assert synced == [f"{tmp_path}/one/file"]
    elsewhere.close()


def test_everything_is_synced_at_once_where_that_can_be_trusted(disk, tmp_path, monkeypatch):
    assert disk.sync_file_system(str(tmp_path)) == (disk.file_system_type(str(tmp_path)) in SYNCFS_TYPES)
    monkeypatch.setattr(disk, "file_system_type", lambda path: "nfs")
    assert not disk.sync_file_system(str(tmp_path))


class Watched:
    """What is synced on a file system that is synced file by file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: list[str] = []
        self.opened: list[str] = []
        self.disk = RealDisk()
        monkeypatch.setattr(RealDisk, "file_system_type", lambda disk, path: "overlay")
        monkeypatch.setattr(RealFile, "sync", lambda file: self.synced.append(os.path.basename(file.path)))
        real_open = RealDisk.open

        def open_file(disk: RealDisk, path: str, *, write: bool = False) -> RealFile:
            self.opened.append(os.path.basename(path))
            return real_open(disk, path, write=write)

        monkeypatch.setattr(RealDisk, "open", open_file)


def test_locks_of_databases_are_not_dropped_by_a_sync(tmp_path, monkeypatch):
    """POSIX locks end with any descriptor that is closed; another process would write into the same log."""
    for name in ("index", "index-wal", "index-shm", "message"):
        (tmp_path / name).write_bytes(b"x")
    watched = Watched(monkeypatch)
    watched.disk.sync_paths([str(tmp_path)])
    assert sorted(watched.opened) == sorted(watched.synced) == ["index-wal", "message"]


def test_r_dur_1_a_message_that_is_marked_as_read_while_its_folder_is_synced_is_not_missed(tmp_path, monkeypatch):
    for name in ("cur", "new"):
        (tmp_path / name).mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "new" / name).write_bytes(b"x")
    watched = Watched(monkeypatch)
    real_scandir = os.scandir

    def scandir(path: str):
        found = real_scandir(path)
        name = f"{tmp_path}/new/{'abc'[len(watched.synced) % 3]}"
        entries = list(found)
        if os.path.exists(name):
            os.rename(name, f"{tmp_path}/cur/{os.path.basename(name)}:2,S")
        found.close()
        return contextlib.nullcontext(entries)

    monkeypatch.setattr(os, "scandir", scandir)
    watched.disk.sync_paths([f"{tmp_path}/cur", f"{tmp_path}/new"])
    assert sorted({name[0] for name in watched.synced}) == ["a", "b", "c"]


def test_sync_paths_reports_the_error_after_trying_all(disk, tmp_path, monkeypatch):
    tried: list[str] = []

    def fail(self: RealDisk, directory: str, since: int, done: set[tuple[int, int]]) -> bool:
        tried.append(directory)
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(RealDisk, "file_system_type", lambda self, path: "nfs")
    monkeypatch.setattr(RealDisk, "_sync_files", fail)
    (tmp_path / "b").mkdir()
    with pytest.raises(OSError, match="broken"):
        disk.sync_paths([f"{tmp_path}", f"{tmp_path}/b"])
    assert len(tried) == 2


def test_space_and_type(disk, tmp_path):
    space = disk.space_left(f"{tmp_path}")
    assert 0 <= space.free_octets <= space.total_octets
    assert disk.file_system_type("/proc") not in ("ext4", "xfs", "btrfs", "tmpfs")


def test_directories_and_durable_replacement(disk, tmp_path):
    make_directories(disk, f"{tmp_path}/a/b/c")
    make_directories(disk, f"{tmp_path}/a/b/c")
    write_durably(disk, f"{tmp_path}/a/b/c/file", b"one")
    Path(f"{tmp_path}/a/b/c/file.new").write_bytes(b"left by a crash")
    write_durably(disk, f"{tmp_path}/a/b/c/file", b"two")
    assert (tmp_path / "a/b/c/file").read_bytes() == b"two"
    assert [entry.name for entry in disk.list_directory(f"{tmp_path}/a/b/c")] == ["file"]


def test_a_file_that_is_created_whole_is_there_with_its_octets_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "database"
    create_whole(RealDisk(), str(path), b"first")
    create_whole(RealDisk(), str(path), b"second")
    assert path.read_bytes() == b"first"

    def fail(self: RealFile) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(RealFile, "sync", fail)
    with pytest.raises(OSError, match="broken"):
        create_whole(RealDisk(), str(tmp_path / "other"), b"octets")
    assert [entry.name for entry in tmp_path.iterdir()] == ["database"]
