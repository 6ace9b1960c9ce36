"""Sessions end when their users may no longer have them, and only then."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.auth.session_rules import SessionRules
from mailsrv.auth.session_settings import SessionSettings
from mailsrv.auth.session_watch import SessionWatch
from mailsrv.auth.sessions import SessionRegistry
from mailsrv.auth.settings import AuthSettings
from mailsrv.directory.chain import DirectoryChain
from mailsrv.directory.memory import MemoryDirectory
from mailsrv.directory.review import review_users
from mailsrv.errors import MailError, Unavailable
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.interfaces.sessions import DirectoryProof, IUserSession, LastingProof, Login, SessionEnd
from mailsrv.store.bus import LocalChangeBus

ALICE, BOB = Address("alice", "example.test"), Address("bob", "example.test")
SETTINGS = SessionSettings(check_seconds=20, checks_per_second=1000, end_seconds=10)


@implementer(IUserSession)
class Told:
    """A session that only notes what it is told; ``leave`` as its protocol would."""

    service = "imap"
    connection_id = "imap-1"
    client_address = "192.0.2.1"

    def __init__(self) -> None:
        self.ends: list[SessionEnd] = []
        self.cuts = 0
        self.leave: Callable[[], None] = lambda: None

    def end_session(self, end: SessionEnd) -> None:
        self.ends.append(end)

    def abort(self) -> None:
        self.cuts += 1
        self.leave()


class Place:
    """A worker's registry and watch over a directory in memory."""

    def __init__(self, clock: Clock | None = None, bus: LocalChangeBus | None = None) -> None:
        self.clock = clock or Clock()
        self.directory = MemoryDirectory()
        self.directory.add_user(ALICE, "secret")
        self.directory.add_user(BOB, "secret")
        self.reviews: list[Sequence[Address]] = []
        self.registry = SessionRegistry(self.clock, end_seconds=SETTINGS.end_seconds)
        self.trouble: MailError | None = None
        self.rules = SessionRules(self.registry, AuthSettings(), (), find_groups=self._find_groups, clock=self.clock)
        self.asked_groups: list[Address] = []
        self.watch = SessionWatch(
            self.registry,
            self._review,
            SETTINGS,
            self.clock,
            LocalChangeBus() if bus is None else bus,
            is_administrator=self._is_administrator,
            rules=self.rules,
        )
        self.watch.start()

    def _review(self, addresses: Sequence[Address]) -> Deferred[Mapping[Address, DirectoryUser | None]]:
        self.reviews.append(addresses)
        return review_users(DirectoryChain([self.directory]), addresses)

    def _find_groups(self, user: DirectoryUser) -> Deferred[tuple[str, ...]]:
        self.asked_groups.append(user.address)
        return fail(self.trouble) if self.trouble is not None else succeed(self.user(user.address).groups)

    def _is_administrator(self, address: Address) -> Deferred[bool]:
        if self.trouble is not None:
            return fail(self.trouble)
        return succeed(self.user(address).is_administrator)

    def user(self, address: Address = ALICE) -> DirectoryUser:
        found: list[Any] = []
        self.directory.find_user(address).addCallback(found.append)
        (user,) = found
        assert isinstance(user, DirectoryUser)
        return user

    def log_in(self, address: Address = ALICE, **parts: Any) -> Told:
        told = Told()
        user = self.user(address)
        told.leave = self.registry.enter(told, Login(user, parts.pop("proof", None) or DirectoryProof(user), **parts))
        return told

    def change(self, address: Address = ALICE, **values: Any) -> None:
        self.directory._users[address] = evolve(self.user(address), **values)


@pytest.fixture
def place() -> Place:
    return Place()


def test_sessions_of_a_disabled_account_end_within_one_round(place: Place) -> None:
    alice, bob = place.log_in(), place.log_in(BOB)
    place.change(may_log_in=False)
    place.clock.advance(19)
    assert not alice.ends
    place.clock.advance(1.5)
    assert alice.ends == [SessionEnd.DISABLED]
    assert not bob.ends


def test_a_session_that_does_not_go_is_cut_off(place: Place) -> None:
    alice = place.log_in()
    place.change(may_log_in=False)
    place.clock.advance(20)
    assert alice.ends
    assert alice.cuts == 0
    place.clock.advance(10)
    assert alice.cuts == 1
    assert not place.registry.accounts()


def test_a_session_that_goes_by_itself_leaves_nothing_behind(place: Place) -> None:
    alice = place.log_in()
    place.change(may_log_in=False)
    place.clock.advance(20)
    alice.leave()
    alice.leave()
    place.clock.advance(100)
    assert alice.cuts == 0
    assert not place.clock.getDelayedCalls()
    assert len(place.registry) == 0


