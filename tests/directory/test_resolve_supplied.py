"""Recipients while the domains of a directory are known, known from before, or not known at all (RELIABILITY 7.2)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from mailsrv.address import Address
from mailsrv.delivery.recipients import RecipientPolicy, Service
from mailsrv.directory.address_rights import AddressRights
from mailsrv.directory.domains import DomainTable, Knowledge, LocalDomains
from mailsrv.directory.list_settings import ListSettings
from mailsrv.directory.mailbox_rights import MailboxRights
from mailsrv.directory.memory import MemoryDirectory
from mailsrv.directory.resolve import AddressResolver
from mailsrv.directory.send_as import SendAsPolicy
from mailsrv.directory.settings import DomainSettings
from mailsrv.directory.shared_settings import SharedSettings
from mailsrv.errors import MailError, Unavailable
from mailsrv.interfaces.domain_source import SuppliedDomain
from mailsrv.interfaces.rights import Posters
from mailsrv.routing.local_names import LocalNames
from mailsrv.routing.rules import TransportRules

STATIC = (DomainSettings("own.test"),)
ALICE, BOB = Address("alice", "own.test"), Address("bob", "dir.test")
STRANGER = Address("x", "elsewhere.test")


def run(coroutine: Any) -> Any:
    ended: list[Any] = []
    answer = coroutine if isinstance(coroutine, Deferred) else Deferred.fromCoroutine(coroutine)
    answer.addBoth(ended.append)
    [outcome] = ended
    if hasattr(outcome, "raiseException"):
        outcome.raiseException()
    return outcome


class House:
    def __init__(self) -> None:
        self.directory = MemoryDirectory()
        self.directory.add_user(ALICE, "x")
        self.directory.add_user(BOB, "x")
        self.directory.add_alias(Address("away", "own.test"), [STRANGER])
        self.domains = LocalDomains(STATIC, supplied=True)
        self.resolver = AddressResolver(self.domains, self.directory)
        self.routes = TransportRules((), self.domains.all_names)

    def know(self, knowledge: Knowledge, *names: str) -> None:
        supplied = [SuppliedDomain(name, "dir.test") for name in names]
        table = DomainTable(STATIC, [supplied])
        self.domains.use(table, knowledge)
        self.routes.use_local_names(LocalNames(table.found))

    def find(self, address: Address, service: Service = Service.MX, *, may_relay: bool = False) -> Any:
        policy = RecipientPolicy(service, self.resolver, self.routes)
        found = policy.find_at_hand(address, may_relay=may_relay)
        return found or run(policy.find(address, may_relay=may_relay))

    def refusal(self, address: Address, service: Service = Service.MX, *, may_relay: bool = False) -> MailError:
        with pytest.raises(MailError) as caught:
            self.find(address, service, may_relay=may_relay)
        return caught.value


@pytest.fixture
def house() -> House:
    return House()


def test_nothing_told_yet_is_451_for_all_but_the_settings_own(house):
    assert house.find(ALICE).accounts
    for service in Service:
        for may_relay in (False, True):
            assert isinstance(house.refusal(STRANGER, service, may_relay=may_relay), Unavailable)
            assert isinstance(house.refusal(BOB, service, may_relay=may_relay), Unavailable)
    # Where an alias leads may be ours, too.
    assert isinstance(house.refusal(Address("away", "own.test")), Unavailable)
    with pytest.raises(Unavailable):
        run(RecipientPolicy(Service.MX, house.resolver).stands_for(STRANGER))
    with pytest.raises(Unavailable):
        house.resolver.canonical(STRANGER)


def test_domains_of_the_directory_are_served_and_others_refused(house):
    house.know(Knowledge.ALL, "dir.test", "dir.example")
    assert house.find(BOB).accounts[0].account == BOB
    assert house.find(Address("bob", "dir.example")).accounts[0].account == BOB
    assert not house.refusal(STRANGER).is_temporary
    assert not house.refusal(STRANGER, Service.LMTP).is_temporary
    assert not house.refusal(Address("nobody", "dir.test")).is_temporary
    [target] = house.find(STRANGER, Service.SUBMISSION, may_relay=True).onward
    assert str(target.destination) == "mx:elsewhere.test"


def test_while_the_directory_is_down_its_domains_are_served_and_strangers_to_others_wait(house):
    house.know(Knowledge.LAST_HEARD, "dir.test")
    assert house.find(BOB).accounts[0].account == BOB
    for service in Service:
        assert isinstance(house.refusal(STRANGER, service), Unavailable)
    with pytest.raises(Unavailable):
        run(RecipientPolicy(Service.MX, house.resolver).stands_for(STRANGER))
    # What users send, and what aliases lead to, goes on.
    assert house.find(STRANGER, Service.SUBMISSION, may_relay=True).onward
    assert house.find(Address("away", "own.test")).onward


def test_r_auth_7_who_may_send_under_an_address_that_may_be_of_ours_is_not_known_while_the_directory_is_down(house):
    senders = SendAsPolicy(house.resolver, AddressRights(house.domains, house.directory))
    listed = ListSettings("team@own.test", post=Posters.USERS)
    by_rules = SendAsPolicy(house.resolver, AddressRights(house.domains, house.directory, (listed,)))
    for policy in (senders, by_rules):
        house.know(Knowledge.ALL, "dir.test")
        assert run(policy.may_send_as(BOB, BOB))
        assert not run(policy.may_send_as(BOB, STRANGER))
        house.know(Knowledge.LAST_HEARD, "dir.test")
        assert run(policy.may_send_as(BOB, BOB))
        assert not run(policy.may_send_as(BOB, ALICE))
        with pytest.raises(Unavailable):
            run(policy.may_send_as(BOB, STRANGER))
        house.know(Knowledge.LAST_HEARD)
        with pytest.raises(Unavailable):
            run(policy.may_send_as(BOB, BOB))


def test_a_domain_that_is_taken_away_is_relayed_as_the_rules_say(house):
    house.know(Knowledge.ALL, "dir.test")
    assert house.find(BOB).accounts
    house.know(Knowledge.ALL)
    assert not house.refusal(BOB).is_temporary
    [target] = house.find(BOB, Service.SUBMISSION, may_relay=True).onward
    assert str(target.destination) == "mx:dir.test"


def test_postmaster_without_a_domain_is_of_the_default_one():
    house = House()
    house.domains = LocalDomains((), default="dir.test", supplied=True)
    house.resolver = AddressResolver(house.domains, house.directory)
    house.domains.use(
        DomainTable((), [[SuppliedDomain("a.test", "a.test"), SuppliedDomain("dir.test", "dir.test")]]), Knowledge.ALL
    )
    found = run(house.resolver.resolve(Address("postmaster", "")))
    assert found.accounts[0].account == BOB


def test_rules_of_lists_follow_the_names_of_domains(house):
    table = ListSettings("team@dir.example", post=Posters.USERS)
    rights = AddressRights(house.domains, house.directory, [table])
    team = Address("team", "dir.test")
    assert run(rights.posting_rule(team)) is None
    house.know(Knowledge.ALL, "dir.test", "dir.example")
    assert run(rights.posting_rule(team)).who is Posters.USERS
    house.know(Knowledge.ALL)
    assert run(rights.posting_rule(team)) is None


def test_shared_mailboxes_follow_the_names_of_domains(house):
    owner = house.directory.add_user(Address("team", "dir.test"), "x")
    table = SharedSettings("team@dir.example", readers=("alice@own.test",))
    rights = MailboxRights(house.domains, house.directory, [table], limit=10)
    house.know(Knowledge.ALL, "dir.test")
    alice = run(house.directory.find_user(ALICE))
    assert not run(rights.find(alice))
    house.know(Knowledge.ALL, "dir.test", "dir.example")
    assert [each.address for each in run(rights.find(alice))] == [owner.address]
