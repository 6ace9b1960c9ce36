"""The real thing on loopback: the reactor, TLS from pyOpenSSL, and the standard library's client."""

from __future__ import annotations

import imaplib
import ssl
from typing import Any

from twisted.internet import endpoints, reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailsrv.imap.factory import ImapServerFactory
from mailsrv.imap.settings import ImapSettings
from mailsrv.wire.connection_limits import ConnectionTable
from mailsrv.wire.networks import NetworkSet
from mailsrv.wire.settings import LimitsSettings
from mailsrv.wire.tls_mode import TlsMode
from tests.imap.server import Server
from tests.tls.authority import issue_for_host


class LoopbackTests(TestCase):
    timeout = 60

    async def serve(self, tls: TlsMode):
        parts = Server()
        self.store = parts
        factory = ImapServerFactory(
            ImapSettings(),
            hostname="mail.example.test",
            portal=parts.factory.services.portal,
            spool=parts.spool,
            context_factory=issue_for_host("mail.example.test").for_twisted.options(),
            tls_mode=tls,
            plaintext_networks=NetworkSet(),
            connections=ConnectionTable(LimitsSettings(), reactor.seconds),
            clock=reactor,
        )
        if tls is TlsMode.IMPLICIT:
            options = issue_for_host("mail.example.test").for_twisted.options()
            port = await endpoints.SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1").listen(factory)
        else:
            port = await endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        self.factory = factory
        return port.getHost().port

    def test_starttls_login_append_fetch_idle_and_a_large_body(self):
        return Deferred.fromCoroutine(self.dialogue())

    async def dialogue(self):
        number = await self.serve(TlsMode.STARTTLS)
        self.store.fill("plain*50")
        large = b"Subject: large\r\n\r\n" + (b"0123456789" * 7 + b"\r\n") * 150_000

        def client():
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            imap: Any = imaplib.IMAP4("127.0.0.1", number, timeout=30)
            assert "LOGINDISABLED" in imap.capabilities
            imap.starttls(context)
            assert "LOGINDISABLED" not in imap.capabilities
            imap.login("alice", "secret")
            assert imap.append("INBOX", "(\\Seen)", None, large)[0] == "OK"
            assert imap.select("INBOX") == ("OK", [b"51"])
            kind, data = imap.fetch("1:*", "(FLAGS ENVELOPE)")
            assert kind == "OK"
            assert len(data) == 51
            kind, data = imap.fetch("51", "(BODY.PEEK[])")
            assert data[0][1] == large
            kind, data = imap.fetch("51", "(BINARY.SIZE[1])")
            assert b"BINARY.SIZE[1] %d" % (len(large) - 18) in data[0]
            assert imap.search(None, "BODY", "0123456789")[1] == [b"51"]
            assert imap.uid("STORE", "1:2", "+FLAGS.SILENT", "(\\Deleted)")[0] == "OK"
            assert imap.expunge()[1] == [b"2", b"1"]
            imap.logout()

        await deferToThread(client)
        await self.factory.drain()
        assert self.factory.connection_count == 0

    def test_tls_from_the_first_octet_and_more_than_any_buffer_holds(self):
        return Deferred.fromCoroutine(self.read_much())

    async def read_much(self):
        number = await self.serve(TlsMode.IMPLICIT)
        large = b"Subject: large\r\n\r\n" + (b"0123456789" * 7 + b"\r\n") * 100_000
        for _ in range(3):
            self.store.add(large)

        def client():
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            imap: Any = imaplib.IMAP4_SSL("127.0.0.1", number, ssl_context=context, timeout=30)
            imap.login("alice", "secret")
            imap.select("INBOX")
            imap.send(b"x FETCH 1:3 (BODY.PEEK[])\r\n")
            octets = 0
            while not (line := imap.readline()).startswith(b"x OK"):
                octets += len(line)
            return octets

        octets = await deferToThread(client)
        assert octets > 3 * len(large)
        await self.factory.drain()
        assert self.factory.connection_count == 0
