"""SCRAM as the checker decides about it: who gets in, and what the others can see."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from scramp import ScramClient
from twisted.cred.error import UnhandledCredentials
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailsrv.auth.access import AccessRules
from mailsrv.auth.access_settings import AccessAction, AccessSettings
from mailsrv.auth.app_passwords.database import AppPasswordDatabase
from mailsrv.auth.app_passwords.judge import AppPasswordJudge
from mailsrv.auth.app_passwords.record import Scope
from mailsrv.auth.decoy_secret import open_decoy_secret, secret_path
from mailsrv.auth.offer import MechanismOffer
from mailsrv.auth.sasl_checker import SaslChecker
from mailsrv.auth.second_factor import SECOND_FACTOR_DEMANDED
from mailsrv.auth.settings import AuthSettings, ImpersonationSettings, ScramUse, SecondFactor
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.directory.chain import DirectoryChain
from mailsrv.directory.passwd_file import PasswdFile
from mailsrv.directory.passwords.hashing import HashingPool
from mailsrv.directory.settings import PasswordSettings
from mailsrv.directory.watched_file import FileWatching
from mailsrv.interfaces.account import InvalidCredentials, SaslCredentials
from mailsrv.interfaces.sessions import Login
from mailsrv.sasl import Conversation, SaslCancelled, SaslError
from mailsrv.sasl.scram_keys import ScramKeys

KEYS = ScramKeys.derive("SCRAM-SHA-256", "sesame", 5000)
FIELD = f"scram_sha_256={KEYS.format()}"
USERS = f"""\
alice@example.test:{{PLAIN}}sesame::::::{FIELD}
blocked@example.test:{{PLAIN}}sesame::::::{FIELD} nologin=
elsewhere@example.test:{{PLAIN}}sesame::::::{FIELD} allow_nets=198.51.100.0/24
"""


def at_once(function: Any, *arguments: Any) -> Any:
    from twisted.internet.defer import maybeDeferred

    return maybeDeferred(function, *arguments)


class Case:
    def __init__(self, folder: Any, users: str = USERS, **settings: Any) -> None:
        self.clock = Clock()
        path = folder / "passwd"
        path.write_text(users)
        hashing = HashingPool(PasswordSettings(), reactor=None, run_in_thread=at_once)  # type: ignore[arg-type]
        self.file = PasswdFile(str(path), FileWatching(self.clock, at_once), hashing=hashing)
        self.directory = DirectoryChain([self.file])
        self.settings = AuthSettings(default_domain="example.test", **settings)
        self.offer = MechanismOffer(self.settings, self.directory)
        self.throttle = LoginThrottle(self.settings, clock=self.clock)
        self.checker = self.make_checker(b"s" * 32)
        self.file.list_users()

    def make_checker(self, secret: bytes, access: AccessRules | None = None) -> SaslChecker:
        return SaslChecker(
            self.directory,
            self.settings,
            clock=self.clock,
            throttle=self.throttle,
            offer=self.offer,
            decoy_secret=secret,
            access=access,
        )

    def begin(self, first: bytes, mechanism: str = "SCRAM-SHA-256", **values: Any) -> tuple[list[Any], list[bytes]]:
        """What becomes of the log-in, and the challenges."""
        answers: list[Any] = []
        self.challenges: list[bytes] = []
        self.conversation = Conversation(self.challenges.append)
        credentials = SaslCredentials(
            mechanism, first, self.conversation.converse, values.pop("client_address", "192.0.2.1"), "imap", **values
        )
        self.deferred: Deferred[Any] = self.checker.requestAvatarId(credentials)
        self.deferred.addBoth(answers.append)
        return answers, self.challenges

    def log_in(self, name: str = "alice", password: str = "sesame", **values: Any) -> Any:
        """The user, or the error; waits out the delay."""
        client = ScramClient(["SCRAM-SHA-256"], name, password)
        answers, challenges = self.begin(client.get_client_first().encode(), **values)
        client.set_server_first(challenges[0].decode())
        self.conversation.respond(client.get_client_final().encode())
        if len(challenges) > 1:
            client.set_server_final(challenges[1].decode())
            self.conversation.respond(b"")
        self.waited = 0
        while not answers and self.waited < 30:
            self.clock.advance(1)
            self.waited += 1
        return getattr(answers[0], "value", answers[0])


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


def test_the_right_password_lets_in_at_once(case):
    assert str(case.log_in().address) == "alice@example.test"
    assert case.waited == 0
    assert str(case.log_in("Alice@Example.Test").address) == "alice@example.test"


def test_r_auth_6_all_failures_are_alike(case):
    failures = [case.log_in(password="wrong")]
    failures += [case.log_in(name) for name in ("nobody", "blocked", "elsewhere", "no such name@")]
    assert {type(error) for error in failures} == {InvalidCredentials}
    assert len({str(error.text) for error in failures}) == 1


def salt_of(case, name, authzid="", **values):
    asked = f"a={authzid}" if authzid else ""
    _, challenges = case.begin(f"n,{asked},n={name},r=abc".encode(), **values)
    fields = dict(part.split("=", 1) for part in challenges[0].decode().split(","))
    return fields["s"], fields["i"]


def test_r_auth_4_an_unknown_user_has_a_salt_that_stays(case):
    salt, iterations = salt_of(case, "nobody")
    assert iterations == "5000"
    assert len(base64.b64decode(salt)) == len(KEYS.salt)
    assert salt_of(case, "nobody") == (salt, iterations)
    assert salt_of(case, "somebody")[0] != salt
    case.checker = case.make_checker(b"s" * 32)
    assert salt_of(case, "NOBODY@example.test") == (salt, iterations)
    case.checker = case.make_checker(b"t" * 32)
    assert salt_of(case, "nobody")[0] != salt


@pytest.mark.parametrize("name", ["alice", "blocked", "elsewhere", "keyless", "strict", "nobody"])
def test_r_auth_4_the_salt_is_the_same_wherever_and_as_whomever_one_asks(tmp_path, name):
    users = USERS + f"keyless@example.test:{{PLAIN}}x\nstrict@example.test:{{PLAIN}}x::::::{FIELD} second_factor=yes\n"
    rules = AccessRules([AccessSettings(AccessAction.DENY, networks=("203.0.113.0/24",))])
    case = Case(tmp_path, users, impersonation=ImpersonationSettings(enabled=True))
    case.checker = case.make_checker(b"s" * 32, access=rules)
    own = salt_of(case, name)
    assert salt_of(case, name, client_address="203.0.113.1") == own
    assert salt_of(case, name, client_address="198.51.100.1") == own
    assert salt_of(case, name, authzid="bob") == own
    assert salt_of(case, f"bob*{name}") == own


def test_a_right_proof_does_not_help_who_may_not_log_in(case):
    assert case.log_in("blocked").cause == "may not log in"
    assert case.log_in("elsewhere").cause == "may not log in from there"
    assert str(case.log_in("elsewhere", client_address="198.51.100.1").address) == "elsewhere@example.test"


def test_r_auth_4_the_secret_is_kept(tmp_path):
    state = str(tmp_path / "state")
    secret = open_decoy_secret(state)
    assert open_decoy_secret(state) == secret
    assert len(secret) == 32
    assert (tmp_path / "state" / "login.secret").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["login.secret"]
    (tmp_path / "state" / "login.secret").write_bytes(b"short")
    assert secret_path(state).endswith("login.secret")
    assert open_decoy_secret(state) != open_decoy_secret(state)


def test_failures_are_counted_and_end_in_a_refusal(tmp_path):
    case = Case(tmp_path, failures_per_user=3)
    for _ in range(3):
        assert isinstance(case.log_in(password="wrong"), InvalidCredentials)
    assert isinstance(case.log_in(), InvalidCredentials)
    assert case.throttle.refused == 1


def test_r_nat_1_keys_that_were_right_here_stay_right(tmp_path):
    case = Case(tmp_path, failures_per_user=3)
    case.log_in()
    for _ in range(5):
        case.log_in(password="wrong")
    assert str(case.log_in().address) == "alice@example.test"
    assert isinstance(case.log_in(client_address="203.0.113.9"), object)


def test_failures_are_delayed(case):
    case.log_in(password="wrong")
    assert case.waited == 2
    case.log_in(password="wrong")
    assert case.waited > 2


def test_a_user_without_keys_fails_like_others(tmp_path):
    case = Case(tmp_path, USERS + "bob@example.test:{PLAIN}sesame\n")
    assert isinstance(case.log_in("bob"), InvalidCredentials)


@pytest.mark.parametrize(
    ("users", "settings"),
    [
        (USERS + f"strict@example.test:{{PLAIN}}sesame::::::{FIELD} second_factor=yes\n", {}),
        (
            USERS + f"strict@example.test:{{PLAIN}}sesame::::::{FIELD} groups=staff\n",
            {"second_factor_groups": ("Staff",)},
        ),
        (USERS + f"strict@example.test:{{PLAIN}}sesame::::::{FIELD}\n", {"second_factor": SecondFactor.ALL}),
    ],
)
def test_the_keys_of_a_password_are_not_enough_where_a_second_factor_is_demanded(tmp_path, users, settings):
    case = Case(tmp_path, users, **settings)
    refused, wrong = case.log_in("strict"), case.log_in("nobody")
    assert (type(refused), refused.text) == (type(wrong), wrong.text) == (InvalidCredentials, "Authentication failed")
    assert refused.cause == SECOND_FACTOR_DEMANDED
    assert salt_of(case, "strict")[0] != base64.b64encode(KEYS.salt).decode()


def test_scram_is_offered_by_itself_only_where_nobody_is_left_to_app_passwords(tmp_path):
    everyone = ("SCRAM-SHA-256", "PLAIN", "LOGIN")
    assert Case(tmp_path).offer(False) == everyone
    strict = USERS + f"strict@example.test:{{PLAIN}}sesame::::::{FIELD} second_factor=yes\n"
    groups: dict[str, Any] = {"second_factor_groups": ("staff",)}
    assert Case(tmp_path, strict).offer(False) == ("PLAIN", "LOGIN")
    assert Case(tmp_path, strict, scram=ScramUse.ON).offer(False) == everyone
    assert Case(tmp_path, **groups).offer(False) == ("PLAIN", "LOGIN")
    assert Case(tmp_path, **groups, scram=ScramUse.ON).offer(False) == everyone
    # Here nobody could use it.
    assert Case(tmp_path, second_factor=SecondFactor.ALL, scram=ScramUse.ON).offer(False) == ("PLAIN", "LOGIN")


def test_an_app_password_ends_the_offer_by_itself(tmp_path):
    case = Case(tmp_path)
    database = AppPasswordDatabase(str(tmp_path / "app-passwords.db"))
    judge = AppPasswordJudge(database, case.settings, run_in_thread=at_once, seconds=case.clock.seconds)
    offer = MechanismOffer(case.settings, case.directory, app_passwords=judge)
    assert "SCRAM-SHA-256" in offer(False)
    database.add("alice@example.test", "phone", frozenset(Scope), now=0.0, expires_at=None, limit=1)
    case.clock.advance(1)
    assert offer(False) == ("PLAIN", "LOGIN")
    database.revoke("alice@example.test")
    case.clock.advance(1)
    assert "SCRAM-SHA-256" in offer(False)
    database.close()


def test_naming_oneself_twice_is_allowed_and_nobody_else(case):
    for authzid, expected in (("alice", True), ("bob", False)):
        client = ScramClient(["SCRAM-SHA-256"], "alice", "sesame")
        first = client.get_client_first()
        # The header is part of what is proven: a foreign identity cannot be put in on the way.
        answers, challenges = case.begin(first.replace("n,,", f"n,a={authzid},", 1).encode())
        client.set_server_first(challenges[0].decode())
        case.conversation.respond(client.get_client_final().encode())
        case.clock.advance(20)
        assert isinstance(answers[0].value, InvalidCredentials), expected


def test_cancelling_and_nonsense_end_the_exchange(case):
    answers, _ = case.begin(b"n,,n=alice,r=abc")
    case.conversation.respond(SaslCancelled())
    assert isinstance(answers[0].value, SaslCancelled)
    answers, _ = case.begin(b"n,,n=alice,r=abc")
    case.conversation.respond(b"nonsense")
    assert isinstance(answers[0].value, SaslError)
    answers, _ = case.begin(b"nonsense")
    assert isinstance(answers[0].value, SaslError)
    answers, _ = case.begin(b"n,,n=alice,r=abc")
    case.conversation.end()
    assert isinstance(answers[0].value, SaslCancelled)


def test_what_is_said_after_the_last_word_is_no_log_in(case):
    client = ScramClient(["SCRAM-SHA-256"], "alice", "sesame")
    answers, challenges = case.begin(client.get_client_first().encode())
    client.set_server_first(challenges[0].decode())
    case.conversation.respond(client.get_client_final().encode())
    assert not answers
    case.conversation.respond(b"more")
    assert isinstance(answers[0].value, SaslError)


def test_other_mechanisms_are_for_others(case):
    answers, _ = case.begin(b"", mechanism="GSSAPI")
    assert isinstance(answers[0].value, UnhandledCredentials)


@pytest.mark.parametrize(
    ("use", "users", "offered"),
    [
        (ScramUse.AUTO, USERS, True),
        (ScramUse.AUTO, USERS + "bob@example.test:{PLAIN}x\n", False),
        (ScramUse.ON, USERS + "bob@example.test:{PLAIN}x\n", True),
        (ScramUse.ON, "bob@example.test:{PLAIN}x\n", False),
        (ScramUse.OFF, USERS, False),
    ],
)
def test_scram_is_offered_where_it_can_be_had(tmp_path, use, users, offered):
    case = Case(tmp_path, users, scram=use)
    assert case.offer(True) == (("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256") if offered else ()) + ("PLAIN", "LOGIN")
    assert case.offer(False) == (("SCRAM-SHA-256",) if offered else ()) + ("PLAIN", "LOGIN")


def test_nothing_is_offered_before_the_file_was_read(tmp_path):
    case = Case(tmp_path)
    assert "SCRAM-SHA-256" in case.offer(False)
    hashing = HashingPool(PasswordSettings(), reactor=None, run_in_thread=at_once)  # type: ignore[arg-type]
    path = str(tmp_path / "passwd")
    fresh = PasswdFile(path, FileWatching(case.clock, at_once), hashing=hashing)
    assert MechanismOffer(case.settings, DirectoryChain([fresh]))(True) == ("PLAIN", "LOGIN")


def test_scram_of_an_administrator_for_a_user(tmp_path):
    users = USERS + f"admin@example.test:{{PLAIN}}sesame::::::{FIELD} administrator=yes\n"
    case = Case(tmp_path, users, impersonation=ImpersonationSettings(enabled=True))
    login = case.log_in("alice*admin")
    assert isinstance(login, Login)
    assert login.acting is not None
    assert (str(login.user.address), str(login.acting.address)) == ("alice@example.test", "admin@example.test")
    assert isinstance(case.log_in("blocked*admin"), InvalidCredentials)
    assert isinstance(case.log_in("admin*alice"), InvalidCredentials)
    assert isinstance(Case(tmp_path, users).log_in("alice*admin"), InvalidCredentials)
