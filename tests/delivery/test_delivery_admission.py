"""Submission without a log-in: users of this machine by their socket, networks that may relay, and nobody else."""

import os
import socket

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import succeed
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.address import Address
from mailsrv.delivery.local_submission import Admission, LocalPeers
from mailsrv.delivery.settings import SendmailSettings
from mailsrv.smtp.factory import SmtpServerFactory
from mailsrv.smtp.settings import Service, SmtpSettings
from mailsrv.wire.connection_limits import ConnectionTable
from mailsrv.wire.networks import NetworkSet
from mailsrv.wire.settings import LimitsSettings
from mailsrv.wire.tls_mode import TlsMode

from .conftest import make_house

NETWORKS = ("192.0.2.0/24",)


class Transport(StringTransport):
    """With a socket to be asked."""

    handle: object = None

    def getHandle(self):
        return self.handle


class AdmissionTests(SynchronousTestCase):
    def setUp(self):
        self.house = make_house("submission", apply=False, routes=(), relay_networks=NETWORKS, check_from_field=False)
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX)
        self.addCleanup(self.ours.close)
        self.addCleanup(self.theirs.close)

    def connect(self, peer, handle=None, admission=True, service=Service.SUBMISSION):
        peers = LocalPeers(
            SendmailSettings(), domain="example.test", may_send_as=lambda account, address: succeed(False)
        )
        factory = SmtpServerFactory(
            SmtpSettings(),
            self.house.receiver,
            service=service,
            hostname="mail.example.test",
            portal=None,
            context_factory=None,
            tls_mode=TlsMode.NONE,
            plaintext_networks=NetworkSet(()),
            connections=ConnectionTable(LimitsSettings(), self.house.clock.seconds),
            clock=self.house.clock,
            admission=Admission(peers, NetworkSet(NETWORKS)) if admission else None,
        )
        protocol = factory.buildProtocol(peer)
        transport = Transport(peerAddress=peer)
        transport.handle = handle
        protocol.makeConnection(transport)
        return protocol, transport

    def talk(self, connected, *lines):
        protocol, transport = connected
        codes = []
        for line in lines:
            transport.clear()
            protocol.dataReceived(line.encode() + b"\r\n")
            codes.append(transport.value().rpartition(b"\r\n")[0].rpartition(b"\r\n")[2][:3].decode())
        return codes

    MESSAGE = (
        "EHLO client.example",
        "MAIL FROM:<{sender}>",
        "RCPT TO:<friend@example.org>",
        "DATA",
        "Subject: x\r\n\r\nx\r\n.",
    )

    def message(self, sender):
        return [line.format(sender=sender) for line in self.MESSAGE]

    def test_r_auth_a_user_of_this_machine_submits_by_the_socket(self):
        connected = self.connect(UNIXAddress(b""), self.ours)
        assert self.talk(connected, *self.message("anybody@example.test")) == ["250", "250", "250", "354", "250"]
        (record,) = self.house.journal.records
        account = LocalPeers(
            SendmailSettings(), domain="example.test", may_send_as=lambda account, address: succeed(False)
        ).account_of_uid(os.getuid())
        assert account is not None
        assert record.messages[0].deliveries[0].account == str(account.address)

    def test_r_proxy_1_the_other_end_of_a_proxys_socket_is_nobody(self):
        everybody = Admission(
            LocalPeers(SendmailSettings(), domain="example.test", may_send_as=lambda *_: succeed(False)),
            NetworkSet(NETWORKS),
        )
        transport = Transport()
        transport.handle = self.ours
        assert everybody(transport, "") is not False
        assert everybody.behind_proxy(transport, "") is False
        assert everybody.behind_proxy(transport, "192.0.2.7") is True

    def test_a_network_that_may_relay(self):
        connected = self.connect(IPv4Address("TCP", "192.0.2.7", 40000))
        assert self.talk(connected, *self.message("printer@example.com")) == ["250", "250", "250", "354", "250"]
        assert self.house.onward() == [("printer@example.com", {"friend@example.org": "mx:example.org"})]

    def test_nobody_else(self):
        strangers = [
            self.connect(IPv4Address("TCP", "198.51.100.7", 40000)),
            self.connect(IPv4Address("TCP", "192.0.2.7", 40000), admission=False),
            self.connect(UNIXAddress(b""), None),
            self.connect(UNIXAddress(b""), self.ours, admission=False),
        ]
        for connected in strangers:
            codes = self.talk(
                connected, "EHLO client.example", "MAIL FROM:<alice@example.test>", "RCPT TO:<x@y.example>"
            )
            assert codes == ["250", "530", "503"]
        assert Address("x", "y.example") not in self.house.journal.records
