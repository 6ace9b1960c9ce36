"""PROXY protocol over real sockets: before implicit TLS and before STARTTLS, with the told address in what is kept."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as untyped_reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase

from mailsrv.app.proxy_listener import ProxyTrust, behind_proxy
from mailsrv.smtp.factory import SmtpServerFactory
from mailsrv.smtp.settings import Service, SmtpSettings
from mailsrv.testing.receiver import MemoryReceiver
from mailsrv.wire.connection_limits import ConnectionTable
from mailsrv.wire.networks import NetworkSet
from mailsrv.wire.settings import LimitsSettings
from mailsrv.wire.tls_mode import TlsMode
from tests.smtp.test_smtp_tls import Conversation
from tests.tls.authority import issue_for_host

reactor: Any = untyped_reactor
LINE = b"PROXY TCP6 2001:db8::1 2001:db8::25 40000 465\r\n"


class ProxySocketTests(TestCase):
    def listen(self, tls_mode: TlsMode, trusted: str = "127.0.0.0/8") -> int:
        options = issue_for_host("mail.example.test").for_twisted.options()
        self.receiver = MemoryReceiver()
        self.factory = SmtpServerFactory(
            SmtpSettings(greeting_delay_seconds=0),
            self.receiver,
            service=Service.MX,
            hostname="mail.example.test",
            portal=None,
            context_factory=options,
            tls_mode=tls_mode,
            plaintext_networks=NetworkSet(),
            connections=ConnectionTable(LimitsSettings(), reactor.seconds),
            clock=reactor,
        )
        inner: Any = self.factory
        if tls_mode is TlsMode.IMPLICIT:
            inner = TLSMemoryBIOFactory(options, False, self.factory)
        factory: Any = behind_proxy(inner, ProxyTrust(NetworkSet([trusted]), 5.0), reactor)
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(self.factory.drain)
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    def check(self, _: object) -> None:
        [message] = self.receiver.messages
        assert message.session.client_address == "2001:db8::1"
        assert message.session.client_port == 40000
        assert message.session.local_address == "2001:db8::25"
        assert message.session.tls_version.startswith("TLSv1.")

    @staticmethod
    def send(client: Conversation) -> None:
        for line in (b"EHLO c\r\n", b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<b@example.test>\r\n", b"DATA\r\n"):
            client.say(line)
        assert client.say(b"x\r\n.\r\n").startswith("250")
        assert client.say(b"QUIT\r\n").startswith("221")
        client.socket.close()

    def test_implicit_tls(self) -> Deferred[None]:
        port = self.listen(TlsMode.IMPLICIT)

        def talk() -> None:
            client = Conversation(port)
            client.socket.sendall(LINE)
            client.start_tls()
            assert "220 " in client.read()
            self.send(client)

        return deferToThread(talk).addCallback(self.check)

    def test_starttls(self) -> Deferred[None]:
        port = self.listen(TlsMode.STARTTLS)

        def talk() -> None:
            client = Conversation(port)
            assert client.say(LINE).startswith("220 ")
            client.say(b"EHLO c\r\n")
            assert client.say(b"STARTTLS\r\n").startswith("220 ")
            client.start_tls()
            self.send(client)

        return deferToThread(talk).addCallback(self.check)

    def test_r_proxy_1_who_is_no_proxy_is_closed_at_once(self) -> Deferred[None]:
        port = self.listen(TlsMode.STARTTLS, trusted="192.0.2.0/24")

        def talk() -> None:
            client = Conversation(port)
            assert client.socket.recv(100) == b""
            client.socket.close()

        def check(_: object) -> None:
            assert not self.receiver.sessions

        return deferToThread(talk).addCallback(check)
