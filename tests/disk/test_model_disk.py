"""The model of a disk: what it keeps, what it may forget, and what it must not."""

from __future__ import annotations

import errno

import pytest
from zope.interface.verify import verifyObject

from mailsrv.disk import IDisk, IDiskFile, make_directories, write_durably
from mailsrv.testing.disk import ModelDisk, PowerCut

SEEDS = range(200)


def read(disk, path):
    return disk.open(path).read(0, 1 << 20)


def states(disk):
    return [disk.after_power_cut(seed) for seed in SEEDS]


def test_provides_the_interfaces():
    disk = ModelDisk()
    assert verifyObject(IDisk, disk)
    assert verifyObject(IDiskFile, disk.create("/file"))


def test_an_unsynced_name_may_be_gone_even_if_the_file_is_synced():
    disk = ModelDisk()
    file = disk.create("/file")
    file.write(0, [b"x" * 700])
    file.sync()
    found = {state.status("/file") is not None for state in states(disk)}
    assert found == {True, False}
    disk.sync_directory("/")
    assert all(read(state, "/file") == b"x" * 700 for state in states(disk))


def test_unsynced_sectors_survive_in_any_mixture():
    disk = ModelDisk()
    file = disk.create("/file")
    file.fill(0, 1024)
    file.sync()
    disk.sync_directory("/")
    file.write(0, [b"a" * 1024])
    file.write(0, [b"b" * 512])
    seen = {bytes((octets[0], octets[600])) for octets in (read(state, "/file") for state in states(disk))}
    assert seen == {bytes((first, second)) for first in b"\0ab" for second in b"\0a"}


def test_what_is_synced_is_never_touched_by_a_later_write_beside_it():
    disk = ModelDisk()
    file = disk.create("/file")
    file.fill(0, 2048)
    file.write(0, [b"a" * 100])
    file.sync()
    disk.sync_directory("/")
    file.write(100, [b"b" * 1000])
    assert all(read(state, "/file").startswith(b"a" * 100) for state in states(disk))


def test_r_dur_4_after_a_failed_sync_a_second_one_proves_nothing():
    disk = ModelDisk()
    file = disk.create("/file")
    file.fill(0, 512)
    file.sync()
    disk.sync_directory("/")
    file.write(0, [b"new"])
    disk.fail_at(len(disk.operations), errno.EIO)
    with pytest.raises(OSError, match="error"):
        file.sync()
    file.sync()
    assert {read(state, "/file")[:3] for state in states(disk)} == {b"\0\0\0", b"new"}


def test_directory_changes_happen_in_order():
    disk = ModelDisk()
    for name in "abc":
        disk.create(f"/{name}").close()
    found = {"".join(sorted(entry.name for entry in state.list_directory("/"))) for state in states(disk)}
    assert found == {"", "a", "ab", "abc"}


def test_a_rename_between_directories_is_one_change():
    disk = ModelDisk()
    make_directories(disk, "/one")
    make_directories(disk, "/two")
    disk.create("/one/file").close()
    disk.sync_directory("/one")
    disk.rename("/one/file", "/two/file")
    places = {(state.status("/one/file") is not None, state.status("/two/file") is not None) for state in states(disk)}
    assert places == {(True, False), (False, True)}
    disk.sync_directory("/two")
    assert all(state.status("/one/file") is None for state in states(disk))


def test_durable_replacement_is_all_or_nothing_at_every_cut():
    for cut in range(40):
        disk = ModelDisk()
        write_durably(disk, "/file", b"old" * 400)
        disk.cut_power_at(len(disk.operations) + cut)
        try:
            write_durably(disk, "/file", b"new" * 500)
        except PowerCut:
            for seed in range(20):
                assert read(disk.after_power_cut(seed), "/file") in (b"old" * 400, b"new" * 500)
        else:
            break
    else:
        pytest.fail("never ran to the end")


def test_a_dead_disk_stays_dead():
    disk = ModelDisk()
    disk.cut_power_at(0)
    for _ in range(2):
        with pytest.raises(PowerCut):
            disk.create("/file")
    assert disk.is_dead


def test_capacity_is_given_back_with_the_last_name():
    disk = ModelDisk(capacity=1000)
    file = disk.create("/file")
    file.write(0, [bytes(900)])
    with pytest.raises(OSError, match="space") as refused:
        file.write(900, [bytes(200)])
    assert refused.value.errno == errno.ENOSPC
    disk.link("/file", "/again")
    disk.unlink("/file")
    assert disk.space_left("/").free_octets == 100
    disk.unlink("/again")
    assert disk.space_left("/").free_octets == 1000


def test_locks_exclude_other_handles():
    disk = ModelDisk()
    first, second = disk.open_or_create("/lock"), disk.open_or_create("/lock")
    assert first.try_lock()
    assert not second.try_lock()
    first.close()
    assert second.try_lock()


def test_materialise(tmp_path):
    disk = ModelDisk()
    make_directories(disk, "/a/b")
    write_durably(disk, "/a/b/file", b"text")
    disk.materialise("/a", f"{tmp_path}")
    assert (tmp_path / "b" / "file").read_bytes() == b"text"


def test_a_crash_after_a_crash():
    disk = ModelDisk()
    write_durably(disk, "/one", b"1")
    again = disk.after_power_cut(0)
    write_durably(again, "/two", b"2")
    last = again.after_power_cut(0)
    assert (read(last, "/one"), read(last, "/two")) == (b"1", b"2")


def test_a_failed_sync_of_everything_is_told_to_whoever_has_the_file_open():
    disk = ModelDisk()
    file = disk.create("/file")
    file.write(0, [b"x"])
    disk.fail_at(len(disk.operations), errno.EIO)
    with pytest.raises(OSError, match="error"):
        disk.sync_paths(["/"])
    with pytest.raises(OSError, match="error"):
        file.sync()
    file.sync()
