"""Which accounts of others a user may open, by the settings and by directories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.directory.chain import DirectoryChain
from mailsrv.directory.domains import LocalDomains
from mailsrv.directory.mailbox_rights import MailboxRights
from mailsrv.directory.memory import MemoryDirectory
from mailsrv.directory.settings import DomainSettings
from mailsrv.directory.shared_settings import SharedSettings
from mailsrv.errors import Unavailable
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.interfaces.rights import (
    IRightsDirectory,
    MailboxRight,
    PostingRule,
    SendRights,
    SharedAccount,
    SharedMailbox,
)

READ = frozenset({MailboxRight.READ})
WRITE = frozenset({MailboxRight.WRITE})
POST = frozenset({MailboxRight.POST})


def ex(name: str, domain: str = "example.test") -> Address:
    return Address(name, domain)


@implementer(IRightsDirectory)
class Directory(MemoryDirectory):
    """Users, and mailboxes that are shared with everybody."""

    has_rights = True
    has_shared_mailboxes = True

    def __init__(self) -> None:
        super().__init__()
        self.shared: list[SharedMailbox] = []
        self.asked = 0
        self.is_down = False

    def find_shared_mailboxes(self, user: DirectoryUser) -> Deferred[Sequence[SharedMailbox]]:
        self.asked += 1
        return fail(Unavailable()) if self.is_down else succeed(self.shared)

    def find_groups(self, user: DirectoryUser) -> Deferred[tuple[str, ...]]:
        return succeed(())

    def find_posting_rule(self, address: Address) -> Deferred[PostingRule | None]:
        return succeed(None)

    def find_send_rights(self, address: Address) -> Deferred[SendRights | None]:
        return succeed(None)


def make(
    directory: Directory, *shared: SharedSettings, limit: int = 100, domains: Sequence[DomainSettings] | None = None
) -> MailboxRights:
    for name in ("alice", "bob", "support", "sales"):
        directory.add_user(ex(name), "secret")
    known = LocalDomains(domains or (DomainSettings("example.test", aliases=("example.net",)),))
    return MailboxRights(known, DirectoryChain([directory]), shared, limit=limit)


def found(rights: MailboxRights, user: str) -> dict[str, bool]:
    answers: list[Any] = []
    rights.find(DirectoryUser(ex(user), directory="memory")).addBoth(answers.append)
    (answer,) = answers
    if hasattr(answer, "raiseException"):
        answer.raiseException()
    return {str(each.address): each.may_write for each in answer}


def test_tables_name_readers_and_writers_in_any_spelling() -> None:
    directory = Directory()
    directory.has_shared_mailboxes = False
    rights = make(
        directory,
        SharedSettings(
            "Support@example.net", readers=("ALICE@example.test", "bob@example.net"), writers=("bob@example.test",)
        ),
        SharedSettings("nobody@example.test", readers=("alice@example.test",)),
        SharedSettings("alice@example.test", readers=("alice@example.test",)),
    )
    assert rights.has_rules
    assert found(rights, "alice") == {"support@example.test": False}
    assert found(rights, "bob") == {"support@example.test": True}
    assert found(rights, "sales") == {}
    assert not directory.asked


def test_the_directory_adds_what_may_be_opened_and_no_groups() -> None:
    directory = Directory()
    rights = make(directory, SharedSettings("support@example.test", readers=("alice@example.test",)))
    directory.shared = [
        SharedMailbox(ex("support"), READ | WRITE),
        SharedMailbox(ex("sales", "example.net"), READ),
        SharedMailbox(ex("bob"), POST),
        SharedMailbox(ex("staff"), READ),
    ]
    assert found(rights, "alice") == {"sales@example.test": False, "support@example.test": True}
    assert found(rights, "sales") == {"support@example.test": True}
    directory.is_down = True
    with pytest.raises(Unavailable):
        found(rights, "alice")


def test_a_directory_gives_no_rights_to_users_of_another() -> None:
    directory, other = Directory(), MemoryDirectory("other")
    table = SharedSettings("chief@example.test", readers=("bob@example.test",))
    rights = make(directory, table)
    other.add_user(ex("chief"), "secret")
    rights = MailboxRights(LocalDomains(()), DirectoryChain([other, directory]), (table,), limit=5)
    directory.shared = [SharedMailbox(ex("chief"), READ | WRITE), SharedMailbox(ex("support"), READ)]
    assert found(rights, "alice") == {"support@example.test": False}
    assert found(rights, "bob") == {"chief@example.test": False, "support@example.test": False}


def test_r_auth_7_an_account_nobody_can_tell_of_keeps_no_other_back() -> None:
    directory = Directory()
    rights = make(directory, SharedSettings("sales@example.test", readers=("alice@example.test",)))
    find_user = directory.find_user
    directory.find_user = lambda address: (  # type: ignore[method-assign]
        fail(Unavailable(cause="two entries")) if address == ex("sales") else find_user(address)
    )
    directory.shared = [SharedMailbox(ex("support"), READ | WRITE)]
    answers: list[Any] = []
    rights.find(DirectoryUser(ex("alice"), directory="memory")).addCallback(answers.extend)
    assert answers == [
        SharedAccount(ex("sales"), may_write=False, is_known=False),
        SharedAccount(ex("support"), may_write=True),
    ]


def test_accounts_that_nobody_may_log_in_to_are_shared_with_their_quota() -> None:
    directory = Directory()
    rights = make(directory)
    directory.shared = [SharedMailbox(ex("support"), READ)]
    directory._users[ex("support")] = evolve(directory._users[ex("support")], may_log_in=False, quota_octets=77)
    answers: list[Any] = []
    rights.find(DirectoryUser(ex("alice"), directory="memory")).addCallback(answers.extend)
    assert answers == [SharedAccount(ex("support"), may_write=False, quota_octets=77)]


def test_r_lim_the_first_are_served_where_there_are_more() -> None:
    directory = Directory()
    rights = make(directory, limit=2)
    directory.shared = [SharedMailbox(ex(name), READ) for name in ("support", "sales", "bob", "nobody", "alice")]
    assert list(found(rights, "alice")) == ["bob@example.test", "sales@example.test"]
    assert not make(directory, SharedSettings("support@example.test", readers=("a@example.test",)), limit=0).has_rules


def test_where_nothing_says_so_there_are_no_rules() -> None:
    directory = Directory()
    directory.has_shared_mailboxes = False
    assert not make(directory).has_rules
    plain = MemoryDirectory()
    assert not MailboxRights(LocalDomains(()), DirectoryChain([plain]), (), limit=5).has_rules
    assert not MailboxRights(LocalDomains(()), plain, (), limit=5).has_rules


def test_an_account_is_named_once() -> None:
    with pytest.raises(ValueError, match="shared twice"):
        make(Directory(), SharedSettings("support@example.test"), SharedSettings("SUPPORT@example.net"))
    with pytest.raises(ValueError, match="expected an address"):
        SharedSettings("support")
    with pytest.raises(ValueError, match="expected an address"):
        SharedSettings("support@example.test", readers=("a b",))
