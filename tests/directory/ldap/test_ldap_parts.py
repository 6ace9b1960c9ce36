"""Servers' states, threads and the cache, without a server."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from twisted.internet.task import Clock

from mailsrv.address import Address
from mailsrv.config.load import parse
from mailsrv.config.problems import ConfigurationError
from mailsrv.directory.ldap.answers import NOBODY, Answer, AnswerCache
from mailsrv.directory.ldap.deadline_socket import DeadlineSocket
from mailsrv.directory.ldap.results import bind_outcome
from mailsrv.directory.ldap.servers import Servers, parse_server
from mailsrv.directory.ldap.trouble import NoServer, RequestTrouble, ServerTrouble
from mailsrv.directory.ldap.workers import Workers
from mailsrv.errors import Unavailable

A, B = Address("a", "example.test"), Address("b", "example.test")


def test_uris():
    server = parse_server("ldap://ldap.example.test", starttls=True)
    assert (server.host, server.port, server.starttls, server.is_ldaps) == ("ldap.example.test", 389, True, False)
    server = parse_server("ldaps://[::1]:1636", starttls=True)
    assert (server.host, server.port, server.starttls, server.is_ldaps) == ("::1", 1636, False, True)
    assert parse_server("ldapi://%2Frun%2Fldapi", starttls=False).socket_path == "/run/ldapi"
    for wrong in ("http://x", "ldap://", "ldap://u:p@x", "ldapi://x", "ldap://x/dc=a", "ldap://x:port"):
        with pytest.raises(ValueError, match=r"."):
            parse_server(wrong, starttls=True)


def test_the_circuit_opens_with_the_last_server_and_priority_returns():
    servers = Servers("x", [parse_server(f"ldap://{n}", starttls=True) for n in ("one", "two")], seconds=lambda: 0.0)
    told: list[str] = []
    servers.on_down = lambda: told.append("down")
    one, two = servers.all
    servers.mark_down(one, "dead")
    servers.mark_down(one, "dead")
    assert list(servers.usable()) == [two]
    servers.mark_down(two, "hangs")
    with pytest.raises(NoServer, match=r"one: dead.*two: hangs"):
        servers.usable()
    assert len(told) == 2
    servers.mark_up(two)
    servers.mark_up(one)
    assert list(servers.usable()) == [one, two]
    assert one.generation == 2


class ThreadedReactor(Clock):
    """callFromThread keeps the call for the test's own thread."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []
        self.came = threading.Condition()

    def callFromThread(self, function: Any, *args: Any) -> None:
        with self.came:
            self.told.append((function, args))
            self.came.notify()

    def run_one(self) -> None:
        with self.came:
            assert self.came.wait_for(lambda: self.told, 10)
            function, args = self.told.pop(0)
        function(*args)


