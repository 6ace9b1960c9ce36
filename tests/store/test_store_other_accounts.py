"""Copies to other accounts, as far as they are about files: what is synced when, and what a crash leaves behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mailsrv.disk import RealDisk
from mailsrv.errors import MailError, Unavailable
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.mailbox import NewMessage
from mailsrv.store.settings import StoreSettings
from tests.contracts.store import ALICE, BOB, numbered
from tests.store.store_setting import StoreSetting


def result(deferred: Any) -> Any:
    found: list[Any] = []
    deferred.addBoth(found.append)
    (answer,) = found
    if hasattr(answer, "raiseException"):
        answer.raiseException()
    return answer


class NotingFile:
    """A file whose syncs are noted."""

    def __init__(self, file: Any, path: str, done: list[tuple[str, str]]) -> None:
        self._file, self._path, self._done = file, path, done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def sync(self) -> None:
        self._done.append(("sync", self._path))
        self._file.sync()


class NotingDisk(RealDisk):
    """Says what is synced and linked, in order."""

    def __init__(self, *, has_syncfs: bool = True) -> None:
        super().__init__()
        self.done: list[tuple[str, str]] = []
        self._has_syncfs = has_syncfs

    def sync_file_system(self, path: str) -> bool:
        if self._has_syncfs:
            self.done.append(("all", path))
        return self._has_syncfs

    def open(self, path: str, *, write: bool = False) -> Any:
        return NotingFile(super().open(path, write=write), path, self.done)

    def link(self, source: str, target: str) -> None:
        self.done.append(("link", source))
        super().link(source, target)

    def sync_directory(self, path: str) -> None:
        self.done.append(("directory", path))
        super().sync_directory(path)


class Pair:
    """Two accounts of one store."""

    def __init__(self, folder: Path, disk: Any = None) -> None:
        self.folder = folder
        self.settings = StoreSettings(path=str(folder / "{domain}" / "{local}"))
        self.setting = StoreSetting(self.settings, disk=disk)
        self.open()

    def open(self) -> None:
        self.alice = result(self.setting.store.open_account(ALICE))
        self.bob = result(self.setting.store.open_account(BOB))

    def start_again(self) -> None:
        self.setting.kill()
        self.setting = StoreSetting(self.settings)
        self.open()

    def append(self, *octets: bytes) -> None:
        result(self.alice.append("INBOX", [NewMessage(InlineContent(one)) for one in octets]))

    def inbox(self, account: Any) -> Any:
        return result(account.open_mailbox("INBOX"))

    def files(self, name: str) -> list[Path]:
        root = self.folder / "example.test" / name
        return sorted([*(root / "new").glob("*"), *(root / "cur").glob("*")])

    def contents(self, account: Any) -> list[bytes]:
        mailbox = self.inbox(account)
        return [one.octets for one in result(mailbox.contents(list(mailbox.uids))) if one is not None]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.setting.stop()


def test_r_dur_octets_are_on_disk_before_the_link_and_the_link_before_the_commit(tmp_path: Path) -> None:
    disk = NotingDisk()
    pair = Pair(tmp_path, disk)
    pair.append(numbered(1))
    pair.setting.journal.live.add(pair.setting.journal.segment_id)
    [file] = pair.files("alice")
    disk.done.clear()
    result(pair.bob.copy_from(pair.inbox(pair.alice), [1], "INBOX"))
    [copy] = pair.files("bob")
    steps = [(kind, path) for kind, path in disk.done if path in (str(file), str(copy.parent))]
    assert steps[:2] == [("sync", str(file)), ("link", str(file))]
    assert ("directory", str(copy.parent)) in steps
    assert copy.stat().st_nlink == 2
    pair.setting.stop()


@pytest.mark.parametrize("taker", ["alice", "bob"])
@pytest.mark.parametrize("has_syncfs", [True, False])
def test_many_messages_are_synced_at_once_before_the_first_link(tmp_path: Path, taker: str, has_syncfs: bool) -> None:
    disk = NotingDisk(has_syncfs=has_syncfs)
    pair = Pair(tmp_path, disk)
    pair.append(*(numbered(place) for place in range(40)))
    pair.setting.journal.live.add(pair.setting.journal.segment_id)
    disk.done.clear()
    inbox, uids = pair.inbox(pair.alice), list(range(1, 41))
    if taker == "bob":
        result(pair.bob.copy_from(inbox, uids, "INBOX"))
    else:
        result(inbox.copy(uids, "INBOX"))
    kinds = [kind for kind, _ in disk.done if kind != "directory"]
    assert len(pair.files(taker)) == (40 if taker == "bob" else 80)
    assert (kinds.count("sync") >= 40) != has_syncfs
    assert (kinds[0] == "all") == has_syncfs
    pair.setting.stop()


def test_a_copy_survives_its_source_and_a_kill(pair: Pair) -> None:
    pair.append(numbered(1), numbered(2))
    result(pair.bob.copy_from(pair.inbox(pair.alice), [1, 2], "INBOX"))
    result(pair.inbox(pair.alice).delete_messages([1, 2]))
    pair.start_again()
    assert pair.contents(pair.bob) == [numbered(1), numbered(2)]
    assert pair.contents(pair.alice) == []


def test_a_copy_that_was_never_committed_is_removed_at_the_next_look(pair: Pair) -> None:
    pair.append(numbered(1))
    result(pair.bob.copy_from(pair.inbox(pair.alice), [1], "INBOX"))
    index = pair.folder / "example.test" / "bob" / "mailsrv.index"
    pair.setting.kill()
    with apsw.Connection(str(index)) as connection:
        connection.execute(
            "DELETE FROM message; DELETE FROM summary; UPDATE mailbox SET messages=0, octets=0, unseen=0, new_mtime=0"
        )
    connection.close()
    pair.setting = StoreSetting(pair.settings)
    pair.open()
    assert pair.contents(pair.bob) == []
    assert pair.files("bob") == []
    assert pair.contents(pair.alice) == [numbered(1)]


def test_r_dur_an_older_index_takes_no_message_that_others_have_links_to(pair: Pair) -> None:
    pair.append(numbered(1))
    result(pair.bob.copy_from(pair.inbox(pair.alice), [1], "INBOX"))
    pair.setting.stop()
    root = pair.folder / "example.test" / "bob"
    saved = {path: path.read_bytes() for path in root.glob("mailsrv.index*")}
    pair.setting = StoreSetting(pair.settings)
    pair.open()
    result(pair.inbox(pair.bob).move([1], "Archive"))
    pair.setting.stop()
    for path in root.glob("mailsrv.index*"):
        path.unlink()
    for path, octets in saved.items():
        path.write_bytes(octets)
    pair.setting = StoreSetting(pair.settings)
    pair.open()
    assert pair.contents(pair.bob) == []
    archive = result(pair.bob.open_mailbox("Archive"))
    assert [one.octets for one in result(archive.contents(list(archive.uids)))] == [numbered(1)]


def test_a_lost_index_takes_no_copies_along(pair: Pair) -> None:
    pair.append(numbered(1))
    result(pair.bob.copy_from(pair.inbox(pair.alice), [1], "INBOX"))
    pair.setting.kill()
    for path in (pair.folder / "example.test" / "bob").glob("mailsrv.index*"):
        path.unlink()
    pair.setting = StoreSetting(pair.settings)
    pair.open()
    assert pair.contents(pair.bob) == [numbered(1)]


def test_damage_of_the_other_index_is_none_of_this_one(pair: Pair) -> None:
    pair.append(numbered(1))
    inbox = pair.inbox(pair.alice)
    result(pair.bob.list_mailboxes())
    pair.setting.table.close_all()
    for path in (pair.folder / "example.test" / "alice").glob("mailsrv.index*"):
        path.unlink()
    (pair.folder / "example.test" / "alice" / "mailsrv.index").write_bytes(os.urandom(8192))
    with pytest.raises(Unavailable):
        result(pair.bob.copy_from(inbox, [1], "INBOX"))
    assert not list((pair.folder / "example.test" / "bob").glob("*damaged*"))
    assert pair.contents(pair.bob) == []


def test_where_nothing_can_be_linked_octets_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(tmp_path)
    pair.append(numbered(1))

    def refused(source: str, target: str) -> None:
        raise OSError(18, "another file system")

    monkeypatch.setattr(pair.setting.table.disk, "link", refused)
    result(pair.bob.copy_from(pair.inbox(pair.alice), [1], "INBOX"))
    assert pair.contents(pair.bob) == [numbered(1)]
    assert pair.files("bob")[0].stat().st_nlink == 1
    pair.setting.stop()


def test_a_disk_that_becomes_full_keeps_nothing_of_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(tmp_path)
    pair.append(numbered(1))

    def refused(source: str, target: str) -> None:
        raise OSError(errno.EXDEV, "another file system")

    class Full(NotingFile):
        def write(self, offset: int, buffers: list[bytes]) -> int:
            self._file.write(offset, [buffers[0][:10]])
            raise OSError(errno.ENOSPC, "full")

    disk = pair.setting.table.disk
    create = disk.create
    inbox = pair.inbox(pair.alice)
    monkeypatch.setattr(disk, "link", refused)
    monkeypatch.setattr(disk, "create", lambda path: Full(create(path), path, []))
    with pytest.raises(MailError):
        result(pair.bob.copy_from(inbox, [1], "INBOX"))
    assert pair.contents(pair.bob) == []
    assert list((tmp_path / "example.test" / "bob" / "tmp").iterdir()) == []
    pair.setting.stop()


@hypothesis_settings(max_examples=15, deadline=None)
@given(wanted=st.lists(st.integers(1, 40), max_size=30), gone=st.sets(st.integers(1, 30), max_size=8))
def test_any_set_of_messages_arrives_in_order(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[int], gone: set[int]
) -> None:
    pair = Pair(tmp_path_factory.mktemp("pair"))
    pair.append(*(numbered(number) for number in range(1, 31)))
    inbox = pair.inbox(pair.alice)
    result(inbox.delete_messages(sorted(gone)))
    copied = result(pair.bob.copy_from(inbox, wanted, "INBOX"))
    expected = sorted({uid for uid in wanted if uid <= 30} - gone)
    assert list(copied.source) == expected
    assert pair.contents(pair.bob) == [numbered(uid) for uid in expected]
    pair.setting.stop()
