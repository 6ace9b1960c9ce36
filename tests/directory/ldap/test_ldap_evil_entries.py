"""Entries whose owners write into them what they like, and directories that suddenly know nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from mailsrv.address import Address
from mailsrv.auth.session_rules import SessionRules
from mailsrv.auth.session_settings import SessionSettings
from mailsrv.auth.session_watch import SessionWatch
from mailsrv.auth.sessions import SessionRegistry
from mailsrv.auth.settings import AuthSettings
from mailsrv.directory.domains import LocalDomains
from mailsrv.directory.ldap.build import LdapParts, make_ldap_directory
from mailsrv.directory.ldap.connection import Credentials
from mailsrv.directory.ldap.entry import MOST_OCTETS
from mailsrv.directory.ldap.lookups import SOMEBODY_SECONDS
from mailsrv.directory.ldap.results import BindOutcome
from mailsrv.directory.ldap.rights import NAMES_LIMIT
from mailsrv.directory.ldap.search import Search
from mailsrv.directory.ldap.trouble import RequestTrouble, ServerTrouble
from mailsrv.directory.resolution import LocalAccounts
from mailsrv.directory.resolve import AddressResolver
from mailsrv.directory.settings import DirectorySettings, DirectoryType, DomainSettings
from mailsrv.errors import Unavailable
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.interfaces.sessions import DirectoryProof, Login
from tests.directory.ldap.memory_ldap import MemoryLdap

PASSWORD = "sesame"


def ex(local_part: str) -> Address:
    return Address(local_part, "example.test")


class House:
    """A directory over entries in memory."""

    def __init__(self, **settings: Any) -> None:
        self.server = MemoryLdap()
        self.clock = Clock()
        self.is_down = False
        made = DirectorySettings(DirectoryType.LDAP, uri=("ldap://127.0.0.1",), base="dc=test", **settings)
        self.parts: LdapParts = make_ldap_directory(made, clock=self.clock, default_domain="example.test")
        attempts: Any = self.parts.attempts
        attempts.run = self._run
        self.directory = self.parts.directory

    def _run(self, lane: object, deadline: float, work: Callable[[Any, float], Any], **more: object) -> Any:
        if self.is_down:
            raise ServerTrouble("down")
        return work(self, deadline)

    def search(self, search: Search, deadline: float) -> Any:
        return self.server.search(search, deadline)

    def bind(self, credentials: Credentials, deadline: float) -> BindOutcome:
        is_there = credentials.dn.lower() in self.server.entries
        return BindOutcome(is_there and credentials.password == f"{PASSWORD} of {credentials.dn}".encode())

    def user(self, uid: str, **values: Any) -> str:
        values.setdefault("mail", f"{uid}@example.test")
        return self.server.add(f"uid={uid},dc=test", objectClass=("inetOrgPerson",), uid=uid, **values)

    def group(self, cn: str, *members: str, **values: Any) -> str:
        return self.server.add(
            f"cn={cn},dc=test",
            objectClass=("groupOfNames",),
            cn=cn,
            member=members,
            **{"mail": f"{cn}@example.test", **values},
        )

    def resolve(self, name: str) -> Any:
        resolver = AddressResolver(LocalDomains([DomainSettings("example.test")]), self.directory)
        return now(resolver.resolve(ex(name)))


def now(question: Any) -> Any:
    """Its answer, or what it fails with."""
    from twisted.internet.defer import ensureDeferred

    found: list[Any] = []
    ensureDeferred(question).addErrback(lambda failure: failure.value).addBoth(found.append)
    return found[0]


@pytest.fixture
def house() -> House:
    made = House()
    made.user("boss")
    made.user("alice")
    return made


def accounts(resolution: Any) -> set[Address]:
    assert isinstance(resolution, LocalAccounts), resolution
    return {each.account for each in resolution.accounts} | {each.address for each in resolution.forwards}


def test_who_writes_the_boss_into_their_own_mail_does_not_log_in_as_the_boss(house):
    house.user("mallory", mail="boss@example.test")
    assert isinstance(now(house.directory.find_login(ex("mallory"))), Unavailable)
    # By the address as by any name: the account is nobody's until somebody has put it right.
    assert isinstance(now(house.directory.find_login(ex("boss"))), Unavailable)
    assert isinstance(now(house.directory.find_user(ex("boss"))), Unavailable)


def test_an_entry_without_an_address_shuts_out_nobody_whose_address_has_its_name(house):
    house.user("captain", mail=())
    house.user("james", mail="captain@example.test")
    assert now(house.directory.find_login(ex("captain"))).address == ex("captain")


def test_a_log_in_does_not_put_the_bosss_mail_on_another_way(house):
    house.user("mallory", mail="boss@example.test", mailForwardingAddress="mallory@elsewhere.test")
    now(house.directory.find_login(ex("mallory")))
    assert house.directory.peek(ex("boss")) is None


def test_a_list_with_a_double_of_the_boss_does_not_make_it_the_boss(house):
    double = house.user("mallory", mail="boss@example.test", mailForwardingAddress="mallory@elsewhere.test")
    house.group("staff", double, "uid=alice,dc=test")
    assert accounts(house.resolve("staff")) == {Address("mallory", "elsewhere.test"), ex("alice")}
    assert isinstance(house.resolve("boss"), Unavailable)
    assert isinstance(now(house.directory.find_login(ex("boss"))), Unavailable)


def test_members_of_a_list_need_no_questions_and_serve_in_an_outage(house):
    house.group("staff", "uid=boss,dc=test", "uid=alice,dc=test")
    assert accounts(house.resolve("staff")) == {ex("boss"), ex("alice")}
    asked = len(house.server.asked)
    assert accounts(house.resolve("staff")) == {ex("boss"), ex("alice")}
    assert len(house.server.asked) == asked
    house.clock.advance(60)
    house.is_down = True
    assert accounts(house.resolve("staff")) == {ex("boss"), ex("alice")}
    assert accounts(house.resolve("boss")) == {ex("boss")}


def test_what_is_known_of_a_user_is_not_replaced_by_what_a_list_says(house):
    assert now(house.directory.find_user(ex("boss"))).address == ex("boss")
    house.group("staff", "uid=boss,dc=test")
    house.resolve("staff")
    assert house.directory.peek(ex("boss")) is not None


@pytest.mark.parametrize("attributes", [{}, {"dn_attribute": ""}, {"in_chain": True, "member_of": "memberOf"}])
def test_who_is_kept_from_being_a_user_is_none_in_a_list(attributes):
    house = House(attributes={"user_filter": "(employeeType=active)", **attributes})
    active = house.user("alice", employeeType="active")
    house.group("staff", active, house.user("gone"), house.group("inner", active))
    house.server.add("cn=room,dc=test", objectClass=("device",), mail="room@example.test")
    house.group("all", active, "cn=room,dc=test")
    assert accounts(house.resolve("staff")) == {ex("alice")}
    assert accounts(house.resolve("all")) == {ex("alice")}
    assert house.directory.peek(ex("room"), is_target=True) in (None, (None, None))


def test_names_that_only_look_alike_to_the_server_do_not_crowd_out_the_right_one(house):
    """The server compares more loosely than we do, and says no more than a few."""
    for number in range(5):
        house.user(f"x{number}", mail=f"b\u200bo{number}ss@example.test")
    every = tuple(house.server.entries.values())
    house.server.search = lambda search, deadline: every[-search.limit :]
    assert isinstance(now(house.directory.find_user(ex("boss"))), Unavailable)
    assert isinstance(now(house.directory.find_login(ex("boss"))), Unavailable)


# Nobody is there


def test_r_auth_7_a_directory_that_shows_nobody_at_all_does_not_make_recipients_unknown(house):
    assert now(house.directory.find_user(ex("boss"))).address == ex("boss")
    assert now(house.directory.find_user(ex("nobody"))) is None
    entries, house.server.entries = house.server.entries, {}
    house.clock.advance(60)
    # Seen lately: mail for them is taken. Others wait, and nobody's password is wrong.
    assert now(house.directory.find_user(ex("boss"))).address == ex("boss")
    assert isinstance(now(house.directory.find_user(ex("alice"))), Unavailable)
    assert isinstance(now(house.directory.find_login(ex("boss"))), Unavailable)
    assert now(house.directory.review([ex("boss")])) == {}
    house.server.entries = entries
    del entries["uid=boss,dc=test"]
    assert now(house.directory.find_user(ex("boss"))) is None
    assert now(house.directory.review([ex("boss"), ex("alice")]))[ex("boss")] is None


def test_whether_anybody_is_there_is_not_asked_for_every_name_that_is_guessed(house):
    for number in range(50):
        assert now(house.directory.find_user(ex(f"guess{number}"))) is None
    assert len(house.server.asked) == 51
    house.clock.advance(SOMEBODY_SECONDS)
    assert now(house.directory.find_user(ex("another"))) is None
    assert len(house.server.asked) == 53


def test_where_a_server_knows_no_pages_it_is_asked_without(house):
    search = house.server.search

    def without_pages(asked: Search, deadline: float) -> Any:
        if asked.is_paged:
            raise RequestTrouble("unavailableCriticalExtension")
        return search(asked, deadline)

    house.server.search = without_pages
    assert now(house.directory.find_user(ex("nobody"))) is None


class Bus:
    def listen(self, name: str, told: object) -> Callable[[], None]:
        return lambda: None

    def publish(self, notice: object) -> None:
        """Nobody hears."""


def nobody(_account: object) -> Any:
    raise AssertionError("nobody acts for others here")


class Session:
    service, connection_id, client_address = "imap", "1", "192.0.2.1"

    def __init__(self) -> None:
        self.ends: list[Any] = []

    def end_session(self, end: Any) -> None:
        self.ends.append(end)

    def abort(self) -> None:
        """Cut off."""


def test_a_directory_that_shows_nobody_at_all_throws_nobody_out(house):
    bus: Any = Bus()
    registry = SessionRegistry(house.clock)
    rules = SessionRules(registry, AuthSettings(), (), find_groups=nobody, clock=house.clock)
    watch = SessionWatch(
        registry, house.directory.review, SessionSettings(), house.clock, bus, is_administrator=nobody, rules=rules
    )
    watch.start()
    session: Any = Session()
    user: DirectoryUser = now(house.directory.find_login(ex("boss")))
    registry.enter(session, Login(user, DirectoryProof(user)))
    entries, house.server.entries = house.server.entries, {}
    house.clock.pump([5] * 60)
    assert session.ends == []
    house.server.entries = entries
    del entries["uid=boss,dc=test"]
    house.clock.pump([5] * 12)
    assert [end.name for end in session.ends] == ["GONE"]


@pytest.mark.parametrize("question", ["find_posting_rule", "find_send_rights"])
def test_the_rules_of_a_list_that_was_moved_are_not_known_and_not_none(house, question):
    rule = {"mgrpAllowedBroadcaster": "boss@example.test"}
    house.group("staff", "uid=boss,dc=test", **rule)
    assert now(house.directory.find_alias(ex("staff"))) == (ex("boss"),)
    del house.server.entries["cn=staff,dc=test"]
    house.group("staff,ou=new", "uid=boss,dc=test", **{**rule, "mail": "staff@example.test"})
    ask = getattr(house.directory, question)
    assert isinstance(now(ask(ex("staff"))), Unavailable)
    assert now(ask(ex("staff"))) is not None


def test_more_who_may_not_post_than_are_read_keep_the_list_waiting():
    house = House(attributes={"refused_poster": ["refused"]})
    refused = tuple(f"u{number}@example.test" for number in range(NAMES_LIMIT + 1))
    house.group("staff", house.user("boss"), refused=refused)
    assert isinstance(now(house.directory.find_posting_rule(ex("staff"))), Unavailable)


@pytest.mark.parametrize("quota", ["9" * 30, "9" * 5000, "99999999999999T"])
def test_a_quota_beyond_all_numbers_is_one_that_can_be_counted(quota):
    house = House(attributes={"quota": "mailQuota"})
    house.user("boss", mailQuota=quota)
    octets = now(house.directory.find_user(ex("boss"))).quota_octets
    assert octets is None or octets == MOST_OCTETS