def test_threads_are_bounded_and_so_is_who_waits():
    reactor = ThreadedReactor()
    workers = Workers("test", reactor=reactor, threads=2, queued=1, idle_seconds=0.05)
    gate = threading.Event()
    lanes: set[int] = set()

    def job(lane: Any, deadline: float) -> str:
        lanes.add(id(lane))
        gate.wait(10)
        return "done"

    answers = [workers.run(job, 5.0) for _ in range(4)]
    refused: list[Any] = []
    answers[3].addErrback(refused.append)
    assert refused[0].check(Unavailable)
    assert workers.refused == 1
    gate.set()
    for _ in range(3):
        reactor.run_one()
    assert [answer.result for answer in answers[:3]] == ["done"] * 3
    assert workers.pending == 0
    assert len(lanes) <= 2
    # Idle ones end; the next order has a thread all the same.
    deadline = time.monotonic() + 10
    while any(thread.name == "ldap test" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
    again = workers.run(lambda lane, deadline: "again", 5.0)
    reactor.run_one()
    assert again.result == "again"


def test_r_auth_7_a_thread_that_is_held_up_holds_up_nobody_else():
    reactor = ThreadedReactor()
    workers = Workers("test", reactor=reactor, threads=1, queued=5, idle_seconds=0.05)
    gate = threading.Event()
    stuck = workers.run(lambda lane, deadline: gate.wait(10), 2.0)
    late: list[Any] = []
    stuck.addErrback(late.append)
    reactor.advance(3.5)
    assert late[0].check(Unavailable)
    assert workers.pending == 1
    gate.set()
    reactor.run_one()
    assert workers.pending == 0


def test_the_cache_is_bounded_and_old_answers_are_for_known_names():
    now = [0.0]
    cache = AnswerCache(clock=lambda: now[0], seconds=10, outage_seconds=100, entries=2)
    known = Answer(targets=(B,))
    cache.add(A, known)
    cache.add(B, NOBODY)
    assert cache.fresh(A) is known
    assert cache.fresh(B) is NOBODY
    now[0] = 50
    assert cache.fresh(A) is None
    assert cache.stale(A) is known
    assert cache.stale(B) is None
    now[0] = 100
    assert cache.stale(A) is None
    for number in range(5):
        cache.add(Address(f"x{number}", "example.test"), known)
    assert len(cache) == 2


def test_names_that_were_guessed_do_not_push_out_those_that_exist():
    cache = AnswerCache(clock=lambda: 0.0, seconds=10, outage_seconds=100, entries=10)
    known = Answer(targets=(B,))
    cache.add(A, known)
    for number in range(100):
        cache.add(Address(f"x{number}", "example.test"), NOBODY)
    assert cache.stale(A) is known
    remembered = [cache.fresh(Address(f"x{number}", "example.test")) for number in range(100)]
    assert remembered == [None] * 90 + [NOBODY] * 10
    cache.add(A, NOBODY)
    assert cache.stale(A) is None, "gone is gone"
    cache.drop_all()
    assert cache.fresh(A) is None


class Trickle:
    """A peer that sends one octet a second."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.timeouts: list[float] = []

    def settimeout(self, seconds: float) -> None:
        self.timeouts.append(seconds)

    def recv(self, size: int) -> bytes:
        self.clock.advance(1)
        return b"x"


def test_a_trickling_server_does_not_outlast_the_deadline():
    clock = Clock()
    inner = Trickle(clock)
    one = DeadlineSocket(inner, seconds=clock.seconds)  # type: ignore[arg-type]
    one.expect(3.0, 100)
    for _ in range(3):
        one.recv(10)
    with pytest.raises(TimeoutError):
        one.recv(10)
    assert inner.timeouts == [3, 2, 1]
    one.expect(100.0, 2)
    one.recv(1)
    one.recv(1)
    with pytest.raises(OSError, match="too large"):
        one.recv(1)


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        (
            49,
            "80090308: LdapErr: DSID-0C09042A, comment: AcceptSecurityContext error, data 52e, v4563",
            "wrong password",
        ),
        (49, "80090308: LdapErr: comment: AcceptSecurityContext error, data 775, v4563", "locked"),
        (49, "", "invalidCredentials"),
        (19, "Exceed password retry limit. Please try later.", "retry"),
        (53, "Account inactivated. Contact system administrator.", "inactivated"),
        (53, "Too many failed logins.\n", "failed logins"),
        (53, "Entry permanently locked.\n", "locked"),
    ],
)
def test_refusals_have_reasons(code, message, reason):
    outcome = bind_outcome({"result": code, "description": "invalidCredentials", "message": message})
    assert not outcome.is_right
    assert reason in outcome.reason


@pytest.mark.parametrize("code", [1, 8, 13, 51, 52, 80])
def test_r_auth_7_a_server_that_cannot_is_no_wrong_password(code):
    with pytest.raises(ServerTrouble):
        bind_outcome({"result": code, "description": "busy", "message": ""})


@pytest.mark.parametrize("code", [10, 34, 50, 53])
def test_r_auth_7_what_may_be_about_one_entry_does_not_shut_the_server_for_all(code):
    with pytest.raises(RequestTrouble):
        bind_outcome({"result": code, "description": "referral", "message": ""})


def test_settings_that_cannot_work_are_told():
    text = (
        'hostname = "m.test"\nstate_dir = "s"\n[[listen]]\nservice = "lmtp"\nendpoint = "unix:l"\n'
        '[[domain]]\nname = "example.test"\n[store]\npath = "m/{local}"\n[[directory]]\ntype = "ldap"\n'
    )
    for more, key in (
        ("", "directory[0].uri"),
        ('uri = ["ldap://x"]', "directory[0].base"),
        ('uri = ["ldap://x"]\nbase = "dc=x"\nbind_dn = "cn=x"', "directory[0].bind_password_file"),
        ('uri = ["ldap://x"]\nbase = "dc=x"\nbind_external = true', "directory[0].client_certificate_file"),
        ('uri = ["x"]\nbase = "dc=x"', "directory[0].uri"),
        ('uri = ["ldap://x"]\nbase = "dc=x"\npreset = "novell"', "directory[0].preset"),
        ('uri = ["ldap://x"]\nbase = "dc=x"\n[directory.attributes]\nmial = "x"', "directory[0].attributes"),
    ):
        with pytest.raises(ConfigurationError) as raised:
            parse(text + more, "/etc/m.toml")
        assert key in {problem.key for problem in raised.value.problems}, more
    settings = parse(
        text + 'uri = ["ldap://x"]\nbase = "dc=x"\n[directory.attributes]\naddress = ["uid"]', "/etc/m.toml"
    )
    assert settings.directory[0].attributes == {"address": ["uid"]}
