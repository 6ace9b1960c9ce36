"""Changing a passwd-file: nothing else in it changes, and two commands do not lose each other's work."""

from __future__ import annotations

import fcntl
import os
import stat
import threading

import pytest

from mailsrv.address import Address
from mailsrv.directory.passwd_edit import EditError, PasswdEditor
from tests.contracts.directory import ALICE, BOB
from tests.disk.durable_calls import note_durable_calls

TEXT = (
    b"# the staff\r\nalice:{PLAIN}one:1000:1000:Alice:/home/alice::userdb_quota_rule=*:storage=1G\n\nnonsense\n\xff:x\n"
)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "passwd"
    file.write_bytes(TEXT)
    file.chmod(0o640)
    return file


@pytest.fixture
def editor(path):
    return PasswdEditor(str(path), default_domain="example.test")


def test_a_new_password_changes_one_field(path, editor):
    editor.set_secret(Address("Alice", "example.test"), "{PLAIN}two")
    assert path.read_bytes() == TEXT.replace(b"{PLAIN}one", b"{PLAIN}two")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_adding_appends_and_deleting_takes_away(path, editor):
    editor.add(BOB, "{PLAIN}x", display_name="Bob B.", extra="userdb_quota_rule=*:bytes=5")
    assert path.read_bytes() == TEXT + b"bob@example.test:{PLAIN}x:::Bob B.:::userdb_quota_rule=*:bytes=5\n"
    assert [user.address for user in editor.users()] == [ALICE, BOB]
    assert editor.users()[1].quota_octets == 5
    editor.delete(BOB)
    assert path.read_bytes() == TEXT
    editor.delete(ALICE)
    assert editor.users() == ()
    assert path.read_bytes().startswith(b"# the staff\r\n\nnonsense")


def test_a_file_without_a_last_line_end_gets_one(path, editor):
    path.write_bytes(b"alice:{PLAIN}one")
    editor.add(BOB, "{PLAIN}x")
    assert path.read_bytes() == b"alice:{PLAIN}one\nbob@example.test:{PLAIN}x::::::\n"


def test_the_first_user_makes_the_file(tmp_path):
    path = tmp_path / "new"
    PasswdEditor(str(path)).add(ALICE, "{PLAIN}x")
    assert path.read_bytes() == b"alice@example.test:{PLAIN}x::::::\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_refusals_change_nothing(path, editor):
    for change in (
        lambda: editor.add(ALICE, "{PLAIN}x"),
        lambda: editor.delete(BOB),
        lambda: editor.set_secret(BOB, "{PLAIN}x"),
        lambda: editor.add(BOB, "{PLAIN}x\nroot@example.test:{PLAIN}y"),
        lambda: editor.add(BOB, "{PLAIN}a:b"),
        lambda: editor.add(BOB, "{PLAIN}x", display_name="B:ob"),
        lambda: editor.add(BOB, "{PLAIN}x", extra="a\nb"),
        lambda: editor.set_secret(ALICE, "{PLAIN}x\r"),
    ):
        with pytest.raises(EditError):
            change()
    assert path.read_bytes() == TEXT
    with pytest.raises(EditError, match="does not exist"):
        PasswdEditor(str(path.with_name("none"))).users()
    with pytest.raises(EditError, match="cannot be opened"):
        PasswdEditor(str(path / "below")).add(BOB, "{PLAIN}x")


def test_a_repeated_user_is_deleted_wholly(path, editor):
    path.write_bytes(b"alice:{PLAIN}one\nalice@example.test:{PLAIN}two\n")
    editor.delete(ALICE)
    assert path.read_bytes() == b""


def test_a_link_stays_and_its_target_changes(path, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(path)
    PasswdEditor(str(link), default_domain="example.test").set_secret(ALICE, "{PLAIN}two")
    assert link.is_symlink()
    assert b"two" in path.read_bytes()


def test_a_failed_rename_leaves_the_old_file_and_nothing_beside(path, editor, monkeypatch):
    def fail(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.rename", fail)
    with pytest.raises(EditError, match="No space left"):
        editor.set_secret(ALICE, "{PLAIN}two")
    assert path.read_bytes() == TEXT
    assert sorted(os.listdir(path.parent)) == ["passwd", "passwd.lock"]


def test_the_file_is_synced_before_and_its_folder_after_the_rename(path, editor, monkeypatch):
    calls = note_durable_calls(monkeypatch)
    editor.set_secret(ALICE, "{PLAIN}two")
    assert calls == ["file", "rename", "folder"]


def test_a_held_lock_is_waited_for_and_then_told(path):
    with open(f"{path}.lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(EditError, match="another command"):
            PasswdEditor(str(path), default_domain="example.test", lock_seconds=0).set_secret(ALICE, "{PLAIN}two")
    assert path.read_bytes() == TEXT


def test_commands_at_the_same_time_lose_nothing(path):
    def add(number: int) -> None:
        PasswdEditor(str(path), default_domain="example.test").add(Address(f"u{number}", "example.test"), "{PLAIN}x")

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(PasswdEditor(str(path), default_domain="example.test").users()) == 9
