"""Other programs at the same Maildir, lost indexes, old Maildirs (RELIABILITY 8.2, R-DUR-3, R-DUR-8, R-SIZE-1)."""

from __future__ import annotations

import base64
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from twisted.internet.defer import fail

from mailsrv.address import Address
from mailsrv.errors import Unavailable
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.mailbox import FlagOperation, NewMessage
from mailsrv.store.check import check_account
from mailsrv.store.index.connection import make_index
from mailsrv.store.settings import StoreSettings
from tests.store.store_setting import StoreSetting

ALICE = Address("alice", "example.test")
SEEN = frozenset({"\\Seen"})


def result(deferred: Any) -> Any:
    found: list[Any] = []
    deferred.addCallbacks(found.append, lambda failure: failure.raiseException())
    return found[0]


def clock_goes_on(*folders: Path) -> None:
    """What was done last in them has a stamp of its own, even where a file system's clock stands for milliseconds."""
    for folder in folders:
        status = folder.stat()
        os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


class Account:
    """Alice, her files, and a server that can be started again."""

    def __init__(self, tmp_path: Path) -> None:
        self.settings = StoreSettings(path=str(tmp_path / "{local}"), recovery_jump=1000)
        self.root = tmp_path / "alice"
        self.start()

    def start(self, run_id: bytes | None = None) -> None:
        self.setting = StoreSetting(self.settings, run_id=run_id)
        self.mail = result(self.setting.store.open_account(ALICE))

    def restart(self) -> None:
        self.setting.stop()
        self.start()

    def append(self, *octets: bytes, name: str = "INBOX", flags: frozenset[str] = frozenset()) -> list[int]:
        messages = [NewMessage(InlineContent(one), flags, 1_700_000_000) for one in octets]
        return list(result(self.mail.append(name, messages)).uids)

    def open(self, name: str = "INBOX") -> Any:
        return result(self.mail.open_mailbox(name))

    def contents(self, name: str = "INBOX") -> dict[int, bytes]:
        mailbox = self.open(name)
        opened = result(mailbox.contents(list(mailbox.uids)))
        return {uid: one.octets for uid, one in zip(mailbox.uids, opened, strict=True) if one is not None}

    def flags(self, name: str = "INBOX") -> dict[int, frozenset[str]]:
        mailbox = self.open(name)
        pairs = zip(mailbox.uids, mailbox.flag_set_numbers, strict=True)
        return {uid: mailbox.flag_set(number) for uid, number in pairs}

    def files(self, name: str = "") -> list[Path]:
        folder = self.root / name if name else self.root
        return sorted([*(folder / "new").glob("*"), *(folder / "cur").glob("*")])

    def put(self, file: str, octets: bytes) -> Path:
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(octets)
        clock_goes_on(path.parent)
        return path

    def drop_index(self) -> None:
        self.setting.kill()
        for path in self.root.glob("mailsrv.index*"):
            path.unlink()
        self.start()


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    account = Account(tmp_path)
    yield account
    result(account.mail.list_mailboxes())
    report = check_account(account.setting.table.disk, str(account.root))
    assert report.is_sound, report
    account.setting.stop()


def test_a_file_put_there_is_a_new_message(account: Account):
    account.append(b"Subject: 1\r\n\r\n")
    inbox = account.open()
    account.put("new/1700000000.other", b"Subject: 2\r\n\r\n")
    account.put("cur/1700000001.other:2,FS", b"Subject: 3\r\n\r\n")
    result(inbox.refresh())
    assert account.contents() == {1: b"Subject: 1\r\n\r\n", 2: b"Subject: 2\r\n\r\n", 3: b"Subject: 3\r\n\r\n"}
    assert account.flags()[3] == {"\\Flagged", "\\Seen"}
    assert [path.name for path in account.files() if "other" in path.name] == [
        "1700000001.other,U=3:2,FS",
        "1700000000.other,U=2",
    ]


def test_a_pipe_put_there_is_no_message_and_keeps_nobody_waiting(account: Account):
    account.append(b"Subject: 1\r\n\r\n")
    os.mkfifo(account.root / "new" / "1700000000.pipe")
    clock_goes_on(account.root / "new")
    assert account.contents() == {1: b"Subject: 1\r\n\r\n"}
    (account.root / "new" / "1700000000.pipe").unlink()


