"""Administrators who log in as somebody else: who may, how they ask for it, and what is logged and counted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from mailsrv.address import Address
from mailsrv.auth.access import AccessRules
from mailsrv.auth.access_settings import AccessAction, AccessSettings, LoginService
from mailsrv.auth.checker import PasswordChecker
from mailsrv.auth.impersonation import Claim, read_claim, read_proven_claim
from mailsrv.auth.login_cache import LoginCache
from mailsrv.auth.realm import MailRealm
from mailsrv.auth.settings import AuthSettings, ImpersonationSettings
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.directory.memory import MemoryDirectory
from mailsrv.interfaces.account import IAccount, InvalidCredentials, PasswordCredentials, who
from mailsrv.interfaces.sessions import Login

ADMIN, ALICE, BOB, CHIEF, GONE = (Address(name, "example.test") for name in ("admin", "alice", "bob", "chief", "gone"))
ON = ImpersonationSettings(enabled=True)


class Case:
    def __init__(self, impersonation: ImpersonationSettings = ON, access: AccessRules | None = None) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.directory = MemoryDirectory()
        self.directory.add_user(ADMIN, "boss", is_administrator=True)
        self.directory.add_user(CHIEF, "chef", is_administrator=True)
        self.directory.add_user(ALICE, "sesame")
        self.directory.add_user(BOB, "mellon")
        self.directory.add_user(GONE, "ghost", may_log_in=False)
        settings = AuthSettings(default_domain="example.test", impersonation=impersonation)
        self.throttle = LoginThrottle(settings, clock=self.clock)
        self.checker = PasswordChecker(
            self.directory,
            settings,
            clock=self.clock,
            throttle=self.throttle,
            cache=LoginCache(clock=self.clock, seconds=60, entries=10),
            access=access,
        )

    def log_in(self, name: str, password: str = "boss", authzid: str = "", service: str = "imap") -> Any:
        answers: list[Any] = []
        credentials = PasswordCredentials(name, password, "192.0.2.1", service, authzid=authzid, connection_id="c-1")
        self.checker.requestAvatarId(credentials).addBoth(answers.append)
        self.clock.advance(15)
        return getattr(answers[0], "value", answers[0])

    def is_refused(self, *arguments: str, **values: str) -> bool:
        return isinstance(self.log_in(*arguments, **values), InvalidCredentials)


@pytest.fixture
def logged():
    events: list[dict[str, Any]] = []
    observe: Any = events.append
    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


@pytest.mark.parametrize(
    ("name", "authzid"),
    [
        ("alice*admin", ""),
        ("alice@example.test*admin@example.test", ""),
        ("ALICE*Admin", ""),
        ("admin", "alice"),
        ("admin", "Alice@Example.Test"),
        ("alice*admin", "alice@example.test"),
    ],
)
def test_an_administrator_logs_in_as_a_user_with_their_own_password(name, authzid):
    login = Case().log_in(name, authzid=authzid)
    assert isinstance(login, Login)
    assert login.acting is not None
    assert (login.user.address, login.acting.address, login.prover.address) == (ALICE, ADMIN, ADMIN)


def test_both_names_are_in_the_log_and_on_the_account(logged):
    case = Case()
    login = case.log_in("alice*admin")
    [event] = [event for event in logged if "logs in as" in event.get("log_format", "")]
    assert (event["administrator"], event["account"], event["address"]) == (str(ADMIN), str(ALICE), "192.0.2.1")
    assert event["connection"] == "c-1"
    _, account, _ = MailRealm(None, None).requestAvatar(login, None, IAccount)  # type: ignore[arg-type]
    assert (account.address, account.administrator) == (ALICE, ADMIN)
    assert who(account) == "alice@example.test (by admin@example.test)"
    _, own, _ = MailRealm(None, None).requestAvatar(case.log_in("admin"), None, IAccount)  # type: ignore[arg-type]
    assert who(own) == "admin@example.test"


def test_it_is_off_by_default():
    case = Case(ImpersonationSettings())
    assert case.is_refused("alice*admin")
    assert case.is_refused("admin", authzid="alice")
    assert case.log_in("admin", authzid="admin").address == ADMIN


@pytest.mark.parametrize(
    ("name", "password", "authzid"),
    [
        ("alice*bob", "mellon", ""),  # no administrator
        ("bob", "mellon", "alice"),
        ("alice*admin", "sesame", ""),  # the user's password
        ("nobody*admin", "boss", ""),
        ("gone*admin", "boss", ""),
        ("chief*admin", "boss", ""),  # another administrator
        ("alice*nobody", "boss", ""),
        ("*admin", "boss", ""),
        ("alice*", "boss", ""),
        ("alice*bob*admin", "boss", ""),
        ("alice*admin", "boss", "bob"),  # two different ones
        ("admin", "boss", "al ice"),
    ],
)
def test_whoever_may_not_is_refused_like_a_wrong_password(name, password, authzid):
    case = Case()
    before = case.directory.checks
    error = case.log_in(name, password, authzid)
    assert isinstance(error, InvalidCredentials)
    assert error.text == InvalidCredentials().text
    # R-AUTH-4: the work of a check was done.
    assert case.directory.checks == before + 1


def test_acting_for_oneself_is_an_ordinary_log_in():
    case = Case()
    assert case.log_in("admin*admin").address == ADMIN
    assert case.log_in("alice", "sesame", "alice").address == ALICE


def test_other_administrators_only_where_a_setting_says_so():
    case = Case(ImpersonationSettings(enabled=True, administrators=True))
    assert case.log_in("chief*admin").user.address == CHIEF


def test_submission_only_where_a_setting_says_so():
    assert Case().is_refused("alice*admin", service="submission")
    assert isinstance(Case().log_in("alice*admin", service="pop3"), Login)
    everywhere = ImpersonationSettings(enabled=True, services=tuple(LoginService))
    assert isinstance(Case(everywhere).log_in("alice*admin", service="submission"), Login)


def test_another_separator():
    case = Case(ImpersonationSettings(enabled=True, separator="//"))
    assert isinstance(case.log_in("alice//admin"), Login)
    assert case.is_refused("alice*admin")


def test_failures_count_for_the_administrator():
    case = Case()
    for number in range(10):
        case.log_in("alice*admin", f"wrong{number}")
    assert case.is_refused("admin", "boss")
    assert case.log_in("alice", "sesame").address == ALICE
    assert case.throttle.failures.table.accounts.get(str(ALICE)).failures == 0


def test_access_rules_are_those_of_the_administrator():
    deny_alice = AccessRules([AccessSettings(AccessAction.DENY, users=(str(ALICE),))])
    deny_admin = AccessRules([AccessSettings(AccessAction.DENY, users=(str(ADMIN),))])
    assert isinstance(Case(access=deny_alice).log_in("alice*admin"), Login)
    assert Case(access=deny_alice).is_refused("alice", "sesame")
    assert Case(access=deny_admin).is_refused("alice*admin")


def test_a_directory_that_is_down_is_no_wrong_password():
    case = Case()
    case.directory.is_down = True
    assert not case.is_refused("alice*admin")
    assert case.throttle.failures.table.accounts.get(str(ADMIN)).failures == 0


def test_a_name_that_somebody_vouches_for_is_one_name():
    claim = read_proven_claim("alice*admin@example.test", "", "example.test")
    assert (claim.address, claim.acting_for) == (Address("alice*admin", "example.test"), None)
    claim = read_proven_claim("admin@example.test", "alice", "example.test")
    assert (claim.address, claim.acting_for, claim.is_contradictory) == (ADMIN, ALICE, False)
    assert read_proven_claim("admin@example.test", "al ice", "example.test").is_contradictory


@given(st.text(max_size=60), st.text(max_size=60), st.sampled_from(["*", "//", "%"]), st.booleans())
def test_r_inj_3_any_two_names_make_a_claim(authcid, authzid, separator, enabled):
    settings = ImpersonationSettings(enabled=enabled, separator=separator)
    claim = read_claim(authcid, authzid, settings, "example.test")
    assert isinstance(claim, Claim)
    assert claim.name.isprintable()
    assert authzid or separator in authcid or (claim.acting_for is None and not claim.is_contradictory)
    if claim.is_contradictory:
        assert authzid or enabled
