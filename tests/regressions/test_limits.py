"""Every limit at its value, over it, and what works again afterwards (R-LIM-2). Those of log-ins: tests/auth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from mailsrv.delivery.header_section import check_hops
from mailsrv.errors import MailError
from mailsrv.imap.settings import ImapSettings
from mailsrv.pop3.factory import Pop3ServerFactory
from mailsrv.pop3.settings import Pop3Settings
from mailsrv.smtp.settings import Service
from mailsrv.store.memory import MemoryMailStore
from mailsrv.store.settings import StoreSettings
from mailsrv.testing.dialogue import DialogueTransport
from mailsrv.wire.connection_limits import ConnectionTable, TooManyConnections
from mailsrv.wire.networks import NetworkSet
from mailsrv.wire.settings import LimitsSettings
from mailsrv.wire.tls_mode import TlsMode
from tests.imap.server import MemoryPortal, MemoryRealm, OnePassword
from tests.imap.server import Server as ImapServer
from tests.smtp.smtp_harness import STRANGER, make_server

MESSAGE = b"\r\n" + b"x" * 8


def literal(size: int) -> bytes:
    return b"{%d+}\r\n%b" % (size, b"x" * size)


def nested(depth: int) -> bytes:
    return b"SEARCH " + b"(" * depth + b"ALL" + b")" * depth


# name: settings, whether logged in, command at the limit, command over it, what the second is told
IMAP_LIMITS: dict[str, tuple[dict[str, int], bool, bytes, bytes, bytes]] = {
    "login_line_octets": ({"login_line_octets": 100}, False, b"ID (%b" % (b"x" * 91), b"ID " + b"x" * 99, b"TOOBIG"),
    "login_literal_octets": (
        {"login_literal_octets": 40},
        False,
        b'ID ("a" %b)' % literal(40),
        b'ID ("a" %b)' % literal(41),
        b"TOOBIG",
    ),
    "login_command_octets": (
        {"login_command_octets": 100},
        False,
        b'ID ("a" %b)' % literal(60),
        b'ID ("a" %b "b" %b)' % (literal(40), literal(60)),
        b"TOOBIG",
    ),
    "line_octets": ({"line_octets": 100}, True, b"NOOP", b"SEARCH TEXT " + b"x" * 100, b"TOOBIG"),
    "literal_octets": (
        {"literal_octets": 40},
        True,
        b"SEARCH TEXT " + literal(40),
        b"SEARCH TEXT " + literal(41),
        b"TOOBIG",
    ),
    "command_octets": (
        {"command_octets": 100},
        True,
        b"SEARCH TEXT " + literal(60),
        b"SEARCH TEXT %b TEXT %b" % (literal(40), literal(60)),
        b"TOOBIG",
    ),
    "nesting": ({"nesting": 5}, True, nested(5), nested(6), b"LIMIT"),
    "search_keys": (
        {"search_keys": 5},
        True,
        b"SEARCH ALL ALL ALL ALL ALL",
        b"SEARCH ALL ALL ALL ALL ALL ALL",
        b"LIMIT",
    ),
    "search_text_keys": ({"search_text_keys": 1}, True, b"SEARCH TEXT a", b"SEARCH TEXT a BODY b", b"LIMIT"),
    "append_octets": (
        {"append_octets": 10},
        True,
        b"APPEND INBOX " + literal(10),
        b"APPEND INBOX " + literal(11),
        b"TOOBIG",
    ),
    "append_messages": (
        {"append_messages": 2},
        True,
        b"APPEND INBOX %b %b" % (literal(3), literal(3)),
        b"APPEND INBOX %b %b %b" % (literal(3), literal(3), literal(3)),
        b"LIMIT",
    ),
    "keyword_octets": (
        {"keyword_octets": 5},
        True,
        b"STORE 1 +FLAGS (abcde)",
        b"STORE 1 +FLAGS (abcdef)",
        b"LIMIT",
    ),
}


@pytest.mark.parametrize("name", IMAP_LIMITS)
def test_r_lim_2_imap(name: str) -> None:
    changes, is_logged_in, at, over, told = IMAP_LIMITS[name]
    server = ImapServer(ImapSettings(**changes))
    server.add(MESSAGE)
    client = server.connect()
    if is_logged_in:
        client.select()
    for _ in range(2):
        said = client.say(at)
        assert b"TOOBIG" not in said
        assert b"LIMIT" not in said
        assert b"[%b]" % told in client.say(over)
        assert b" OK" in client.say("NOOP")


def test_r_lim_2_imap_discarded_octets() -> None:
    server = ImapServer(ImapSettings(discard_octets=1000))
    client = server.connect().login()
    client.send(b"a X {1000+}\r\n" + b"x" * 1000 + b"\r\n")
    assert b" OK" in client.say("NOOP")
    assert b"BYE" in client.send(b"a X {65537+}\r\n")


@pytest.mark.parametrize(("name", "command"), [("errors", b"FROB"), ("login_failures", b"LOGIN alice wrong")])
def test_r_lim_2_imap_errors(name: str, command: bytes) -> None:
    server = ImapServer(ImapSettings(**{name: 3}))
    client = server.connect()
    for _ in range(2):
        assert b"BYE" not in client.say(command)
    assert b" OK" in client.say("NOOP")
    assert b"BYE" in client.say(command)
    server.connect().login()


STORE_LIMITS: dict[str, tuple[StoreSettings, bytes, bytes]] = {
    "mailbox_depth": (StoreSettings(mailbox_depth=3), b"CREATE a/b/c", b"CREATE a/b/c/d"),
    "mailbox_name_octets": (StoreSettings(mailbox_name_octets=10), b"CREATE " + b"n" * 10, b"CREATE " + b"n" * 11),
    "keyword_count": (StoreSettings(keyword_count=2), b"STORE 1 +FLAGS (a b)", b"STORE 1 +FLAGS (c)"),
    "mailbox_count": (StoreSettings(mailbox_count=8), b"CREATE one", b"CREATE m%d"),
    "subscription_count": (StoreSettings(subscription_count=8), b"SUBSCRIBE a", b"SUBSCRIBE a%d"),
    "quota_messages": (StoreSettings(quota_messages=2), b"NOOP", b"APPEND INBOX {3+}\r\nabc"),
}


@pytest.mark.parametrize("name", STORE_LIMITS)
def test_r_lim_2_store(name: str) -> None:
    settings, at, over = STORE_LIMITS[name]
    server = ImapServer()
    server.store = MemoryMailStore(settings)
    server.realm.store = server.store
    server.add(MESSAGE)
    client = server.connect().select()
    client.ok(at)
    for number in range(30):
        said = client.say(over.replace(b"%d", b"%d" % number))
        if b" NO " in said:
            break
    assert b"NO [LIMIT]" in said or b"NO [CANNOT]" in said or b"NO [OVERQUOTA]" in said, said
    assert client.ok("FETCH 1 UID") == [b"* 1 FETCH (UID 1)"]


def talk(*lines: str, service: Service = Service.MX, **changes: Any) -> list[str]:
    """The first words of what a stranger is told."""
    server = make_server(service=service, greeting_delay_seconds=0, plaintext=("192.0.2.0/24",), **changes)
    client = server.connect(STRANGER).begin()
    return [client.say(line.encode() + b"\r\n").decode()[:9] for line in lines]


BEGIN = ("MAIL FROM:<a@example.org>", "RCPT TO:<alice@example.test>")
OK = "250 2.1.0", "250 2.1.5"


def send(text: str) -> tuple[str, ...]:
    return (*BEGIN, "DATA", text + "\r\n.")


SMTP_LIMITS: dict[str, tuple[dict[str, Any], tuple[str, ...], list[str]]] = {
    "command_line_octets": (
        {"command_line_octets": 512},
        ("NOOP " + "x" * 505, "NOOP " + "x" * 506, "NOOP"),
        ["250 2.0.0", "500 5.5.6", "250 2.0.0"],
    ),
    "message_octets": (
        {"message_octets": 10},
        (*send("x" * 8), *send("x" * 9), *send("x")),
        [*OK, "354 Go ah", "250 2.6.0", *OK, "354 Go ah", "552 5.3.4", *OK, "354 Go ah", "250 2.6.0"],
    ),
    "text_line_octets": (
        {"text_line_octets": 10},
        (*send("x" * 10), *send("x" * 11), *send("x")),
        [*OK, "354 Go ah", "250 2.6.0", *OK, "354 Go ah", "554 5.5.6", *OK, "354 Go ah", "250 2.6.0"],
    ),
    "recipients_mx": (
        {"recipients_mx": 2},
        (*BEGIN, BEGIN[1], BEGIN[1], "DATA", "x\r\n.", *BEGIN),
        [*OK, "250 2.1.5", "452 4.5.3", "354 Go ah", "250 2.6.0", *OK],
    ),
    "recipients_submission": (
        {"recipients_submission": 1, "recipients_mx": 5, "service": Service.SUBMISSION},
        ("AUTH PLAIN AGFsaWNlAHNlY3JldA==", *BEGIN, BEGIN[1], "RSET", *BEGIN),
        ["235 2.7.0", *OK, "452 4.5.3", "250 2.0.0", *OK],
    ),
    "messages_per_session": (
        {"messages_per_session": 1},
        (*send("x"), BEGIN[0]),
        [*OK, "354 Go ah", "250 2.6.0", "421 4.7.0"],
    ),
    "errors_before_drop": (
        {"errors_before_drop": 3},
        ("FROB", "FROB", "NOOP", "FROB"),
        ["500 5.5.1", "500 5.5.1", "250 2.0.0", "421 4.7.0"],
    ),
    "junk_commands": (
        {"junk_commands": 3},
        ("NOOP", "VRFY x", *send("x"), "NOOP", "NOOP", "RSET", "NOOP"),
        ["250 2.0.0", "252 2.5.2", *OK, "354 Go ah", "250 2.6.0", "250 2.0.0", "250 2.0.0", "250 2.0.0", "421 4.7.0"],
    ),
    "auth_failures_before_drop": (
        {"auth_failures_before_drop": 2, "service": Service.SUBMISSION},
        ("AUTH PLAIN AGFsaWNlAHg=", "NOOP", "AUTH PLAIN AGFsaWNlAHk="),
        ["535 5.7.8", "250 2.0.0", "421 4.7.0"],
    ),
    "auth_line_octets": (
        {"auth_line_octets": 2100, "service": Service.SUBMISSION},
        ("AUTH PLAIN " + "A" * 2087, "AUTH PLAIN " + "A" * 2090, "AUTH PLAIN AGFsaWNlAHNlY3JldA=="),
        ["501 5.5.2", "500 5.5.6", "235 2.7.0"],
    ),
}


@pytest.mark.parametrize("name", SMTP_LIMITS)
def test_r_lim_2_smtp(name: str) -> None:
    changes, lines, told = SMTP_LIMITS[name]
    assert talk(*lines, **changes) == told


def test_r_lim_2_smtp_tarpit() -> None:
    server = make_server(greeting_delay_seconds=0, errors_before_tarpit=2, tarpit_seconds=5)
    client = server.connect(STRANGER).begin()
    for _ in range(2):
        assert client.say(b"FROB\r\n").startswith(b"500")
    assert client.say(b"FROB\r\nNOOP\r\n") == b""
    server.clock.advance(5)
    assert client.hear().startswith(b"500")


def test_r_lim_2_smtp_session_and_rate() -> None:
    server = make_server(session_timeout_seconds=1000, greeting_delay_seconds=0)
    client = server.connect(STRANGER).begin()
    for _ in range(5):
        server.clock.advance(190)
        assert client.say(b"NOOP\r\n").startswith(b"250")
    server.clock.advance(60)
    assert client.hear().startswith(b"421 4.4.2")
    for octets_a_second, is_kept in ((600, True), (400, False)):
        server = make_server(data_rate_octets=500, data_rate_grace_seconds=60, greeting_delay_seconds=0)
        client = server.connect(STRANGER).begin("EHLO x", *BEGIN, "DATA")
        said = b""
        for _ in range(40):
            server.clock.advance(10)
            said += client.say((b"x" * 78 + b"\r\n") * (octets_a_second // 8))
        assert (said == b"") is is_kept


def pop3(**changes: Any) -> Callable[[bytes], bytes]:
    clock = Clock()
    checker = OnePassword()
    factory = Pop3ServerFactory(
        Pop3Settings(**changes),
        hostname="mail.example.test",
        portal=MemoryPortal(MemoryRealm(MemoryMailStore()), checker),
        context_factory=None,
        tls_mode=TlsMode.NONE,
        plaintext_networks=NetworkSet(["192.0.2.0/24"]),
        connections=ConnectionTable(LimitsSettings(), clock.seconds),
        clock=clock,
    )
    peer = IPv4Address("TCP", "192.0.2.7", 40000)
    protocol = factory.buildProtocol(peer)
    assert protocol is not None
    transport = DialogueTransport(protocol, peer=peer)
    protocol.makeConnection(transport)
    transport.take()

    def say(line: bytes) -> bytes:
        transport.deliver(line + b"\r\n")
        transport.pump()
        return transport.take() + (b"<closed>" if transport.disconnecting else b"")

    return say


def test_r_lim_2_pop3_lines() -> None:
    say = pop3(command_line_octets=100, auth_line_octets=200)
    assert say(b"USER " + b"x" * 93).startswith(b"+OK")
    assert say(b"USER " + b"x" * 94).startswith(b"-ERR Line too long")
    assert say(b"CAPA").startswith(b"+OK")
    say(b"AUTH PLAIN")
    assert b"too long" not in say(b"A" * 198)
    say(b"AUTH PLAIN")
    assert b"too long" in say(b"A" * 199)
    assert say(b"CAPA").startswith(b"+OK")
    assert b"too long" not in say(b"auth PLAIN " + b"A" * 187)
    assert b"too long" in say(b"AUTH PLAIN " + b"A" * 188)
    assert say(b"CAPA").startswith(b"+OK")


def test_r_lim_2_pop3_errors() -> None:
    say = pop3(error_limit=3)
    assert [b"<closed>" in say(b"FROB") for _ in range(3)] == [False, False, True]
    say = pop3(login_failure_limit=2)
    assert [b"<closed>" in say(b"USER alice\r\nPASS wrong") for _ in range(2)] == [False, True]
    say = pop3(login_failure_limit=2)
    say(b"USER alice\r\nPASS wrong")
    assert b"+OK Maildrop" in say(b"USER alice\r\nPASS secret")


@pytest.mark.parametrize("protocol", ["smtp", "imap", "pop3"])
def test_r_lim_2_connections(protocol: str) -> None:
    clock = Clock()
    name = f"{protocol}_connections_per_network"
    settings = {name: 2, "connections_total": 4, "exempt_networks": (), "connections_per_user_and_network": 1}
    table = ConnectionTable(LimitsSettings(**settings), clock.seconds)  # type: ignore[arg-type]

    def refused(address: str) -> str:
        with pytest.raises(TooManyConnections) as error:
            table.open(address, protocol)
        return error.value.limit

    slots = [table.open("192.0.2.1", protocol) for _ in range(2)]
    assert refused("192.0.2.1") == name
    slots.append(table.open("192.0.2.2", protocol))
    slots[0].authenticate("alice")
    slots.append(table.open("192.0.2.1", protocol))  # R-NAT-1
    assert refused("192.0.2.3") == "connections_total"
    with pytest.raises(TooManyConnections):
        slots[1].authenticate("alice")
    slots[0].close()
    slots[1].authenticate("alice")
    table.open("192.0.2.3", protocol)


def test_r_lim_2_new_connections_a_minute() -> None:
    clock = Clock()
    table = ConnectionTable(LimitsSettings(exempt_networks=(), new_connections_per_minute=3), clock.seconds)
    for _ in range(3):
        table.open("192.0.2.1", "imap").close()
    with pytest.raises(TooManyConnections):
        table.open("192.0.2.1", "imap")
    clock.advance(20)
    table.open("192.0.2.1", "imap").close()
    with pytest.raises(TooManyConnections):
        table.open("192.0.2.1", "imap")


def test_r_lim_2_hops() -> None:
    hop = b"Received: by x; Tue, 14 Nov 2023 10:00:00 +0000\r\n"
    check_hops(hop * 50, 50)
    with pytest.raises(MailError) as error:
        check_hops(hop * 51, 50)
    assert str(error.value.status) == "5.4.6"