def test_file_names_that_are_no_text_keep_nobody_from_the_mailbox(account: Account):
    account.append(b"Subject: 1\r\n\r\n")
    for name in (b"1700000000.h\xf6st", b"1700000000.h\xffst", "1700000001.höst".encode()):
        account.put(f"new/{os.fsdecode(name)}", b"Subject: %d\r\n\r\n" % len(name))
    assert sorted(account.contents().values()) == [b"Subject: %d\r\n\r\n" % number for number in (1, 15, 15, 16)]
    [path] = [path for path in account.files() if "xff" in path.name]
    os.rename(path, os.fsencode(account.root / "cur" / path.name) + b":2,S\xff")
    clock_goes_on(account.root / "new", account.root / "cur")
    assert [flags for flags in account.flags().values() if flags] == [SEEN]
    before = account.contents()
    assert len(before) == 4
    account.drop_index()
    assert account.contents() == before


def test_uids_of_dovecot_are_kept_for_names_that_are_no_text_too(tmp_path: Path):
    for part in ("new", "cur", "tmp"):
        (tmp_path / "alice" / part).mkdir(parents=True)
    name = b"1700000000.h\xf6st"
    (tmp_path / "alice" / "cur" / os.fsdecode(name + b":2,S")).write_bytes(b"Subject: 1\r\n\r\n")
    (tmp_path / "alice" / "dovecot-uidlist").write_bytes(b"3 V1600000000 N42\n17 :" + name + b"\n")
    account = Account(tmp_path)
    assert account.contents() == {17: b"Subject: 1\r\n\r\n"}
    account.setting.stop()


def test_a_file_taken_away_is_expunged(account: Account):
    account.append(b"Subject: 1\r\n\r\n", b"Subject: 2\r\n\r\n")
    inbox = account.open()
    before = inbox.highest_mod_seq
    path = account.files()[0]
    path.unlink()
    clock_goes_on(path.parent)
    result(inbox.refresh())
    assert list(inbox.uids) == [2]
    assert inbox.highest_mod_seq > before


def test_a_file_missed_once_is_not_gone(account: Account, monkeypatch: pytest.MonkeyPatch):
    account.append(b"Subject: 1\r\n\r\n")
    inbox = account.open()
    account.put("new/1700000000.other", b"Subject: 2\r\n\r\n")
    disk = account.setting.table.disk
    real = disk.list_directory
    calls = []

    def once_empty(path: str) -> Any:
        calls.append(path)
        return [] if len(calls) <= 2 else real(path)

    monkeypatch.setattr(disk, "list_directory", once_empty)
    result(inbox.refresh())
    assert list(inbox.uids) == [1]
    monkeypatch.undo()


def test_flags_changed_by_another_program_are_merged(account: Account):
    account.append(b"Subject: 1\r\n\r\n", flags=frozenset({"\\Flagged", "work"}))
    inbox = account.open()
    # Not yet shown in the name: a change of ours.
    result(inbox.store_flags([1], FlagOperation.ADD, frozenset({"\\Answered"})))
    [path] = account.files()
    assert path.name.endswith(":2,Fa")
    path.rename(path.parent / (path.name.partition(":")[0] + ":2,Sa"))
    clock_goes_on(path.parent)
    result(inbox.refresh())
    assert account.flags() == {1: frozenset({"\\Answered", "\\Seen", "work"})}


def test_file_names_follow_flags_after_a_while(account: Account):
    account.append(b"Subject: 1\r\n\r\n")
    inbox = account.open()
    result(inbox.store_flags([1], FlagOperation.ADD, frozenset({"\\Seen", "$Forwarded"})))
    account.setting.reactor.advance(3)
    [path] = account.files()
    assert path.parent.name == "cur"
    assert path.name.endswith(":2,Sa")
    result(inbox.store_flags([1], FlagOperation.REPLACE, frozenset()))
    account.setting.reactor.advance(3)
    assert account.files()[0].name.endswith(":2,")
    assert account.contents() == {1: b"Subject: 1\r\n\r\n"}


