"""Clients that do nothing, or as little as they can, hold a connection for a bounded time (R-LIM-2)."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.imap.settings import ImapSettings
from mailsrv.smtp.settings import Service
from mailsrv.testing.dialogue import DialogueTransport
from mailsrv.wire.settings import LimitsSettings
from mailsrv.wire.tls_mode import TlsMode
from tests.imap.server import CLIENT
from tests.imap.server import Server as ImapServer
from tests.smtp.smtp_harness import make_server


class SmtpTests(SynchronousTestCase):
    def test_one_octet_now_and_then_buys_no_time_in_a_command(self) -> None:
        for service in (Service.MX, Service.SUBMISSION, Service.LMTP):
            server = make_server(service=service, command_timeout_seconds=300)
            client = server.connect().begin("LHLO x" if service is Service.LMTP else "EHLO x")
            said = b""
            for _ in range(40):
                server.clock.advance(10)
                said += client.say(b"x")
            assert said.startswith(b"421 4.4.2"), (service, said)

    def test_whole_commands_and_message_text_do(self) -> None:
        server = make_server(command_timeout_seconds=300, data_rate_octets=0)
        client = server.connect().begin("EHLO x", "MAIL FROM:<a@example.org>", "RCPT TO:<alice@example.test>")
        for _ in range(4):
            server.clock.advance(200)
            assert client.say(b"NOOP\r\n").startswith(b"250")
        assert client.say(b"DATA\r\n").startswith(b"354")
        for _ in range(4):
            server.clock.advance(200)
            assert client.say(b"x") == b""
        assert client.say(b"\r\n.\r\n").startswith(b"250")


class ImapTests(SynchronousTestCase):
    def turned_away(self, server: ImapServer) -> DialogueTransport:
        """A connection past the limit, not yet closed, as by TLS that waits for its handshake."""
        protocol: Any = server.factory.buildProtocol(CLIENT)
        transport = DialogueTransport(protocol, peer=CLIENT)
        protocol.makeConnection(transport)
        assert transport.disconnecting
        return transport

    def test_who_is_turned_away_and_does_not_take_the_answer_is_cut_off(self) -> None:
        server = ImapServer(limits=LimitsSettings(connections_total=1))
        server.connect()
        transport = self.turned_away(server)
        server.clock.advance(29)
        assert not transport.is_aborted
        server.clock.advance(2)
        assert transport.is_aborted

    def test_who_goes_in_time_leaves_no_timer(self) -> None:
        server = ImapServer(limits=LimitsSettings(connections_total=1))
        first = server.connect()
        transport = self.turned_away(server)
        transport.pump()
        first.transport.close_from_client()
        assert server.clock.getDelayedCalls() == []

    def test_who_does_not_take_the_greeting_has_the_time_of_who_does_not_log_in(self) -> None:
        """Implicit TLS without a handshake: the transport takes nothing from us."""
        server = ImapServer(ImapSettings(login_timeout_seconds=60, command_timeout_seconds=300))
        client = server.connect()
        client.protocol.pauseProducing()
        for _ in range(14):
            server.clock.advance(5)
        assert client.transport.is_aborted


class StopTests(SynchronousTestCase):
    """R-STOP-1: who cannot be told, as TLS has not begun, does not hold up the stop."""

    def test_smtp(self) -> None:
        server = make_server(tls_mode=TlsMode.IMPLICIT)
        client = server.connect(is_tls=True)
        drained = server.factory.drain()
        client.hear()
        self.successResultOf(drained)

    def test_imap(self) -> None:
        server = ImapServer()
        client = server.connect()
        client.protocol.pauseProducing()
        drained = server.factory.drain()
        client.take()
        self.successResultOf(drained)

    def test_who_is_cut_off_in_the_middle_is_told(self) -> None:
        server = make_server()
        smtp_client = server.connect().begin(
            "EHLO x", "MAIL FROM:<a@example.org>", "RCPT TO:<alice@example.test>", "DATA", "half a message"
        )
        drained = server.factory.drain()
        assert smtp_client.hear() == b""
        server.factory.abort_all()
        assert smtp_client.hear().startswith(b"421 4.3.2")
        self.successResultOf(drained)
        assert server.receiver.messages == []
        imap_server = ImapServer()
        imap_client = imap_server.connect().login()
        imap_client.send(b"a APPEND INBOX {100}\r\nhalf a message")
        drained = imap_server.factory.drain()
        assert imap_client.take() == b""
        imap_server.factory.abort_all()
        assert imap_client.take() == b"* BYE [UNAVAILABLE] Server shutting down\r\n"
        self.successResultOf(drained)
        assert imap_server.spool.open == 0

    def test_who_does_not_go_when_cut_off_is_aborted(self) -> None:
        imap_server = ImapServer()
        client = imap_server.connect().login()
        client.send(b"a APPEND INBOX {100}\r\nhalf a message")
        imap_server.factory.abort_all()
        imap_server.clock.advance(1.1)
        assert client.transport.is_aborted
