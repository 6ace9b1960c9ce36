"""One question to one server over UDP or TCP: the only file here that opens sockets.

Every UDP question has a socket of its own, so that its port is as random as its number (RFC 5452
9.2), connected to the server, so that nobody else's datagrams are read.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.protocol import DatagramProtocol, Factory, connectionDone
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure

from mailsrv.dns.servers import Server

_MAX_DATAGRAM_OCTETS = 4096


class DnsExchange(Protocol):
    """What the resolver needs of the network. Both fail with an OSError or an error of twisted.internet."""

    def ask_udp(self, server: Server, query: bytes, timeout: float) -> Deferred[bytes]:
        """The first datagram with the query's number."""

    def ask_tcp(self, server: Server, query: bytes, timeout: float) -> Deferred[bytes]:
        """The whole answer (RFC 7766)."""


class NetworkExchange:
    """Asks over the network."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def ask_udp(self, server: Server, query: bytes, timeout: float) -> Deferred[bytes]:
        question = _DatagramQuestion(server, query)
        answer = question.answer
        answer.addTimeout(timeout, self._reactor)
        try:
            self._reactor.listenUDP(
                0, question, interface="::" if server.is_ipv6 else "", maxPacketSize=_MAX_DATAGRAM_OCTETS
            )
        except Exception:  # no socket to be had: this server cannot be asked
            question.finish(Failure())
        return answer

    def ask_tcp(self, server: Server, query: bytes, timeout: float) -> Deferred[bytes]:
        endpoint_type = TCP6ClientEndpoint if server.is_ipv6 else TCP4ClientEndpoint
        endpoint = endpoint_type(self._reactor, server.address, server.port, timeout=timeout)
        factory = Factory.forProtocol(_StreamQuestion)
        connecting: Deferred[Any] = endpoint.connect(factory)
        return connecting.addCallback(lambda question: question.ask(query)).addTimeout(timeout, self._reactor)


class _DatagramQuestion(DatagramProtocol):
    transport: Any

    def __init__(self, server: Server, query: bytes) -> None:
        self._server, self._query = server, query
        self.answer: Deferred[bytes] = Deferred(lambda _: self._close())
        self._is_done = False

    def startProtocol(self) -> None:
        try:
            self.transport.connect(self._server.address, self._server.port)
            self.transport.write(self._query)
        except OSError:
            self.finish(Failure())

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if datagram[:2] == self._query[:2]:
            self.finish(datagram)

    def connectionRefused(self) -> None:
        self.finish(Failure(error.ConnectionRefusedError()))

    def stopProtocol(self) -> None:
        # By epoll a refusal arrives as an error of the socket, which Twisted closes without a word.
        self.finish(Failure(error.ConnectionLost()))

    def finish(self, result: bytes | Failure) -> None:
        if not self._is_done:
            self._close()
            self.answer.callback(result)

    def _close(self) -> None:
        self._is_done = True
        if self.transport is not None:
            self.transport.stopListening()


class _StreamQuestion(Int16StringReceiver):
    MAX_LENGTH = 65535
    transport: Any

    def __init__(self) -> None:
        self._query = b""
        self._answer: Deferred[bytes] | None = None

    def ask(self, query: bytes) -> Deferred[bytes]:
        self._query = query
        self._answer = Deferred(lambda _: self._finish(Failure(error.TimeoutError())))
        self.sendString(query)
        return self._answer

    def stringReceived(self, string: bytes) -> None:
        if string[:2] == self._query[:2]:
            self._finish(string)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._finish(Failure(error.ConnectionClosed("the server closed the connection")))

    def _finish(self, result: bytes | Failure) -> None:
        answer, self._answer = self._answer, None
        if self.transport is not None:
            self.transport.abortConnection()
        if answer is not None:
            answer.callback(result)
