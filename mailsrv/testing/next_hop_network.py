"""A network in memory that the relay's agents dial: hosts of :mod:`mailsrv.testing.next_hop` at addresses.

Octets travel by the clock, so a test advances it.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.relay.dialer import IDialer
from mailsrv.testing.next_hop import HopConversation, NextHop


class MemoryTransport:
    """The client's end of a connection in memory."""

    def __init__(self, clock: Clock, conversation: HopConversation, protocol: Any, latency: float) -> None:
        self._clock = clock
        self.conversation = conversation
        self.protocol = protocol
        self._latency = latency
        self._is_gone = False
        self._producer: Any = None
        self.is_tls = False
        self.disconnecting = False

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.200", 40000)

    def write(self, octets: bytes) -> None:
        if self._is_gone or self.disconnecting:
            return
        if self._producer is not None:
            self._producer.pauseProducing()
        self._clock.callLater(self._latency, self.arrive, octets)

    def writeSequence(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def arrive(self, octets: bytes) -> None:
        """What the client wrote gets to the host."""
        if self._is_gone:
            return
        if self._producer is not None:
            self._producer.resumeProducing()
        conversation = self.conversation
        if not conversation.is_over:
            self.say(conversation.receive(octets))

    def say(self, octets: bytes) -> None:
        """The host says this, and then perhaps closes."""
        if octets:
            self._clock.callLater(self._latency, self._deliver, octets, self.conversation.answered)
        if self.conversation.is_over:
            self._clock.callLater(self._latency, self.lose, ConnectionLost())

    def _deliver(self, octets: bytes, answered: int) -> None:
        if not self._is_gone and not self.disconnecting:
            self.conversation.told = max(self.conversation.told, answered)
            self.protocol.dataReceived(octets)

    def lose(self, reason: Exception) -> None:
        """The connection ends."""
        if not self._is_gone:
            self._is_gone = True
            self.conversation.is_over = True
            self.protocol.connectionLost(Failure(reason))

    def loseConnection(self) -> None:
        self.disconnecting = True
        self._clock.callLater(0, self.lose, ConnectionDone())

    def abortConnection(self) -> None:
        self.disconnecting = True
        self._clock.callLater(0, self.lose, ConnectionAborted())

    def startTLS(self, creator: object) -> None:
        self._clock.callLater(self._latency, self._shake_hands)

    def _shake_hands(self) -> None:
        if self._is_gone:
            return
        if self.conversation.hop.breaks_handshake:
            self.lose(ConnectionLost())
            return
        self.is_tls = True
        if self.conversation.wants_tls:
            self.conversation.tls_started()
        else:
            self.conversation.is_tls = True
        self.protocol.handshakeCompleted()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None


@implementer(IDialer)
@define(eq=False)
class MemoryNetwork:
    """Hosts at addresses (``192.0.2.1``, any port) and at endpoint strings. Nobody elsewhere: refused."""

    clock: Clock
    hops: dict[str, NextHop] = field(factory=dict)
    latency: float = 0.0
    dialled: list[str] = field(factory=list)
    implicit_tls_ports: frozenset[int] = frozenset({465})

    def connect(self, address: str, port: int, protocol: IProtocol) -> Deferred[IProtocol]:
        return self._connect(address, protocol, greets=port not in self.implicit_tls_ports)

    def connect_endpoint(self, endpoint: str, protocol: IProtocol) -> Deferred[IProtocol]:
        return self._connect(endpoint, protocol, greets=True)

    def _connect(self, where: str, protocol: Any, *, greets: bool) -> Deferred[IProtocol]:
        self.dialled.append(where)
        hop = self.hops.get(where)
        if hop is None or not hop.is_up:
            return fail(Refused())
        conversation = HopConversation(hop)
        hop.conversations.append(conversation)
        transport: Any = (MemoryTransport if greets else _ImplicitTlsTransport)(
            self.clock, conversation, protocol, self.latency
        )
        connected: Deferred[IProtocol] = Deferred()

        def establish() -> None:
            protocol.makeConnection(transport)
            connected.callback(protocol)
            if greets:
                transport.say(conversation.greet())

        self.clock.callLater(self.latency, establish)
        return connected


class _ImplicitTlsTransport(MemoryTransport):
    """The host greets after the handshake."""

    def _shake_hands(self) -> None:
        super()._shake_hands()
        if self.is_tls:
            self.say(self.conversation.greet())
