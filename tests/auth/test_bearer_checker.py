"""Log-ins by tokens: whose session it becomes, for how long, and what guessing at an issuer costs."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.auth.bearer_checker import BearerChecker
from mailsrv.auth.rules import LoginRules
from mailsrv.auth.settings import AuthSettings, ImpersonationSettings
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.directory.memory import MemoryDirectory
from mailsrv.errors import Unavailable
from mailsrv.interfaces.account import InvalidCredentials, SaslCredentials
from mailsrv.interfaces.directory import DirectoryUser, ILoginDirectory
from mailsrv.interfaces.sessions import Login, SessionEnd
from mailsrv.sasl import Conversation
from tests.auth.token_issuer import INTROSPECTION_URI, NOW, JudgeCase, asking_settings, claims, mint

ALICE = Address("alice", "example.test")


@implementer(ILoginDirectory)
class NamedDirectory(MemoryDirectory):
    """alice logs in by another name, too."""

    def find_login(self, address: Address) -> Deferred[DirectoryUser | None]:
        return self.find_user(ALICE if address.local_part == "a.smith" else address)


class Case(JudgeCase):
    def __init__(self, auth: dict[str, Any] | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        directory = NamedDirectory()
        for name in ("alice", "bob", "admin"):
            directory.add_user(Address(name, "example.test"), "sesame", is_administrator=name == "admin")
        given = AuthSettings(default_domain="example.test", **(auth or {}))
        self.throttle = LoginThrottle(given, clock=self.clock)
        self.checker = BearerChecker(
            directory,
            LoginRules(given, self.clock),
            self.judge,
            clock=self.clock,
            throttle=self.throttle,
            seconds=self.clock.seconds,
        )

    def log_in(self, token: str, name: str = "", address: str = "192.0.2.1") -> Any:
        """The Login, or the exception."""
        conversation = Conversation(lambda _challenge: None)
        first = f"n,{f'a={name}' if name else ''},\1auth=Bearer {token}\1\1".encode()
        credentials = SaslCredentials("OAUTHBEARER", first, conversation.converse, address, "imap")
        answers: list[Any] = []
        Deferred.fromCoroutine(self.checker(credentials)).addBoth(answers.append)
        if not answers:
            conversation.respond(b"\1")
            self.clock.advance(20)
        return getattr(answers[0], "value", answers[0])

    def end(self, login: Login) -> SessionEnd | None:
        answers: list[Any] = []
        login.proof.objection(login.user).addCallback(answers.append)
        end: SessionEnd | None = answers[0]
        return end


def test_a_session_ends_with_its_token():
    case = Case(clock_skew_seconds=10.0)
    login = case.log_in(mint(exp=NOW + 300))
    assert login.user.address == ALICE
    case.clock.advance(309)
    assert case.end(login) is None
    case.clock.advance(1)
    assert case.end(login) is SessionEnd.EXPIRED


def test_a_session_may_outlast_its_token():
    case = Case(end_sessions=False)
    login = case.log_in(mint())
    case.clock.advance(1e6)
    assert case.end(login) is None


def test_a_session_by_a_question_ends_as_the_answer_says():
    case = Case(**asking_settings())
    case.web.told["good"] = {"active": True, **claims(exp=NOW + 50)}
    login = case.log_in("good")
    case.clock.advance(110)
    assert case.end(login) is SessionEnd.EXPIRED


@pytest.mark.parametrize("name", ["", "alice", "alice@example.test", "ALICE@Example.Test", "a.smith@example.test"])
def test_any_name_of_the_users_own(name):
    assert Case().log_in(mint(), name).user.address == ALICE


@pytest.mark.parametrize("name", ["bob", "bob@example.test", "a.smith@other.test@x", "nobody", "alice*admin", "*"])
def test_a_name_of_somebody_else(name):
    assert isinstance(Case().log_in(mint(), name), InvalidCredentials)


IMPERSONATION = {"impersonation": ImpersonationSettings(enabled=True)}


def test_an_administrator_may_act_for_others_by_a_token_of_their_own():
    login = Case(IMPERSONATION).log_in(mint(email="admin@example.test"), "alice")
    assert login.user.address == ALICE
    assert login.acting.address.local_part == "admin"
    assert isinstance(Case().log_in(mint(email="admin@example.test"), "alice"), InvalidCredentials)


@pytest.mark.parametrize(
    "account", ["alice*admin@example.test", "alice*admin", "alice@example.test*admin@example.test"]
)
def test_r_auth_5_whoever_is_called_so_at_an_issuer_acts_for_nobody(account):
    case = Case(IMPERSONATION)
    assert isinstance(case.log_in(mint(email=account)), InvalidCredentials)
    assert isinstance(case.log_in(mint(email=account), "alice"), InvalidCredentials)


@pytest.mark.parametrize(
    "account", ["", "@", "a b@example.test", "alice\0@example.test", "*)(uid=*", "x" * 1025, "ü@@"]
)
def test_r_inj_3_accounts_that_are_none(account):
    assert isinstance(Case().log_in(mint(email=account)), InvalidCredentials)


def test_r_auth_7_an_issuer_that_is_down_counts_as_no_failure():
    case = Case(**asking_settings())
    case.web.failure = OSError()
    for number in range(30):
        assert isinstance(case.log_in(f"token{number}", "alice"), Unavailable)
    case.web.failure = None
    case.clock.advance(20)
    case.web.told["good"] = {"active": True, **claims(exp=NOW + 9000)}
    assert isinstance(case.log_in("good", "alice"), Login)


def test_r_auth_6_who_makes_tokens_up_does_not_keep_the_issuer_busy():
    case = Case({"failures_per_user": 5}, **asking_settings())
    for number in range(40):
        assert isinstance(case.log_in(f"token{number}", "alice"), InvalidCredentials)
    assert case.web.count(INTROSPECTION_URI) < 12
    # Others, and the user from elsewhere, are let alone.
    case.web.told["good"] = {"active": True, **claims(exp=NOW + 9000)}
    assert isinstance(case.log_in("good", "alice", "198.51.100.1"), Login)


def test_r_nat_1_old_tokens_of_an_office_keep_nobody_out():
    case = Case({"failures_per_user": 5, "failures_per_network": 30}, **asking_settings())
    for number in range(20):
        assert isinstance(case.log_in(f"old{number}"), InvalidCredentials)
    case.web.told["good"] = {"active": True, **claims(exp=NOW + 9000)}
    assert isinstance(case.log_in("good"), Login)
    # And one who makes up many gets no further than with passwords.
    before = case.web.count(INTROSPECTION_URI)
    for number in range(60):
        case.log_in(f"made-up{number}", address="198.51.100.1")
    assert case.web.count(INTROSPECTION_URI) - before < 40


def test_r_auth_6_a_jwt_that_is_good_is_not_refused_for_others_that_were_not():
    case = Case({"failures_per_user": 5})
    for number in range(40):
        case.log_in(f"token{number}", "alice")
    assert isinstance(case.log_in(mint(exp=NOW + 9000), "alice"), Login)