def test_a_demand_for_a_second_factor_ends_sessions_that_began_with_the_password(place: Place) -> None:
    by_password = place.log_in()
    by_certificate = place.log_in(proof=LastingProof(place.clock.seconds))
    by_ticket = place.log_in(proof=LastingProof(place.clock.seconds, is_second_factor=False))
    place.change(needs_second_factor=True)
    place.clock.advance(20)
    assert by_password.ends == by_ticket.ends == [SessionEnd.SECOND_FACTOR]
    assert not by_certificate.ends


def test_a_new_password_ends_sessions_of_the_old_one(place: Place) -> None:
    alice = place.log_in()
    place.directory.add_user(ALICE, "another")
    place.clock.advance(20)
    assert alice.ends == [SessionEnd.CHANGED]


def test_what_is_no_password_may_change(place: Place) -> None:
    alice = place.log_in()
    place.change(display_name="Alice", quota_octets=5, fingerprint=b"another")
    place.clock.advance(45)
    assert not alice.ends


def test_r_auth_2_without_a_secret_the_fingerprint_tells(place: Place) -> None:
    place.change(secret="", fingerprint=b"one")
    alice = place.log_in()
    place.clock.advance(20)
    assert not alice.ends
    place.change(secret="", fingerprint=b"two")
    place.clock.advance(20)
    assert alice.ends == [SessionEnd.CHANGED]


def test_who_is_gone_is_looked_for_twice(place: Place) -> None:
    alice = place.log_in()
    place.directory.remove_user(ALICE)
    place.clock.advance(20)
    assert not alice.ends
    place.clock.advance(20)
    assert alice.ends == [SessionEnd.GONE]


def test_who_is_back_stays(place: Place) -> None:
    alice = place.log_in()
    place.directory.remove_user(ALICE)
    place.clock.advance(20)
    place.directory.add_user(ALICE, "secret")
    for _ in range(5):
        place.clock.advance(20)
    assert not alice.ends


def test_r_auth_7_a_directory_that_is_down_ends_nothing(place: Place) -> None:
    alice = place.log_in()
    place.directory.is_down = True
    place.directory.remove_user(ALICE)
    for _ in range(10):
        place.clock.advance(20)
    assert not alice.ends
    assert len(place.reviews) == 10


def test_an_outage_makes_missing_begin_anew(place: Place) -> None:
    alice = place.log_in()
    place.directory.remove_user(ALICE)
    place.clock.advance(20)
    place.directory.is_down = True
    place.clock.advance(20)
    place.directory.is_down = False
    place.clock.advance(20)
    assert not alice.ends
    place.clock.advance(20)
    assert alice.ends == [SessionEnd.GONE]


def test_a_token_ends_with_its_time_and_not_with_the_password(place: Place) -> None:
    proof = LastingProof(place.clock.seconds, expires=50.0)
    alice = place.log_in(proof=proof)
    place.directory.add_user(ALICE, "another")
    place.clock.advance(20)
    place.clock.advance(20)
    assert not alice.ends
    place.clock.advance(20)
    assert alice.ends == [SessionEnd.EXPIRED]


def test_a_certificate_ends_with_the_account_alone(place: Place) -> None:
    alice = place.log_in(proof=LastingProof(place.clock.seconds))
    place.directory.add_user(ALICE, "another")
    place.clock.advance(20)
    assert not alice.ends
    place.change(may_log_in=False)
    place.clock.advance(20)
    assert alice.ends == [SessionEnd.DISABLED]


def test_what_goes_wrong_for_one_account_keeps_no_others_sessions(place: Place) -> None:
    class Broken:
        is_second_factor = False

        def objection(self, user: DirectoryUser) -> Deferred[SessionEnd | None]:
            raise RuntimeError("a bug")

    alice, bob = place.log_in(proof=Broken()), place.log_in(BOB)
    place.change(BOB, may_log_in=False)
    place.clock.advance(20)
    assert not alice.ends
    assert bob.ends == [SessionEnd.DISABLED]


def test_who_is_no_administrator_any_more_acts_for_nobody(place: Place) -> None:
    own = place.log_in(BOB)
    place.change(BOB, is_administrator=True)
    admin = place.user(BOB)
    acting = place.log_in(acting=admin, proof=LastingProof(place.clock.seconds))
    alice = place.log_in()
    place.clock.advance(20)
    place.change(BOB, is_administrator=False)
    place.trouble = Unavailable()
    place.clock.advance(20)
    assert not acting.ends
    place.trouble = None
    place.clock.advance(20)
    assert acting.ends == [SessionEnd.DEMOTED]
    assert not own.ends
    assert not alice.ends


