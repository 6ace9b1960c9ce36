"""Folders that change hands: nobody loses mail to a DELETE or RENAME that is carried out after them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailsrv.errors import Unavailable
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.journal import JournaledMessage, JournalRecord, LocalDelivery
from mailsrv.interfaces.mailbox import MailboxExists
from mailsrv.store.check import check_account
from mailsrv.store.index.transaction import Transaction
from tests.store.test_store_scan import ALICE, Account, result

OCTETS = b"Subject: 1\r\n\r\n"


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    account = Account(tmp_path)
    yield account
    report = check_account(account.setting.table.disk, str(account.root))
    assert report.is_sound, report
    account.setting.stop()


def at_once(account: Account, *asked: Callable[[], Deferred[Any]]) -> list[Any]:
    """Asked for while another change is being written, so that all of it waits for one transaction."""
    held: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def in_thread(function: Callable[[], Any]) -> Deferred[Any]:
        held.append((function, Deferred()))
        return held[-1][1]

    queue = account.mail._writes
    original, queue._in_thread = queue._in_thread, in_thread
    results: list[Any] = []
    queue.add(lambda transaction: None).addErrback(lambda _: None)
    for ask in asked:
        ask().addBoth(results.append)
    while held:
        function, deferred = held.pop(0)
        try:
            answer = function()
        except Exception:
            deferred.errback(Failure())
        else:
            deferred.callback(answer)
    queue._in_thread = original
    return results


def error_of(deferred: Deferred[Any]) -> Failure:
    found: list[Any] = []
    deferred.addBoth(found.append)
    [failure] = found
    assert isinstance(failure, Failure)
    return failure


@pytest.mark.parametrize("is_renamed", [False, True])
def test_mail_moved_into_a_mailbox_that_is_made_again_at_once_stays(account: Account, is_renamed: bool) -> None:
    """Its folder has the name of the one before it, which goes only after the commit."""
    mail = account.mail
    result(mail.create("A"))
    account.append(b"Subject: old\r\n\r\n", name="A")
    account.append(OCTETS)
    inbox = account.open()
    results = at_once(
        account,
        (lambda: mail.rename("A", "B")) if is_renamed else (lambda: mail.delete("A")),
        lambda: mail.create("A"),
        lambda: inbox.move([1], "A"),
    )
    assert not [each for each in results if isinstance(each, Failure)]
    assert list(account.contents("A").values()) == [OCTETS]
    if is_renamed:
        assert list(account.contents("B").values()) == [b"Subject: old\r\n\r\n"]


def test_an_operation_that_fails_with_intents_leaves_none(account: Account) -> None:
    mail = account.mail
    for name in ("A", "C"):
        result(mail.create(name))
        account.append(OCTETS, name=name)

    def fail(transaction: Transaction) -> None:
        transaction.has_intents = True
        raise MailboxExists

    [failed, deleted] = at_once(account, lambda: mail._writes.add(fail), lambda: mail.delete("A"))
    assert isinstance(failed, Failure)
    assert deleted is None
    assert not (account.root / ".A").exists()


def test_a_folder_that_a_renamed_mailbox_kept_is_nobody_elses(account: Account) -> None:
    """Another program had made a folder of the new name, so that ours stayed where it was."""
    mail = account.mail
    result(mail.create("A"))
    account.append(OCTETS, name="A")
    account.put(".B/cur/1700000000.x:2,S", b"Subject: of another program\r\n\r\n")
    result(mail.rename("A", "B"))
    assert list(account.contents("B").values()) == [OCTETS]
    assert error_of(mail.create("A")).check(MailboxExists)
    assert "A" not in [info.name for info in result(mail.list_mailboxes())]
    assert list(account.contents("B").values()) == [OCTETS]
    account.restart()
    assert "A" not in [info.name for info in result(account.mail.list_mailboxes())]


class _FailingCommit:
    """A connection that does not commit."""

    def __init__(self, connection: apsw.Connection, error: apsw.Error) -> None:
        self._connection = connection
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *arguments: Any) -> Any:
        if sql == "COMMIT":
            raise self._error
        return self._connection.execute(sql, *arguments)


@contextlib.contextmanager
def failing_commits(account: Account, error: apsw.Error) -> Iterator[None]:
    files = account.setting.table.account(ALICE)
    begin = files.begin

    def begin_failing(*, is_durable: bool = True) -> Transaction:
        transaction = begin(is_durable=is_durable)
        transaction.connection = _FailingCommit(transaction.connection, error)  # type: ignore[assignment]
        return transaction

    files.begin = begin_failing  # type: ignore[method-assign]
    yield
    del files.begin


def test_r_dur_4_files_of_a_commit_that_may_be_read_as_done_stay(account: Account) -> None:
    """Who reads the log after a crash finds the MOVE committed, and removes its source."""
    account.append(OCTETS)
    inbox = account.open()
    [source] = account.files()
    with failing_commits(account, apsw.IOError("the log could not be synced")):
        assert error_of(inbox.move([1], "Archive")).check(Unavailable)
    [copy] = account.files(".Archive")
    assert copy.samefile(source)
    # Here it was not done: the next look at the folder finds that out.
    assert account.contents("Archive") == {}
    assert account.files(".Archive") == []
    assert account.contents() == {1: OCTETS}


def test_r_dur_3_a_purge_removes_no_file_before_the_commit(account: Account) -> None:
    """The MOVE it found its tombstone of may be taken back, and its copy with it."""
    account.setting.stop()
    account.settings = evolve(account.settings, tombstones=0)
    account.start()
    account.append(OCTETS)
    account.setting.journal.live = set()
    inbox = account.open()
    with failing_commits(account, apsw.FullError("no room")):
        at_once(account, lambda: inbox.move([1], "Archive"), account.mail.purge)
    assert account.contents() == {1: OCTETS}
    result(inbox.move([1], "Archive"))
    assert list(account.contents("Archive").values()) == [OCTETS]
    assert [result(account.mail.purge()) for _ in range(2)][-1] >= 0
    assert account.files() == []


def test_r_dur_3_a_scan_removes_no_file_before_the_commit(account: Account) -> None:
    """As above: it takes what is there of a message with a tombstone for what a crash brought back."""
    account.append(OCTETS)
    inbox = account.open()
    account.put("cur/1700000000.other:2,S", b"Subject: 2\r\n\r\n")
    with failing_commits(account, apsw.FullError("no room")):
        at_once(account, lambda: inbox.move([1], "Archive"), lambda: account.mail.scan(inbox.mailbox_id))
    assert list(account.contents().values()) == [OCTETS, b"Subject: 2\r\n\r\n"]


def test_r_dur_3_what_is_expunged_while_a_purge_waits_keeps_its_tombstone(tmp_path: Path) -> None:
    """Its segment is a later one than those that were live when the purge was asked for."""
    account = Account(tmp_path)
    account.setting.stop()
    account.settings = evolve(account.settings, tombstones=0, batch_operations=1)
    account.start()
    journal = account.setting.journal
    segment, journal.live = set(journal.live), set()
    account.append(OCTETS)
    inbox = account.open()

    def expunge() -> Deferred[Any]:
        deferred: Deferred[Any] = inbox.delete_messages([1])
        return deferred

    def live_again(_: object) -> None:
        journal.live = segment

    results = at_once(account, lambda: account.mail.write(live_again), expunge, account.mail.purge)
    assert results[-1] == 0
    [pending] = [
        *journal.pending(JournalRecord((JournaledMessage(InlineContent(OCTETS), (LocalDelivery(ALICE),), 1),)))
    ]
    again = evolve(pending, key=evolve(pending.key, offset=0), is_replay=True)
    account.setting.applier.apply([again])
    assert account.contents() == {}
    account.setting.stop()
