"""When rights to mailboxes of others are asked for, and when what was answered holds."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from mailsrv.address import Address
from mailsrv.errors import Unavailable
from mailsrv.interfaces.mailbox import NoSuchMailbox
from mailsrv.interfaces.rights import SharedAccount
from mailsrv.sharing.mailboxes import SharingMailboxes
from mailsrv.sharing.settings import SharingSettings
from mailsrv.store.memory import MemoryMailStore
from tests.sharing.sharing_setting import ALICE, BOB, SUPPORT, SharingStore

SHARED = "Other Users/support@example.test"


@pytest.fixture
def store() -> SharingStore:
    return SharingStore(MemoryMailStore())


def opened(store: SharingStore, account: Address = ALICE) -> Any:
    return now(store.open_account(account))


def now(deferred: Deferred[Any]) -> Any:
    found: list[Any] = []
    deferred.addBoth(found.append)
    (answer,) = found
    if isinstance(answer, Failure):
        answer.raiseException()
    return answer


def test_where_there_are_no_rules_nobody_is_asked_and_nothing_is_added(store: SharingStore) -> None:
    store.has_rules = False
    assert opened(store) is store.store.account(ALICE)
    assert not store.asked
    assert not store.clock.getDelayedCalls()


def test_who_has_nothing_costs_one_question_and_no_memory(store: SharingStore) -> None:
    for _ in range(3):
        mailboxes = opened(store)
        assert mailboxes is store.store.account(ALICE)
    assert store.asked == [ALICE]
    assert not store.clock.getDelayedCalls()
    store.clock.advance(20)
    opened(store)
    assert store.asked == [ALICE, ALICE]


def test_r_lim_what_is_remembered_of_who_has_nothing_is_bounded() -> None:
    store = SharingStore(MemoryMailStore(), settings=SharingSettings(cache_entries=2))
    for account in (ALICE, BOB, SUPPORT, ALICE):
        opened(store, account)
    assert store.asked == [ALICE, BOB, SUPPORT, ALICE]
    opened(store, SUPPORT)
    assert len(store.asked) == 4


def test_many_log_ins_are_one_question(store: SharingStore) -> None:
    store.grant(ALICE, SUPPORT, may_write=False)
    store.held = []
    opening = [store.open_account(ALICE) for _ in range(5)]
    assert len(store.held) == 1
    store.held[0].callback(None)
    sessions = [now(each) for each in opening]
    assert all(isinstance(each, SharingMailboxes) for each in sessions)
    assert all(each.others_prefix == "Other Users/" for each in sessions)
    assert store.asked == [ALICE]


def test_rights_are_asked_for_again_as_long_as_there_are_sessions(store: SharingStore) -> None:
    store.grant(ALICE, SUPPORT, may_write=False)
    one, two = opened(store), opened(store)
    assert len(store.asked) == 1
    store.next_round()
    assert len(store.asked) == 2
    store.granted.clear()
    store.next_round()
    assert one.others_prefix == two.others_prefix == ""
    store.grant(ALICE, BOB, may_write=True)
    store.next_round()
    assert now(one.status("Other Users/bob@example.test")).messages == 0
    one.release()
    store.next_round()
    assert len(store.asked) == 6
    two.release()
    store.next_round()
    store.next_round()
    assert len(store.asked) == 6
    assert not store.clock.getDelayedCalls()


def test_a_right_that_is_missing_once_is_not_gone(store: SharingStore) -> None:
    """A replica that is being filled anew."""
    store.grant(ALICE, SUPPORT, may_write=True)
    store.grant(BOB, SUPPORT, may_write=True)
    alice, bob = opened(store), opened(store, BOB)
    mailbox = now(alice.open_mailbox(SHARED))
    rights = store.granted.pop(ALICE)
    store.clock.advance(20)
    assert not mailbox.is_gone
    assert store.asked == [ALICE, BOB] * 2
    store.granted[ALICE] = rights
    store.clock.advance(5)
    assert store.asked == [ALICE, BOB, ALICE, BOB, ALICE]
    store.granted.clear()
    store.clock.advance(20)
    assert mailbox.may_write
    store.clock.advance(5)
    assert mailbox.is_gone
    assert bob.others_prefix == ""


def test_each_right_has_to_be_missing_twice_by_itself(store: SharingStore) -> None:
    store.grant(ALICE, SUPPORT, may_write=True)
    store.grant(ALICE, BOB, may_write=True)
    mailboxes = opened(store)
    support = now(mailboxes.open_mailbox(SHARED))
    bob = now(mailboxes.open_mailbox("Other Users/bob@example.test"))
    rights = store.granted[ALICE]
    store.granted[ALICE] = rights[1:]
    store.clock.advance(20)
    store.granted[ALICE] = rights[:1]
    store.clock.advance(5)
    assert not support.is_gone
    assert not bob.is_gone
    store.granted[ALICE] = []
    store.clock.advance(5)
    assert bob.is_gone
    assert not support.is_gone
    store.clock.advance(5)
    assert support.is_gone


def test_r_auth_7_an_account_nobody_can_tell_of_stays_as_it_was(store: SharingStore) -> None:
    store.granted[ALICE] = [SharedAccount(SUPPORT, may_write=False), SharedAccount(BOB, may_write=True, is_known=False)]
    mailboxes = opened(store)
    support = now(mailboxes.open_mailbox(SHARED))
    with pytest.raises(Unavailable):
        now(mailboxes.open_mailbox("Other Users/bob@example.test"))
    with pytest.raises(NoSuchMailbox):
        now(mailboxes.open_mailbox("Other Users/nobody@example.test"))
    assert not any("bob" in info.name for info in now(mailboxes.list_mailboxes()))
    store.granted[ALICE] = [SharedAccount(SUPPORT, may_write=True, is_known=False), SharedAccount(BOB, may_write=True)]
    store.next_round()
    assert not support.is_gone
    assert not support.may_write
    bob = now(mailboxes.open_mailbox("Other Users/bob@example.test"))
    store.granted[ALICE] = [SharedAccount(BOB, may_write=False, is_known=False)]
    store.next_round()
    assert support.is_gone
    assert not bob.is_gone
    assert not bob.may_write


def test_a_right_that_became_smaller_holds_at_once(store: SharingStore) -> None:
    store.grant(ALICE, SUPPORT, may_write=True)
    mailbox = now(opened(store).open_mailbox(SHARED))
    store.granted.clear()
    store.grant(ALICE, SUPPORT, may_write=False)
    store.clock.advance(20)
    assert not mailbox.may_write
    assert not mailbox.is_gone


def test_r_auth_7_in_an_outage_what_was_said_holds_and_nothing_else_is_known(store: SharingStore) -> None:
    store.grant(ALICE, SUPPORT, may_write=False)
    alice = opened(store)
    store.trouble = Unavailable(cause="down")
    store.next_round()
    assert now(alice.status(SHARED)).messages == 0
    bob = opened(store, BOB)
    with pytest.raises(Unavailable):
        now(bob.status(SHARED))
    with pytest.raises(Unavailable):
        now(bob.list_mailboxes("Other Users/"))
    assert "INBOX" in [info.name for info in now(bob.list_mailboxes())]
    store.trouble = None
    store.next_round()
    with pytest.raises(NoSuchMailbox):
        now(bob.status(SHARED))


def test_a_directory_that_takes_its_time_does_not_keep_a_log_in_waiting(store: SharingStore) -> None:
    store.grant(ALICE, SUPPORT, may_write=False)
    store.held = []
    opening = store.open_account(ALICE)
    store.clock.advance(2.9)
    assert not opening.called
    store.clock.advance(0.2)
    alice = now(opening)
    with pytest.raises(Unavailable):
        now(alice.status(SHARED))
    # The answer counts as soon as it comes.
    store.held[0].callback(None)
    assert now(alice.status(SHARED)).messages == 0


def test_a_fault_in_asking_is_no_right_and_no_end(store: SharingStore) -> None:
    store.grant(ALICE, SUPPORT, may_write=False)
    alice = opened(store)
    store._find_shared = lambda user: fail(ZeroDivisionError())  # type: ignore[method-assign]
    store.next_round()
    store.next_round()
    assert now(alice.status(SHARED)).messages == 0


def test_a_session_that_cannot_be_told_keeps_nobody_waiting(store: SharingStore) -> None:
    store.grant(ALICE, SUPPORT, may_write=False)
    alice = opened(store)

    def broken() -> None:
        raise ZeroDivisionError

    alice.listen(broken)
    store.grant(ALICE, BOB, may_write=False)
    store.next_round()
    assert any("bob" in info.name for info in now(alice.list_mailboxes()))
    store.granted.clear()
    store.next_round()
    assert alice.others_prefix == ""
    assert not store.watch._asking


def test_new_rules_hold_for_open_sessions_too(store: SharingStore) -> None:
    store.grant(ALICE, SUPPORT, may_write=False)
    alice = opened(store)
    assert opened(store, BOB) is store.store.account(BOB)
    store.grant(BOB, SUPPORT, may_write=False)
    store.watch.replace_settings(SharingSettings())
    assert opened(store, BOB).others_prefix
    store.has_rules = False
    store.next_round()
    assert not alice.others_prefix


def test_after_the_stop_nobody_is_asked(store: SharingStore) -> None:
    store.grant(ALICE, SUPPORT, may_write=False)
    alice = opened(store)
    store.watch.stop()
    assert not store.clock.getDelayedCalls()
    alice.release()


def test_listeners_hear_of_rights_and_of_own_mailboxes(store: SharingStore) -> None:
    store.grant(ALICE, SUPPORT, may_write=False)
    alice = opened(store)
    heard: list[int] = []
    end = alice.listen(lambda: heard.append(1))
    now(alice.create("New"))
    assert len(heard) == 1
    store.granted.clear()
    store.next_round()
    assert len(heard) == 2
    end()
    now(alice.create("Newer"))
    assert len(heard) == 2


def test_where_own_mailboxes_cannot_be_listed_the_account_is_let_go(store: SharingStore) -> None:
    store.grant(ALICE, SUPPORT, may_write=False)
    own = store.store.account(ALICE)
    released: list[int] = []
    own.list_mailboxes = lambda prefix="": fail(Unavailable(cause="the disk is gone"))
    own.release = lambda: released.append(1)
    with pytest.raises(Unavailable):
        opened(store)
    assert released == [1]
    assert not store.watch._live
