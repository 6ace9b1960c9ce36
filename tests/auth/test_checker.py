"""Who gets in, what it costs, and what the others hear."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnhandledCredentials
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailsrv.address import Address
from mailsrv.auth.realm import MailRealm, make_checker, make_portal
from mailsrv.auth.settings import AuthSettings
from mailsrv.directory.memory import MemoryDirectory
from mailsrv.errors import Unavailable
from mailsrv.interfaces.account import IAccount, InvalidCredentials, ISharedWith, PasswordCredentials
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.interfaces.mailbox import IMailStore

ALICE = Address("alice", "example.test")
BOB = Address("bob", "example.test")
CLIENT = "192.0.2.1"


class SlowDirectory(MemoryDirectory):
    """Checks passwords when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[tuple[Deferred[bool], bool]] = []
        self.is_slow = False

    def check_password(self, user: Any, password: str) -> Deferred[bool]:
        answer = super().check_password(user, password)
        if not self.is_slow:
            return answer
        waiting: Deferred[bool] = Deferred()
        self.pending.append((waiting, bool(answer.result)))
        return waiting

    def finish(self) -> None:
        pending, self.pending = self.pending, []
        for waiting, result in pending:
            waiting.callback(result)


class Case:
    def __init__(self, exempt: tuple[str, ...] = (), **changes: Any) -> None:
        self.clock = Clock()
        self.directory = SlowDirectory()
        self.directory.add_user(ALICE, "sesame")
        self.directory.add_user(BOB, "mellon", may_log_in=False)
        self.directory.add_user(Address("carol", "example.test"), "sesame", networks=("198.51.100.0/24", "local"))
        self.checker = make_checker(
            self.directory,
            AuthSettings(default_domain="example.test", **changes),
            clock=self.clock,
            exempt_networks=exempt,
        )

    def begin(self, name: str = "alice", password: str = "sesame", **changes: Any) -> list[Any]:
        values = {"client_address": CLIENT, "service": "imap", **changes}
        answers: list[Any] = []
        self.deferred = self.checker.requestAvatarId(PasswordCredentials(name, password, **values))
        self.deferred.addBoth(answers.append)
        return answers

    def log_in(self, name: str = "alice", password: str = "sesame", **changes: Any) -> Any:
        """The user, or the error; waits out the delay."""
        answers = self.begin(name, password, **changes)
        self.clock.advance(15)
        return getattr(answers[0], "value", answers[0])


@pytest.fixture
def case() -> Case:
    return Case()


@pytest.mark.parametrize("name", ["alice", "ALICE", "alice@example.test", "Alice@EXAMPLE.test", "ａlice"])
def test_the_right_password_lets_in_at_once(case, name):
    (user,) = case.begin(name)
    assert user.address == ALICE


def test_r_auth_6_all_failures_are_alike(case):
    texts, delays, costs = set(), set(), set()
    for number, (name, password) in enumerate(
        [("alice", "wrong"), ("nobody", "wrong"), ("bob", "mellon"), ("carol", "sesame"), ("*()\\", "x"), ("a\0", "x")]
    ):
        before = case.directory.checks
        started = case.clock.seconds()
        answers = case.begin(name, password, client_address=f"192.0.2.{number}")
        while not answers:
            case.clock.advance(0.5)
        delays.add(case.clock.seconds() - started)
        assert isinstance(answers[0].value, InvalidCredentials)
        texts.add((answers[0].value.text, answers[0].value.status))
        costs.add(case.directory.checks - before)
    assert len(texts) == 1
    assert delays == {2}
    assert costs == {1}


def test_r_auth_6_the_time_of_the_hash_is_within_the_delay(case):
    case.directory.is_slow = True
    answers = case.begin(password="wrong")
    case.clock.advance(1.5)
    case.directory.finish()
    assert answers == []
    case.clock.advance(0.5)
    assert isinstance(answers[0].value, InvalidCredentials)


@pytest.mark.parametrize("password", ["", "\0", "sesame\0", "x" * 4097, "\ud800"])
def test_r_auth_1_impossible_passwords_never_reach_the_directory(case, password):
    assert isinstance(case.log_in(password=password), InvalidCredentials)
    assert isinstance(case.log_in("nobody", password), InvalidCredentials)
    assert case.directory.checks == 0