def test_who_acts_for_another_loses_the_session_with_either(place: Place) -> None:
    place.change(BOB, is_administrator=True)
    admin = place.user(BOB)
    first = place.log_in(acting=admin, proof=DirectoryProof(admin))
    second = place.log_in(acting=admin, proof=DirectoryProof(admin))
    place.directory.add_user(ALICE, "another")
    place.clock.advance(20)
    assert not first.ends
    place.directory.add_user(BOB, "another")
    place.clock.advance(20)
    assert first.ends == [SessionEnd.CHANGED]
    second.leave()
    place.directory.add_user(BOB, "secret", is_administrator=True)
    third = place.log_in(acting=place.user(BOB))
    place.change(may_log_in=False)
    place.clock.advance(20)
    assert third.ends == [SessionEnd.DISABLED]


def test_a_hint_is_followed_at_once_and_in_all_workers() -> None:
    clock, bus = Clock(), LocalChangeBus()
    here, there = Place(clock, bus), Place(clock, bus)
    there.directory = here.directory
    alice, same, bob = here.log_in(), there.log_in(), there.log_in(BOB)
    here.change(may_log_in=False)
    here.watch.look_at(ALICE)
    here.watch.look_at(Address("stranger", "example.test"))
    clock.advance(0.2)
    assert alice.ends == same.ends == [SessionEnd.DISABLED]
    assert not bob.ends
    assert there.reviews == [(ALICE,)]


def test_one_worker_that_finds_out_tells_the_others() -> None:
    clock, bus = Clock(), LocalChangeBus()
    here = Place(clock, bus)
    here.log_in()
    clock.advance(10)
    there = Place(clock, bus)
    there.directory = here.directory
    same = there.log_in()
    here.change(may_log_in=False)
    clock.advance(10)
    clock.advance(0.2)
    assert same.ends == [SessionEnd.DISABLED]


def test_many_accounts_are_looked_at_in_batches_and_no_faster_than_allowed() -> None:
    place = Place()
    for number in range(250):
        address = Address(f"user{number}", "example.test")
        place.directory.add_user(address, "secret")
        place.log_in(address)
    place.watch.replace_settings(SessionSettings(check_seconds=20, checks_per_second=100))
    place.clock.advance(20)
    assert [len(each) for each in place.reviews] == [100]
    place.clock.advance(1)
    assert [len(each) for each in place.reviews] == [100, 100]
    place.clock.advance(1)
    assert [len(each) for each in place.reviews] == [100, 100, 50]


def test_nobody_logged_in_costs_nothing(place: Place) -> None:
    assert not place.clock.getDelayedCalls()
    place.clock.advance(1000)
    alice = place.log_in()
    place.clock.advance(20)
    assert place.reviews == [(ALICE,)]
    alice.leave()
    place.clock.advance(1000)
    assert len(place.reviews) <= 2


def test_a_session_that_cannot_be_told_is_cut(place: Place) -> None:
    class Broken(Told):
        def end_session(self, end: SessionEnd) -> None:
            raise RuntimeError("broken")

    broken = Broken()
    user = place.user()
    broken.leave = place.registry.enter(broken, Login(user, DirectoryProof(user)))
    place.registry.end_account(ALICE, SessionEnd.REVOKED)
    assert broken.cuts == 1


def test_a_chain_calls_gone_only_who_is_gone_everywhere() -> None:
    first, second = MemoryDirectory("first"), MemoryDirectory("second")
    second.add_user(ALICE, "secret")
    chain = DirectoryChain([first, second])
    told: list[Mapping[Address, DirectoryUser | None]] = []
    chain.review((ALICE, BOB)).addCallback(told.append)
    assert set(told[0]) == {ALICE, BOB}
    assert told[0][BOB] is None
    first.is_down = True
    chain.review((ALICE, BOB)).addCallback(told.append)
    assert told[1] == {}
    first.is_down, second.is_down = False, True
    first.add_user(BOB, "secret")
    chain.review((ALICE, BOB)).addCallback(told.append)
    assert set(told[2]) == {BOB}


def test_the_proof_is_asked_with_the_user_as_they_are_now(place: Place) -> None:
    seen: list[str] = []

    class Proof:
        def objection(self, user: DirectoryUser) -> Deferred[SessionEnd | None]:
            seen.append(user.display_name)
            return succeed(SessionEnd.REVOKED)

    alice = place.log_in(proof=Proof())
    place.change(display_name="Alice")
    place.clock.advance(20)
    assert seen == ["Alice"]
    assert alice.ends == [SessionEnd.REVOKED]
