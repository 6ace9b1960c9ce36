"""GSSAPI as the checker decides about it, with an acceptor that believes all; threads and their deadlines."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from mailsrv.auth import gssapi_threads
from mailsrv.auth.access import AccessRules
from mailsrv.auth.gssapi_checker import GssapiChecker
from mailsrv.auth.gssapi_settings import GssapiSettings
from mailsrv.auth.gssapi_threads import TicketThreads
from mailsrv.auth.principals import PrincipalRefused, account_name, is_ours
from mailsrv.auth.rules import LoginRules
from mailsrv.auth.second_factor import TICKET_NOT_ENOUGH
from mailsrv.auth.settings import AuthSettings, SecondFactor
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.auth.tickets import Accepted, KeytabUnusable, TicketRefused
from mailsrv.directory.passwd_file import PasswdFile
from mailsrv.directory.passwords.hashing import HashingPool
from mailsrv.directory.settings import PasswordSettings
from mailsrv.directory.watched_file import FileWatching
from mailsrv.errors import Unavailable
from mailsrv.interfaces.account import InvalidCredentials, SaslCredentials
from mailsrv.sasl import Conversation, SaslCancelled, SaslError

USERS = "alice@example.test:{PLAIN}sesame\nblocked@example.test:{PLAIN}sesame::::::nologin=\n"
SETTINGS = GssapiSettings(realms=("EXAMPLE.TEST",))


class Believer:
    """``principal`` in the first token lets in; ``again`` asks once more."""

    def __init__(self, settings: GssapiSettings, service: str, end_point: bytes | None) -> None:
        self.made_for = (service, end_point)

    def accept(self, token: bytes) -> Accepted:
        match token:
            case b"malformed":
                raise SaslError
            case b"bad":
                raise TicketRefused("Ticket expired")
            case b"keytab":
                raise KeytabUnusable("gssapi.keytab_file: /etc/mail.keytab: gone")
            case b"again":
                return Accepted(b"more")
        principal, _, reply = token.partition(b" ")
        return Accepted(reply, principal.decode())

    def wrap(self, octets: bytes) -> bytes:
        return b"wrapped" + octets

    def unwrap(self, octets: bytes) -> bytes:
        if not octets.startswith(b"wrapped"):
            raise SaslError
        return octets.removeprefix(b"wrapped")


class AtOnce:
    """Threads that are none."""

    refused = 0

    def run(self, function: Callable[[], Any]) -> Deferred[Any]:
        return maybeDeferred(function)


class Case:
    def __init__(self, folder: Any, tickets: GssapiSettings = SETTINGS, **settings: Any) -> None:
        self.clock = Clock()
        path = folder / "passwd"
        path.write_text(USERS)
        hashing = HashingPool(PasswordSettings(), reactor=None, run_in_thread=maybeDeferred)  # type: ignore[arg-type]
        directory = PasswdFile(str(path), FileWatching(self.clock, maybeDeferred), hashing=hashing)
        auth = AuthSettings(default_domain="example.test", **settings)
        self.throttle = LoginThrottle(auth, clock=self.clock)
        self.checker = GssapiChecker(
            directory,
            tickets,
            LoginRules(auth, self.clock, AccessRules()),
            threads=AtOnce(),  # type: ignore[arg-type]
            make_acceptor=Believer,
            throttle=self.throttle,
        )

    def begin(self, token: bytes) -> list[Any]:
        answers: list[Any] = []
        self.challenges: list[bytes] = []
        self.conversation = Conversation(self.challenges.append)
        credentials = SaslCredentials("GSSAPI", token, self.conversation.converse, "192.0.2.1", "imap")
        Deferred.fromCoroutine(self.checker(credentials)).addBoth(answers.append)
        return answers

    def log_in(self, *messages: bytes) -> Any:
        """The account, or the error; waits out the delay."""
        answers = self.begin(messages[0])
        for message in messages[1:]:
            self.conversation.respond(message)
        self.waited = 0
        while not answers and self.waited < 30:
            self.clock.advance(1)
            self.waited += 1
        answer = getattr(answers[0], "value", answers[0]) if answers else None
        return answer if answer is None or isinstance(answer, Exception) else str(answer.user.address)


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


NO_LAYER = b"wrapped\x01\0\0\0"


def test_the_ticket_lets_in(case):
    assert case.log_in(b"alice@EXAMPLE.TEST", NO_LAYER) == "alice@example.test"
    assert case.challenges == [b"wrapped\x01\0\0\0"]
    assert case.log_in(b"alice@EXAMPLE.TEST reply", b"", NO_LAYER + b"alice") == "alice@example.test"
    assert case.challenges == [b"reply", b"wrapped\x01\0\0\0"]
    assert case.log_in(b"again", b"alice@EXAMPLE.TEST", NO_LAYER) == "alice@example.test"
    assert case.waited == 0


def test_r_auth_6_all_failures_are_alike(case):
    failures = [case.log_in(b"bad")]
    failures += [
        case.log_in(principal, NO_LAYER)
        for principal in (b"nobody@EXAMPLE.TEST", b"blocked@EXAMPLE.TEST", b"alice@ELSEWHERE", b"alice/x@EXAMPLE.TEST")
    ]
    failures.append(case.log_in(b"alice@EXAMPLE.TEST", NO_LAYER + b"bob"))
    assert {type(error) for error in failures} == {InvalidCredentials}
    assert len({str(error.text) for error in failures}) == 1
    assert case.waited > 2


def test_a_ticket_is_a_second_factor_where_the_settings_say_so(tmp_path):
    for tickets, is_good in ((SETTINGS, False), (attrs.evolve(SETTINGS, counts_as_second_factor=True), True)):
        case = Case(tmp_path, tickets, second_factor=SecondFactor.ALL)
        answer = case.log_in(b"alice@EXAMPLE.TEST", NO_LAYER)
        if is_good:
            assert answer == "alice@example.test"
        else:
            assert isinstance(answer, InvalidCredentials)
            assert answer.cause == TICKET_NOT_ENOUGH


def test_r_nat_1_a_good_ticket_is_never_refused(tmp_path):
    case = Case(tmp_path, failures_per_user=2, failures_per_network=2)
    for _ in range(5):
        assert isinstance(case.log_in(b"bad"), InvalidCredentials)
        assert isinstance(case.log_in(b"nobody@EXAMPLE.TEST", NO_LAYER), InvalidCredentials)
    assert case.log_in(b"alice@EXAMPLE.TEST", NO_LAYER) == "alice@example.test"


def test_r_auth_7_trouble_with_the_keytab_is_no_wrong_ticket(case):
    error = case.log_in(b"keytab")
    assert isinstance(error, Unavailable)
    assert "keytab" not in error.text
    assert case.waited == 0


def test_what_breaks_the_rules_ends_the_exchange(case):
    for messages in (
        (b"malformed",),
        (b"alice@EXAMPLE.TEST reply", b"more"),
        (b"alice@EXAMPLE.TEST", b"unwrapped"),
        (b"alice@EXAMPLE.TEST", b"wrapped\x02\0\0\0"),
        (b"again",) * 11,
    ):
        assert isinstance(case.log_in(*messages), SaslError), messages


def test_cancelled_at_any_step(case):
    for messages in ((b"again",), (b"alice@EXAMPLE.TEST reply",), (b"alice@EXAMPLE.TEST",)):
        answers = case.begin(messages[0])
        case.conversation.respond(SaslCancelled())
        assert isinstance(answers[0].value, SaslCancelled)
        answers = case.begin(messages[0])
        case.conversation.end()
        assert isinstance(answers[0].value, SaslCancelled)


def test_cancelled_while_a_thread_looks_at_the_ticket(case):
    looks: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    class Later:
        def run(self, function: Callable[[], Any]) -> Deferred[Any]:
            looks.append((Deferred(), function))
            return looks[-1][0]

    case.checker._threads = Later()
    answers = case.begin(b"alice@EXAMPLE.TEST reply")
    case.conversation.end()
    assert not answers
    answer, function = looks.pop()
    answer.callback(function())
    assert isinstance(answers[0].value, SaslCancelled)
    assert not case.challenges


# --- threads


class Threads(TicketThreads):
    """Jobs are done when the test says so."""

    def __init__(self, clock: Clock, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        super().__init__(clock, attrs.evolve(SETTINGS, **settings))
        self.jobs: list[Deferred[Any]] = []

        def defer(_reactor: object, _pool: object, _function: object) -> Deferred[Any]:
            self.jobs.append(Deferred())
            return self.jobs[-1]

        monkeypatch.setattr(gssapi_threads, "deferToThreadPool", defer)


def outcome(deferred: Deferred[Any]) -> list[Any]:
    found: list[Any] = []
    deferred.addBoth(lambda result: found.append(getattr(result, "value", result)))
    return found


def test_a_call_past_its_deadline_is_not_waited_for(monkeypatch):
    clock = Clock()
    threads = Threads(clock, monkeypatch, timeout_seconds=5.0)
    found = outcome(threads.run(lambda: 1))
    clock.advance(4.9)
    assert not found
    clock.advance(0.2)
    assert isinstance(found[0], Unavailable)
    assert threads.refused == 1
    threads.jobs[0].callback(1)
    assert len(found) == 1
    again = outcome(threads.run(lambda: 2))
    threads.jobs[1].callback(2)
    assert again == [2]
    assert not clock.getDelayedCalls()


def test_r_lim_2_the_queue_is_bounded_at_over_and_after(monkeypatch):
    clock = Clock()
    threads = Threads(clock, monkeypatch, threads=1, waiting=2)
    found = [outcome(threads.run(lambda: 1)) for _ in range(4)]
    assert [bool(one) for one in found] == [False, False, False, True]
    assert isinstance(found[3][0], Unavailable)
    # One that hangs keeps its place after its deadline.
    clock.advance(60)
    assert isinstance(outcome(threads.run(lambda: 1))[0], Unavailable)
    for job in threads.jobs:
        job.callback(1)
    late = outcome(threads.run(lambda: 1))
    threads.jobs[-1].callback(3)
    assert late == [3]
    threads.replace_settings(attrs.evolve(SETTINGS, threads=1, waiting=1))
    assert [bool(outcome(threads.run(lambda: 1))) for _ in range(3)] == [False, False, True]


def test_real_threads_start_and_stop():
    from twisted.internet import reactor

    threads = TicketThreads(reactor, SETTINGS)
    threads.stop()
    threads = TicketThreads(reactor, SETTINGS)
    threads.start()
    ran = threading.Event()
    threads.run(ran.set).addErrback(lambda _failure: None)
    assert ran.wait(10)
    threads.stop()
    for call in reactor.getDelayedCalls():
        call.cancel()


def test_a_call_that_hangs_does_not_keep_the_server_from_stopping():
    from twisted.internet import reactor

    threads = TicketThreads(reactor, SETTINGS)
    threads.start()
    began, may_end = threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        may_end.wait()

    threads.run(hang).addErrback(lambda _failure: None)
    assert began.wait(10)
    threads.stop()
    assert not may_end.is_set()
    may_end.set()
    for call in reactor.getDelayedCalls():
        call.cancel()


# --- principals


@pytest.mark.parametrize(
    ("principal", "account"),
    [
        ("alice@EXAMPLE.TEST", "alice@example.test"),
        ("Alice.B@EXAMPLE.TEST", "Alice.B@example.test"),
        ("имя@EXAMPLE.TEST", "имя@example.test"),
    ],
)
def test_users_of_the_realm(principal, account):
    assert account_name(principal, SETTINGS) == account


@pytest.mark.parametrize(
    "principal",
    [
        "alice",
        "@EXAMPLE.TEST",
        "alice@example.test",
        "alice@OTHER.TEST",
        "alice/admin@EXAMPLE.TEST",
        "host/mail.example.test@EXAMPLE.TEST",
        "WELLKNOWN/ANONYMOUS@WELLKNOWN:ANONYMOUS",
        "alice\\@OTHER@EXAMPLE.TEST",
        "alice@OTHER@EXAMPLE.TEST",
        "ali\\/ce@EXAMPLE.TEST",
        "",
    ],
)
def test_nobody_else(principal):
    with pytest.raises(PrincipalRefused):
        account_name(principal, SETTINGS)


@given(st.text(max_size=40))
def test_any_principal_is_of_our_realm_or_refused(principal):
    try:
        account = account_name(principal, SETTINGS)
    except PrincipalRefused:
        return
    assert principal.endswith("@EXAMPLE.TEST")
    assert account == principal.removesuffix("EXAMPLE.TEST") + "example.test"


def test_a_domain_of_its_own():
    assert account_name("alice@EXAMPLE.TEST", attrs.evolve(SETTINGS, domain="mail.test")) == "alice@mail.test"


def test_only_tickets_for_our_host():
    ours = attrs.evolve(SETTINGS, hostname="Mail.example.test")
    assert is_ours("imap/mail.example.test@EXAMPLE.TEST", ours)
    assert not is_ours("imap/other.example.test@EXAMPLE.TEST", ours)
    assert not is_ours("imap@EXAMPLE.TEST", ours)
    assert is_ours("imap/other.example.test@EXAMPLE.TEST", SETTINGS)


def test_settings_that_cannot_be_meant():
    for wrong in ({"realms": ("A", "B"), "domain": "example.test"}, {"imap_service": "imap/x"}, {"pop3_service": ""}):
        with pytest.raises(ValueError, match=r"expected|could be one"):
            GssapiSettings(**wrong)


def test_services_have_their_registered_names():
    assert [SETTINGS.service_name(service) for service in ("imap", "pop3", "submission")] == ["imap", "pop", "smtp"]


def test_without_the_library_the_settings_say_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ValueError, match=r"mailsrv\[gssapi\]"):
        GssapiSettings(keytab_file="/etc/mail.keytab", realms=("EXAMPLE.TEST",))


def test_a_keytab_needs_a_realm(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: True)
    with pytest.raises(ValueError, match="realm"):
        GssapiSettings(keytab_file="/etc/mail.keytab")
