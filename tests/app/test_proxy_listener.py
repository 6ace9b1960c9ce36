"""R-PROXY-1: listeners behind proxies, for every protocol, and what a client that is no proxy gets."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from mailsrv.app.proxy_listener import ProxyTrust, behind_proxy
from mailsrv.app.settings import ListenSettings, Service
from mailsrv.pop3.factory import Pop3ServerFactory
from mailsrv.pop3.settings import Pop3Settings
from mailsrv.smtp.settings import Service as SmtpService
from mailsrv.store.memory import MemoryMailStore
from mailsrv.testing.dialogue import DialogueTransport
from mailsrv.wire.connection_limits import ConnectionTable
from mailsrv.wire.networks import NetworkSet
from mailsrv.wire.proxy_protocol import SIGNATURE
from mailsrv.wire.settings import LimitsSettings
from mailsrv.wire.tls_mode import TlsMode
from tests.imap.server import MemoryPortal, MemoryRealm, OnePassword
from tests.imap.server import Server as ImapServer
from tests.smtp.smtp_harness import make_server

PROXY = IPv4Address("TCP", "10.0.0.5", 50000)
HOST = IPv4Address("TCP", "10.0.0.9", 25)
TRUST = ProxyTrust(NetworkSet(["10.0.0.0/8"]), 5.0)
LINE = b"PROXY TCP4 192.0.2.1 198.51.100.7 40000 25\r\n"
PACKED = SIGNATURE + b"\x21\x11\0\x0c" + bytes([192, 0, 2, 1, 198, 51, 100, 7]) + struct.pack(">HH", 40000, 25)
LOCAL = SIGNATURE + b"\x20\0\0\0"


class Echo(Protocol):
    """Says who it thinks the client is, then what it hears."""

    transport: Any

    def __init__(self, address):
        self.address = address
        self.lost = 0

    def connectionMade(self):
        self.transport.write(
            f"{self.address.host} {self.transport.getPeer().host} {self.transport.getHost().host};".encode()
        )

    def dataReceived(self, data):
        self.transport.write(data)

    def connectionLost(self, reason=None):
        self.lost += 1


class EchoFactory(Factory):
    def __init__(self):
        self.built = []
        self.is_full = False

    def buildProtocol(self, addr):
        if self.is_full:
            return None
        self.built.append(Echo(addr))
        return self.built[-1]


class Listener:
    """A listener behind proxies, in memory."""

    def __init__(self, factory=None, trust=TRUST):
        self.clock = Clock()
        self.inner = factory or EchoFactory()
        self.factory = behind_proxy(self.inner, trust, self.clock)

    def connect(self, peer=PROXY):
        protocol = self.factory.buildProtocol(peer)
        if protocol is None:
            return None
        transport = DialogueTransport(protocol, HOST, peer)
        protocol.makeConnection(transport)
        return transport


def say(transport, octets):
    transport.deliver(octets)
    transport.pump()
    return transport.take()


@pytest.mark.parametrize("header", [LINE, PACKED])
@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_the_told_address_is_the_client_s(header, chunk):
    listener = Listener()
    transport = listener.connect()
    sent, heard = header + b"hello", b""
    for start in range(0, len(sent), chunk):
        heard += say(transport, sent[start : start + chunk])
    assert heard == b"192.0.2.1 192.0.2.1 198.51.100.7;hello"
    listener.clock.advance(3600)
    assert say(transport, b"still") == b"still"
    assert transport.protocol is listener.inner.built[0]
    transport.protocol.connectionLost(None)
    assert listener.inner.built[0].lost == 1


@pytest.mark.parametrize("header", [LOCAL, b"PROXY UNKNOWN\r\n"])
def test_a_connection_of_the_proxy_s_own_has_its_address(header):
    assert say(Listener().connect(), header + b"x") == b"10.0.0.5 10.0.0.5 10.0.0.9;x"


@pytest.mark.parametrize("address", ["192.0.2.1", "11.0.0.5", "2001:db8::1"])
def test_r_proxy_1_who_is_no_proxy_is_closed_at_once(address):
    listener = Listener()
    assert listener.connect(IPv4Address("TCP", address, 50000)) is None
    assert not listener.inner.built


def test_whoever_may_connect_to_the_unix_socket_is_a_proxy():
    assert say(Listener().connect(UNIXAddress(None)), LINE).startswith(b"192.0.2.1 ")


def test_a_listener_without_proxies_is_left_alone():
    factory = EchoFactory()
    assert behind_proxy(factory, ProxyTrust(NetworkSet(), 5.0), Clock()) is factory


@pytest.mark.parametrize("octets", [b"EHLO x\r\n", b"PROXY TCP4 x\r\n", PACKED[:13] + b"\x12" + PACKED[14:]])
def test_r_proxy_1_a_proxy_that_sends_anything_else_is_closed_without_a_word(octets):
    listener = Listener()
    transport = listener.connect()
    assert say(transport, octets) == b""
    assert transport.is_aborted
    assert say(transport, LINE) == b""
    assert not listener.inner.built


def test_r_proxy_1_a_proxy_that_waits_is_closed():
    listener = Listener()
    silent, slow, quick = listener.connect(), listener.connect(), listener.connect()
    say(slow, LINE[:-1])
    listener.clock.advance(4.9)
    assert say(quick, LINE)
    listener.clock.advance(0.2)
    assert silent.is_aborted
    assert slow.is_aborted
    assert not quick.is_aborted
    assert not listener.clock.getDelayedCalls()


def test_a_connection_that_ends_before_its_header_leaves_nothing_behind():
    listener = Listener()
    transport = listener.connect()
    transport.protocol.connectionLost(None)
    assert not listener.clock.getDelayedCalls()
    assert not listener.inner.built


def test_a_factory_that_takes_no_more_closes_the_connection():
    listener = Listener()
    listener.inner.is_full = True
    transport = listener.connect()
    say(transport, LINE)
    assert transport.disconnecting


def test_a_transport_that_cannot_be_handed_over_is_served_too():
    listener = Listener()
    transport = listener.connect()
    preamble = transport.protocol
    transport.protocol = None
    preamble.dataReceived(LINE + b"a")
    preamble.dataReceived(b"b")
    assert transport.take().endswith(b";ab")
    preamble.connectionLost(None)
    assert listener.inner.built[0].lost == 1


# The protocols


@pytest.mark.parametrize("service", SmtpService)
def test_smtp_submission_and_lmtp(service):
    server = make_server(service=service, greeting_delay_seconds=0)
    listener = Listener(server.factory)
    transport = listener.connect()
    assert say(transport, LINE).startswith(b"220 ")
    view = transport.protocol.view
    assert (view.client_address, view.client_port, view.local_address) == ("192.0.2.1", 40000, "198.51.100.7")
    assert transport.protocol._slot.network == "192.0.2.1"


def test_r_lim_2_limits_use_the_told_address():
    server = make_server(
        greeting_delay_seconds=0, limits=LimitsSettings(exempt_networks=("10.0.0.0/8",), smtp_connections_per_network=1)
    )
    listener = Listener(server.factory)
    first = listener.connect()
    assert say(first, LINE).startswith(b"220 ")
    assert say(listener.connect(), LINE).startswith(b"421 4.7.1 Too many connections")
    assert say(listener.connect(), LINE.replace(b"192.0.2.1", b"192.0.2.2")).startswith(b"220 ")
    first.protocol.connectionLost(None)
    assert say(listener.connect(), LINE).startswith(b"220 ")


def test_r_proxy_1_no_log_in_comes_from_a_proxy():
    server = make_server(service=SmtpService.SUBMISSION, plaintext=("192.0.2.0/24",))
    transport = Listener(server.factory).connect()
    identity = struct.pack(">BH", 0x05, 5) + b"alice"
    header = SIGNATURE + b"\x21\x11" + struct.pack(">H", 12 + len(identity)) + PACKED[16:] + identity
    assert say(transport, header).startswith(b"220 ")
    say(transport, b"EHLO x\r\n")
    assert say(transport, b"MAIL FROM:<alice@example.test>\r\n").startswith(b"530 ")


def test_who_talks_behind_the_header_talks_before_the_greeting():
    server = make_server()
    transport = Listener(server.factory).connect()
    say(transport, LINE + b"EHLO x\r\n")
    server.clock.advance(4)
    transport.pump()
    assert transport.take().startswith(b"554 ")


def test_imap():
    server = ImapServer()
    listener = Listener(server.factory)
    transport = listener.connect()
    assert say(transport, PACKED).startswith(b"* OK ")
    assert transport.protocol.client_address == "192.0.2.1"


def test_pop3():
    clock = Clock()
    factory = Pop3ServerFactory(
        Pop3Settings(),
        hostname="mail.example.test",
        portal=MemoryPortal(MemoryRealm(MemoryMailStore()), OnePassword()),
        context_factory=None,
        tls_mode=TlsMode.NONE,
        plaintext_networks=NetworkSet(["192.0.2.0/24"]),
        connections=ConnectionTable(LimitsSettings(), clock.seconds),
        clock=clock,
    )
    transport = Listener(factory).connect()
    assert say(transport, LINE).startswith(b"+OK ")
    assert transport.protocol.client_address == "192.0.2.1"


def test_a_listener_s_setting_is_checked():
    with pytest.raises(ValueError, match="10"):
        ListenSettings(Service.MX, "tcp:25", proxy_protocol_from=("10.0.0.1/8",))
