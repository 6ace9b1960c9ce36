"""AUTH with a mechanism that asks several times: what the client hears, and what is left when it goes away."""

import base64

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred

from mailsrv.address import Address
from mailsrv.interfaces.account import IAccount, InvalidCredentials
from mailsrv.pop3.settings import Pop3Settings
from mailsrv.testing.dialogue import DialogueTransport

from .conftest import StoredAccount, make_server

ALICE = Address("alice", "example.test")


def b64(octets):
    return base64.b64encode(octets)


class Asking:
    """A portal that wants ``one`` answered with ``yes``."""

    def __init__(self, store):
        self.store = store
        self.ended = []

    def login(self, credentials, mind, interface):
        return Deferred.fromCoroutine(self._decide(credentials))

    async def _decide(self, credentials):
        try:
            answer = await credentials.converse(b"one")
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        self.ended.append(answer)
        if answer != b"yes":
            raise InvalidCredentials
        return IAccount, StoredAccount(ALICE, self.store), lambda: None


class Connection:
    def __init__(self):
        server = make_server()
        self.portal = server.factory.portal = Asking(server.store)
        server.factory.mechanisms = lambda is_tls, certificate=None: ("SCRAM-SHA-256", "PLAIN")
        self.protocol = server.factory.buildProtocol(None)
        self.transport = DialogueTransport(self.protocol, peer=IPv4Address("TCP", "127.0.0.1", 4000))
        self.protocol.makeConnection(self.transport)
        self.say(b"")

    def say(self, octets):
        """What is answered to it."""
        before = len(self.transport.value())
        if octets:
            self.protocol.dataReceived(octets)
        return self.transport.value()[before:]


@pytest.fixture
def connection():
    return Connection()


def begin(connection):
    assert connection.say(b"AUTH SCRAM-SHA-256 " + b64(b"first") + b"\r\n") == b"+ " + b64(b"one") + b"\r\n"


def test_a_log_in_in_two_steps(connection):
    assert b"SASL SCRAM-SHA-256 PLAIN\r\n" in connection.say(b"CAPA\r\n")
    begin(connection)
    assert connection.say(b64(b"yes") + b"\r\n").startswith(b"+OK ")
    assert connection.say(b"STAT\r\n") == b"+OK 0 0\r\n"


def test_a_wrong_answer(connection):
    begin(connection)
    assert connection.say(b64(b"no") + b"\r\n").startswith(b"-ERR [AUTH]")
    assert connection.say(b"STAT\r\n").startswith(b"-ERR")


@pytest.mark.parametrize(("line", "error"), [(b"*", "SaslCancelled"), (b"no base64", "SaslError")])
def test_r_auth_3_no_answer_is_refused_and_another_try_works(connection, line, error):
    begin(connection)
    assert connection.say(line + b"\r\n").startswith(b"-ERR")
    assert connection.portal.ended == [error]
    begin(connection)
    assert connection.say(b64(b"yes") + b"\r\n").startswith(b"+OK ")


@pytest.mark.parametrize("line", [b"*", b"no base64"])
def test_r_lim_exchanges_that_come_to_nothing_are_errors_and_end_the_session(connection, line):
    replies: list[bytes] = []
    while not connection.transport.disconnecting and len(replies) < 100:
        begin(connection)
        replies.append(connection.say(line + b"\r\n"))
    assert len(replies) == Pop3Settings().error_limit
    assert not any(b"[SYS/" in reply for reply in replies[:-1])


def test_a_line_too_long_gives_the_exchange_up(connection):
    begin(connection)
    assert connection.say(b"x" * 20000 + b"\r\n").startswith(b"-ERR Line too long")
    begin(connection)
    assert connection.portal.ended == ["SaslCancelled"]
    assert connection.say(b64(b"yes") + b"\r\n").startswith(b"+OK ")


def test_a_client_that_goes_away_leaves_nothing(connection):
    begin(connection)
    connection.protocol.connectionLost()
    assert connection.portal.ended == ["SaslCancelled"]
