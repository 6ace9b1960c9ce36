"""Real sockets on loopback, and servers that answer late, wrongly, in pieces or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import defer, error
from twisted.internet import reactor as _reactor
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.names import dns
from twisted.protocols.basic import Int16StringReceiver
from twisted.trial.unittest import TestCase

from mailsrv.dns.exchange import NetworkExchange
from mailsrv.dns.resolver import Resolver
from mailsrv.dns.servers import Server
from mailsrv.dns.settings import DnsSettings, TrustedServers
from mailsrv.interfaces.resolver import MailExchange
from tests.dns.name_server import Told, make_reply, record

reactor: Any = _reactor
QUERY = b"\x12\x34 a question"


class DatagramServer(DatagramProtocol):
    transport: Any
    behaviour = ""

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if self.behaviour == "silent":
            return
        if self.behaviour == "guessed":
            # From somebody else's port, with the right number.
            other: Any = DatagramProtocol()
            port = reactor.listenUDP(0, other, interface="127.0.0.1")
            other.transport.write(datagram[:2] + b"forged", addr)
            port.stopListening()
        self.transport.write(b"??" + b"other number", addr)
        self.transport.write(datagram[:2] + b"answer", addr)


class StreamServer(Int16StringReceiver):
    factory: Any
    transport: Any

    def stringReceived(self, string: bytes) -> None:
        if self.factory.behaviour == "closes":
            self.transport.loseConnection()
            return
        self.sendString(b"??other number")
        answer = self.factory.answer(string)
        for octet in len(answer).to_bytes(2, "big") + answer:
            self.transport.write(bytes((octet,)))


class StreamServers(Factory):
    protocol = StreamServer
    behaviour = ""

    def answer(self, query: bytes) -> bytes:
        return query[:2] + b"answer"


class ExchangeTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.datagrams, self.streams = DatagramServer(), StreamServers()
        stream_port = reactor.listenTCP(0, self.streams, interface="127.0.0.1")
        self.addCleanup(stream_port.stopListening)
        self.stream_server = Server("127.0.0.1", stream_port.getHost().port)
        datagram_port = reactor.listenUDP(0, self.datagrams, interface="127.0.0.1")
        self.addCleanup(datagram_port.stopListening)
        self.datagram_server = Server("127.0.0.1", datagram_port.getHost().port)
        self.exchange = NetworkExchange(reactor)

    async def test_only_the_server_and_the_number_count(self) -> None:
        self.datagrams.behaviour = "guessed"
        assert await self.exchange.ask_udp(self.datagram_server, QUERY, 5) == b"\x12\x34answer"

    async def test_a_silent_server(self) -> None:
        self.datagrams.behaviour = "silent"
        with pytest.raises(defer.TimeoutError):
            await self.exchange.ask_udp(self.datagram_server, QUERY, 0.1)

    async def test_a_refusal_does_not_have_to_be_waited_for(self) -> None:
        free: Any = reactor.listenUDP(0, DatagramProtocol(), interface="127.0.0.1")
        server = Server("127.0.0.1", free.getHost().port)
        await free.stopListening()
        with pytest.raises((error.ConnectionRefusedError, error.ConnectionClosed)):
            await self.exchange.ask_udp(server, QUERY, 20)

    async def test_a_stream_in_pieces(self) -> None:
        assert await self.exchange.ask_tcp(self.stream_server, QUERY, 5) == b"\x12\x34answer"

    async def test_a_stream_that_ends(self) -> None:
        self.streams.behaviour = "closes"
        with pytest.raises(error.ConnectionClosed):
            await self.exchange.ask_tcp(self.stream_server, QUERY, 5)

    async def test_a_whole_resolver_over_sockets(self) -> None:
        told = Told([record("a.test", dns.Record_MX(1, b"mx.test"))])

        class Names(DatagramProtocol):
            transport: Any

            def datagramReceived(self, datagram: bytes, addr: Any) -> None:
                self.transport.write(make_reply(datagram, told), addr)

        port = reactor.listenUDP(0, Names(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        settings = DnsSettings(servers=(f"127.0.0.1:{port.getHost().port}",), trust_ad=TrustedServers.NONE)
        answer = await Resolver(settings, reactor).mail_exchanges("a.test")
        assert answer.records == (MailExchange(1, "mx.test"),)
