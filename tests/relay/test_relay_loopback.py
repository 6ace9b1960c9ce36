"""Real sockets and real TLS: to this project's own server, and to one that misbehaves."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import deferLater
from twisted.internet.tcp import Client as TcpClient
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import TestCase

from mailsrv.interfaces.envelope import BodyType
from mailsrv.interfaces.queue import Consignment, Destination, QueuedRecipient, Taken
from mailsrv.interfaces.tls_policy import TlsLevel
from mailsrv.relay.agent import make_relay_parts
from mailsrv.relay.mx_agent import MxAgent
from mailsrv.relay.settings import RelaySettings
from mailsrv.smtp.factory import SmtpServerFactory
from mailsrv.smtp.settings import Service, SmtpSettings
from mailsrv.testing.receiver import MemoryReceiver
from mailsrv.tls.client import ClientTls
from mailsrv.tls.client_settings import TlsClientSettings
from mailsrv.tls.contexts import TlsContexts
from mailsrv.tls.self_signed import write_self_signed
from mailsrv.tls.settings import TlsSettings
from mailsrv.wire.connection_limits import ConnectionTable
from mailsrv.wire.networks import NetworkSet
from mailsrv.wire.settings import LimitsSettings
from mailsrv.wire.tls_mode import TlsMode
from tests.collector import left_to_the_collector
from tests.relay.relay_harness import MESSAGE, MemoryContent, MemoryPolicies, MemoryResolver, World, address, make_world

reactor: Any = _reactor
_OF_CONNECTIONS = {
    "BufferingTLSTransport",
    "Client",
    "Connector",
    "LeanConnection",
    "Server",
    "SmtpClientProtocol",
    "SmtpClientSession",
    "SmtpProtocol",
    "SmtpSession",
    "TLSMemoryBIOFactory",
}
"""Objects that there are for each connection, at both ends."""
BIG = MESSAGE + b".a line of some length, with a dot in front of it\r\n" * 60_000
BINARY = b"Content-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n\x00\n.\r\n.\r\n\xff\r"


class _Loopback(TestCase):
    timeout = 60

    def setUp(self) -> None:
        folder = self.mktemp()
        certificate, key = f"{folder}/cert.pem", f"{folder}/key.pem"
        write_self_signed("localhost", certificate, key)
        self.contexts = TlsContexts(TlsSettings(certificate=certificate, key=key))
        self.receiver = MemoryReceiver()
        factory = SmtpServerFactory(
            evolve(SmtpSettings(), greeting_delay_seconds=0.0),
            self.receiver,
            service=Service.MX,
            hostname="mx.example.net",
            portal=None,
            context_factory=self.contexts.for_listener("mx"),
            tls_mode=TlsMode.STARTTLS,
            plaintext_networks=NetworkSet(()),
            connections=ConnectionTable(LimitsSettings(), reactor.seconds),
            clock=reactor,
        )
        self.port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.factory = factory
        self.world: World = make_world()
        self.policies = MemoryPolicies()
        self.resolver = MemoryResolver({"localhost": [(10, "localhost")]}, {"localhost": ["127.0.0.1"]})
        parts = make_relay_parts(
            RelaySettings(port=self.port.getHost().port),
            "mail.example.test",
            resolver=self.resolver,
            tls_policies=self.policies,
            client_tls=ClientTls(TlsClientSettings(ca_file=certificate)),
            open_content=lambda entry: succeed(self.world.contents[entry.id]),
            reactor=reactor,
        )
        self.agent = MxAgent(parts)
        self.addCleanup(self.end)

    async def _ended(self) -> None:
        await self.agent.stop()
        await self.factory.drain()
        await maybeDeferred(self.port.stopListening)
        # The client's ends learn of it in the reactor's next turns.
        while any(isinstance(one, TcpClient) for one in reactor.getReaders()):
            await deferLater(reactor, 0)

    def end(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._ended())

    def send(self, content: MemoryContent, *names: str, **changes: Any) -> Deferred[Any]:
        recipients = tuple(QueuedRecipient(number, address(name)) for number, name in enumerate(names, 1))
        consignment = Consignment(self.world.entry(content, **changes), Destination.parse("mx:localhost"), recipients)
        return self.agent.attempt(consignment)


class LoopbackTests(_Loopback):
    """This project's own server."""

    async def deliver_in_all_ways(self) -> None:
        for content in (MemoryContent(MESSAGE), MemoryContent(BIG, is_large=True), MemoryContent(b".\r\n.\r\n..\r\n")):
            outcomes = await self.send(content, "bob@localhost", "eve@localhost")
            assert all(isinstance(outcome, Taken) for outcome in outcomes), outcomes
            message = self.receiver.messages[-1]
            received = message.content
            # The server's receiver adds nothing here.
            assert received == content._octets
            assert [str(one) for one in message.recipients] == ["bob@localhost", "eve@localhost"]

    def test_plain(self) -> Deferred[None]:
        self.policies.levels["localhost"] = TlsLevel.NONE
        return Deferred.fromCoroutine(self.deliver_in_all_ways())

    def test_opportunistic_tls(self) -> Deferred[None]:
        async def run() -> None:
            await self.deliver_in_all_ways()
            assert [result.result_type for result in self.policies.results] == [""]

        return Deferred.fromCoroutine(run())

    def test_verified_tls(self) -> Deferred[None]:
        self.policies.levels["localhost"] = TlsLevel.VERIFY
        return Deferred.fromCoroutine(self.deliver_in_all_ways())

    def leave_nothing(self, level: TlsLevel) -> Deferred[None]:
        async def run() -> None:
            self.policies.levels["localhost"] = level
            await self.send(MemoryContent(MESSAGE), "first@localhost")
            with left_to_the_collector() as left:
                for number in range(3):
                    (outcome,) = await self.send(MemoryContent(MESSAGE), f"{number}@localhost")
                    assert isinstance(outcome, Taken), outcome
                await self._ended()
            assert [name for name in left if name in _OF_CONNECTIONS] == []

        return Deferred.fromCoroutine(run())

    def test_connections_leave_nothing_to_the_collector(self) -> Deferred[None]:
        return self.leave_nothing(TlsLevel.NONE)

    def test_connections_with_tls_leave_nothing_to_the_collector(self) -> Deferred[None]:
        return self.leave_nothing(TlsLevel.VERIFY)

    def test_a_certificate_for_another_name(self) -> Deferred[None]:
        async def run() -> None:
            self.resolver.mx["localhost"] = [(10, "other.example")]
            self.resolver.hosts["other.example"] = ["127.0.0.1"]
            self.policies.levels["localhost"] = TlsLevel.VERIFY
            (outcome,) = await self.send(MemoryContent(MESSAGE), "bob@localhost")
            assert str(outcome.status) == "4.7.5", outcome
            assert [result.result_type for result in self.policies.results] == ["certificate-host-mismatch"]
            assert self.receiver.messages == []

        return Deferred.fromCoroutine(run())

    def test_binary_arrives_the_same_or_encoded(self) -> Deferred[None]:
        async def run() -> None:
            (outcome,) = await self.send(MemoryContent(BINARY), "bob@localhost", body=BodyType.BINARY)
            assert isinstance(outcome, Taken), outcome
            received = self.receiver.messages[-1].content
            assert received == BINARY or b"AAouDQouDQr/DQ==" in received

        return Deferred.fromCoroutine(run())

    def test_nobody_listens(self) -> Deferred[None]:
        async def run() -> None:
            await self.port.stopListening()
            (outcome,) = await self.send(MemoryContent(MESSAGE), "bob@localhost")
            assert str(outcome.status) == "4.4.1"
            assert "refused" in outcome.reply.lower()

        return Deferred.fromCoroutine(run())