def test_the_longest_password_is_looked_at(case):
    case.log_in(password="x" * 4096)
    assert case.directory.checks == 1


@pytest.mark.parametrize(
    "name",
    [
        *("", "*", "*()\\", "*)(uid=*", "alice\0", "\0", "ali\u200bce", "аlice", "alice@", "@example.test", "alice\n"),
        *("\ud800", "alice@example.test@example.test", "x" * 10_000, "alice ", "../alice"),
    ],
)
def test_r_inj_3_nasty_names_are_nobody(case, name):
    assert isinstance(case.log_in(name), InvalidCredentials)
    assert case.directory.checks == 1


def test_acting_for_oneself_is_acting_for_nobody_else(case):
    for authzid in ("", "alice", "ALICE@example.test"):
        assert case.log_in(authzid=authzid).address == ALICE
    for authzid in ("bob", "root", "\0", "alice@elsewhere.test", "*"):
        assert isinstance(case.log_in(authzid=authzid), InvalidCredentials)


def test_networks_of_a_user_are_kept(case):
    assert isinstance(case.log_in("carol"), InvalidCredentials)
    assert case.log_in("carol", client_address="198.51.100.77").display_name == ""
    assert case.log_in("carol", client_address="").display_name == ""


def test_r_auth_7_a_directory_that_is_down_is_no_failed_log_in(case):
    case.directory.is_down = True
    for _ in range(30):
        (failure,) = case.begin(password="wrong")
        assert failure.check(Unavailable)
    case.directory.is_down = False
    assert case.log_in().address == ALICE
    assert case.log_in(password="wrong").text == "Authentication failed"


def test_r_auth_2_a_verified_log_in_costs_no_second_hash(case):
    for _ in range(5):
        assert case.log_in().address == ALICE
    assert case.directory.checks == 2  # log_in moves the clock by 15 s: the fifth is past 60 s
    case.begin(service="pop3")
    assert case.directory.checks == 3
    case.begin(password="wrong")
    assert case.directory.checks == 4


def test_r_auth_2_the_cache_does_not_outlive_the_entry(case):
    case.begin()
    case.directory.add_user(ALICE, "changed")
    assert isinstance(case.log_in(), InvalidCredentials)
    case.directory.add_user(ALICE, "sesame")
    case.begin()
    case.directory.add_user(ALICE, "sesame", may_log_in=False)
    assert isinstance(case.log_in(), InvalidCredentials)
    case.directory.remove_user(ALICE)
    assert isinstance(case.log_in(), InvalidCredentials)


def test_r_auth_2_users_with_the_same_password_are_not_mixed_up(case):
    case.directory.add_user(BOB, "sesame")
    assert case.begin()[0].address == ALICE
    assert case.begin("bob")[0].address == BOB
    assert case.directory.checks == 2


def test_past_the_limit_even_the_right_password_fails_in_the_same_way(case):
    for number in range(10):
        case.log_in(password=str(number))
    before = case.directory.checks
    refused = case.log_in()
    assert isinstance(refused, InvalidCredentials)
    assert refused.text == "Authentication failed"
    assert case.directory.checks == before
    # No wait for an answer is ever shorter for the one or the other.
    answers = case.begin()
    case.clock.advance(1.9)
    assert answers == []
    case.clock.advance(15)
    # From elsewhere Alice gets in.
    assert case.log_in(client_address="198.51.100.1").address == ALICE


def test_guesses_at_once_are_cut_at_the_limit(case):
    case.directory.is_slow = True
    answers = [case.begin(password=f"guess{number}") for number in range(100)]
    assert len(case.directory.pending) == 10
    case.directory.finish()
    case.clock.advance(15)
    assert all(isinstance(answer[0].value, InvalidCredentials) for answer in answers)


def test_a_cancelled_check_is_no_failure(case):
    case.directory.is_slow = True
    for number in range(30):
        answers = case.begin(password=f"guess{number}")
        case.deferred.cancel()
        assert answers[0].check(CancelledError)
    case.directory.is_slow = False
    assert case.log_in().address == ALICE


