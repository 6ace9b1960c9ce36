"""Rules of several directories and of the settings: whose count for an address, and what people are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.directory.address_rights import AddressRights
from mailsrv.directory.chain import DirectoryChain
from mailsrv.directory.domains import LocalDomains
from mailsrv.directory.list_settings import ListSettings
from mailsrv.directory.memory import MemoryDirectory
from mailsrv.directory.posting import Poster, describe, refusal_text
from mailsrv.directory.resolve import AddressResolver
from mailsrv.directory.send_as import SendAsPolicy
from mailsrv.directory.settings import DomainSettings
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.interfaces.rights import IRightsDirectory, Posters, PostingRule, SendRights, SharedMailbox

DOMAINS = LocalDomains((DomainSettings("example.test", aliases=("example.org",)),))


def at(local_part: str, domain: str = "example.test") -> Address:
    return Address(local_part, domain)


ALICE, BOB, STAFF = at("alice"), at("bob"), at("staff")


@implementer(IRightsDirectory)
class Rights(MemoryDirectory):
    """A directory in memory with the same rules for all its addresses."""

    has_rights = True
    has_shared_mailboxes = True

    def __init__(self, name: str, posting: PostingRule, sending: SendRights) -> None:
        super().__init__(name)
        self.posting = posting
        self.sending = sending
        self.asked: list[Address] = []

    def find_groups(self, user: DirectoryUser) -> Deferred[tuple[str, ...]]:
        return succeed(("asked",))

    def find_posting_rule(self, address: Address) -> Deferred[PostingRule | None]:
        self.asked.append(address)
        return succeed(self.posting)

    def find_send_rights(self, address: Address) -> Deferred[SendRights | None]:
        self.asked.append(address)
        return succeed(self.sending)

    def find_shared_mailboxes(self, user: DirectoryUser) -> Deferred[Sequence[SharedMailbox]]:
        return succeed((SharedMailbox(STAFF, frozenset()),))


def ended(answer: Any) -> Any:
    found: list[Any] = []
    (answer if isinstance(answer, Deferred) else Deferred.fromCoroutine(answer)).addBoth(found.append)
    return found[0]


@pytest.fixture
def house() -> tuple[MemoryDirectory, Rights, DirectoryChain]:
    plain = MemoryDirectory("plain")
    rich = Rights("rich", PostingRule(Posters.USERS), SendRights(members=False, named=frozenset({BOB})))
    plain.add_user(ALICE, "x")
    for address in (BOB, at("carol")):
        rich.add_user(address, "x")
    rich.add_alias(STAFF, (ALICE, BOB))
    return plain, rich, DirectoryChain((plain, rich))


def test_the_directory_that_knows_an_address_says_what_holds_for_it(house):
    plain, rich, chain = house
    assert chain.has_rights
    assert ended(chain.find_posting_rule(STAFF)) == rich.posting
    assert ended(chain.find_send_rights(BOB)) == rich.sending
    assert ended(chain.find_send_rights(at("nobody"))) is None
    # One that is asked before has an alias of that name: it has no rules, and those of the other are not its.
    plain.add_alias(STAFF, (ALICE,))
    rich.asked.clear()
    assert ended(chain.find_posting_rule(STAFF)) is None
    assert ended(chain.find_send_rights(STAFF)) is None
    assert rich.asked == []


def test_groups_and_mailboxes_are_told_by_the_users_own_directory(house):
    _, _, chain = house
    alice, bob = ended(chain.find_user(ALICE)), ended(chain.find_user(BOB))
    assert ended(chain.find_groups(evolve(alice, groups=("of the file",)))) == ("of the file",)
    assert ended(chain.find_groups(bob)) == ("asked",)
    assert ended(chain.find_shared_mailboxes(alice)) == ()
    assert [each.address for each in ended(chain.find_shared_mailboxes(bob))] == [STAFF]


def test_a_table_comes_before_the_directory_and_nobody_is_asked_without_rules(house):
    plain, rich, chain = house
    rights = AddressRights(DOMAINS, chain, (ListSettings("Staff@EXAMPLE.org", Posters.NOBODY),))
    assert ended(rights.posting_rule(STAFF)).who is Posters.NOBODY
    assert ended(rights.send_rights(STAFF)).members
    assert rich.asked == []
    none = AddressRights(DOMAINS, DirectoryChain((plain,)))
    assert not none.has_rules
    assert ended(none.posting_rule(STAFF)) is None
    assert not AddressRights(DOMAINS, plain).has_rules


def test_own_addresses_need_no_right_and_lists_follow_their_rule(house):
    plain, rich, chain = house
    resolver = AddressResolver(DOMAINS, chain)
    senders = SendAsPolicy(resolver, AddressRights(DOMAINS, chain))
    assert ended(senders.may_send_as(ALICE, at("alice+x", "example.org"))) is True
    assert rich.asked == []
    assert ended(senders.may_send_as(ALICE, STAFF)) is False
    assert ended(senders.may_send_as(BOB, STAFF)) is True
    assert ended(senders.may_send_as(BOB, at("staff+detail"))) is True
    assert ended(senders.may_send_as(BOB, at("bob", "elsewhere.test"))) is False
    assert ended(senders.may_send_on_behalf(ALICE, BOB)) is False
    rich.sending = SendRights(on_behalf=frozenset({ALICE}))
    assert ended(senders.may_send_on_behalf(ALICE, BOB)) is True
    table = ListSettings(str(STAFF), Posters.USERS, members_send_as=False, send_as=("team@example.test",))
    plain.add_alias(at("team"), (ALICE,))
    by_table = SendAsPolicy(resolver, AddressRights(DOMAINS, chain, (table,)))
    assert ended(by_table.may_send_as(ALICE, STAFF)) is True
    assert ended(by_table.may_send_as(BOB, STAFF)) is False


def test_r_inj_3_a_refusal_is_a_line_of_ascii_whatever_the_list_is_called():
    rule = PostingRule(Posters.MEMBERS)
    for poster in (Poster(), Poster(ALICE, ALICE, True)):
        text = refusal_text(at("büro"), rule, poster)
        assert text.isascii()
        assert text.isprintable()
        assert "this list" in text
    assert refusal_text(STAFF, PostingRule(Posters.NOBODY), Poster()) == "Nobody may send to staff@example.test"
    named = frozenset(at(f"u{number}") for number in range(12))
    assert "and 2 more" in describe(PostingRule(Posters.NAMED, named))
    moderated = describe(PostingRule(Posters.NAMED, named, is_moderated=True))
    assert "its moderators may send to it" in moderated
    assert "refused, not held" in moderated
    assert "1 may not" in describe(PostingRule(Posters.ANYBODY, refused=frozenset({BOB})))
