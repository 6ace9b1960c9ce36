"""Answers that come when the client has gone already: nothing breaks, nothing stays open, no bug is logged."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.failure import Failure

from mailsrv.address import Address
from mailsrv.errors import Unavailable
from mailsrv.interfaces.account import IAccount, SaslCredentials
from mailsrv.interfaces.sessions import SessionEnd
from mailsrv.smtp.settings import Service, Verification
from tests.smtp.smtp_harness import Account, Server, make_server

ENVELOPE = ("MAIL FROM:<a@client.example>", "RCPT TO:<b@example.test>")
HELLO = {Service.MX: "EHLO c", Service.SUBMISSION: "EHLO c", Service.LMTP: "LHLO c"}
PLAIN = "AUTH PLAIN AGFsaWNlAHNlY3JldA=="


@pytest.fixture
def bugs():
    found: Any = []

    def observe(event: Any) -> None:
        if event.get("log_failure") is not None or event.get("log_level") in (LogLevel.error, LogLevel.critical):
            found.append(event)

    publisher: Any = globalLogPublisher
    publisher.addObserver(observe)
    yield found
    publisher.removeObserver(observe)


class Held:
    """Answers of a receiver and a portal, as they are asked for."""

    def __init__(self, server: Server) -> None:
        self.answers: list[tuple[Deferred[Any], Any]] = []
        self.has_login = False
        self._server = server

    def hold(self) -> None:
        receiver: Any = self._server.receiver
        portal: Any = self._server.portal

        def answer(_stage: str, make: Any) -> Deferred[Any]:
            self.answers.append((Deferred(), make))
            return self.answers[-1][0]

        def login(credentials: Any, _mind: object, *_interfaces: object) -> Deferred[Any]:
            self.has_login = True
            if isinstance(credentials, SaslCredentials):
                # Who decides is told of the end, and may decide all the same.
                asked: Any = credentials.converse(b"who?")
                asked.addErrback(lambda _: None)
                decided: Deferred[Any] = Deferred()
                self.answers.append((decided, lambda: (IAccount, Account(ALICE), portal.log_out)))
                return decided
            return answer("", lambda: (IAccount, Account(ALICE), portal.log_out))

        receiver.__class__ = type("HeldReceiver", (type(receiver),), {"answer": staticmethod(answer), "__slots__": ()})
        portal.login = login

    def give(self, *, is_good: bool) -> None:
        while self.answers:
            deferred, make = self.answers.pop(0)
            if deferred.called:
                continue
            if is_good:
                deferred.callback(make())
            else:
                deferred.errback(Unavailable(cause="too late"))


ALICE = Address("alice", "example.test")
STAGES = {
    "connect": (),
    "helo": ("{hello}",),
    "mail": ("{hello}", ENVELOPE[0]),
    "rcpt": ("{hello}", *ENVELOPE),
    "data": ("{hello}", *ENVELOPE, "DATA"),
    "text": ("{hello}", *ENVELOPE, "DATA", "text"),
    "finish": ("{hello}", *ENVELOPE, "DATA", "text", "."),
    "vrfy": ("{hello}", "VRFY b@example.test"),
    "auth": ("{hello}", PLAIN),
    "sasl": ("{hello}", "AUTH SCRAM-SHA-256 biwsbj1hbGljZSxyPXg="),
}

LOG_INS = ("auth", "sasl")


@pytest.mark.parametrize("is_good", [True, False])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("service", Service)
def test_an_answer_after_the_client_has_gone(service, stage, is_good, bugs):
    server = make_server(service=service, verify=Verification.ON)
    server.factory.mechanisms = lambda _is_tls, _certificate=None: ("SCRAM-SHA-256", "PLAIN")
    held = Held(server)
    lines = [line.format(hello=HELLO[service]) for line in STAGES[stage]]
    if service is Service.SUBMISSION and len(lines) > 1 and stage not in LOG_INS:
        lines.insert(1, PLAIN)
    if stage == "connect":
        held.hold()
    client = server.connect(is_tls=service is Service.SUBMISSION)
    client.hear()
    for line in lines[:-1]:
        client.say(line.encode() + b"\r\n")
    server.receiver.hold_writes = stage in ("text", "finish")
    if stage not in ("connect", "text"):
        held.hold()
    if lines:
        client.transport.deliver(lines[-1].encode() + b"\r\n" + (b"text\r\n" if stage == "text" else b""))
    protocol: Any = client.transport.protocol
    if service is Service.SUBMISSION or stage not in LOG_INS:
        assert held.answers or server.receiver.held_writes
    # Also while nothing is read: the system tells of a reset.
    protocol.connectionLost(Failure(ConnectionLost()))
    held.give(is_good=is_good)
    for each in server.receiver.held_writes:
        each.callback(None) if is_good else each.errback(OSError("disk"))
    held.give(is_good=is_good)
    # What else may come from elsewhere, however late.
    protocol.stopProducing()
    protocol.drain()
    protocol.end_session(next(iter(SessionEnd)))
    protocol.cut_off()
    server.clock.advance(10_000)
    assert bugs == []
    assert not server.factory._open
    assert all(not each.is_open for each in server.receiver.transactions)
    assert protocol._session is None
    assert protocol._logout is None
    assert server.portal.logouts == len(server.portal.attempts) + (is_good and stage in LOG_INS and held.has_login)
    assert server.clock.getDelayedCalls() == []


def test_a_log_in_that_succeeds_too_late_is_ended(bugs):
    server = make_server(service=Service.SUBMISSION)
    held = Held(server)
    client = server.connect(is_tls=True).begin()
    held.hold()
    client.say(PLAIN.encode() + b"\r\n")
    client.transport.close_from_client()
    held.give(is_good=True)
    assert server.portal.logouts == 1
    assert bugs == []