def test_a_cancelled_delay_is_a_failure_all_the_same(case):
    for number in range(10):
        case.begin(password=f"guess{number}")
        case.deferred.cancel()
    assert isinstance(case.log_in(), InvalidCredentials)
    assert case.clock.getDelayedCalls() == []


def test_exempt_networks_hear_at_once():
    case = Case(exempt=("192.0.2.0/24",))
    for number in range(100):
        (failure,) = case.begin(password=str(number))
        assert failure.check(InvalidCredentials)
    assert case.begin()[0].address == ALICE


def test_an_error_of_the_directory_is_passed_on_and_counts_for_nothing(case, monkeypatch):
    def broken(address: Address) -> Any:
        raise RuntimeError("bug")

    for _ in range(20):
        with monkeypatch.context() as patch:
            patch.setattr(case.directory, "find_user", broken)
            assert isinstance(case.begin()[0].value, RuntimeError)
    assert case.begin()[0].address == ALICE


def test_other_credentials_are_not_for_this_checker(case):
    failures: list[Any] = []
    case.checker.requestAvatarId(UsernamePassword(b"alice", b"sesame")).addErrback(failures.append)
    assert failures[0].check(UnhandledCredentials)


def test_passwords_are_not_shown():
    credentials = PasswordCredentials("alice", "sesame", CLIENT, "imap")
    assert "sesame" not in repr(credentials)


@implementer(IMailStore)
class NotedStore:
    def __init__(self) -> None:
        self.opened: list[Any] = []

    def open_account(self, account: Address, quota_octets: int | None = None) -> Any:
        self.opened.append((account, quota_octets))
        return Deferred()

    def has_quota(self, account: Address) -> bool:
        return False

    def reserve_quota(self, account: Address, octets: int, limit_octets: int | None) -> Any:
        raise NotImplementedError


class PortalTests(SynchronousTestCase):
    def setUp(self):
        self.directory = MemoryDirectory()
        self.directory.add_user(ALICE, "sesame", display_name="Alice", quota_octets=5)
        self.store = NotedStore()
        self.asked: list[Any] = []

        def may_send_as(account: Address, address: Address) -> Any:
            self.asked.append((account, address))
            return Deferred()

        self.portal: Any = make_portal(
            self.directory, AuthSettings(), store=self.store, may_send_as=may_send_as, clock=Clock()
        )

    def test_only_who_asks_for_them_gets_mailboxes_of_others(self):
        """POP3 and submission do not."""
        user = DirectoryUser(ALICE, quota_octets=5)
        asked: list[DirectoryUser] = []

        def open_with_shared(user: DirectoryUser) -> Any:
            asked.append(user)
            return Deferred()

        _, account, _ = MailRealm(self.store, None, open_with_shared=open_with_shared).requestAvatar(  # type: ignore[arg-type]
            user, None, IAccount
        )
        verifyObject(ISharedWith, account)
        account.open_mailboxes()
        assert (asked, self.store.opened) == ([], [(ALICE, 5)])
        account.open_with_shared()
        assert asked == [user]
        _, plain, _ = MailRealm(self.store, None).requestAvatar(user, None, IAccount)  # type: ignore[arg-type]
        plain.open_with_shared()
        assert self.store.opened == [(ALICE, 5)] * 2

    def test_the_avatar_is_the_account(self):
        credentials = PasswordCredentials("alice@example.test", "sesame", CLIENT, "imap")
        interface, account, logout = self.successResultOf(self.portal.login(credentials, None, IAccount))
        assert interface is IAccount
        verifyObject(IAccount, account)
        assert (account.address, account.display_name) == (ALICE, "Alice")
        account.open_mailboxes()
        assert self.store.opened == [(ALICE, 5)]
        account.may_send_as(BOB)
        assert self.asked == [(ALICE, BOB)]
        logout()

    def test_only_accounts_are_to_be_had(self):
        credentials = PasswordCredentials("alice@example.test", "sesame", CLIENT, "imap")
        self.failureResultOf(self.portal.login(credentials, None, IMailStore), NotImplementedError)


def test_settings_refuse_what_is_no_network():
    with pytest.raises(ValueError, match="expected networks"):
        AuthSettings(plaintext_networks=("office",))
