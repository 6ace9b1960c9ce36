"""What addresses stand for: aliases, subaddresses, postmaster, and what must never be relayed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailsrv.address import Address
from mailsrv.coroutines import next_turn
from mailsrv.directory.chain import DirectoryChain
from mailsrv.directory.domains import LocalDomains
from mailsrv.directory.memory import MemoryDirectory
from mailsrv.directory.resolution import ForeignDomain, LocalAccounts, UnknownRecipient
from mailsrv.directory.resolve import ALIAS_DEPTH, AddressResolver
from mailsrv.directory.settings import DomainSettings
from mailsrv.errors import Unavailable
from tests.contracts.directory import ALICE, BOB, NASTY_LOCAL_PARTS

ELSEWHERE = Address("carol", "elsewhere.test")


def here(local_part: str) -> Address:
    return Address(local_part, "example.test")


class House:
    """A resolver over a directory in memory with Alice and Bob."""

    def __init__(self, *domains: DomainSettings, postmaster: str = "") -> None:
        self.directory = MemoryDirectory()
        self.directory.add_user(BOB, "mellon")
        self.directory.add_user(ALICE, "sesame")
        self.resolver = AddressResolver(
            LocalDomains(domains or (DomainSettings("example.test"),)), self.directory, postmaster=postmaster
        )

    def resolve(self, address: Address) -> Any:
        answers: list[Any] = []
        Deferred.fromCoroutine(self.resolver.resolve(address)).addBoth(answers.append)
        return answers[0]

    def accounts(self, address: Address) -> list[tuple[str, str]]:
        resolution = self.resolve(address)
        assert isinstance(resolution, LocalAccounts), resolution
        return [(str(recipient.account), recipient.detail) for recipient in resolution.accounts]

    def forwards(self, address: Address) -> list[str]:
        resolution = self.resolve(address)
        assert isinstance(resolution, LocalAccounts), resolution
        return [str(forward.address) for forward in resolution.forwards]

    def may_send_as(self, address: Address) -> Any:
        answers: list[Any] = []
        self.resolver.may_send_as(ALICE, address).addBoth(answers.append)
        return answers[0]


@pytest.fixture
def house() -> House:
    return House()


def test_a_user_whatever_the_case(house):
    assert house.accounts(here("ALICE")) == [("alice@example.test", "")]


def test_other_domains_are_foreign(house):
    assert house.resolve(ELSEWHERE) == ForeignDomain("elsewhere.test")
    assert house.resolve(Address("alice", "[192.0.2.1]")) == ForeignDomain("[192.0.2.1]")
    assert house.resolve(Address("alice", "mail.example.test")) == ForeignDomain("mail.example.test")


def test_nobody(house):
    assert house.resolve(here("carol")) == UnknownRecipient(here("carol"))


def test_rfc_5233_subaddresses_keep_their_detail(house):
    assert house.accounts(here("alice+lists")) == [("alice@example.test", "lists")]
    assert house.accounts(here("Alice+A+B")) == [("alice@example.test", "a+b")]
    assert house.accounts(here("alice+")) == [("alice@example.test", "")]
    assert house.resolve(here("+alice")) == UnknownRecipient(here("+alice"))
    assert house.resolve(here("carol+x")) == UnknownRecipient(here("carol+x"))


def test_a_user_with_a_plus_in_the_name_comes_first(house):
    house.directory.add_user(here("alice+lists"), "x")
    assert house.accounts(here("alice+lists")) == [("alice+lists@example.test", "")]


def test_the_delimiter_may_be_another_or_none():
    dash = House(DomainSettings("example.test", subaddress_delimiter="--"))
    assert dash.accounts(here("alice--x")) == [("alice@example.test", "x")]
    assert dash.resolve(here("alice+x")) == UnknownRecipient(here("alice+x"))
    none = House(DomainSettings("example.test", subaddress_delimiter=""))
    assert none.resolve(here("alice+x")) == UnknownRecipient(here("alice+x"))


def test_other_names_of_a_domain_mean_the_same():
    house = House(DomainSettings("example.test", aliases=("example.org", "bücher.test")))
    assert house.accounts(Address("alice", "example.org")) == [("alice@example.test", "")]
    assert house.accounts(Address("alice+x", "xn--bcher-kva.test")) == [("alice@example.test", "x")]


def test_aliases_lead_to_accounts_and_elsewhere(house):
    house.directory.add_alias(here("staff"), (ALICE, BOB, ELSEWHERE))
    house.directory.add_alias(here("all"), (here("staff"), ALICE, here("nobody")))
    assert house.accounts(here("all")) == [("alice@example.test", ""), ("bob@example.test", "")]
    assert house.forwards(here("all")) == ["carol@elsewhere.test"]
    assert house.accounts(here("staff+x")) == [("alice@example.test", "x"), ("bob@example.test", "x")]


def test_an_alias_comes_before_a_user_and_may_name_that_user(house):
    house.directory.add_alias(ALICE, (ELSEWHERE,))
    assert house.accounts(ALICE) == []
    assert house.forwards(ALICE) == ["carol@elsewhere.test"]
    house.directory.add_alias(ALICE, (ALICE, ELSEWHERE))
    assert house.accounts(ALICE) == [("alice@example.test", "")]
    assert house.forwards(ALICE) == ["carol@elsewhere.test"]


def test_an_alias_met_by_two_ways_is_followed_once_and_not_taken_for_its_user(house):
    house.directory.add_alias(ALICE, (BOB,))
    house.directory.add_alias(here("one"), (ALICE,))
    house.directory.add_alias(here("two"), (here("one"), ALICE))
    assert house.accounts(here("two")) == [("bob@example.test", "")]


def test_loops_end(house):
    house.directory.add_alias(here("a"), (here("b"), ALICE))
    house.directory.add_alias(here("b"), (here("a"),))
    assert house.accounts(here("a")) == [("alice@example.test", "")]
    house.directory.add_alias(here("x"), (here("y"),))
    house.directory.add_alias(here("y"), (here("x"),))
    assert house.resolve(here("x")) == UnknownRecipient(here("x"))


def test_an_alias_for_nobody_is_nobody(house):
    house.directory.add_alias(here("old"), (here("gone"),))
    assert house.resolve(here("old")) == UnknownRecipient(here("old"))


def test_r_lim_2_depth_at_its_limit_and_past_it(house):
    for number in range(ALIAS_DEPTH + 1):
        house.directory.add_alias(here(f"a{number}"), (here(f"a{number - 1}") if number else ALICE,))
    assert house.accounts(here(f"a{ALIAS_DEPTH - 1}")) == [("alice@example.test", "")]
    failure = house.resolve(here(f"a{ALIAS_DEPTH}"))
    assert failure.check(Unavailable)


def test_r_lim_2_targets_at_their_limit_and_past_it(house):
    house.resolver = AddressResolver(LocalDomains((DomainSettings("example.test"),)), house.directory, target_limit=500)
    targets = [Address(f"u{number}", "elsewhere.test") for number in range(501)]
    house.directory.add_alias(here("many"), targets[:-1])
    assert len(house.forwards(here("many"))) == 500
    house.directory.add_alias(here("many"), targets)
    assert house.resolve(here("many")).check(Unavailable)
    house.directory.add_alias(here("many"), targets[:-1])
    assert len(house.forwards(here("many"))) == 500


def test_a_list_of_thousands_lets_others_have_the_reactor_in_between(house):
    clock = Clock()
    turns: list[None] = []

    def take_turns() -> Deferred[None]:
        turns.append(None)
        return next_turn(clock)

    house.resolver = AddressResolver(
        LocalDomains((DomainSettings("example.test"),)), house.directory, take_turns=take_turns
    )
    targets = [Address(f"u{number}", "elsewhere.test") for number in range(10_000)]
    house.directory.add_alias(here("many"), targets)
    answers: list[Any] = []
    Deferred.fromCoroutine(house.resolver.resolve(here("many"))).addBoth(answers.append)
    assert not answers
    clock.advance(0)
    assert len(turns) > 100
    assert len(answers[0].forwards) == 10_000


def test_a_web_of_aliases_stays_within_the_limit_of_work(house):
    # Each names all the others: without a bound this would be factorial.
    names = [here(f"n{number}") for number in range(40)]
    for name in names:
        house.directory.add_alias(name, (*names, ALICE))
    answer = house.resolve(names[0])
    assert isinstance(answer, LocalAccounts) or answer.check(Unavailable)


# --- postmaster (RFC 5321 4.5.1)


def test_postmaster_is_an_alias_or_a_user_where_there_is_one(house):
    house.directory.add_user(here("postmaster"), "x")
    assert house.accounts(here("Postmaster")) == [("postmaster@example.test", "")]
    house.directory.add_alias(here("postmaster"), (BOB,))
    assert house.accounts(here("postmaster")) == [("bob@example.test", "")]
    assert house.accounts(Address("postmaster", "")) == [("bob@example.test", "")]


def test_postmaster_is_otherwise_the_one_configured():
    general = House(postmaster="bob@example.test")
    assert general.accounts(here("postmaster")) == [("bob@example.test", "")]
    own = House(DomainSettings("example.test", postmaster="bob"), postmaster="alice@example.test")
    assert own.accounts(here("POSTMASTER")) == [("bob@example.test", "")]
    outside = House(postmaster="carol@elsewhere.test")
    assert outside.forwards(here("postmaster")) == ["carol@elsewhere.test"]


def test_postmaster_is_never_refused():
    for postmaster in ("", "nobody@example.test", "postmaster", "not an address"):
        house = House(DomainSettings("example.test"), DomainSettings("example.org"), postmaster=postmaster)
        for address in (here("postmaster"), here("PostMaster"), here("postmaster+x"), Address("postmaster", "")):
            assert [account for account, _ in house.accounts(address)] == ["alice@example.test"], postmaster
        # A domain without users has the first user of all.
        assert house.accounts(Address("postmaster", "example.org")) == [("alice@example.test", "")]


def test_an_alias_for_postmaster_reaches_whoever_is_postmaster(house):
    house.directory.add_alias(here("abuse"), (here("postmaster"),))
    assert house.accounts(here("abuse")) == [("alice@example.test", "")]
    house.directory.add_alias(here("security"), (BOB, here("postmaster+x")))
    assert [account for account, _ in house.accounts(here("security"))] == ["bob@example.test", "alice@example.test"]


def test_an_alias_for_postmaster_follows_the_setting_and_ends_where_that_leads_back():
    for setting, expected in (("bob", "bob@example.test"), ("abuse", "alice@example.test"), ("", "alice@example.test")):
        house = House(DomainSettings("example.test", postmaster=setting))
        house.directory.add_alias(here("abuse"), (here("postmaster"),))
        assert [account for account, _ in house.accounts(here("abuse"))] == [expected], setting
    outside = House(postmaster="carol@elsewhere.test")
    outside.directory.add_alias(here("abuse"), (here("postmaster"),))
    assert outside.forwards(here("abuse")) == ["carol@elsewhere.test"]


def test_postmaster_without_any_user_is_told_to_wait():
    house = House()
    house.directory.remove_user(ALICE)
    house.directory.remove_user(BOB)
    assert house.resolve(here("postmaster")).check(Unavailable)


def test_postmaster_elsewhere_is_elsewhere(house):
    assert house.resolve(Address("postmaster", "elsewhere.test")) == ForeignDomain("elsewhere.test")


# --- never an open relay


@pytest.mark.parametrize(
    "local_part",
    [
        "user%elsewhere.test",
        "alice%example.test",
        "alice%elsewhere.test",
        "elsewhere.test!alice",
        "a!b",
        "user@elsewhere.test",
        "alice@example.test",
        "@elsewhere.test:alice",
        "alice+x%elsewhere.test",
        "alice+@elsewhere.test",
        "postmaster%elsewhere.test",
        "postmaster@elsewhere.test",
        "postmaster+x@elsewhere.test",
    ],
)
def test_routes_in_local_parts_are_names_of_nobody(house, local_part: str):
    assert house.resolve(here(local_part)) == UnknownRecipient(here(local_part))


def test_a_user_of_exactly_that_name_has_mail(house):
    house.directory.add_user(here("sales%north"), "x")
    assert house.accounts(here("Sales%North")) == [("sales%north@example.test", "")]


@pytest.mark.parametrize("local_part", NASTY_LOCAL_PARTS)
def test_r_inj_3_nasty_names_are_nobody(house, local_part: str):
    assert house.resolve(here(local_part)) == UnknownRecipient(here(local_part))


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
@settings(max_examples=200)
def test_what_is_no_alias_never_leads_elsewhere(local_part: str):
    house = House()
    try:
        address = here(local_part)
    except Exception:
        return
    resolution = house.resolve(address)
    if isinstance(resolution, LocalAccounts):
        assert resolution.forwards == ()
    else:
        assert isinstance(resolution, UnknownRecipient)


# --- unavailable, and who may send as whom


def test_r_auth_7_unavailable_stays_unavailable(house):
    house.directory.is_down = True
    for address in (ALICE, here("carol"), here("postmaster"), here("alice+x")):
        assert house.resolve(address).check(Unavailable)
    assert house.resolve(ELSEWHERE) == ForeignDomain("elsewhere.test")
    assert house.may_send_as(ALICE).check(Unavailable)


def test_who_may_send_as_whom():
    house = House(DomainSettings("example.test", aliases=("example.org",)))
    house.directory.add_alias(here("staff"), (ALICE, BOB))
    house.directory.add_alias(here("press"), (BOB,))
    for own in (ALICE, here("Alice+x"), here("staff"), Address("alice", "example.org")):
        assert house.may_send_as(own) is True
    for other in (BOB, here("press"), here("carol"), ELSEWHERE, here("alice%x")):
        assert house.may_send_as(other) is False


# --- chain and domains


def test_a_chain_asks_in_order_and_does_not_pass_over_who_is_silent():
    first, second = MemoryDirectory("first"), MemoryDirectory("second")
    first.add_user(ALICE, "one")
    second.add_user(ALICE, "two")
    second.add_user(BOB, "mellon")
    chain = DirectoryChain((first, second))

    def find(address: Address) -> Any:
        answers: list[Any] = []
        chain.find_user(address).addBoth(answers.append)
        return answers[0]

    assert find(ALICE).secret == "{PLAIN}one"
    assert chain.check_password(find(ALICE), "one").result is True
    assert chain.check_password(find(ALICE), "two").result is False
    assert chain.check_password(find(BOB), "mellon").result is True
    second.is_down = True
    assert find(ALICE).secret == "{PLAIN}one"
    assert find(BOB).check(Unavailable)
    second.is_down, first.is_down = False, True
    assert find(BOB).check(Unavailable)


def test_a_chain_spends_the_time_of_unknown_users_once():
    first, second = MemoryDirectory("first"), MemoryDirectory("second")
    chain = DirectoryChain((first, second), for_unknown=second)
    chain.check_password(None, "x")
    assert (first.checks, second.checks) == (0, 1)
    with pytest.raises(ValueError, match="same name"):
        DirectoryChain((first, first))


def test_domains_have_one_owner_for_each_name():
    domains = LocalDomains((DomainSettings("B.test", aliases=("b.example",)), DomainSettings("a.test")))
    assert domains.names == ("b.test", "a.test")
    assert "b.example" in domains
    assert "c.test" not in domains
    with pytest.raises(ValueError, match="twice"):
        LocalDomains((DomainSettings("a.test"), DomainSettings("b.test", aliases=("A.test",))))
    with pytest.raises(ValueError, match="expected a domain"):
        DomainSettings("not a domain")


def test_catch_all_comes_last():
    house = House(DomainSettings("example.test", catch_all="bob"))
    assert house.accounts(here("anybody")) == [("bob@example.test", "")]
    assert house.accounts(here("anybody+x")) == [("bob@example.test", "x")]
    assert house.accounts(here("alice")) == [("alice@example.test", "")]
    assert house.accounts(here("postmaster")) == [("alice@example.test", "")]
    elsewhere = House(DomainSettings("example.test", catch_all="carol@elsewhere.test"))
    assert elsewhere.forwards(here("anybody")) == ["carol@elsewhere.test"]
    wrong = House(DomainSettings("example.test", catch_all="nobody"))
    assert wrong.resolve(here("anybody")) == UnknownRecipient(here("anybody"))


@pytest.mark.parametrize("name", ["friend%elsewhere.test", "elsewhere.test!friend", "friend@elsewhere.test", "a:b"])
def test_catch_all_takes_no_routes(name):
    house = House(DomainSettings("example.test", catch_all="bob"))
    assert house.resolve(here(name)) == UnknownRecipient(here(name))


def test_the_owner_of_a_list_is_told_with_its_forwards(house):
    house.directory.add_alias(here("staff"), (ALICE, ELSEWHERE))
    house.directory.add_alias(here("all"), (here("staff"), Address("dave", "elsewhere.test")))
    house.directory.add_alias(here("owner-staff"), (BOB,))
    found = {str(each.address): each for each in house.resolve(here("all")).forwards}
    assert found["carol@elsewhere.test"].owner == here("owner-staff")
    assert found["carol@elsewhere.test"].alias == here("staff")
    assert found["dave@elsewhere.test"].owner is None
    house.directory.add_alias(here("owner-staff"), (ELSEWHERE,))
    assert house.resolve(here("owner-staff")).forwards[0].owner is None


def test_local_addresses_that_a_rule_carries_elsewhere(house):
    house.directory.add_alias(here("both"), (ALICE, here("carol")))
    asked = []

    def carries(address):
        asked.append(str(address))
        return address != BOB

    answers: list[Any] = []
    for name in ("both", "nobody+x", "bob"):
        Deferred.fromCoroutine(house.resolver.resolve(here(name), carries=carries)).addBoth(answers.append)
    assert [str(each) for each in answers[0].carried] == ["alice@example.test", "carol@example.test"]
    assert [str(each) for each in answers[1].carried] == ["nobody+x@example.test"]
    assert [recipient.account for recipient in answers[2].accounts] == [BOB]
    assert "both@example.test" not in asked


def test_every_step_is_told(house):
    house.directory.add_alias(here("staff"), (here("alice+x"), ELSEWHERE, here("staff")))
    steps: list[Any] = []
    Deferred.fromCoroutine(house.resolver.resolve(here("Staff+y"), listener=steps.append))
    assert [(step.kind.value, str(step.address), step.result) for step in steps] == [
        ("domain", "Staff+y@example.test", ("example.test",)),
        ("subaddress", "staff+y@example.test", ("staff@example.test", "y")),
        ("alias", "staff@example.test", ("alice+x@example.test", "carol@elsewhere.test", "staff@example.test")),
        ("subaddress", "alice+x@example.test", ("alice@example.test", "x")),
        ("user", "alice@example.test", ("alice@example.test",)),
        ("forward", "staff@example.test", ("carol@elsewhere.test",)),
    ]
    steps.clear()
    Deferred.fromCoroutine(house.resolver.resolve(here("nobody"), listener=steps.append))
    assert [step.kind.value for step in steps] == ["domain", "nobody"]


class TestAtHand:
    """A plain user is found without asking; everything else has to be asked for."""

    def house(self, tmp_path) -> Any:
        from mailsrv.directory.alias_file import AliasFile
        from mailsrv.directory.classic_aliases import ClassicAliases
        from mailsrv.directory.passwd_file import PasswdFile
        from mailsrv.directory.watched_file import FileWatching
        from tests.contracts.directory import RunAtOnce

        (tmp_path / "users").write_text("alice@example.test:{PLAIN}x::::::\nbob@example.test:{PLAIN}x::::::\n")
        (tmp_path / "aliases").write_text("staff@example.test: alice@example.test\n")
        (tmp_path / "classic").write_text("root: alice\nbob: alice\n")
        clock, hashing = Clock(), object()
        watching = FileWatching(clock, RunAtOnce())
        chain = DirectoryChain(
            [
                AliasFile(str(tmp_path / "aliases"), watching, default_domain="example.test"),
                ClassicAliases(str(tmp_path / "classic"), watching, default_domain="example.test"),
                PasswdFile(str(tmp_path / "users"), watching, hashing=hashing, default_domain="example.test"),  # type: ignore[arg-type]
            ]
        )
        domains = LocalDomains([DomainSettings("example.test", aliases=("example.net",))])
        return clock, AddressResolver(domains, chain)

    def test_only_what_was_read_lately(self, tmp_path):
        clock, resolver = self.house(tmp_path)
        assert resolver.find_at_hand(ALICE) is None
        Deferred.fromCoroutine(resolver.resolve(ALICE))
        for address in (ALICE, here("Alice"), Address("alice", "example.net")):
            asked: list[Any] = []
            Deferred.fromCoroutine(resolver.resolve(address)).addCallback(asked.append)
            assert resolver.find_at_hand(address) == asked[0]
        clock.advance(2)
        assert resolver.find_at_hand(ALICE) is None

    def test_nothing_but_a_plain_user(self, tmp_path):
        _, resolver = self.house(tmp_path)
        Deferred.fromCoroutine(resolver.resolve(ALICE))
        for name in ("staff", "root", "bob", "nobody", "alice+x", "postmaster", "alice%example.test"):
            assert resolver.find_at_hand(here(name)) is None, name
        assert resolver.find_at_hand(ELSEWHERE) is None

    def test_a_directory_that_cannot_tell(self, house):
        assert house.resolver.find_at_hand(ALICE) is None

    def test_who_may_send_as_whom_is_the_same_at_hand_and_asked(self, tmp_path):
        _, resolver = self.house(tmp_path)
        for _ in ("asked", "at hand"):
            told: list[bool] = []
            for account, address in ((ALICE, here("Alice")), (here("bob"), ALICE), (ALICE, ELSEWHERE)):
                resolver.may_send_as(account, address).addCallback(told.append)
            assert told == [True, False, False]
            Deferred.fromCoroutine(resolver.resolve(ALICE))

    def test_what_is_foreign_is_known_at_once(self, tmp_path):
        _, resolver = self.house(tmp_path)
        assert resolver.is_foreign(ELSEWHERE)
        assert not resolver.is_foreign(ALICE)
        assert not resolver.is_foreign(Address("postmaster", ""))
