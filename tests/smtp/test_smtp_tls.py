"""STARTTLS and implicit TLS over real sockets on the loopback (R-TLS-1, RFC 3207)."""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Any

from twisted.internet import reactor as untyped_reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase

from mailsrv.smtp.factory import SmtpServerFactory
from mailsrv.smtp.settings import Service, SmtpSettings
from mailsrv.testing.receiver import MemoryReceiver
from mailsrv.tls.contexts import TlsContexts
from mailsrv.tls.self_signed import write_self_signed
from mailsrv.tls.settings import TlsSettings
from mailsrv.wire.connection_limits import ConnectionTable
from mailsrv.wire.networks import NetworkSet
from mailsrv.wire.settings import LimitsSettings
from mailsrv.wire.tls_mode import TlsMode
from tests.tls.authority import issue_for_host

reactor: Any = untyped_reactor


class Conversation:
    """A blocking client, for a thread."""

    def __init__(self, port: int, *, is_tls: bool = False) -> None:
        self.context = ssl.create_default_context()
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.socket: socket.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        if is_tls:
            self.start_tls()

    def start_tls(self) -> None:
        self.socket = self.context.wrap_socket(self.socket)

    def read(self) -> str:
        data = b""
        while not (data.endswith(b"\r\n") and data[data.rfind(b"\n", 0, -1) + 1 :][3:4] == b" "):
            more = self.socket.recv(4096)
            if not more:
                break
            data += more
        return data.decode()

    def say(self, octets: bytes) -> str:
        self.socket.sendall(octets)
        return self.read()


