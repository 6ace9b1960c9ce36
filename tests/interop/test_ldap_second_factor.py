"""App passwords and a demanded second factor over a real OpenLDAP, which locks who guesses at a password."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import execute
from twisted.internet.task import Clock

from mailsrv.address import Address
from mailsrv.auth.app_passwords.database import AppPasswordDatabase
from mailsrv.auth.app_passwords.form import make_secret
from mailsrv.auth.app_passwords.judge import AppPasswordJudge
from mailsrv.auth.app_passwords.record import Scope
from mailsrv.auth.checker import PasswordChecker
from mailsrv.auth.login_cache import LoginCache
from mailsrv.auth.settings import AuthSettings
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.directory.ldap.build import make_ldap_directory
from mailsrv.directory.settings import DirectorySettings, DirectoryType
from mailsrv.errors import Unavailable
from mailsrv.interfaces.account import InvalidCredentials, PasswordCredentials
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.interfaces.sessions import Login
from mailsrv.tls.self_signed import write_self_signed
from tests.interop.slapd import BASE, SERVICE, SERVICE_PASSWORD, Slapd, person

STRICT = f"cn=strict,ou=groups,{BASE}"
GUESSES = 2
"""After so many the server locks an account."""
LOCKING = f"""\
moduleload ppolicy
overlay ppolicy
ppolicy_default "cn=locking,{BASE}"
"""
ENTRIES = (
    f"dn: cn=locking,{BASE}\nobjectClass: device\nobjectClass: pwdPolicy\ncn: locking\npwdAttribute: userPassword\n"
    f"pwdLockout: TRUE\npwdMaxFailure: {GUESSES}\n",
    person("alice", "sesame"),
    person("bob", "mellon", extra="employeeType: strict\n"),
    person("carol", "friend"),
    f"dn: {STRICT}\nobjectClass: groupOfNames\ncn: strict\nmember: cn=inner,ou=groups,{BASE}\n",
    f"dn: cn=inner,ou=groups,{BASE}\nobjectClass: groupOfNames\ncn: inner\nmember: uid=carol,ou=people,{BASE}\n",
)


class Case:
    """Everything is asked in place; failures are answered at once."""

    def __init__(self, folder: Path, slapd: Slapd, **changes: Any) -> None:
        self.clock = Clock()
        where = DirectorySettings(
            DirectoryType.LDAP,
            uri=(slapd.uri,),
            base=BASE,
            ca_file=str(slapd.certificate),
            bind_dn=SERVICE,
            bind_password_file=str(folder / "secret"),
            attempt_seconds=1.0,
            attributes={"second_factor": ["employeeType=strict"]},
        )
        self.directory = make_ldap_directory(
            where, clock=self.clock, default_domain="example.test", tells_groups=True
        ).directory
        self.settings = AuthSettings(
            default_domain="example.test", failure_delay_seconds=0.0, failures_per_user=1000, **changes
        )
        self.database = AppPasswordDatabase(str(folder / "app-passwords.db"))
        judge = AppPasswordJudge(self.database, self.settings, run_in_thread=execute, seconds=self.clock.seconds)
        self.checker = PasswordChecker(
            self.directory,
            self.settings,
            clock=self.clock,
            throttle=LoginThrottle(self.settings, clock=self.clock),
            cache=LoginCache(clock=self.clock, seconds=60, entries=100),
            app_passwords=judge,
        )

    def give(self, user: str) -> str:
        everything = frozenset(Scope)
        account = f"{user}@example.test"
        return self.database.add(account, "phone", everything, now=0.0, expires_at=None, limit=5).secret

    def log_in(self, user: str, password: str) -> Any:
        """The address, or the error."""
        answers: list[Any] = []
        self.checker.requestAvatarId(PasswordCredentials(user, password, "192.0.2.1", "imap")).addBoth(answers.append)
        answer = getattr(answers[0], "value", answers[0])
        if isinstance(answer, Login | DirectoryUser):
            return answer.user.address if isinstance(answer, Login) else answer.address
        return answer


@pytest.fixture
def slapd(tmp_path: Path) -> Iterator[Slapd]:
    write_self_signed("ldap.example.test", str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    (tmp_path / "secret").write_text(SERVICE_PASSWORD + "\n")
    with Slapd(tmp_path / "server", tmp_path / "cert.pem", tmp_path / "key.pem", ENTRIES, directives=LOCKING) as one:
        yield one


def test_wrong_app_passwords_lock_nobody_in_the_directory(tmp_path: Path, slapd: Slapd) -> None:
    case = Case(tmp_path, slapd)
    secret, revoked = case.give("alice"), make_secret()
    for _ in range(GUESSES + 3):
        assert isinstance(case.log_in("alice", revoked), InvalidCredentials)
        assert isinstance(case.log_in("alice", secret[:-1]), InvalidCredentials)
    assert case.log_in("alice", "sesame") == Address("alice", "example.test")
    assert case.log_in("alice", secret) == Address("alice", "example.test")
    # The directory does lock who guesses at its own passwords, or nothing has been shown.
    for number in range(GUESSES):
        assert isinstance(case.log_in("alice", f"guess {number}"), InvalidCredentials)
    case.clock.advance(61)
    assert isinstance(case.log_in("alice", "sesame"), InvalidCredentials)


@pytest.mark.parametrize(("user", "password"), [("bob", "mellon"), ("carol", "friend")])
def test_an_attribute_or_a_nested_group_demands_a_second_factor(
    tmp_path: Path, slapd: Slapd, user: str, password: str
) -> None:
    case = Case(tmp_path, slapd, second_factor_groups=("Strict",))
    for number in range(GUESSES + 1):
        assert isinstance(case.log_in(user, f"guess {number}"), InvalidCredentials)
    assert isinstance(case.log_in(user, password), InvalidCredentials)
    assert case.log_in(user, case.give(user)) == Address(user, "example.test")
    assert case.log_in("alice", "sesame") == Address("alice", "example.test")
    # Nobody was locked by that: without the demand the password is right as ever.
    found: list[Any] = []
    address = Address(user, "example.test")
    case.directory.find_user(address).addCallback(case.directory.check_password, password).addBoth(found.append)
    assert found == [True]


def test_r_auth_7_a_directory_that_is_down_is_no_wrong_app_password(tmp_path: Path, slapd: Slapd) -> None:
    case = Case(tmp_path, slapd)
    secret = case.give("alice")
    slapd.kill()
    assert isinstance(case.log_in("alice", secret), Unavailable)
    slapd.start()
