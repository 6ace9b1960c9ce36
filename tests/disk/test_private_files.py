"""Small files that are replaced as a whole, whatever fails on the way."""

from __future__ import annotations

import os
import stat

import pytest

from mailsrv.disk import give_to_owner, make_private_directory, replace_file, sync_directory
from tests.disk.durable_calls import note_durable_calls


def test_a_file_is_made_and_replaced(tmp_path):
    path = tmp_path / "x"
    for octets in (b"one", b"", b"\x00" * 100_000):
        replace_file(str(path), octets)
        assert path.read_bytes() == octets
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert os.listdir(tmp_path) == ["x"]


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "x").symlink_to("other")
    replace_file(str(tmp_path / "x"), b"one")
    assert (tmp_path / "other").read_bytes() == b"other"
    assert (tmp_path / "x").read_bytes() == b"one"


@pytest.mark.parametrize("name", ["x" * 255, "\N{GREEK SMALL LETTER OMEGA}" * 127])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path, name):
    replace_file(str(tmp_path / name), b"one")
    assert os.listdir(tmp_path) == [name]


def test_a_name_without_a_folder_is_of_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    replace_file("x", b"one")
    assert (tmp_path / "x").read_bytes() == b"one"


@pytest.mark.parametrize("function", ["os.fsync", "os.rename"])
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, function):
    path = tmp_path / "x"
    replace_file(str(path), b"old")

    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(function, fail)
    with pytest.raises(OSError, match="No space left"):
        replace_file(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_it_is_prepared_before_anything_is_in_it(tmp_path):
    sizes = []

    def prepare(descriptor: int) -> None:
        sizes.append(os.fstat(descriptor).st_size)
        os.fchmod(descriptor, 0o640)

    replace_file(str(tmp_path / "x"), b"one", prepare=prepare)
    assert sizes == [0]
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


@pytest.mark.parametrize(("is_durable", "expected"), [(True, ["file", "rename", "folder"]), (False, ["rename"])])
def test_r_dur_1_the_file_is_synced_before_and_its_folder_after_the_rename(tmp_path, monkeypatch, is_durable, expected):
    calls = note_durable_calls(monkeypatch)
    replace_file(str(tmp_path / "x"), b"one", is_durable=is_durable)
    assert calls == expected


def test_a_directory_and_the_one_above_it_are_private(tmp_path):
    path = tmp_path / "state" / "rates"
    for _ in range(2):
        make_private_directory(str(path))
        for each in (path, path.parent):
            assert stat.S_IMODE(each.stat().st_mode) == 0o700


def test_what_root_makes_belongs_to_the_owner_of_the_directory(tmp_path, monkeypatch):
    given: list[tuple[object, ...]] = []
    monkeypatch.setattr("os.lchown", lambda *arguments: given.append(arguments))
    monkeypatch.setattr("os.fchown", lambda *arguments: given.append(arguments))
    owner = tmp_path.stat()
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    give_to_owner(str(tmp_path / "x"), str(tmp_path))
    assert given == []
    monkeypatch.setattr("os.geteuid", lambda: 0)
    give_to_owner(str(tmp_path / "x"), str(tmp_path))
    give_to_owner(7, str(tmp_path))
    assert given == [(str(tmp_path / "x"), owner.st_uid, owner.st_gid), (7, owner.st_uid, owner.st_gid)]


def test_a_directory_that_is_none_cannot_be_synced(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        sync_directory(str(tmp_path / "x"))