class TlsTests(TestCase):
    def listen(self, tls_mode: TlsMode, *, context_factory: Any = None, service: Service = Service.MX) -> int:
        certificate = issue_for_host("mail.example.test").for_twisted
        self.receiver = MemoryReceiver()
        self.factory = SmtpServerFactory(
            SmtpSettings(),
            self.receiver,
            service=service,
            hostname="mail.example.test",
            portal=None,
            context_factory=context_factory or certificate.options(),
            tls_mode=tls_mode,
            plaintext_networks=NetworkSet(),
            connections=ConnectionTable(LimitsSettings(), reactor.seconds),
            clock=reactor,
        )
        factory: Any = self.factory
        if tls_mode is TlsMode.IMPLICIT:
            factory = TLSMemoryBIOFactory(certificate.options(), False, self.factory)
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(self.factory.drain)
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    def test_starttls(self) -> Deferred[None]:
        port = self.listen(TlsMode.STARTTLS)

        def talk() -> None:
            client = Conversation(port)
            assert "220 " in client.read()
            assert "STARTTLS" in client.say(b"EHLO c\r\n")
            assert client.say(b"STARTTLS\r\n").startswith("220 2.0.0")
            client.start_tls()
            assert client.say(b"MAIL FROM:<a@b>\r\n").startswith("503")
            assert "STARTTLS" not in client.say(b"EHLO again\r\n")
            for line in (b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<b@example.test>\r\n", b"DATA\r\n"):
                client.say(line)
            assert client.say(b"x" * 70 + b"\r\n" + b"y" * 300000 + b"\r\n.\r\n").startswith("554 5.5.6")
            client.say(b"MAIL FROM:<a@b>\r\nRCPT TO:<b@example.test>\r\n")
            client.say(b"DATA\r\n")
            assert client.say((b"x" * 70 + b"\r\n") * 20000 + b".\r\n").startswith("250")
            assert client.say(b"QUIT\r\n").startswith("221")
            assert client.socket.recv(10) == b""
            client.socket.close()

        def check(_: object) -> None:
            [message] = self.receiver.messages
            assert len(message.content) == 72 * 20000
            assert message.session.tls_version.startswith("TLSv1.")
            assert message.session.tls_cipher
            assert message.session.helo == "again"

        return deferToThread(talk).addCallback(check)

    def test_implicit_tls(self) -> Deferred[None]:
        port = self.listen(TlsMode.IMPLICIT)

        def talk() -> None:
            client = Conversation(port, is_tls=True)
            assert "220 " in client.read()
            assert "STARTTLS" not in client.say(b"EHLO c\r\n")
            assert client.say(b"STARTTLS\r\n").startswith("503")
            assert client.say(b"QUIT\r\n").startswith("221")
            client.socket.close()

        def check(_: object) -> None:
            assert self.receiver.sessions[0].tls_version.startswith("TLSv1.")

        return deferToThread(talk).addCallback(check)

    def test_r_tls_1_a_command_before_the_handshake_is_no_command(self) -> Deferred[None]:
        port = self.listen(TlsMode.STARTTLS)

        def talk() -> None:
            client = Conversation(port)
            client.read()
            client.say(b"EHLO c\r\n")
            assert client.say(b"STARTTLS\r\nMAIL FROM:<evil@b>\r\n").startswith("554 5.5.0")
            assert client.socket.recv(10) == b""
            client.socket.close()
            # After the 220, in the clear: the TLS layer takes it for a broken handshake.
            other = Conversation(port)
            other.read()
            other.say(b"EHLO c\r\n")
            assert other.say(b"STARTTLS\r\n").startswith("220")
            answer = other.say(b"MAIL FROM:<evil@b>\r\n")
            assert "250" not in answer
            other.socket.close()

        def check(_: object) -> None:
            assert self.receiver.transactions == []

        return deferToThread(talk).addCallback(check)

    def test_r_smtp_5_tls_that_ends_within_a_chunk_ends_the_message(self) -> Deferred[None]:
        port = self.listen(TlsMode.STARTTLS)

        def talk() -> None:
            for _ in range(3):
                client = Conversation(port)
                client.read()
                client.say(b"EHLO c\r\n")
                client.say(b"STARTTLS\r\n")
                client.start_tls()
                assert "250-REQUIRETLS" in client.say(b"EHLO c\r\n")
                client.say(b"MAIL FROM:<a@b> REQUIRETLS\r\n")
                client.say(b"RCPT TO:<b@example.test>\r\n")
                client.socket.sendall(b"BDAT 9 LAST\r\nhalf")
                # TLS is closed in good order, and what is missing comes in the clear.
                plain = client.socket.unwrap() if isinstance(client.socket, ssl.SSLSocket) else client.socket
                with contextlib.suppress(OSError):
                    plain.sendall(b" a cup\r\n")
                    assert plain.recv(100) == b""
                plain.close()

        def check(_: object) -> None:
            assert self.receiver.messages == []
            assert len(self.receiver.transactions) == 3
            assert all(transaction.is_aborted for transaction in self.receiver.transactions)
            assert all(transaction.parameters.envelope.requires_tls for transaction in self.receiver.transactions)

        return deferToThread(talk).addCallback(check)

    def end_without_an_alert(self, service: Service) -> Deferred[None]:
        """As most clients end, and as somebody on the way can make it look: TCP ends, TLS has not said so."""
        folder = self.mktemp()
        settings = TlsSettings(certificate=f"{folder}/cert.pem", key=f"{folder}/key.pem")
        write_self_signed("mail.example.test", settings.certificate, settings.key)
        contexts = TlsContexts(settings)
        port = self.listen(TlsMode.STARTTLS, context_factory=contexts.for_listener("mx"), service=service)
        hello = b"LHLO c\r\n" if service is Service.LMTP else b"EHLO c\r\n"
        left: list[int] = []

        def talk(last: bytes, cut: int) -> None:
            client = Conversation(port)
            client.read()
            client.say(hello)
            client.say(b"STARTTLS\r\n")
            into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = client.context.wrap_bio(into, out)

            def carry(step: Any) -> Any:
                while True:
                    try:
                        return step()
                    except ssl.SSLWantReadError:
                        client.socket.sendall(out.read())
                        into.write(client.socket.recv(65536))

            def say(octets: bytes) -> bytes:
                tls.write(octets)
                client.socket.sendall(out.read())
                answer: bytes = carry(lambda: tls.read(65536))
                return answer

            carry(tls.do_handshake)
            client.socket.sendall(out.read())
            assert say(hello).startswith(b"250")
            assert say(b"MAIL FROM:<a@b>\r\n").startswith(b"250")
            assert say(b"RCPT TO:<b@example.test>\r\n").startswith(b"250")
            if not last.startswith(b"BDAT"):
                assert say(b"DATA\r\n").startswith(b"354")
            tls.write(last)
            record = out.read()
            client.socket.sendall(record[: len(record) - cut])
            client.socket.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while client.socket.recv(65536):
                    pass
            client.socket.close()

        async def run() -> None:
            for last, cut in (
                (b"half", 0),
                (b"half\r\n.", 0),
                (b"half\r\n.\r", 0),
                (b"whole\r\n.\r\n", 1),
                (b"BDAT 9 LAST\r\nhalf", 0),
                (b"BDAT 4 LAST\r\nhalf", 1),
                (b"BDAT 4\r\nhalf", 0),
            ):
                await deferToThread(talk, last, cut)
                left.append(len(self.receiver.messages))
            assert left == [0] * 7
            assert len(self.receiver.transactions) == 7
            assert all(transaction.is_aborted for transaction in self.receiver.transactions)

        return Deferred.fromCoroutine(run())

    def test_r_smtp_3_an_end_without_an_alert_is_no_end_of_a_message(self) -> Deferred[None]:
        return self.end_without_an_alert(Service.MX)

    def test_r_smtp_3_nor_by_lmtp(self) -> Deferred[None]:
        return self.end_without_an_alert(Service.LMTP)
