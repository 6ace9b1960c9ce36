"""Deliveries: exactly once, whatever step a crash falls between (R-DUR-2, R-Q-2, R-DUR-5)."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from attrs import evolve

from mailsrv.address import Address
from mailsrv.disk import RealDisk
from mailsrv.errors import InsufficientStorage, Unavailable
from mailsrv.interfaces.content import FileContent, InlineContent
from mailsrv.interfaces.journal import (
    Applied,
    DeliveryKey,
    JournaledMessage,
    JournalRecord,
    LocalDelivery,
    NotApplied,
    PendingDelivery,
)
from mailsrv.interfaces.mailbox import NoSuchMailbox
from mailsrv.store.check import check_account
from mailsrv.store.settings import StoreSettings
from mailsrv.store.write_queue import WriteQueue
from tests.collector import left_to_the_collector
from tests.store.store_setting import StoreSetting

ALICE = Address("alice", "example.test")
BOB = Address("bob", "example.test")
SEGMENT = bytes(range(16))


def octets(number: int) -> bytes:
    return b"Subject: message %d\r\n\r\nBody of %d\r\n" % (number, number)


def pending(number: int, *accounts: Address, is_replay: bool = False, **kw: Any) -> list[PendingDelivery]:
    deliveries = tuple(LocalDelivery(account, recipient=str(account), **kw) for account in accounts or (ALICE,))
    message = JournaledMessage(InlineContent(octets(number)), deliveries, 1_700_000_000 + number)
    return [
        PendingDelivery(DeliveryKey(SEGMENT, number * 4096, place), message, delivery, is_replay)
        for place, delivery in enumerate(deliveries)
    ]


class FailingDisk(RealDisk):
    """Fails (or dies) at the n-th call that changes something."""

    def __init__(self, fail_at: int = -1, error: BaseException | None = None) -> None:
        super().__init__()
        self.calls = 0
        self.fail_at = fail_at
        self.error = error or OSError(errno.ENOSPC, "full")

    def _step(self) -> None:
        self.calls += 1
        if self.calls - 1 == self.fail_at:
            raise self.error

    def create(self, path: str) -> Any:
        self._step()
        return super().create(path)

    def rename(self, source: str, target: str) -> None:
        self._step()
        super().rename(source, target)
        self._step()

    def link(self, source: str, target: str) -> None:
        self._step()
        super().link(source, target)
        self._step()

    def unlink(self, path: str) -> None:
        self._step()
        super().unlink(path)

    def sync_directory(self, path: str) -> None:
        self._step()
        super().sync_directory(path)


class Killed(BaseException):
    """What the process would not have survived."""


@pytest.fixture
def store_settings(tmp_path: Path) -> StoreSettings:
    return StoreSettings(path=str(tmp_path / "{local}"))


@pytest.fixture
def setting(store_settings: StoreSettings) -> Iterator[StoreSetting]:
    setting = StoreSetting(store_settings)
    yield setting
    for account in list(setting.table._open):
        report = check_account(setting.table.disk, account.root)
        assert report.is_sound, report
    setting.stop()


def result(deferred: Any) -> Any:
    found: list[Any] = []
    deferred.addCallbacks(found.append, lambda failure: failure.raiseException())
    return found[0]


def inbox_of(setting: StoreSetting, account: Address = ALICE, name: str = "INBOX") -> Any:
    return result(result(setting.store.open_account(account)).open_mailbox(name))


def contents(mailbox: Any) -> Any:
    opened = result(mailbox.contents(list(mailbox.uids)))
    return [one.octets if one is not None else None for one in opened]


def files(path: Path) -> list[str]:
    return sorted(name for part in ("new", "cur") for name in os.listdir(path / part))


def test_a_delivery_is_a_file_and_a_row(setting: StoreSetting, tmp_path: Path):
    [applied] = setting.applier.apply(pending(1, flags=frozenset({"\\Flagged", "todo"})))
    assert isinstance(applied, Applied)
    assert applied.uid == 1
    inbox = inbox_of(setting)
    assert contents(inbox) == [octets(1)]
    assert inbox.flag_set(inbox.flag_set_numbers[0]) == {"\\Flagged", "todo"}
    [name] = files(tmp_path / "alice")
    assert f",S={len(octets(1))},W={len(octets(1))},U=1:2,Fa" in name
    assert (tmp_path / "alice" / "dovecot-keywords").read_text() == "0 todo\n"


def test_r_q_2_a_key_is_applied_once(setting: StoreSetting):
    first = setting.applier.apply(pending(1))
    again = setting.applier.apply(pending(1, is_replay=True))
    assert list(first) == list(again)
    # Even where nobody said that it is a repetition.
    assert list(setting.applier.apply(pending(1))) == list(first)
    both = pending(2)
    twice = setting.applier.apply([*both, *both])
    assert twice[0] == twice[1]
    assert contents(inbox_of(setting)) == [octets(1), octets(2)]


def test_an_expunged_key_stays_expunged(setting: StoreSetting):
    [first] = setting.applier.apply(pending(1))
    inbox = inbox_of(setting)
    assert result(inbox.delete_messages([1])) == [1]
    [again] = setting.applier.apply(pending(1, is_replay=True))
    assert isinstance(again, Applied)
    assert isinstance(first, Applied)
    assert (again.uid, again.uid_validity) == (first.uid, first.uid_validity)
    assert contents(inbox) == []


def test_a_key_moved_or_deleted_with_its_mailbox_stays_so(setting: StoreSetting):
    setting.applier.apply([*pending(1), *pending(2, mailbox="Sent")])
    mail = result(setting.store.open_account(ALICE))
    result(inbox_of(setting).move([1], "Archive"))
    result(mail.delete("Sent"))
    answers = setting.applier.apply([*pending(1, is_replay=True), *pending(2, is_replay=True, mailbox="Sent")])
    assert all(isinstance(answer, Applied) for answer in answers)
    assert contents(inbox_of(setting)) == []
    assert contents(inbox_of(setting, name="Archive")) == [octets(1)]


@pytest.mark.parametrize("damage", ["gone", "empty", "zeros"])
def test_a_replay_restores_a_file_that_a_crash_took(setting: StoreSetting, tmp_path: Path, damage: str):
    setting.applier.apply(pending(1))
    [name] = files(tmp_path / "alice")
    path = tmp_path / "alice" / "new" / name
    path.unlink()
    if damage != "gone":
        path.write_bytes(b"" if damage == "empty" else bytes(len(octets(1))))
    setting.applier.apply(pending(1, is_replay=True))
    assert path.read_bytes() == octets(1)


def test_r_dur_1_what_a_replay_finds_in_place_is_synced_by_the_next_checkpoint(
    store_settings: StoreSettings, tmp_path: Path
):
    """The process before wrote it and ended before its checkpoint: nothing has put it on the disk yet."""
    first = StoreSetting(store_settings, run_id=b"1" * 16)
    first.applier.apply(pending(1))
    again = StoreSetting(store_settings, run_id=b"2" * 16)
    again.applier.apply(pending(1, is_replay=True))
    assert {str(tmp_path / "alice"), str(tmp_path / "alice" / "new")} <= set(again.applier.take_touched())
    first.stop()
    again.stop()


def test_after_a_failed_checkpoint_files_are_looked_at_again(setting: StoreSetting, tmp_path: Path):
    one = pending(1)
    setting.applier.apply(one)
    [name] = files(tmp_path / "alice")
    (tmp_path / "alice" / "new" / name).write_bytes(b"")
    setting.applier.checkpoint_failed([one[0].key])
    setting.applier.apply(one)
    assert (tmp_path / "alice" / "new" / name).read_bytes() == octets(1)


def test_further_recipients_share_the_file(setting: StoreSetting, tmp_path: Path):
    answers = setting.applier.apply(pending(1, ALICE, BOB))
    assert all(isinstance(answer, Applied) for answer in answers)
    [one], [other] = files(tmp_path / "alice"), files(tmp_path / "bob")
    assert (tmp_path / "alice" / "new" / one).samefile(tmp_path / "bob" / "new" / other)


@pytest.mark.parametrize("number", [errno.EMLINK, errno.EXDEV, errno.EPERM])
def test_where_links_cannot_be_files_are_copied(store_settings: StoreSettings, tmp_path: Path, number: int):
    class NoLinks(RealDisk):
        def link(self, source: str, target: str) -> None:
            raise OSError(number, "no links")

    setting = StoreSetting(store_settings, disk=NoLinks())
    setting.applier.apply(pending(1, ALICE, BOB))
    result(inbox_of(setting, BOB).copy([1], "Archive"))
    assert contents(inbox_of(setting, BOB)) == contents(inbox_of(setting, BOB, "Archive")) == [octets(1)]
    setting.stop()


def test_a_file_is_linked_and_left_to_the_journal(setting: StoreSetting, tmp_path: Path):
    spooled = tmp_path / "spooled"
    spooled.write_bytes(octets(5))
    delivery = LocalDelivery(ALICE)
    message = JournaledMessage(FileContent(str(spooled), len(octets(5)), b""), (delivery,), 1)
    [applied] = setting.applier.apply([PendingDelivery(DeliveryKey(SEGMENT, 0, 0), message, delivery)])
    assert isinstance(applied, Applied)
    assert spooled.exists()
    [name] = files(tmp_path / "alice")
    assert (tmp_path / "alice" / "new" / name).samefile(spooled)


def test_trouble_of_one_account_is_its_own(setting: StoreSetting, tmp_path: Path):
    (tmp_path / "bob").write_text("no folder")
    answers = setting.applier.apply([*pending(1), *pending(2, BOB), *pending(3)])
    assert [type(answer) for answer in answers] == [Applied, NotApplied, Applied]
    assert isinstance(answers[1], NotApplied)
    assert isinstance(answers[1].error, Unavailable)
    (tmp_path / "bob").unlink()
    assert isinstance(setting.applier.apply(pending(2, BOB))[0], Applied)


def test_mail_for_a_deleted_mailbox_goes_to_inbox_and_an_append_fails(setting: StoreSetting):
    setting.applier.apply(pending(1, mailbox="Gone"))
    assert contents(inbox_of(setting)) == [octets(1)]
    delivery = LocalDelivery(ALICE, "Gone")
    message = JournaledMessage(InlineContent(octets(2)), (delivery,), 1)
    [answer] = setting.applier.apply([PendingDelivery(DeliveryKey(SEGMENT, 9, 0), message, delivery)])
    assert isinstance(answer, NotApplied)
    assert isinstance(answer.error, NoSuchMailbox)


def count_steps(store_settings: StoreSettings, tmp_path: Path) -> int:
    disk = FailingDisk()
    setting = StoreSetting(store_settings, disk=disk)
    setting.applier.apply([*pending(1, ALICE, BOB), *pending(2)])
    setting.stop()
    return disk.calls


@pytest.mark.parametrize("is_kill", [False, True], ids=["full disk", "kill"])
def test_r_dur_2_a_failure_at_any_step_loses_and_doubles_nothing(tmp_path: Path, is_kill: bool):
    steps = count_steps(StoreSettings(path=str(tmp_path / "count" / "{local}")), tmp_path)
    assert steps > 5
    for step in range(steps):
        folder = tmp_path / f"{is_kill}{step}"
        store_settings = StoreSettings(path=str(folder / "{local}"))
        disk = FailingDisk(step, Killed() if is_kill else None)
        setting = StoreSetting(store_settings, disk=disk, segment_id=SEGMENT)
        work = [*pending(1, ALICE, BOB), *pending(2)]
        try:
            answers = setting.applier.apply(work)
        except Killed:
            setting.kill()
        else:
            for answer in answers:
                if isinstance(answer, NotApplied):
                    assert isinstance(answer.error, InsufficientStorage)
            # R-DUR-5: what was not applied is not visible.
            visible = sum(len(contents(inbox_of(setting, who))) for who in (ALICE, BOB))
            assert visible == sum(isinstance(answer, Applied) for answer in answers)
            setting.kill()
        again = StoreSetting(store_settings, segment_id=SEGMENT)
        replayed = [*pending(1, ALICE, BOB, is_replay=True), *pending(2, is_replay=True)]
        answers = again.applier.apply(replayed)
        assert all(isinstance(answer, Applied) for answer in answers), step
        assert sorted(contents(inbox_of(again))) == [octets(1), octets(2)], step
        assert contents(inbox_of(again, BOB)) == [octets(1)], step
        for who in ("alice", "bob"):
            report = check_account(again.table.disk, str(folder / who))
            assert report.is_sound, (step, report)
            assert not report.differs, (step, report)
        again.stop()


def test_r_dur_2_a_file_without_a_row_is_left_to_the_replay(store_settings: StoreSettings, tmp_path: Path):
    """A kill between the rename and the commit."""
    setting = StoreSetting(store_settings, segment_id=SEGMENT)
    setting.applier.apply(pending(1))
    [name] = files(tmp_path / "alice")
    setting.stop()
    with apsw.Connection(str(tmp_path / "alice" / "mailsrv.index")) as connection:
        connection.execute(
            "DELETE FROM message; DELETE FROM summary; UPDATE mailbox SET messages=0, unseen=0, octets=0"
        )
    connection.close()
    again = StoreSetting(store_settings, segment_id=SEGMENT)
    assert contents(inbox_of(again)) == []
    assert files(tmp_path / "alice") == [name]
    again.applier.apply(pending(1, is_replay=True))
    assert contents(inbox_of(again)) == [octets(1)]
    again.stop()


def test_uids_are_reserved_ahead_and_never_given_twice(store_settings: StoreSettings):
    """RELIABILITY 8.5: another run goes on above what may have been told; a clean end leaves no gap."""
    setting = StoreSetting(store_settings)
    setting.applier.apply([one for number in range(3) for one in pending(number)])
    setting.kill()
    killed = StoreSetting(store_settings)
    [applied] = killed.applier.apply(pending(10))
    assert isinstance(applied, Applied)
    assert applied.uid == 257
    before = applied.mod_seq
    killed.stop()
    clean = StoreSetting(store_settings)
    [applied] = clean.applier.apply(pending(11))
    assert isinstance(applied, Applied)
    assert applied.uid == 258
    assert applied.mod_seq > before
    clean.stop()


def test_only_reservations_wait_for_the_disk(store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch):
    setting = StoreSetting(store_settings)
    account = setting.table.account(ALICE)
    durable: list[bool] = []
    begin = account.begin

    def noted(*, is_durable: bool = True) -> Any:
        durable.append(is_durable)
        return begin(is_durable=is_durable)

    monkeypatch.setattr(account, "begin", noted)
    for number in range(600):
        setting.applier.apply(pending(number))
    assert len(durable) == 600
    assert sum(durable) == 2
    setting.stop()


def test_touched_directories_are_named_once(setting: StoreSetting, tmp_path: Path):
    setting.applier.apply(pending(1))
    touched = set(setting.applier.take_touched())
    assert {str(tmp_path / "alice"), str(tmp_path / "alice" / "new")} <= touched
    assert str(tmp_path) in touched
    assert not setting.applier.take_touched()
    setting.applier.apply(pending(2))
    alice = tmp_path / "alice"
    assert set(setting.applier.take_touched()) == {str(alice), str(alice / "new"), str(alice / "cur")}


def test_sessions_hear_of_deliveries(setting: StoreSetting):
    inbox = inbox_of(setting)
    told: list[int] = []
    inbox.watch(lambda: told.append(len(inbox.uids)))
    setting.applier.apply(pending(1))
    setting.reactor.advance(0)
    assert told == [1]


def test_tombstones_go_when_no_segment_can_hold_their_key(store_settings: StoreSettings):
    setting = StoreSetting(store_settings, segment_id=SEGMENT)
    mail = result(setting.store.open_account(ALICE))
    setting.table.settings = mail.settings = StoreSettings(path=store_settings.path, tombstones=1)
    setting.applier.apply([one for number in range(3) for one in pending(number)])
    inbox = inbox_of(setting)
    result(inbox.delete_messages([1, 2]))
    assert result(mail.purge()) == 0
    setting.journal.live.clear()
    assert result(mail.purge()) == 2
    assert result(mail.purge()) == 0
    assert list(inbox.uids) == [3]
    # A view from before the purge still learns of everything.
    other = StoreSetting(store_settings, run_id=setting.run_id, segment_id=SEGMENT)
    assert list(inbox_of(other).uids) == [3]
    other.kill()
    setting.stop()


def test_an_append_of_many_is_all_or_none(setting: StoreSetting):
    record = JournalRecord(
        tuple(
            JournaledMessage(InlineContent(octets(number)), (LocalDelivery(ALICE, name),), 1)
            for number, name in enumerate(["INBOX", "INBOX"])
        )
    )
    applied = result(setting.journal.commit_and_note(record))
    assert [one.uid for one in applied] == [1, 2]
    assert applied[0].mod_seq == applied[1].mod_seq


def test_a_change_is_done_although_its_news_cannot_be_read(setting, monkeypatch):
    """Who is told that it failed does it again: a COPY would be there twice."""
    mail = result(setting.store.open_account(ALICE))
    result(mail.create("Letters"))
    inbox = result(mail.open_mailbox("INBOX"))
    setting.applier.apply(pending(1))
    result(inbox.refresh())

    def fail(*_arguments: object) -> None:
        raise apsw.IOError("no news")

    with monkeypatch.context() as patch:
        patch.setattr(WriteQueue, "_deltas", fail)
        result(mail.copy_from(inbox, [1], "Letters"))
    letters = result(mail.open_mailbox("Letters"))
    assert list(letters.uids) == [1]
    letters.close()
    inbox.close()
    mail.release()


def test_an_account_that_nobody_uses_leaves_nothing_to_the_collector(setting):
    with left_to_the_collector() as left:
        mail = result(setting.store.open_account(ALICE))
        result(mail.create("Letters"))
        mailbox = result(mail.open_mailbox("Letters"))
        mailbox.close()
        mail.release()
        del mail, mailbox
    assert left["AccountMailboxes"] == left["WriteQueue"] == 0


def test_tombstones_are_cleaned_when_the_last_session_ends(store_settings: StoreSettings, tmp_path: Path):
    setting = StoreSetting(StoreSettings(path=store_settings.path, tombstones=0))
    setting.applier.apply(pending(1))
    mail = result(setting.store.open_account(ALICE))
    inbox = result(mail.open_mailbox("INBOX"))
    result(inbox.delete_messages([1]))
    inbox.close()
    mail.release()
    with apsw.Connection(str(tmp_path / "alice" / "mailsrv.index")) as connection:
        assert connection.execute("SELECT count(*) FROM tombstone").fetchall() == [(0,)]
    connection.close()
    setting.stop()


def lose_rows(setting: StoreSetting, tmp_path: Path) -> None:
    """What a power cut leaves of commits that were not synced: nothing."""
    setting.kill()
    with apsw.Connection(str(tmp_path / "alice" / "mailsrv.index")) as connection:
        connection.execute("DELETE FROM message; DELETE FROM summary")
        connection.execute("UPDATE mailbox SET messages=0, unseen=0, octets=0, new_mtime=0")
    connection.close()


def test_a_uid_that_was_told_is_given_again_where_the_index_lost_it(store_settings: StoreSettings, tmp_path: Path):
    setting = StoreSetting(store_settings, segment_id=SEGMENT)
    _, told, _ = setting.applier.apply([*pending(1), *pending(2), *pending(3)])
    assert isinstance(told, Applied)
    highest = inbox_of(setting).highest_mod_seq
    lose_rows(setting, tmp_path)
    again = StoreSetting(store_settings, segment_id=SEGMENT)
    replayed = [*pending(1, is_replay=True), *pending(2, is_replay=True), *pending(3, is_replay=True)]
    replayed[1] = evolve(replayed[1], noted=told)
    answers = again.applier.apply(replayed)
    assert [answer.uid for answer in answers if isinstance(answer, Applied)] == [257, 2, 258]
    inbox = inbox_of(again)
    assert list(inbox.uids) == [2, 257, 258]
    assert contents(inbox) == [octets(2), octets(1), octets(3)]
    # Who was told of a later mod-sequence hears of it all the same.
    assert min(inbox.mod_seqs) > highest
    assert len(files(tmp_path / "alice")) == 3
    # A second replay finds it where it is.
    assert [answer.uid for answer in again.applier.apply(replayed) if isinstance(answer, Applied)] == [257, 2, 258]
    again.stop()


def test_r_dur_3_a_purge_leaves_no_attempt_behind_that_could_come_back(store_settings: StoreSettings, tmp_path: Path):
    setting = StoreSetting(StoreSettings(path=store_settings.path, tombstones=0), segment_id=SEGMENT)
    setting.applier.apply(pending(1))
    mail = result(setting.store.open_account(ALICE))
    inbox = result(mail.open_mailbox("INBOX"))
    [name] = files(tmp_path / "alice")
    # Cut off before its commit; no scan has come upon it yet.
    (tmp_path / "alice" / "new" / name.replace(",U=1", ",U=900")).write_bytes(octets(1))
    result(inbox.delete_messages([1]))
    setting.journal.live.clear()
    assert result(mail.purge()) == 0
    assert files(tmp_path / "alice") == []
    assert result(mail.purge()) == 1
    assert contents(inbox_of(setting)) == []
    setting.stop()


def test_a_uid_told_beyond_an_older_index_is_kept_and_never_given_to_another(
    store_settings: StoreSettings, tmp_path: Path
):
    setting = StoreSetting(store_settings, segment_id=SEGMENT)
    [first] = setting.applier.apply(pending(1))
    assert isinstance(first, Applied)
    setting.stop()
    again = StoreSetting(store_settings, segment_id=SEGMENT)
    [beyond] = pending(2, is_replay=True)
    noted = Applied(beyond.key, first.uid_validity, 5000, 9)
    [answer] = again.applier.apply([evolve(beyond, noted=noted)])
    assert isinstance(answer, Applied)
    assert answer.uid == 5000
    [later] = again.applier.apply(pending(3))
    assert isinstance(later, Applied)
    assert later.uid > 5000
    # Taken, or of a mailbox that is another one by now: a new UID.
    for number, other in ((4, evolve(noted, uid=5000)), (5, evolve(noted, uid_validity=7, uid=6000))):
        [one] = again.applier.apply([evolve(pending(number, is_replay=True)[0], noted=other)])
        assert isinstance(one, Applied)
        assert one.uid == later.uid + number - 3
    again.stop()


def group_of(segment_offset: int, *numbers: int, mailbox: str = "INBOX") -> list[PendingDelivery]:
    """One record of several messages, as MULTIAPPEND makes it."""
    messages = [
        JournaledMessage(InlineContent(octets(number)), (LocalDelivery(ALICE, mailbox),), number) for number in numbers
    ]
    return [
        PendingDelivery(DeliveryKey(SEGMENT, segment_offset, place), message, message.deliveries[0])
        for place, message in enumerate(messages)
    ]


def test_a_record_that_fails_in_a_batch_is_applied_whole_or_not_at_all(store_settings: StoreSettings):
    seen: set[int] = set()
    for step in range(40):
        disk = FailingDisk(step)
        folder = store_settings.path.replace("{local}", f"{step}-{{local}}")
        setting = StoreSetting(StoreSettings(path=folder), disk=disk, segment_id=SEGMENT)
        batch = [*pending(1), *group_of(1 << 20, 2, 3, 4), *pending(5)]
        # A full disk stays full for all further tries in this call.
        real = disk._step

        def stay_full(real: Any = real, disk: FailingDisk = disk) -> None:
            if disk.calls > disk.fail_at:
                raise OSError(errno.ENOSPC, "full")
            real()

        disk._step = stay_full  # type: ignore[method-assign]
        answers = setting.applier.apply(batch)
        whole = [isinstance(answer, Applied) for answer in answers[1:4]]
        assert len(set(whole)) == 1, (step, answers)
        seen.add(sum(whole))
        disk._step = lambda: None  # type: ignore[method-assign]
        again = [one for one, answer in zip(batch, answers, strict=True) if isinstance(answer, NotApplied)]
        assert all(isinstance(answer, Applied) for answer in setting.applier.apply(again))
        assert sorted(contents(inbox_of(setting))) == [octets(number) for number in range(1, 6)]
        setting.stop()
    assert seen == {0, 3}


def test_a_record_for_a_mailbox_that_is_gone_takes_no_other_with_it(setting: StoreSetting):
    answers = setting.applier.apply([*pending(1), *group_of(1 << 20, 2, 3, mailbox="Gone"), *pending(4)])
    assert [type(answer) for answer in answers] == [Applied, NotApplied, NotApplied, Applied]
    assert contents(inbox_of(setting)) == [octets(1), octets(4)]


def test_r_dur_3_a_key_that_failed_and_was_expunged_meanwhile_does_not_come_back(setting: StoreSetting):
    """The commit went through, the answer did not; a session expunges the message before the journal tries again."""
    original = setting.table.touch
    calls = 0

    def fail_once(directories: Any) -> None:
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise OSError(errno.EIO, "after the commit")
        original(directories)

    setting.applier.apply(pending(9))
    setting.table.touch = fail_once  # type: ignore[method-assign]
    [answer] = setting.applier.apply(pending(1))
    assert isinstance(answer, NotApplied)
    setting.table.touch = original  # type: ignore[method-assign]
    inbox = inbox_of(setting)
    assert len(contents(inbox)) == 2
    result(inbox.delete_messages([inbox.uids[-1]]))
    [answer] = setting.applier.apply(pending(1))
    assert isinstance(answer, Applied)
    assert contents(inbox_of(setting)) == [octets(9)]


def test_keys_in_doubt_are_forgotten_with_their_segments(setting: StoreSetting):
    keys = [DeliveryKey(bytes(16), number, 0) for number in range(2000)]
    setting.applier.checkpoint_failed([*keys, *(one.key for one in pending(1))])
    setting.journal.live.add(SEGMENT)
    setting.applier.take_touched()
    assert setting.applier._doubted == {one.key for one in pending(1)}


class SyncWatchingDisk(RealDisk):
    """Remembers which files' octets were synced."""

    def __init__(self) -> None:
        super().__init__()
        self.synced: list[str] = []

    def open(self, path: str, *, write: bool = False) -> Any:
        return _SyncWatchingFile(super().open(path, write=write), self.synced)