def test_our_own_changes_cause_no_scan(account: Account, monkeypatch: pytest.MonkeyPatch):
    account.append(b"Subject: 1\r\n\r\n", b"Subject: 2\r\n\r\n")
    inbox = account.open()
    listed: list[str] = []
    disk = account.setting.table.disk
    real = disk.list_directory

    def noted(path: str) -> Any:
        listed.append(path)
        return real(path)

    monkeypatch.setattr(disk, "list_directory", noted)
    account.append(b"Subject: 3\r\n\r\n")
    result(inbox.store_flags([1], FlagOperation.ADD, SEEN))
    account.setting.reactor.advance(3)
    result(inbox.delete_messages([2]))
    result(inbox.copy([1], "INBOX"))
    result(inbox.refresh())
    result(inbox.refresh())
    assert listed == []
    assert len(inbox.uids) == 3


def test_fresh_stamps_are_not_believed_for_good(account: Account, tmp_path: Path):
    """A change in the same tick as ours leaves no other stamp: SELECT looks once more when it has settled."""
    account.append(b"Subject: 1\r\n\r\n")
    account.open().close()
    status = (account.root / "new").stat()
    account.put("new/1700000000.other", b"Subject: 2\r\n\r\n")
    os.utime(account.root / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert len(account.open().uids) == 1
    account.setting.stop()
    account.settings = StoreSettings(path=account.settings.path, settle_seconds=0.0)
    account.start()
    assert len(account.open().uids) == 2


def test_r_dur_3_an_expunged_file_that_comes_back_is_removed_again(account: Account):
    account.append(b"Subject: 1\r\n\r\n")
    [path] = account.files()
    inbox = account.open()
    result(inbox.delete_messages([1]))
    assert account.files() == []
    path.write_bytes(b"Subject: 1\r\n\r\n")
    result(inbox.refresh())
    assert list(inbox.uids) == []
    assert account.files() == []


def test_a_copy_that_was_never_committed_is_removed_and_costs_nothing(account: Account):
    account.append(b"Subject: 1\r\n\r\n")
    result(account.open().copy([1], "Archive"))
    [copied] = account.files(".Archive")
    account.setting.stop()
    with apsw.Connection(str(account.root / "mailsrv.index")) as connection:
        connection.execute(
            "DELETE FROM message WHERE id >> 32 = 6; DELETE FROM summary WHERE id >> 32 = 6;"
            "UPDATE mailbox SET messages = 0, octets = 0, unseen = 0, new_mtime = 0 WHERE id = 6"
        )
    connection.close()
    account.start()
    assert account.contents("Archive") == {}
    assert not copied.exists()
    assert account.contents() == {1: b"Subject: 1\r\n\r\n"}


def test_r_size_1_bare_lf_is_served_as_crlf(account: Account):
    octets = b"Subject: lf\nFrom: a@example.test\n\none\ntwo\r\nthree\n"
    path = account.put("new/1700000000.lf", octets)
    crlf = octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    assert account.contents() == {1: crlf}
    inbox = account.open()
    [summary] = result(inbox.summaries([1]))
    assert summary.size_octets == len(crlf)
    assert summary.header_octets == crlf.index(b"\r\n\r\n") + 4
    assert b'"lf"' in summary.imap_envelope
    assert result(account.mail.status("INBOX")).size_octets == len(crlf)
    assert (path.parent / (path.name + ",U=1")).read_bytes() == octets


def test_what_is_found_in_a_message_is_answered_even_if_the_index_cannot_keep_it(account: Account):
    account.put("new/1700000000.one", b"Subject: one\n\ntext\n")
    inbox = account.open()
    [bare] = result(inbox.summaries([1], with_structure=False))
    assert bare.internal_date > 0
    assert bare.imap_envelope is None

    def refused(operation: Any, **options: Any) -> Any:
        return fail(Unavailable())

    account.mail.write, write = refused, account.mail.write
    [summary] = result(inbox.summaries([1]))
    account.mail.write = write
    assert b'"one"' in summary.imap_envelope
    assert (summary.internal_date, summary.email_id) == (bare.internal_date, bare.email_id)
    connection = apsw.Connection(str(account.root / "mailsrv.index"))
    assert connection.execute("SELECT imap_envelope FROM summary").fetchall() == [(None,)]
    connection.close()


def test_r_size_1_a_large_file_with_bare_lf_is_read_in_pieces(account: Account):
    octets = b"Subject: large\n\n" + b"x" * 70 + b"\n" * 3 + b"".join(b"line %d\r\n" % n for n in range(50_000))
    account.put("new/1700000000.lf", octets)
    account.setting.stop()
    account.settings = StoreSettings(path=account.settings.path, load_message_octets=1000)
    account.start()
    inbox = account.open()
    [content] = result(inbox.contents([1]))
    assert content.octets is None
    read = b"".join(result(content.read(offset, 9999)) for offset in range(0, content.size, 9999))
    content.close()
    assert read == octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    assert content.size == len(read) == result(inbox.summaries([1]))[0].size_octets


def test_r_size_1_a_name_that_lies_about_its_size_is_put_right(account: Account):
    octets = b"Subject: x\n\nbody\n"
    account.put(f"new/1700000000.lie,S={len(octets)},W=999", octets)
    inbox = account.open()
    [summary] = result(inbox.summaries([1]))
    assert summary.size_octets == len(octets) + 3
    assert account.contents()[1] == octets.replace(b"\n", b"\r\n")
    assert result(account.mail.quota()).octets == len(octets) + 3


@pytest.mark.parametrize("changed", [b"Subject: 1\r\n\r\n[seen by a scanner]\r\n", b"Subject\r\n\r\n", b""])
def test_a_file_that_another_program_wrote_into_is_a_new_message(account: Account, changed: bytes):
    """A UID keeps its meaning, and a message of another size keeps no client from the others."""
    account.append(b"Subject: 1\r\n\r\n", flags=SEEN | {"work"})
    account.append(b"Subject: 2\r\n\r\n")
    account.setting.journal.live.clear()
    inbox = account.open()
    [path] = [path for path in account.files() if b"Subject: 1" in path.read_bytes()]
    path.write_bytes(changed)
    gone, other = result(inbox.contents([1, 2]))
    assert gone is None
    assert other.octets == b"Subject: 2\r\n\r\n"
    assert list(inbox.uids) == [2, 3]
    assert account.contents() == {2: b"Subject: 2\r\n\r\n", 3: changed}
    assert account.flags()[3] == SEEN | {"work"}
    assert next(iter(result(inbox.summaries([3])))).internal_date == 1_700_000_000
    account.restart()
    assert account.contents() == {2: b"Subject: 2\r\n\r\n", 3: changed}
    account.drop_index()
    assert account.contents() == {2: b"Subject: 2\r\n\r\n", 3: changed}


def test_r_dur_2_a_file_cut_off_that_the_journal_still_has_is_left_to_its_replay(account: Account):
    account.append(b"Subject: 1\r\n\r\n")
    [path] = account.files()
    octets = path.read_bytes()
    path.write_bytes(octets[:4])
    inbox = account.open()
    failures: list[Any] = []
    inbox.contents([1]).addErrback(failures.append)
    assert failures[0].check(Unavailable)
    assert list(inbox.uids) == [1]
    path.write_bytes(octets)
    assert account.contents() == {1: octets}


def test_r_dur_8_a_lost_index_is_rebuilt_with_the_same_uids(account: Account):
    account.append(b"Subject: 1\r\n\r\n", b"Subject: 2\r\n\r\n", b"Subject: 3\r\n\r\n")
    account.append(b"Subject: s\r\n\r\n", name="Sent", flags=frozenset({"\\Seen", "work"}))
    result(account.mail.create("Projects/a.b"))
    account.append(b"Subject: p\r\n\r\n", name="Projects/a.b")
    inbox = account.open()
    result(inbox.store_flags([3], FlagOperation.ADD, frozenset({"\\Flagged"})))
    account.setting.reactor.advance(3)
    result(inbox.delete_messages([2]))
    names = ["INBOX", "Sent", "Projects/a.b"]
    before = {name: (account.contents(name), account.flags(name)) for name in names}
    validities = {name: account.open(name).uid_validity for name in names}
    highest = {name: account.open(name).highest_mod_seq for name in names}
    account.drop_index()
    for name in names:
        mailbox = account.open(name)
        assert (account.contents(name), account.flags(name)) == before[name]
        assert mailbox.uid_validity == validities[name]
        assert mailbox.highest_mod_seq > highest[name]
        assert mailbox.uid_next > 1000
    [summary] = result(account.open("Sent").summaries([1]))
    assert summary.internal_date == 1_700_000_000


def test_r_dur_8_a_key_is_known_after_a_rebuild(account: Account):
    account.append(b"Subject: 1\r\n\r\n")
    segment = account.setting.journal.segment_id
    account.drop_index()
    account.open()
    with apsw.Connection(str(account.root / "mailsrv.index")) as connection:
        found: Any = connection.execute("SELECT delivery_key FROM message").fetchall()
    connection.close()
    assert [key[:16] for (key,) in found] == [segment]


@pytest.mark.parametrize("damage", [b"", b"nonsense" * 1000, bytes(49152)])
def test_a_damaged_index_is_set_aside(account: Account, damage: bytes):
    account.append(b"Subject: 1\r\n\r\n")
    account.setting.stop()
    for path in account.root.glob("mailsrv.index-*"):
        path.unlink()
    (account.root / "mailsrv.index").write_bytes(damage)
    account.start()
    assert account.contents() == {1: b"Subject: 1\r\n\r\n"}
    assert list(account.root.glob("mailsrv.index.damaged-*"))


def test_a_restored_older_index_jumps_ahead(account: Account, tmp_path: Path):
    account.append(b"Subject: 1\r\n\r\n")
    account.setting.stop()
    shutil.copytree(account.root, tmp_path / "copy")
    account.start()
    account.append(*(b"Subject: %d\r\n\r\n" % number for number in range(300)))
    account.setting.stop()
    for path in account.root.glob("mailsrv.index*"):
        path.unlink()
    for path in (tmp_path / "copy").glob("mailsrv.index*"):
        shutil.copy(path, account.root / path.name)
    account.start()
    account.setting.journal.live.clear()
    uids = list(account.open().uids)
    assert uids[0] == 1
    assert uids[1] > 1300
    assert len(uids) == 301


def test_an_existing_dovecot_maildir_keeps_uids_keywords_and_subscriptions(tmp_path: Path):
    root = tmp_path / "alice"
    for folder in ("", ".Sent", ".Entw&APw-rfe.2026"):
        for part in ("cur", "new", "tmp"):
            (root / folder / part).mkdir(parents=True, exist_ok=True)
    (root / "cur" / "1600000000.M1P1.host,S=14,W=16:2,Sb").write_bytes(b"Subject: one\n\n")
    (root / "new" / "1600000001.M1P1.host").write_bytes(b"Subject: two\r\n\r\n")
    (root / "dovecot-keywords").write_text("0 $Junk\n1 work\n")
    (root / "dovecot-uidlist").write_text(
        "3 V1500000000 N20 G123\n7 :1600000000.M1P1.host,S=14,W=16\n12 W16 :1600000001.M1P1.host\n"
    )
    (root / "subscriptions").write_text("V\t2\n\nEntw&APw-rfe\t2026\n")
    account = Account(tmp_path)
    inbox = account.open()
    assert inbox.uid_validity == 1500000000
    assert list(inbox.uids) == [7, 12]
    assert inbox.uid_next == 20
    assert account.flags()[7] == {"\\Seen", "work"}
    assert account.contents()[7] == b"Subject: one\r\n\r\n"
    infos = {info.name: info for info in result(account.mail.list_mailboxes())}
    assert infos["Entwürfe/2026"].is_subscribed
    assert not infos["Sent"].is_subscribed
    assert account.append(b"Subject: 3\r\n\r\n") == [20]
    report = check_account(account.setting.table.disk, str(root))
    assert report.is_sound, report
    account.setting.stop()


def test_mailboxes_made_by_other_programs_are_found(account: Account):
    account.open()
    account.put(".New one/cur/1700000000.x:2,S", b"Subject: 1\r\n\r\n")
    assert "New one" in [info.name for info in result(account.mail.list_mailboxes())]
    assert account.contents("New one") == {1: b"Subject: 1\r\n\r\n"}


def test_an_account_replaced_on_disk_is_noticed(account: Account):
    account.append(b"Subject: old\r\n\r\n")
    inbox = account.open()
    shutil.rmtree(account.root)
    account.put("cur/1700000000.x:2,", b"Subject: new\r\n\r\n")
    assert list(account.contents().values()) == [b"Subject: new\r\n\r\n"]
    result(inbox.refresh())
    assert inbox.is_gone or list(inbox.uids) == [1]


def test_old_litter_of_ours_in_tmp_is_removed(account: Account):
    account.append(b"Subject: 1\r\n\r\n")
    ours = account.put("tmp/1.Kx.mailsrv,S=1,W=1,U=1", b"x")
    other = account.put("tmp/1.other", b"x")
    disk = account.setting.table.disk
    from mailsrv.store.maildir.layout import clean_temporary

    assert clean_temporary(disk, str(account.root), time.time_ns() - 10**12) == 0
    assert clean_temporary(disk, str(account.root), time.time_ns() + 10**12) == 1
    assert not ours.exists()
    assert other.exists()


def test_a_renamed_file_is_still_read(account: Account):
    """ENOENT is no answer: another program changed flags since the last look."""
    account.append(b"Subject: 1\r\n\r\n")
    inbox = account.open()
    [path] = account.files()
    (account.root / "cur").mkdir(exist_ok=True)
    path.rename(account.root / "cur" / (path.name + ":2,S"))
    [content] = result(inbox.contents([1]))
    assert content.octets == b"Subject: 1\r\n\r\n"


@pytest.mark.parametrize("step", range(3))
def test_a_rename_interrupted_is_redone(account: Account, monkeypatch: pytest.MonkeyPatch, step: int):
    for name in ("A", "A/b"):
        result(account.mail.create(name))
        account.append(b"Subject: 1\r\n\r\n", name=name)
    disk = account.setting.table.disk
    real = disk.rename
    calls = []

    def rename(source: str, target: str) -> None:
        if os.path.basename(source).startswith(".A"):
            calls.append(source)
            if len(calls) > step:
                raise OSError(5, "stopped")
        real(source, target)

    monkeypatch.setattr(disk, "rename", rename)
    result(account.mail.rename("A", "B"))
    monkeypatch.undo()
    account.setting.kill()
    account.start()
    assert account.contents("B") == account.contents("B/b") == {1: b"Subject: 1\r\n\r\n"}
    assert (account.root / ".B.b").is_dir()
    assert not (account.root / ".A").exists()


def test_a_delete_interrupted_is_redone(account: Account, monkeypatch: pytest.MonkeyPatch):
    result(account.mail.create("A"))
    account.append(b"Subject: 1\r\n\r\n", name="A")
    disk = account.setting.table.disk
    monkeypatch.setattr(disk, "list_directory", lambda path: (_ for _ in ()).throw(OSError(5, "stopped")))
    result(account.mail.delete("A"))
    monkeypatch.undo()
    account.setting.kill()
    account.start()
    assert "A" not in [info.name for info in result(account.mail.list_mailboxes())]
    assert not (account.root / ".A").exists()


def test_a_move_interrupted_leaves_each_message_once(account: Account, monkeypatch: pytest.MonkeyPatch):
    account.append(b"Subject: 1\r\n\r\n", b"Subject: 2\r\n\r\n")
    inbox = account.open()
    disk = account.setting.table.disk
    monkeypatch.setattr(disk, "unlink", lambda path: (_ for _ in ()).throw(OSError(5, "stopped")))
    result(inbox.move([1, 2], "Trash"))
    monkeypatch.undo()
    account.setting.kill()
    account.start()
    account.put("new/1700000000.other", b"Subject: 3\r\n\r\n")
    assert list(account.contents().values()) == [b"Subject: 3\r\n\r\n"]
    assert len(account.contents("Trash")) == 2
    assert len(account.files()) == 1


def test_r_full_1_store_and_expunge_need_no_new_files(account: Account, monkeypatch: pytest.MonkeyPatch):
    account.append(b"Subject: 1\r\n\r\n", b"Subject: 2\r\n\r\n")
    inbox = account.open()
    disk = account.setting.table.disk

    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    for name in ("create", "open_or_create", "rename", "link", "make_directory"):
        monkeypatch.setattr(disk, name, full)
    result(inbox.store_flags([1], FlagOperation.ADD, frozenset({"\\Deleted", "new-keyword"})))
    assert result(inbox.expunge()) == [1]
    account.setting.reactor.advance(3)
    monkeypatch.undo()
    assert len(account.files()) == 1


WHOLE = b"Subject: 1\r\n\r\nwhole\r\n"


def attempt_at(path: Path, uid: int) -> str:
    """The name another attempt at the same delivery would have used."""
    return path.name.replace(",U=1", f",U={uid}")


def delivered(account: Account) -> Path:
    account.append(WHOLE)
    [path] = account.files()
    return path


def test_r_q_2_what_a_crash_left_of_an_attempt_is_removed_where_the_delivery_has_a_row(account: Account):
    path = delivered(account)
    account.put(f"new/{attempt_at(path, 77)}", WHOLE)
    assert account.contents() == {1: WHOLE}
    assert account.files() == [path]


def test_r_q_2_and_in_another_mailbox_as_well(account: Account):
    path = delivered(account)
    account.append(b"Subject: 2\r\n\r\n", name="Archive")
    attempt = account.put(f".Archive/new/{attempt_at(path, 77)}", WHOLE)
    assert list(account.contents("Archive")) == [1]
    assert not attempt.exists()
    assert account.contents() == {1: WHOLE}


def test_a_message_another_program_moved_under_a_name_of_its_own_is_kept(account: Account):
    path = delivered(account)
    account.append(b"Subject: 2\r\n\r\n", name="Archive")
    # First the mailbox it came to is looked at: the row's file is gone.
    path.rename(account.root / ".Archive" / "cur" / attempt_at(path, 77))
    clock_goes_on(path.parent, account.root / ".Archive" / "cur")
    assert list(account.contents("Archive").values()).count(WHOLE) == 1
    assert account.contents() == {}
    # First the mailbox it went from: only a tombstone is left.
    account.append(WHOLE)
    [path] = account.files()
    path.rename(account.root / ".Archive" / "cur" / path.name.replace(",U=", ",U=90"))
    clock_goes_on(path.parent, account.root / ".Archive" / "cur")
    assert account.contents() == {}
    assert list(account.contents("Archive").values()).count(WHOLE) == 2


def test_a_message_another_program_moved_or_copied_under_its_name_is_a_new_one(account: Account):
    path = delivered(account)
    account.append(b"Subject: 2\r\n\r\n", name="Archive")
    clock_goes_on(Path(shutil.copy(path, account.root / ".Archive" / "cur" / path.name)).parent)
    assert account.contents("Archive")[2] == WHOLE
    assert account.contents() == {1: WHOLE}
    account.append(b"Subject: 3\r\n\r\n", name="Sent")
    path.rename(account.root / ".Sent" / "cur" / path.name)
    clock_goes_on(path.parent, account.root / ".Sent" / "cur")
    assert WHOLE in account.contents("Sent").values()
    assert account.contents() == {}


def test_r_dur_3_an_attempt_at_a_delivery_that_was_expunged_is_removed(account: Account):
    path = delivered(account)
    inbox = account.open()
    result(inbox.delete_messages([1]))
    attempt = account.put(f"new/{attempt_at(path, 77)}", WHOLE)
    assert account.contents() == {}
    assert not attempt.exists()


def test_a_copy_another_program_made_outlives_the_expunge_of_the_message(account: Account):
    path = delivered(account)
    account.append(b"Subject: 2\r\n\r\n", name="Archive")
    shutil.copy(path, account.root / ".Archive" / "cur" / path.name)
    result(account.open().delete_messages([1]))
    assert account.contents("Archive")[2] == WHOLE


@pytest.mark.parametrize("octets", [b"", WHOLE[:5], WHOLE])
def test_r_dur_2_a_file_of_a_delivery_the_journal_still_has_is_left_to_it(account: Account, octets: bytes):
    path = delivered(account)
    key = base64.urlsafe_b64encode(account.setting.journal.segment_id + bytes(8) + b"\0\0\0\x09").decode().rstrip("=")
    base, _, rest = path.name.partition(".K")
    left = account.put(f"new/{base}.K{key}.mailsrv,{rest.partition('.mailsrv,')[2]}".replace(",U=1", ",U=7"), octets)
    assert account.contents() == {1: WHOLE}
    assert left.read_bytes() == octets
    # Once the journal has let go of it without a row, it is a message, if it is whole.
    account.setting.journal.live.clear()
    account.put("cur/touch", b"Subject: touch\r\n\r\n")
    assert list(account.contents().values()).count(WHOLE) == (2 if octets == WHOLE else 1)
    assert not any(one in (b"", WHOLE[:5]) for one in account.contents().values())


@pytest.mark.parametrize("octets", [b"", WHOLE[:5]])
def test_r_dur_8_a_rebuild_takes_no_file_that_was_never_whole(account: Account, octets: bytes):
    path = delivered(account)
    account.append(b"Subject: 2\r\n\r\n")
    path.write_bytes(octets)
    account.drop_index()
    assert account.contents() == {2: b"Subject: 2\r\n\r\n"}
    assert path.read_bytes() == octets
    result(account.open().delete_messages([2]))


def test_r_dur_8_a_rebuild_takes_the_last_of_several_attempts(account: Account):
    path = delivered(account)
    account.append(b"Subject: 2\r\n\r\n", name="Archive")
    account.put(f"new/{attempt_at(path, 300)}", WHOLE)
    account.put(f".Archive/new/{attempt_at(path, 500)}", WHOLE)
    account.drop_index()
    assert account.contents() == {300: WHOLE}
    assert account.contents("Archive") == {1: b"Subject: 2\r\n\r\n"}
    account.put("cur/touch", b"Subject: touch\r\n\r\n")
    account.put(".Archive/cur/touch", b"Subject: touch\r\n\r\n")
    assert list(account.contents().values()).count(WHOLE) == 1
    assert len(account.contents("Archive")) == 2
    assert len(account.files()) == 2
    assert len(account.files(".Archive")) == 2


def test_r_q_2_a_copy_cut_off_is_removed_though_a_replay_wrote_its_source_anew(account: Account):
    path = delivered(account)
    result(account.open().copy([1], "Archive"))
    [copy] = account.files(".Archive")
    account.setting.kill()
    # The commit was lost, the link was not; the source was torn and is another file since.
    with apsw.Connection(str(account.root / "mailsrv.index")) as connection:
        connection.execute(
            "DELETE FROM message WHERE file LIKE '%.C%'; DELETE FROM summary WHERE id NOT IN (SELECT id FROM message)"
        )
        connection.execute("UPDATE mailbox SET messages=0, unseen=0, octets=0, new_mtime=0 WHERE name='Archive'")
    connection.close()
    os.rename(shutil.copy(path, account.root / "tmp" / "anew"), path)
    account.start()
    account.setting.journal.live.clear()
    assert copy.stat().st_nlink == 1
    assert account.contents("Archive") == {}
    assert not copy.exists()
    assert account.contents() == {1: WHOLE}


def test_a_copy_another_program_moves_is_kept_however_many_links_it_has(account: Account):
    delivered(account)
    result(account.open().copy([1], "Archive"))
    account.append(b"Subject: 2\r\n\r\n", name="Sent")
    [copy] = account.files(".Archive")
    copy.rename(account.root / ".Sent" / "cur" / copy.name)
    clock_goes_on(copy.parent, account.root / ".Sent" / "cur")
    assert account.contents("Archive") == {}
    assert WHOLE in account.contents("Sent").values()
    assert account.contents() == {1: WHOLE}


def test_r_q_2_a_copy_cut_off_before_the_first_durable_commit_is_no_message(account: Account):
    """The index is there, what was to be committed to it is not."""
    path = delivered(account)
    result(account.open().copy([1], "Archive"))
    [copy] = account.files(".Archive")
    account.setting.kill()
    (account.root / "mailsrv.index").unlink()
    (account.root / "mailsrv.index-wal").unlink()
    make_index(str(account.root / "mailsrv.index"))
    account.start()
    assert account.contents() == {1: WHOLE}
    assert account.contents("Archive") == {}
    account.put(".Archive/cur/touch", b"Subject: touch\r\n\r\n")
    assert list(account.contents("Archive").values()) == [b"Subject: touch\r\n\r\n"]
    assert not copy.exists()
    assert path.exists()


def test_r_dur_8_a_rebuild_keeps_copies(account: Account):
    delivered(account)
    result(account.open().copy([1], "Archive"))
    account.drop_index()
    assert account.contents("Archive") == {1: WHOLE}


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_message_another_program_takes_away_and_brings_back_under_its_name_is_kept(account: Account, is_ours: bool):
    """Only what was expunged here can have come back by a crash."""
    if is_ours:
        account.append(b"Subject: 1\r\n\r\n")
        [path] = account.files()
    else:
        path = account.put("cur/1700000000.other:2,S", b"Subject: 1\r\n\r\n")
    assert list(account.contents().values()) == [b"Subject: 1\r\n\r\n"]
    [path] = account.files()
    away = account.root / ".Archive" / "cur" / path.name
    away.parent.mkdir(parents=True, exist_ok=True)
    path.rename(away)
    clock_goes_on(path.parent, away.parent)
    assert account.contents() == {}
    assert list(account.contents("Archive").values()) == [b"Subject: 1\r\n\r\n"]
    [away] = account.files(".Archive")
    away.rename(path)
    clock_goes_on(path.parent, away.parent)
    assert account.contents("Archive") == {}
    assert list(account.contents().values()) == [b"Subject: 1\r\n\r\n"]
    assert len(account.files()) == 1