class _BrokenTls(LineReceiver):
    """Offers STARTTLS, and then does not speak TLS."""

    factory: Any
    transport: Any

    def connectionMade(self) -> None:
        self.factory.connections.append(self)
        self.sendLine(b"220 broken.example")

    def lineReceived(self, line: bytes) -> None:
        verb = line[:4].upper()
        if verb == b"EHLO":
            self.sendLine(b"250-broken.example\r\n250 STARTTLS")
        elif verb == b"STAR":
            self.sendLine(b"220 go")
            self.setRawMode()
        elif verb == b"DATA":
            self.sendLine(b"354 go")
        elif line.startswith(b"."):
            self.sendLine(b"250 2.0.0 taken")
        elif verb in {b"MAIL", b"RCPT"}:
            self.sendLine(b"250 fine")
        elif verb == b"QUIT":
            self.transport.loseConnection()

    def rawDataReceived(self, data: bytes) -> None:
        """What the host says to a ClientHello."""
        if self.factory.answer:
            self.transport.write(self.factory.answer)
        else:
            self.transport.loseConnection()


class BrokenTlsTests(_Loopback):
    """The same client, with a host whose TLS is broken."""

    def setUp(self) -> None:
        super().setUp()
        factory: Any = ServerFactory.forProtocol(_BrokenTls)
        factory.noisy = False
        factory.connections, factory.answer = [], b""
        self.broken = factory
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.agent._parts.settings = evolve(self.agent._parts.settings, port=port.getHost().port)

    def check(self, level: TlsLevel, answer: bytes) -> Deferred[None]:
        async def run() -> None:
            self.broken.answer = answer
            self.policies.levels["localhost"] = level
            (outcome,) = await self.send(MemoryContent(MESSAGE), "bob@localhost")
            if level is TlsLevel.OPPORTUNISTIC:
                assert isinstance(outcome, Taken), outcome
                assert len(self.broken.connections) == 2
            else:
                assert str(outcome.status) == "4.7.5", outcome
                assert "TLS" in outcome.reply
            assert [result.result_type for result in self.policies.results] == ["validation-failure"]

        return Deferred.fromCoroutine(run())

    def test_closed_opportunistic(self) -> Deferred[None]:
        return self.check(TlsLevel.OPPORTUNISTIC, b"")

    def test_closed_verified(self) -> Deferred[None]:
        return self.check(TlsLevel.VERIFY, b"")

    def test_garbage_opportunistic(self) -> Deferred[None]:
        return self.check(TlsLevel.OPPORTUNISTIC, b"250 not TLS at all\r\n")

    def test_garbage_verified(self) -> Deferred[None]:
        return self.check(TlsLevel.VERIFY, b"250 not TLS at all\r\n")