class _SyncWatchingFile:
    def __init__(self, file: Any, synced: list[str]) -> None:
        self._file = file
        self._synced = synced

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def sync(self) -> None:
        self._synced.append(self._file.path)
        self._file.sync()


@pytest.mark.parametrize("is_move", [False, True])
def test_r_dur_1_octets_that_only_the_journal_has_are_synced_before_a_copy_is_told(
    store_settings: StoreSettings, is_move: bool
):
    """After a MOVE the key has a tombstone: no replay would restore what a power cut takes."""
    disk = SyncWatchingDisk()
    setting = StoreSetting(store_settings, disk=disk)
    setting.applier.apply(setting.journal.pending(JournalRecord((pending(1)[0].message,))))
    old = setting.journal.pending(JournalRecord((pending(2)[0].message,)))
    setting.applier.apply([evolve(old[0], key=evolve(old[0].key, segment_id=bytes(16)))])
    inbox = inbox_of(setting)
    result((inbox.move if is_move else inbox.copy)([1, 2], "Archive"))
    [synced] = disk.synced
    assert "/.Archive/" in synced
    assert synced.endswith("U=1")
    disk.synced.clear()
    archive = inbox_of(setting, name="Archive")
    result(archive.copy([1, 2], "Sent"))
    assert disk.synced == []
    setting.stop()


