"""TLS from the first octet, on loopback: however a connection ends, nothing of it is left to the collector of cycles.

Connections of IMAP live for days: what they leave would not be found among what came lately.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase

from mailsrv.imap.factory import ImapServerFactory
from mailsrv.imap.settings import ImapSettings
from mailsrv.tls.contexts import TlsContexts
from mailsrv.tls.self_signed import write_self_signed
from mailsrv.tls.settings import TlsSettings
from mailsrv.wire.connection_limits import ConnectionTable
from mailsrv.wire.networks import NetworkSet
from mailsrv.wire.settings import LimitsSettings
from mailsrv.wire.tls_mode import TlsMode
from tests.collector import left_to_the_collector
from tests.imap.server import Server

reactor: Any = _reactor
_CONNECTIONS = 3
_OF_CONNECTIONS = {
    "BufferingTLSTransport",
    "Connection",
    "ConnectionSlot",
    "Failure",
    "ImapProtocol",
    "LeanConnection",
    "Server",
    "_ProducerMembrane",
}


def _tls(connection: socket.socket) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)


def _talk(connection: socket.socket, *commands: bytes) -> None:
    """Greeting, then each command and its answer."""
    assert connection.recv(4096)
    for number, command in enumerate(commands):
        tag = b"%d " % number
        connection.sendall(tag + command + b"\r\n")
        octets = b""
        while tag + b"OK" not in octets:
            piece = connection.recv(4096)
            assert piece, octets
            octets += piece


def _only_connect(connection: socket.socket) -> None:
    connection.close()


def _speak_without_tls(connection: socket.socket) -> None:
    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
    connection.recv(4096)
    connection.close()


def _log_out(connection: socket.socket) -> None:
    secured = _tls(connection)
    _talk(secured, b"LOGIN alice secret", b"SELECT INBOX", b"LOGOUT")
    secured.close()


def _go_without_a_word(connection: socket.socket) -> None:
    secured = _tls(connection)
    _talk(secured, b"LOGIN alice secret", b"SELECT INBOX")
    secured.close()


def _break_off(connection: socket.socket) -> None:
    secured = _tls(connection)
    _talk(secured, b"LOGIN alice secret")
    secured.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    secured.close()


class TlsEndTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        folder = self.mktemp()
        certificate, key = f"{folder}/cert.pem", f"{folder}/key.pem"
        write_self_signed("mail.example.test", certificate, key)
        context: Any = TlsContexts(TlsSettings(certificate=certificate, key=key)).for_listener("imap")
        self.parts = Server()
        self.parts.fill("plain*2")
        self.factory = ImapServerFactory(
            ImapSettings(),
            hostname="mail.example.test",
            portal=self.parts.factory.services.portal,
            spool=self.parts.spool,
            context_factory=context,
            tls_mode=TlsMode.IMPLICIT,
            plaintext_networks=NetworkSet(),
            connections=ConnectionTable(LimitsSettings(), reactor.seconds),
            clock=reactor,
        )
        listening = reactor.listenTCP(0, TLSMemoryBIOFactory(context, False, self.factory), interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        self.address = ("127.0.0.1", listening.getHost().port)

    def leaves_nothing(self, client: Callable[[socket.socket], None]) -> Deferred[None]:
        async def connect(times: int) -> None:
            for _ in range(times):
                await deferToThread(lambda: client(socket.create_connection(self.address, 10)))
            while self.factory.connection_count:
                await deferLater(reactor, 0.01)
            # The transport goes a turn later than what it carried.
            await deferLater(reactor, 0.05)

        async def run() -> None:
            await connect(1)
            with left_to_the_collector() as left:
                await connect(_CONNECTIONS)
            assert {name: left[name] for name in _OF_CONNECTIONS if left[name]} == {}

        return Deferred.fromCoroutine(run())

    def test_who_only_looks_whether_the_port_is_open(self) -> Deferred[None]:
        return self.leaves_nothing(_only_connect)

    def test_who_does_not_speak_tls(self) -> Deferred[None]:
        return self.leaves_nothing(_speak_without_tls)

    def test_who_logs_out(self) -> Deferred[None]:
        return self.leaves_nothing(_log_out)

    def test_who_goes_without_a_word(self) -> Deferred[None]:
        return self.leaves_nothing(_go_without_a_word)

    def test_who_breaks_off(self) -> Deferred[None]:
        return self.leaves_nothing(_break_off)
