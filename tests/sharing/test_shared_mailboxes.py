"""What may be done with mailboxes of others, over each store there is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from attrs import define
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from mailsrv.address import Address
from mailsrv.errors import MailError, Unavailable
from mailsrv.interfaces.content import FileContent, InlineContent
from mailsrv.interfaces.mailbox import (
    FlagOperation,
    NewMessage,
    NoSuchMailbox,
    NoSuchSharedMailbox,
    NotPermitted,
    OverQuota,
    Uid,
)
from mailsrv.store.memory import MemoryMailStore
from mailsrv.store.settings import StoreSettings
from tests.contracts.store import PLAIN, numbered
from tests.sharing.sharing_setting import ALICE, BOB, SUPPORT, SharingStore
from tests.store.store_setting import StoreSetting

T = TypeVar("T")
SHARED = "Other Users/support@example.test"
HIDDEN = "Other Users/hidden@example.test"
HIDDEN_ACCOUNT = Address("hidden", "example.test")


def done(deferred: Deferred[T]) -> T:
    found: list[Any] = []
    deferred.addBoth(found.append)
    (answer,) = found
    if isinstance(answer, Failure):
        answer.raiseException()
    result: T = answer
    return result


@define(eq=False)
class Place:
    """A store with an account that is shared, and one that is not."""

    store: SharingStore
    inner: Any

    def open(self, account: Address) -> Any:
        return done(self.store.open_account(account))

    def fill(self, *octets: bytes, account: Address = SUPPORT, name: str = "INBOX") -> None:
        mailboxes = done(self.inner.open_account(account))
        done(mailboxes.append(name, [NewMessage(InlineContent(one)) for one in octets or (PLAIN,)]))
        mailboxes.release()

    def count(self, account: Address, name: str = "INBOX") -> int:
        mailboxes = done(self.inner.open_account(account))
        try:
            return int(done(mailboxes.status(name)).messages)
        finally:
            mailboxes.release()

    def withdraw(self) -> None:
        self.store.granted.clear()
        self.store.next_round()


@pytest.fixture(params=["memory", "maildir"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="mailsrv-sharing-") as folder:
        settings = StoreSettings(path=str(Path(folder) / "{domain}" / "{local}"))
        if request.param == "memory":
            inner: Any = MemoryMailStore(settings)
            yield make_place(inner)
        else:
            setting = StoreSetting(settings)
            yield make_place(setting.store)
            setting.stop()


def make_place(inner: Any) -> Place:
    store = SharingStore(inner)
    store.grant(ALICE, SUPPORT, may_write=False)
    store.grant(BOB, SUPPORT, may_write=True)
    place = Place(store, inner)
    place.fill(numbered(1), numbered(2))
    place.fill(account=HIDDEN_ACCOUNT)
    return place


def test_a_reader_reads_and_changes_nothing(place: Place) -> None:
    alice = place.open(ALICE)
    mailbox = done(alice.open_mailbox(SHARED))
    assert (mailbox.name, mailbox.account, mailbox.may_write) == (SHARED, SUPPORT, False)
    assert list(mailbox.uids) == [1, 2]
    assert len(done(mailbox.summaries([1, 2]))) == 2
    for refused in (
        lambda: mailbox.store_flags([1], FlagOperation.ADD, frozenset({"\\Seen"})),
        lambda: mailbox.expunge(),
        lambda: mailbox.delete_messages([1]),
        lambda: mailbox.claim_recent(),
        lambda: mailbox.move([1], "INBOX"),
        lambda: mailbox.copy([1], f"{SHARED}/Sent"),
        lambda: mailbox.copy([1], f"{SHARED}/Nowhere"),
        lambda: alice.append(SHARED, [NewMessage(InlineContent(PLAIN))]),
        lambda: alice.copy_from(mailbox, [1], SHARED),
    ):
        with pytest.raises(NotPermitted):
            done(refused())
    assert list(done(mailbox.copy([1, 2], "INBOX")).destination) == [1, 2]
    assert place.count(SUPPORT) == 2
    assert place.count(ALICE) == 2


def test_a_writer_does_all_of_messages_and_nothing_of_the_tree(place: Place) -> None:
    bob = place.open(BOB)
    mailbox = done(bob.open_mailbox(SHARED))
    assert mailbox.may_write
    assert done(mailbox.claim_recent()) == 1
    done(mailbox.store_flags([1], FlagOperation.ADD, frozenset({"\\Deleted"})))
    assert list(done(mailbox.expunge())) == [1]
    assert list(done(mailbox.copy([2], f"{SHARED}/Archive")).destination) == [1]
    assert list(done(mailbox.move([2], f"{SHARED}/Trash")).destination) == [1]
    assert list(done(bob.append(SHARED, [NewMessage(InlineContent(PLAIN))])).uids) == [3]
    assert done(bob.status(f"{SHARED}/Trash")).messages == 1
    for refused in (
        lambda: bob.create(f"{SHARED}/New"),
        lambda: bob.create("Other Users"),
        lambda: bob.create(HIDDEN),
        lambda: bob.delete(SHARED),
        lambda: bob.delete(HIDDEN),
        lambda: bob.rename(f"{SHARED}/Sent", "Mine"),
        lambda: bob.rename("Sent", f"{SHARED}/Mine"),
    ):
        with pytest.raises(NotPermitted):
            done(refused())


def test_r_auth_6_what_is_hidden_is_as_what_is_not_there(place: Place) -> None:
    bob = place.open(BOB)
    place.fill(account=BOB)
    inbox = done(bob.open_mailbox("INBOX"))

    def answers(name: str) -> list[tuple[type, str]]:
        found = []
        for ask in (
            lambda: bob.open_mailbox(name),
            lambda: bob.status(name),
            lambda: bob.append(name, [NewMessage(InlineContent(PLAIN))]),
            lambda: inbox.copy([1], name),
            lambda: inbox.move([1], name),
            lambda: bob.quota(name),
            lambda: bob.create(name),
            lambda: bob.delete(name),
            lambda: bob.rename(name, "Mine"),
        ):
            with pytest.raises(MailError) as raised:
                done(ask())
            found.append((type(raised.value), raised.value.text))
        return found

    hidden = answers(HIDDEN)
    assert hidden == answers("Other Users/nobody@example.test")
    assert hidden[0][0] is NoSuchSharedMailbox
    assert HIDDEN not in [info.name for info in done(bob.list_mailboxes())]
    assert place.count(HIDDEN_ACCOUNT) == 1
    assert place.count(BOB) == 1


def test_the_list_has_them_with_the_users_own_subscriptions(place: Place) -> None:
    alice = place.open(ALICE)
    support = done(place.inner.open_account(SUPPORT))
    done(support.create("INBOX/Done"))
    done(alice.subscribe(f"{SHARED}/Sent", subscribed=True))
    done(alice.subscribe(HIDDEN, subscribed=True))
    infos = {info.name: info for info in done(alice.list_mailboxes())}
    assert next(iter(infos)) == "INBOX"
    assert not infos["Other Users"].is_selectable
    assert infos[SHARED].is_selectable
    assert not infos[SHARED].may_write
    assert not infos[f"{SHARED}/INBOX"].is_selectable
    assert infos[f"{SHARED}/INBOX/Done"].is_selectable
    assert infos[f"{SHARED}/Sent"].special_use is None
    subscribed = [name for name, info in infos.items() if info.is_subscribed and name.startswith("Other")]
    assert sorted(subscribed) == [HIDDEN, f"{SHARED}/Sent"]
    assert not infos[HIDDEN].exists
    assert done(alice.open_mailbox(f"{SHARED}/INBOX/Done")).name == f"{SHARED}/INBOX/Done"


def test_what_somebody_else_may_create_can_be_subscribed_to(place: Place) -> None:
    alice = place.open(ALICE)
    support = done(place.inner.open_account(SUPPORT))
    settings = StoreSettings(path="")
    for name in ("x" * (settings.mailbox_name_octets - 15), "/".join("y" * settings.mailbox_depth)):
        done(support.create(name))
        done(alice.subscribe(f"{SHARED}/{name}", subscribed=True))
        infos = {info.name: info for info in done(alice.list_mailboxes())}
        assert infos[f"{SHARED}/{name}"].is_subscribed


def test_only_the_accounts_asked_for_are_opened(place: Place) -> None:
    alice = place.open(ALICE)
    opened: list[Address] = []
    open_account = place.inner.open_account

    def noted(account: Address, quota: int | None = None) -> Any:
        opened.append(account)
        return open_account(account, quota)

    place.inner.open_account = noted
    for prefix in ("INBOX", "Other Users/someone", "Sent"):
        done(alice.list_mailboxes(prefix))
    assert not opened
    for prefix in ("", "Oth", "Other Users/", f"{SHARED}/Se", SHARED):
        opened.clear()
        names = [info.name for info in done(alice.list_mailboxes(prefix))]
        assert opened == [SUPPORT]
        assert f"{SHARED}/Sent" in names


def test_an_account_that_cannot_be_read_does_not_take_the_list_away(place: Place) -> None:
    alice = place.open(ALICE)
    place.inner.open_account = lambda account, quota=None: fail(Unavailable(cause="the disk is gone"))
    infos = {info.name: info for info in done(alice.list_mailboxes())}
    assert "Sent" in infos
    assert not infos[SHARED].may_write
    with pytest.raises(Unavailable):
        done(alice.status(SHARED))


def test_what_cannot_be_read_now_is_not_said_to_be_forbidden(place: Place) -> None:
    bob = place.open(BOB)
    place.inner.open_account = lambda account, quota=None: fail(Unavailable(cause="the disk is gone"))
    infos = {info.name: info for info in done(bob.list_mailboxes())}
    assert infos[SHARED].may_write


def test_the_quota_is_that_of_where_messages_go(place: Place) -> None:
    place.store.granted.clear()
    used = 2 * len(numbered(1))
    place.store.grant(BOB, SUPPORT, may_write=True, quota_octets=used + 5)
    bob = place.open(BOB)
    place.fill(account=BOB)
    assert done(bob.quota()).octet_limit is None
    assert done(bob.quota(bob.quota_root(f"{SHARED}/Sent"))).octet_limit == used + 5
    assert bob.quota_root("Sent") == ""
    inbox = done(bob.open_mailbox("INBOX"))
    for refused in (
        lambda: inbox.copy([1], SHARED),
        lambda: inbox.move([1], SHARED),
        lambda: bob.append(SHARED, [NewMessage(InlineContent(PLAIN))]),
    ):
        with pytest.raises(OverQuota):
            done(refused())
    assert list(inbox.uids) == [1]
    assert place.count(SUPPORT) == 2


def test_r_dur_a_move_between_accounts_that_cannot_be_ended_is_taken_back(place: Place) -> None:
    bob = place.open(BOB)
    mailbox = done(bob.open_mailbox(SHARED))
    inner = mailbox.inner
    delete_messages = inner.delete_messages
    inner.delete_messages = lambda uids: fail(Unavailable(cause="the disk is full"))
    with pytest.raises(Unavailable):
        done(mailbox.move([1, 2], "INBOX"))
    inner.delete_messages = delete_messages
    assert place.count(BOB) == 0
    assert place.count(SUPPORT) == 2
    moved = done(mailbox.move([1, 2], "INBOX"))
    assert list(moved.source) == [1, 2]
    assert place.count(BOB) == 2
    assert place.count(SUPPORT) == 0


def test_r_dur_a_removal_that_fails_after_its_commit_loses_nothing(place: Place) -> None:
    bob = place.open(BOB)
    mailbox = done(bob.open_mailbox(SHARED))
    inner = mailbox.inner
    delete_messages = inner.delete_messages

    def half_done(uids: list[Uid]) -> Any:
        inner.delete_messages = delete_messages
        done(delete_messages([1]))
        return fail(Unavailable(cause="the index cannot be read any more"))

    inner.delete_messages = half_done
    with pytest.raises(Unavailable):
        done(mailbox.move([1, 2], "INBOX"))
    assert list(inner.uids) == [2]
    inbox = done(bob.open_mailbox("INBOX"))
    assert list(inbox.uids) == [1]

    inner.delete_messages = lambda uids: fail(Unavailable(cause="the disk is gone"))
    inner.refresh = lambda: fail(Unavailable(cause="the disk is gone"))
    with pytest.raises(Unavailable):
        done(mailbox.move([2], "INBOX"))
    assert place.count(BOB) == 2


def test_copies_are_taken_back_from_no_other_mailbox_of_that_name(place: Place) -> None:
    bob = place.open(BOB)
    mailbox = done(bob.open_mailbox(SHARED))
    inner = mailbox.inner
    delete_messages = inner.delete_messages

    def replaced(uids: list[Uid]) -> Any:
        inner.delete_messages = delete_messages
        done(bob.delete("Archive"))
        done(bob.create("Archive"))
        place.fill(numbered(3), account=BOB, name="Archive")
        return fail(Unavailable(cause="the disk is full"))

    inner.delete_messages = replaced
    with pytest.raises(Unavailable):
        done(mailbox.move([1], "Archive"))
    assert place.count(BOB, "Archive") == 1
    assert place.count(SUPPORT) == 2


def test_what_somebody_else_took_away_meanwhile_was_not_moved(place: Place) -> None:
    bob = place.open(BOB)
    mailbox = done(bob.open_mailbox(SHARED))
    inner = mailbox.inner
    delete_messages = inner.delete_messages

    def quicker(uids: list[Uid]) -> Any:
        inner.delete_messages = delete_messages
        done(delete_messages([1]))
        return delete_messages(uids)

    inner.delete_messages = quicker
    moved = done(mailbox.move([1, 2], "INBOX"))
    assert list(moved.source) == [2]
    inbox = done(bob.open_mailbox("INBOX"))
    assert list(inbox.uids) == list(moved.destination)


def test_copies_between_two_accounts_of_others(place: Place) -> None:
    place.store.grant(BOB, HIDDEN_ACCOUNT, may_write=True)
    bob = place.open(BOB)
    mailbox = done(bob.open_mailbox(SHARED))
    assert list(done(mailbox.copy([1], HIDDEN)).destination) == [2]
    assert list(done(mailbox.move([2], f"{HIDDEN}/Archive")).destination) == [1]
    assert place.count(SUPPORT) == 1


def test_a_right_that_goes_takes_the_mailbox_along_and_tells(place: Place) -> None:
    bob = place.open(BOB)
    mailbox = done(bob.open_mailbox(SHARED))
    told: list[bool] = []
    end = mailbox.watch(lambda: told.append(mailbox.is_gone))
    place.store.granted[BOB].clear()
    place.store.grant(BOB, SUPPORT, may_write=False)
    place.store.next_round()
    assert told == [False]
    assert not mailbox.may_write
    place.withdraw()
    assert told == [False, True]
    assert not mailbox.uids
    assert not mailbox.changed_since(0)
    assert not done(mailbox.summaries([1, 2]))
    done(mailbox.refresh())
    for refused in (
        lambda: mailbox.contents([1]),
        lambda: mailbox.internal_dates([1]),
        lambda: mailbox.copy([1], "INBOX"),
        lambda: mailbox.store_flags([1], FlagOperation.ADD, frozenset()),
        lambda: bob.open_mailbox(SHARED),
    ):
        with pytest.raises(NoSuchMailbox):
            done(refused())
    assert bob.others_prefix == ""
    assert not [info for info in done(bob.list_mailboxes()) if info.name.startswith("Other")]
    end()
    mailbox.close()
    bob.release()


def test_content_of_an_append_that_is_refused_goes(place: Place, tmp_path: Path) -> None:
    alice = place.open(ALICE)
    content = FileContent(str(tmp_path / "message"), 5, b"")
    with pytest.raises(NotPermitted):
        done(alice.append(SHARED, [NewMessage(content)]))
    assert place.store.discarded == [content]


def test_nothing_is_held_of_accounts_of_others_between_questions(place: Place) -> None:
    alice = place.open(ALICE)
    done(alice.list_mailboxes())
    mailbox = done(alice.open_mailbox(SHARED))
    with pytest.raises(NoSuchMailbox):
        done(alice.open_mailbox(f"{SHARED}/Nowhere"))
    with pytest.raises(NoSuchMailbox):
        done(alice.status(f"{SHARED}/Nowhere"))
    held = getattr(place.inner, "_accounts", {})
    if not isinstance(place.inner, MemoryMailStore):
        assert held[SUPPORT].references == 1
        mailbox.close()
        assert SUPPORT not in held
        alice.release()
        assert ALICE not in held


def test_own_mailboxes_of_that_name_hide_those_of_others(place: Place) -> None:
    own = done(place.inner.open_account(ALICE))
    done(own.create("Other Users/mine"))
    alice = place.open(ALICE)
    assert alice.others_prefix == ""
    assert done(alice.open_mailbox("Other Users/mine")).name == "Other Users/mine"
    with pytest.raises(NoSuchMailbox):
        done(alice.open_mailbox(SHARED))
    done(alice.rename("Other Users/mine", "Mine"))
    assert place.open(ALICE).others_prefix == "Other Users/"