def test_a_new_index_never_has_a_name_before_its_octets_are_synced(
    store_settings: StoreSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    order: list[str] = []
    real_sync, real_link = os.fdatasync, os.link

    def sync(descriptor: int) -> None:
        order.append("sync")
        real_sync(descriptor)

    def link(source: str, target: str, **kw: Any) -> None:
        order.append(os.path.basename(target))
        real_link(source, target, **kw)

    monkeypatch.setattr(os, "fdatasync", sync)
    monkeypatch.setattr(os, "link", link)
    setting = StoreSetting(store_settings)
    setting.applier.apply(pending(1))
    assert order[:2] == ["sync", "mailsrv.index"]
    setting.stop()


def test_the_store_may_lie_behind_a_symbolic_link(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "mail").symlink_to(tmp_path / "elsewhere")
    setting = StoreSetting(StoreSettings(path=str(tmp_path / "mail" / "{local}")))
    setting.applier.apply(pending(1))
    assert contents(inbox_of(setting)) == [octets(1)]
    setting.stop()


@pytest.mark.parametrize("missing", [("cur",), ("new", "tmp"), ("tmp",), ("cur", "new", "tmp")])
@pytest.mark.parametrize("is_index_lost", [False, True])
def test_r_dur_1_folders_that_a_power_cut_took_are_made_again(
    store_settings: StoreSettings, tmp_path: Path, missing: tuple[str, ...], is_index_lost: bool
):
    setting = StoreSetting(store_settings, segment_id=SEGMENT)
    setting.applier.apply([*pending(1), *pending(2)])
    inbox = inbox_of(setting)
    result(inbox.copy([1], "Archive"))
    setting.kill()
    for folder in (tmp_path / "alice", tmp_path / "alice" / ".Archive"):
        for part in missing:
            shutil.rmtree(folder / part)
    if is_index_lost:
        for path in (tmp_path / "alice").glob("mailsrv.index*"):
            path.unlink()
    again = StoreSetting(store_settings, segment_id=SEGMENT)
    answers = again.applier.apply([*pending(1, is_replay=True), *pending(2, is_replay=True)])
    assert all(isinstance(answer, Applied) for answer in answers)
    inbox = inbox_of(again)
    assert sorted(contents(inbox)) == [octets(1), octets(2)]
    copied = result(inbox.copy(list(inbox.uids), "Archive"))
    assert len(copied.destination) == 2
    again.stop()
