"""Answers that leave at once, over real sockets: nothing is lost, doubled or out of order."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import TestCase

from mailsrv.wire.prompt_write import write_promptly


class Sender(Protocol):
    """Writes all its pieces, in turn promptly and not, and hangs up."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        factory: Any = self.factory
        for number, piece in enumerate(factory.pieces):
            if number % 3 == 1:
                transport.write(piece)
            else:
                write_promptly(transport, piece)
        transport.loseConnection()


class Receiver(Protocol):
    def __init__(self) -> None:
        self.octets = bytearray()
        self.done: Deferred[bytearray] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.octets += data

    def connectionLost(self, reason=connectionDone) -> None:
        self.done.callback(self.octets)


class PromptWriteTests(TestCase):
    async def _send(self, pieces: list[bytes]) -> bytearray:
        factory = Factory.forProtocol(Sender)
        factory.pieces = pieces  # type: ignore[attr-defined]
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        receiver = Receiver()
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), receiver)
        octets = await receiver.done
        await port.stopListening()
        return octets

    def test_short_answers_arrive_in_order(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._arrive([b"%d\r\n" % number for number in range(100)]))

    def test_more_than_the_socket_takes_arrives_whole(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._arrive([bytes([number]) * 300_000 for number in range(10)]))

    async def _arrive(self, pieces: list[bytes]) -> None:
        assert await self._send(pieces) == b"".join(pieces)

    def test_another_transport_is_written_to_as_usual(self) -> None:
        transport = StringTransport()
        write_promptly(transport, b"answer")
        assert transport.value() == b"answer"
