"""Logging in by app passwords, and by nothing less where a second factor is demanded."""

from __future__ import annotations

import os
from typing import Any

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from mailsrv.address import Address
from mailsrv.auth.app_passwords.database import AppPasswordDatabase, Fresh
from mailsrv.auth.app_passwords.form import make_secret
from mailsrv.auth.app_passwords.judge import AppPasswordJudge, AppPasswordProof
from mailsrv.auth.app_passwords.record import Scope
from mailsrv.auth.checker import PasswordChecker
from mailsrv.auth.login_cache import LoginCache
from mailsrv.auth.settings import AuthSettings, ImpersonationSettings, SecondFactor
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.directory.memory import MemoryDirectory
from mailsrv.errors import Unavailable
from mailsrv.interfaces.account import InvalidCredentials, PasswordCredentials
from mailsrv.interfaces.sessions import IProof, Login, SessionEnd

ALICE, BOB, CAROL = (Address(name, "example.test") for name in ("alice", "bob", "carol"))
CLIENT = "192.0.2.1"
EVERYTHING = frozenset(Scope)


class WatchedDirectory(MemoryDirectory):
    """Remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[tuple[Address | None, str]] = []

    def check_password(self, user: Any, password: str) -> Deferred[bool]:
        self.shown.append((None if user is None else user.address, password))
        return super().check_password(user, password)


class Threads:
    """Run at once, or when told to."""

    def __init__(self) -> None:
        self.hold = False
        self.held: list[Any] = []

    def __call__(self, function: Any, /) -> Deferred[Any]:
        if not self.hold:
            return maybeDeferred(function)
        answer: Deferred[Any] = Deferred()
        self.held.append(lambda: maybeDeferred(function).chainDeferred(answer))
        return answer

    def go(self) -> None:
        self.hold = False
        held, self.held = self.held, []
        for run in held:
            run()


class Case:
    def __init__(self, folder: Any, **changes: Any) -> None:
        self.clock = Clock()
        self.directory = WatchedDirectory()
        for address in (ALICE, BOB):
            self.directory.add_user(address, "sesame")
        self.path = os.path.join(folder, "app-passwords.db")
        self.database = AppPasswordDatabase(self.path)
        self.threads = Threads()
        self.settings = AuthSettings(default_domain="example.test", **changes)
        self.judge = AppPasswordJudge(
            AppPasswordDatabase(self.path), self.settings, run_in_thread=self.threads, seconds=self.clock.seconds
        )
        self.checker = PasswordChecker(
            self.directory,
            self.settings,
            clock=self.clock,
            throttle=LoginThrottle(self.settings, clock=self.clock),
            cache=LoginCache(clock=self.clock, seconds=60, entries=100),
            app_passwords=self.judge,
        )

    def add(self, account: Address = ALICE, name: str = "phone", **values: Any) -> Fresh:
        values = {"scopes": EVERYTHING, "expires_at": None, "now": self.clock.seconds(), "limit": 20, **values}
        return self.database.add(str(account), name, **values)

    def begin(self, password: str, name: str = "alice", **changes: Any) -> list[Any]:
        values = {"client_address": CLIENT, "service": "imap", **changes}
        answers: list[Any] = []
        self.checker.requestAvatarId(PasswordCredentials(name, password, **values)).addBoth(answers.append)
        return answers

    def log_in(self, password: str, name: str = "alice", **changes: Any) -> Any:
        """The address, or the error; waits out the delay."""
        answers = self.begin(password, name, **changes)
        if not answers:
            self.clock.advance(15)
        answer = getattr(answers[0], "value", answers[0])
        return answer.user.address if isinstance(answer, Login) else getattr(answer, "address", answer)

    def is_refused(self, password: str, name: str = "alice", **changes: Any) -> bool:
        return isinstance(self.log_in(password, name, **changes), InvalidCredentials)


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


@pytest.mark.parametrize("service", ["imap", "pop3", "submission"])
def test_it_lets_in_beside_the_directorys_password(case, service):
    secret = case.add().secret
    assert case.log_in(secret, service=service) == ALICE
    assert case.log_in(secret.upper().replace("-", " "), "ALICE@example.test", service=service) == ALICE
    assert case.log_in("sesame", service=service) == ALICE
    assert case.directory.shown == [(ALICE, "sesame")]


@pytest.mark.parametrize("scope", Scope)
def test_it_is_good_for_its_scope_alone(case, scope):
    secret = case.add(scopes=frozenset({scope})).secret
    services = {"imap": Scope.IMAP, "pop3": Scope.POP3, "submission": Scope.SMTP, "sieve": None}
    for service, wanted in services.items():
        assert case.is_refused(secret, service=service) is (wanted is not scope)


def test_it_ends_when_it_expires(case):
    secret = case.add(expires_at=1000.0).secret
    case.clock.advance(999)
    assert case.log_in(secret) == ALICE
    case.clock.advance(1)
    assert case.is_refused(secret)


def test_it_is_never_shown_to_the_directory(case):
    right, revoked = case.add().secret, case.add(name="tablet").secret
    case.database.revoke(str(ALICE), "tablet")
    case.directory.add_user(CAROL, "sesame", may_log_in=False)
    mistyped = right[:-1] + ("a" if right[-1] != "a" else "b")
    for password in (right, revoked, make_secret(), mistyped, mistyped.upper(), right[:-1], right + "x"):
        for name in ("alice", "bob", "carol", "nobody", "*()\\"):
            is_right = password == right and name == "alice"
            assert case.is_refused(password, name) is not is_right
    assert case.directory.shown == []


def test_without_a_file_what_looks_like_one_is_wrong_all_the_same(case):
    assert case.is_refused(make_secret())
    checker = PasswordChecker(
        case.directory,
        case.settings,
        clock=case.clock,
        throttle=LoginThrottle(case.settings, clock=case.clock),
        cache=LoginCache(clock=case.clock, seconds=60, entries=100),
    )
    case.checker = checker
    assert case.is_refused(make_secret())
    assert case.directory.shown == []


def test_r_auth_2_a_revoked_one_stops_at_once(case):
    secret = case.add().secret
    for _ in range(3):
        assert case.log_in(secret) == ALICE
    case.database.revoke(str(ALICE))
    assert case.is_refused(secret)


def test_r_auth_6_all_failures_are_alike(case):
    case.directory.add_user(CAROL, "sesame", may_log_in=False)
    of_carol = case.add(CAROL).secret
    case.add()
    texts, delays = set(), set()
    attempts = [("alice", "wrong"), ("alice", make_secret()), ("nobody", make_secret()), ("carol", of_carol)]
    for number, (name, password) in enumerate(attempts):
        started = case.clock.seconds()
        answers = case.begin(password, name, client_address=f"192.0.2.{number}")
        while not answers:
            case.clock.advance(0.5)
        delays.add(case.clock.seconds() - started)
        texts.add((answers[0].value.text, answers[0].value.status))
        case.clock.advance(10_000)
    assert len(texts) == 1
    assert delays == {2}


def test_failures_count_as_those_of_passwords(case):
    secret = case.add().secret
    for _ in range(10):
        assert case.is_refused(make_secret())
    assert case.is_refused(secret)
    assert case.log_in(secret, client_address="198.51.100.1") == ALICE


def test_what_holds_for_the_account_holds_here(case):
    secret = case.add(CAROL).secret
    assert case.is_refused(secret, "carol")
    case.directory.add_user(CAROL, "x", networks=("198.51.100.0/24",))
    assert case.is_refused(secret, "carol")
    assert case.log_in(secret, "carol", client_address="198.51.100.7") == CAROL
    case.directory.add_user(CAROL, "x", may_log_in=False)
    assert case.is_refused(secret, "carol", client_address="198.51.100.7")
    case.directory.remove_user(CAROL)
    assert case.is_refused(secret, "carol", client_address="198.51.100.7")


def test_r_auth_7_a_directory_that_is_down_is_no_failed_log_in(case):
    secret = case.add().secret
    case.directory.is_down = True
    for _ in range(30):
        assert isinstance(case.log_in(secret), Unavailable)
    case.directory.is_down = False
    assert case.log_in(secret) == ALICE


def test_r_auth_7_a_file_that_cannot_be_read_is_no_failed_log_in(case):
    with open(case.path, "wb") as file:
        file.write(b"nonsense" * 100)
    secret = make_secret()
    for _ in range(30):
        assert isinstance(case.log_in(secret), Unavailable)
    assert case.log_in("sesame") == ALICE
    os.unlink(case.path)
    assert case.log_in(case.add().secret) == ALICE


def test_nobody_acts_for_others_by_one(tmp_path):
    case = Case(tmp_path, impersonation=ImpersonationSettings(enabled=True))
    case.directory.add_user(CAROL, "sesame", is_administrator=True)
    secret = case.add(CAROL).secret
    assert case.log_in("sesame", "alice*carol") == ALICE
    assert case.log_in(secret, "carol") == CAROL
    assert case.is_refused(secret, "alice*carol")
    assert case.is_refused(secret, "carol", authzid="alice")


def test_the_last_use_is_written_once_a_minute(case):
    fresh = case.add()

    def used() -> Any:
        (row,) = case.database.list()
        return row.used_at, row.used_service, row.used_network

    case.clock.advance(100)
    case.log_in(fresh.secret)
    assert used() == (100, "imap", CLIENT)
    case.clock.advance(59)
    case.log_in(fresh.secret, service="pop3", client_address="")
    assert used() == (100, "imap", CLIENT)
    case.clock.advance(1)
    case.log_in(fresh.secret, service="pop3", client_address="")
    assert used() == (160, "pop3", "local")
    case.clock.advance(100)
    case.log_in(fresh.secret, service="submission", client_address="2001:db8::1")
    assert used() == (260, "submission", "2001:db8::/64")
    assert case.is_refused(make_secret())
    assert used()[0] == 260


def test_log_ins_at_once_are_one_use(case, monkeypatch):
    secret = case.add().secret
    noted: list[Any] = []
    write = AppPasswordDatabase.note_use

    def note(self: AppPasswordDatabase, *values: Any) -> None:
        noted.append(values)
        write(self, *values)

    monkeypatch.setattr(AppPasswordDatabase, "note_use", note)
    case.threads.hold = True
    waiting = [case.begin(secret) for _ in range(5)]
    searches, case.threads.held = case.threads.held, []
    for search in searches:
        search()
    assert all(len(answers) == 1 for answers in waiting)
    case.threads.go()
    assert len(noted) == 1
    case.clock.advance(60)
    assert case.log_in(secret) == ALICE
    assert len(noted) == 2


def test_a_use_that_cannot_be_written_lets_in_all_the_same(case, monkeypatch):
    secret = case.add().secret

    def full(_self: object, *_arguments: object) -> None:
        raise Unavailable(cause="no room")

    monkeypatch.setattr(AppPasswordDatabase, "note_use", full)
    assert case.log_in(secret) == ALICE


def test_r_lim_2_so_many_wait_for_the_file(tmp_path):
    case = Case(tmp_path, app_password_queue=3)
    secret = case.add().secret
    case.threads.hold = True
    waiting = [case.begin(secret) for _ in range(3)]
    assert waiting == [[], [], []]
    assert isinstance(case.log_in(secret), Unavailable)
    assert case.judge.refused == 1
    assert case.log_in("sesame") == ALICE
    case.threads.go()
    assert [answers[0].user.address for answers in waiting] == [ALICE] * 3
    assert case.log_in(secret) == ALICE


def test_a_session_ends_with_its_app_password(case):
    fresh = case.add(expires_at=5000.0)
    (login,) = case.begin(fresh.secret)
    proof = login.proof
    verifyObject(IProof, proof)
    assert isinstance(proof, AppPasswordProof)
    ends: list[Any] = []

    def end() -> Any:
        proof.objection(login.user).addBoth(ends.append)
        return ends.pop()

    assert end() is None
    case.clock.advance(5000)
    assert end() is SessionEnd.REVOKED
    case.clock.advance(-1)
    assert end() is None
    case.database.revoke(str(ALICE))
    assert end() is SessionEnd.REVOKED
    with open(case.path, "r+b") as file:
        file.write(b"nonsense" * 100)
    case.judge._database.close()
    # What cannot be found out ends nothing.
    assert end() is None


def test_a_session_does_not_live_on_by_another_app_password_of_the_same_number(case, tmp_path):
    (login,) = case.begin(case.add().secret)
    backup = AppPasswordDatabase(str(tmp_path / "backup.db"))
    number = backup.add(str(BOB), "phone", EVERYTHING, now=0.0, expires_at=None, limit=20).password.id
    for one in (backup, case.database, case.judge._database):
        one.close()
    os.rename(tmp_path / "backup.db", case.path)
    assert login.proof.password.id == number
    ends: list[Any] = []
    login.proof.objection(login.user).addBoth(ends.append)
    assert ends == [SessionEnd.REVOKED]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from([ALICE, BOB]), st.frozensets(st.sampled_from(Scope), min_size=1), st.integers(1, 100)
        ),
        max_size=5,
    ),
    st.integers(0, 100),
)
def test_r_auth_2_it_opens_what_it_is_for_and_nothing_else(tmp_path_factory, given_out, now):
    case = Case(tmp_path_factory.mktemp("case"), failure_delay_seconds=0.0, failures_per_user=1000)
    secrets = [
        (owner, scopes, ends, case.add(owner, str(number), scopes=scopes, expires_at=float(ends)).secret)
        for number, (owner, scopes, ends) in enumerate(given_out)
    ]
    case.clock.advance(now)
    for owner, scopes, ends, secret in secrets:
        for user in (ALICE, BOB):
            for service, scope in (("imap", Scope.IMAP), ("pop3", Scope.POP3), ("submission", Scope.SMTP)):
                found = case.begin(secret, str(user), service=service)[0]
                is_good = user == owner and scope in scopes and now < ends
                assert isinstance(found, Login) is is_good
                assert not is_good or found.user.address == owner
    case.database.close()
    case.judge._database.close()


# Second factor


def demanding(folder: Any, **changes: Any) -> Case:
    case = Case(folder, second_factor_groups=("Strict",), **changes)
    case.directory.add_user(ALICE, "sesame", needs_second_factor=True)
    case.directory.add_user(CAROL, "sesame", groups=("other", "strict"))
    return case


def test_the_directorys_password_is_not_enough(tmp_path):
    case = demanding(tmp_path)
    for name in ("alice", "carol"):
        assert case.is_refused("sesame", name)
        assert case.is_refused("sesame", name, authzid=name)
    assert case.log_in(case.add().secret) == ALICE
    assert case.log_in(case.add(CAROL).secret, "carol") == CAROL
    assert case.log_in("sesame", "bob") == BOB
    # The work was done, with nobody's name: the directory has nothing to count against the user.
    assert case.directory.shown == [(None, "sesame")] * 4 + [(BOB, "sesame")]


def test_r_auth_4_r_auth_6_the_right_password_is_refused_as_a_wrong_one_is(tmp_path):
    case = demanding(tmp_path)
    answers = set()
    for number, (name, password) in enumerate(
        [("alice", "sesame"), ("alice", "wrong"), ("bob", "wrong"), ("nobody", "sesame")]
    ):
        started, shown = case.clock.seconds(), len(case.directory.shown)
        waiting = case.begin(password, name, client_address=f"192.0.2.{number}")
        while not waiting:
            case.clock.advance(0.5)
        error = waiting[0].value
        answers.add((error.text, error.status, case.clock.seconds() - started, len(case.directory.shown) - shown))
        case.clock.advance(10_000)
    assert len(answers) == 1


def test_a_demand_holds_at_once_also_for_passwords_that_were_right_a_moment_ago(case):
    assert case.log_in("sesame") == ALICE
    user = case.directory._users[ALICE]
    case.directory._users[ALICE] = evolve(user, needs_second_factor=True)
    assert case.is_refused("sesame")


def test_of_all(tmp_path):
    case = demanding(tmp_path, second_factor=SecondFactor.ALL)
    assert case.is_refused("sesame", "bob")
    assert case.log_in(case.add(BOB).secret, "bob") == BOB
