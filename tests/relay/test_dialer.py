"""Connections by the reactor: who gets them, when they fail, what is left when nobody wants them any more."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectBindError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from mailsrv.relay.dialer import TwistedDialer
from mailsrv.relay.settings import RelaySettings
from tests.collector import left_to_the_collector

reactor: Any = _reactor
_OF_AN_ATTEMPT = {"_Attempt", "Client", "Connector", "Recorder"}


class Recorder(Protocol):
    """What happened to a client's protocol."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def connectionMade(self) -> None:
        self.events.append("made")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.events.append("lost")


class Outcome:
    """What became of a Deferred."""

    def __init__(self, deferred: Deferred[Any]) -> None:
        self.results: list[Any] = []
        deferred.addBoth(self.results.append)

    @property
    def kind(self) -> Any:
        (result,) = self.results
        return result.type if isinstance(result, Failure) else result


class Memory:
    """A dialer whose reactor keeps connections in memory."""

    def __init__(self, **settings: Any) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.dialer = TwistedDialer(self.reactor, RelaySettings(**settings))
        self.protocol = Recorder()

    def connect(self, address: str = "192.0.2.1") -> Deferred[Any]:
        self.deferred: Deferred[Any] = self.dialer.connect(address, 25, self.protocol)
        self.outcome = Outcome(self.deferred)
        self.factory = self.reactor.tcpClients[-1][2]
        return self.deferred


@pytest.mark.parametrize(
    ("address", "local"), [("192.0.2.1", ("198.51.100.7", 0)), ("2001:db8::1", ("2001:db8::7", 0))]
)
def test_a_connection_goes_out_from_the_address_of_its_family(address, local):
    memory = Memory(bind_ipv4="198.51.100.7", bind_ipv6="2001:db8::7", connect_timeout=12.0)
    memory.connect(address)
    assert memory.reactor.tcpClients == [(address, 25, memory.factory, 12.0, local)]


def test_without_such_an_address_the_system_chooses():
    memory = Memory()
    memory.connect()
    assert memory.reactor.tcpClients[0][4] is None


def test_the_protocol_has_its_transport_before_anybody_is_told():
    memory = Memory()
    memory.connect()
    assert memory.factory.buildProtocol(None) is memory.protocol
    assert memory.outcome.results == []
    memory.reactor.advance(0)
    assert memory.outcome.results == [memory.protocol]


def test_a_connection_lost_at_once_is_given_to_who_asked_all_the_same():
    memory = Memory()
    memory.connect()
    connector = memory.reactor.connectors[-1]
    memory.factory.buildProtocol(None)
    memory.factory.clientConnectionLost(connector, Failure(Refused()))
    memory.reactor.advance(0)
    assert memory.outcome.results == [memory.protocol]


def test_a_failure_after_it_was_given_up_is_told_to_nobody():
    memory = Memory()
    memory.connect().cancel()
    assert memory.outcome.kind is CancelledError
    memory.factory.clientConnectionFailed(memory.reactor.connectors[-1], Failure(Refused()))
    assert memory.outcome.kind is CancelledError


class RealTests(TestCase):
    """By the reactor there is."""

    timeout = 20

    def setUp(self) -> None:
        self.accepted: list[Recorder] = []

        def build(_address: object) -> Recorder:
            self.accepted.append(Recorder())
            return self.accepted[-1]

        factory: Any = Factory()
        factory.noisy = False
        factory.buildProtocol = build
        self.port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.dialer = TwistedDialer(reactor, RelaySettings())
        self.protocol = Recorder()

    def dial(self, address: str = "127.0.0.1") -> Deferred[Any]:
        return self.dialer.connect(address, self.port.getHost().port, self.protocol)

    async def until(self, *events: str) -> None:
        while tuple(self.protocol.events) != events:
            await deferLater(reactor, 0)

    async def fails(self, deferred: Deferred[Any], *kinds: type[Exception]) -> None:
        try:
            await deferred
        except kinds:
            return
        raise AssertionError("it did not fail")

    def run_whole(self, what: Any) -> Deferred[None]:
        """Nothing may be left to the collector of cycles, either."""

        async def run() -> None:
            with left_to_the_collector() as left:
                await what()
                self.protocol = Recorder()
                await deferLater(reactor, 0)
                await deferLater(reactor, 0)
            assert [name for name in left if name in _OF_AN_ATTEMPT] == []

        return Deferred.fromCoroutine(run())

    def test_a_connection_and_its_end(self) -> Deferred[None]:
        async def run() -> None:
            assert await self.dial() is self.protocol
            transport: Any = self.protocol.transport
            transport.loseConnection()
            await self.until("made", "lost")

        return self.run_whole(run)

    def test_given_up_before_anything(self) -> Deferred[None]:
        async def run() -> None:
            dialing = self.dial()
            dialing.cancel()
            await self.fails(dialing, CancelledError)
            assert self.protocol.events == []

        return self.run_whole(run)

    def test_given_up_in_the_moment_it_is_made(self) -> Deferred[None]:
        async def run() -> None:
            dialing: list[Deferred[Any]] = []

            def made() -> None:
                self.protocol.events.append("made")
                dialing[0].cancel()

            self.protocol.connectionMade = made  # type: ignore[method-assign]
            dialing.append(self.dial())
            await self.fails(dialing[0], CancelledError)
            await self.until("made", "lost")
            del self.protocol.connectionMade

        return Deferred.fromCoroutine(run())

    def test_cut_in_the_moment_it_is_made(self) -> Deferred[None]:
        async def run() -> None:
            def made() -> None:
                self.protocol.events.append("made")
                transport: Any = self.protocol.transport
                transport.abortConnection()

            self.protocol.connectionMade = made  # type: ignore[method-assign]
            assert await self.dial() is self.protocol
            await self.until("made", "lost")

        return Deferred.fromCoroutine(run())

    def test_refused(self) -> Deferred[None]:
        async def run() -> None:
            number = self.port.getHost().port
            await self.port.stopListening()
            await self.fails(self.dialer.connect("127.0.0.1", number, self.protocol), Refused)

        return self.run_whole(run)

    def test_an_address_of_ours_that_is_not_there(self) -> Deferred[None]:
        async def run() -> None:
            self.dialer = TwistedDialer(reactor, RelaySettings(bind_ipv4="192.0.2.77"))
            await self.fails(self.dial(), ConnectBindError)

        return self.run_whole(run)

    def test_nobody_answers(self) -> Deferred[None]:
        async def run() -> None:
            self.dialer = TwistedDialer(reactor, RelaySettings(connect_timeout=0.05))
            # A full backlog drops what comes: nothing is sent elsewhere for this.
            with socket.socket() as deaf:
                deaf.bind(("127.0.0.1", 0))
                deaf.listen(0)
                fillers = [socket.socket() for _ in range(4)]
                try:
                    for each in fillers:
                        each.setblocking(False)
                        each.connect_ex(deaf.getsockname())
                    await self.fails(
                        self.dialer.connect("127.0.0.1", deaf.getsockname()[1], self.protocol), ConnectTimeout
                    )
                finally:
                    for each in fillers:
                        each.close()
            assert self.protocol.events == []

        return self.run_whole(run)
