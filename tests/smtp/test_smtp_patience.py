"""Rates of a network and of a user, late answers, slow clients: at the limit, over it, recovered (R-LIM-2)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred

from mailsrv.smtp.patience import Patience
from mailsrv.smtp.settings import Service, SmtpSettings
from mailsrv.wire.connection_limits import RateKind
from mailsrv.wire.settings import LimitsSettings
from tests.smtp.smtp_harness import CLIENT, STRANGER, make_server

NEIGHBOUR = IPv4Address("TCP", "192.0.2.2", 40000)
MAIL, RCPT, WRONG = "MAIL FROM:<a@client.example>", "RCPT TO:<b@example.test>", "RCPT TO:<nobody@example.test>"
PLAIN = "AUTH PLAIN AGFsaWNlAHNlY3JldA=="


def server_of(service: Service = Service.MX, limits: dict[str, Any] | None = None, **settings: Any) -> Any:
    return make_server(
        service=service,
        limits=LimitsSettings(**(limits or {})),
        greeting_delay_seconds=0,
        plaintext=("192.0.2.0/24",),
        **settings,
    )


def begin(server, peer=STRANGER, *more):
    """A client that has said hello."""
    return server.connect(peer).begin("EHLO client.example", *more)


def codes(client, *lines):
    return [line[:9] for line in client.say_lines(*lines)]


def test_r_lim_2_transactions_of_a_network():
    server = server_of(limits={"network_transactions": "2 per minute"})
    one, two, neighbour = begin(server), begin(server), begin(server, NEIGHBOUR)
    assert codes(one, MAIL) == ["250 2.1.0"]
    assert codes(two, MAIL) == ["250 2.1.0"]
    assert codes(one, "RSET", MAIL, RCPT, "DATA") == ["250 2.0.0", "450 4.7.1", "503 5.5.1", "503 5.5.1"]
    assert codes(neighbour, MAIL) == ["250 2.1.0"]
    server.clock.advance(30)
    assert codes(one, MAIL, "RSET", MAIL) == ["250 2.1.0", "250 2.0.0", "450 4.7.1"]
    assert len(server.receiver.transactions) == 4


def test_r_lim_2_recipients_of_a_network():
    server = server_of(limits={"network_recipients": "3 per minute"})
    client = begin(server)
    assert codes(client, MAIL, RCPT, RCPT, RCPT, RCPT) == ["250 2.1.0", *["250 2.1.5"] * 3, "450 4.7.1"]
    # What was accepted goes on.
    assert codes(client, "DATA", "x\r\n.") == ["354 Go ah", "250 2.6.0"]
    server.clock.advance(20)
    assert codes(client, MAIL, RCPT, RCPT) == ["250 2.1.0", "250 2.1.5", "450 4.7.1"]


def test_r_lim_2_wrong_recipients_are_answered_later_and_later_and_then_421():
    server = server_of(limits={"network_wrong_recipients": "1 per hour, burst 2"}, late_answers_before_drop=3)
    harvester = begin(server, STRANGER, MAIL)
    assert codes(harvester, WRONG, WRONG) == ["550 5.1.1"] * 2
    for seconds in (1, 2, 4):
        # Nothing is read meanwhile.
        assert harvester.say(f"{WRONG}\r\nNOOP\r\n".encode()) == b""
        assert harvester.transport.producerState == "paused"
        server.clock.advance(seconds - 0.1)
        assert harvester.hear() == b""
        server.clock.advance(0.1)
        assert [line[:3] for line in harvester.hear().split(b"\r\n")[:2]] == [b"550", b"250"]
    assert codes(harvester, WRONG) == ["421 4.7.0"]
    assert harvester.transport.disconnecting
    # The network is known in its next connection too; others and good recipients are not held up.
    again, neighbour = begin(server, STRANGER, MAIL), begin(server, NEIGHBOUR, MAIL)
    assert codes(again, RCPT) == ["250 2.1.5"]
    assert again.say(f"{WRONG}\r\n".encode()) == b""
    assert codes(neighbour, WRONG) == ["550 5.1.1"]
    server.clock.advance(3600)
    recovered = begin(server, STRANGER, MAIL)
    assert codes(recovered, WRONG) == ["550 5.1.1"]


def test_r_lim_2_errors_of_a_network():
    server = server_of(limits={"network_errors": "1 per minute, burst 3"}, late_answers_before_drop=1)
    first = begin(server)
    assert codes(first, "FROB", "FROB") == ["500 5.5.1"] * 2
    second = begin(server)
    assert codes(second, "FROB") == ["500 5.5.1"]
    assert codes(second, "FROB") == [""]
    server.clock.advance(1)
    assert second.hear().startswith(b"500")
    assert codes(second, "FROB") == ["421 4.7.0"]
    server.clock.advance(60)
    assert codes(first, "FROB") == ["500 5.5.1"]


def test_r_nat_1_a_user_is_counted_under_the_name():
    limits = {
        "network_transactions": "1 per hour",
        "network_recipients": "1 per hour",
        "user_transactions": "2 per minute",
        "user_recipients": "3 per minute",
    }
    server = server_of(Service.SUBMISSION, limits)
    here, elsewhere = begin(server, STRANGER, PLAIN), begin(server, NEIGHBOUR, PLAIN)
    mail = "MAIL FROM:<alice@example.test>"
    assert codes(here, mail, RCPT, RCPT) == ["250 2.1.0", "250 2.1.5", "250 2.1.5"]
    assert codes(elsewhere, mail, RCPT, RCPT) == ["250 2.1.0", "250 2.1.5", "450 4.7.1"]
    assert codes(here, "RSET", mail) == ["250 2.0.0", "450 4.7.1"]
    server.clock.advance(30)
    assert codes(here, mail) == ["250 2.1.0"]


def test_a_user_s_dead_addresses_are_no_errors_but_have_a_rate():
    server = server_of(Service.SUBMISSION, {"user_wrong_recipients": "1 per hour, burst 40"}, errors_before_drop=5)
    client = begin(server, STRANGER, PLAIN, "MAIL FROM:<alice@example.test>")
    assert codes(client, *[WRONG] * 40) == ["550 5.1.1"] * 40
    assert codes(client, WRONG) == [""]
    server.clock.advance(1)
    assert client.hear().startswith(b"550")


@pytest.mark.parametrize("peer", [CLIENT])
def test_exempt_networks_have_no_rates(peer):
    limits = {"network_transactions": "1 per day", "network_wrong_recipients": "1 per day"}
    server = server_of(limits=limits, errors_before_drop=1000)
    client = begin(server, peer, MAIL)
    assert codes(client, *[WRONG] * 30) == ["550 5.1.1"] * 30
    assert codes(client, "RSET", MAIL, "RSET", MAIL) == ["250 2.0.0", "250 2.1.0"] * 2


def test_lmtp_has_no_rates():
    """The MTA in front names many recipients that do not exist; it has been patient with its client already."""
    server = server_of(Service.LMTP, {"network_wrong_recipients": "1 per day", "network_transactions": "1 per day"})
    client = server.connect(STRANGER).begin("LHLO client.example", MAIL)
    assert codes(client, *[WRONG] * 30) == ["550 5.1.1"] * 30
    assert codes(client, "RSET", MAIL) == ["250 2.0.0", "250 2.1.0"]


def test_a_tarpit_grows_up_to_its_limit():
    settings = SmtpSettings(
        errors_before_tarpit=2,
        errors_before_drop=12,
        tarpit_seconds=1,
        tarpit_limit_seconds=10,
        late_answers_before_drop=1,
    )
    patience = Patience(settings)
    delays = [patience.count_error(RateKind.ERRORS, errors) for errors in range(1, 13)]
    assert delays == [0, 0, 1, 2, 4, 8, 10, 10, 10, 10, 10, None]


def test_a_server_that_stops_does_not_wait_for_a_tarpit():
    server = server_of(limits={"network_errors": "1 per hour"})
    client = begin(server)
    assert codes(client, "FROB", "FROB") == ["500 5.5.1", ""]
    server.factory.drain()
    assert client.hear().startswith(b"421 ")


# The greeting (R-SMTP-6)


@pytest.mark.parametrize("early", [b"EHLO x\r\n", b"Q"])
def test_r_smtp_6_who_talks_before_the_greeting_is_refused(early):
    server = make_server(greeting_delay_seconds=4)
    client = server.connect(STRANGER)
    assert client.say(early) == b""
    server.clock.advance(4)
    assert client.hear().startswith(b"554 5.5.0")
    assert client.transport.disconnecting
    assert not server.receiver.transactions


@pytest.mark.parametrize("service", [Service.SUBMISSION, Service.LMTP])
def test_only_mx_listeners_delay_their_greeting(service):
    assert make_server(service=service, greeting_delay_seconds=4).connect(STRANGER).hear().startswith(b"220 ")


def test_exempt_and_known_clients_are_greeted_at_once():
    server = make_server(greeting_delay_seconds=4)
    assert server.connect(CLIENT).hear().startswith(b"220 ")
    client = server.connect(STRANGER)
    assert client.hear() == b""
    server.clock.advance(4)
    client.begin("EHLO x", MAIL, RCPT, "DATA")
    assert client.say(b"x\r\n.\r\n").startswith(b"250")
    assert server.connect(STRANGER).hear().startswith(b"220 ")


# Slow clients


def test_a_command_that_comes_octet_by_octet_buys_no_time():
    server = server_of(command_timeout_seconds=300)
    client = begin(server)
    heard = b""
    for _ in range(60):
        server.clock.advance(10)
        heard += client.say(b"x")
    assert heard.startswith(b"421 4.4.2")


@pytest.mark.parametrize(("octets", "is_kept"), [(5100, True), (4000, False)])
def test_r_lim_2_the_least_rate_of_data(octets, is_kept):
    server = server_of(data_rate_octets=500, data_rate_grace_seconds=60)
    client = begin(server, STRANGER, MAIL, RCPT, "DATA")
    heard = b""
    for _ in range(40):
        server.clock.advance(10)
        heard += client.say(b"x" * (octets - 2) + b"\r\n")
    assert heard.startswith(b"421 4.4.2") is not is_kept


@pytest.mark.parametrize(("octets", "is_kept"), [(5100, True), (4000, False)])
@pytest.mark.parametrize("is_refused", [True, False])
def test_r_lim_2_the_least_rate_of_chunks(octets, is_kept, is_refused):
    """The same for a chunk that is taken and for one that is thrown away."""
    server = server_of(data_rate_octets=500, data_rate_grace_seconds=60)
    client = begin(server, STRANGER, *([] if is_refused else [MAIL, RCPT]))
    server.clock.advance(100)
    heard = client.say(b"BDAT 1000000 LAST\r\n")
    for _ in range(40):
        server.clock.advance(10)
        heard += client.say(b"x" * (octets - 2) + b"\r\n")
    assert heard.startswith(b"421 4.4.2") is not is_kept


def test_a_client_is_not_slow_because_the_server_is(monkeypatch):
    server = server_of(data_rate_octets=500, data_rate_grace_seconds=60)
    client = begin(server, STRANGER, MAIL, RCPT, "DATA")
    [mail] = server.receiver.transactions
    waits: list[Any] = []

    def write(_mail, _octets):
        waits.append(Deferred())
        return waits[-1]

    monkeypatch.setattr(type(mail), "write", write)
    for _ in range(20):
        client.transport.deliver(b"x" * 98 + b"\r\n")
        server.clock.advance(100)
        waits.pop().callback(None)
    assert client.hear() == b""
    # From here on it is the client's time.
    for _ in range(10):
        server.clock.advance(10)
    assert client.hear().startswith(b"421 4.4.2")


@pytest.mark.parametrize("begins_in_tls", [True, False])
def test_r_lim_2_a_handshake_has_its_time(begins_in_tls):
    """Before a handshake is over there is nobody to say a word to."""
    server = server_of(handshake_timeout_seconds=20)
    protocol: Any = server.factory.buildProtocol(STRANGER)
    client = begin(server) if not begins_in_tls else server.connect(STRANGER, is_tls=True)
    protocol = client.transport.protocol
    if begins_in_tls:
        protocol._handshake_began_at = server.clock.seconds()
    else:
        client.transport.startTLS = lambda context: None
        assert client.say(b"STARTTLS\r\n").startswith(b"220")
    server.clock.advance(19)
    assert not client.transport.is_aborted
    for _ in range(5):
        server.clock.advance(20)
    assert client.transport.is_aborted


def test_slow_clients_cost_a_look_a_minute():
    """Many slow connections are nothing but timers: the work does not grow with what they drip."""
    server = server_of(limits={"smtp_connections_per_network": 3000, "new_connections_per_minute": 3000})
    slow = [begin(server, STRANGER, MAIL, RCPT, "DATA") for _ in range(300)]
    assert len(server.clock.getDelayedCalls()) <= len(slow)
    for _ in range(8):
        server.clock.advance(10)
        for client in slow:
            client.transport.deliver(b"x")
    fast = begin(server, NEIGHBOUR)
    assert codes(fast, MAIL, RCPT, "DATA", "x\r\n.") == ["250 2.1.0", "250 2.1.5", "354 Go ah", "250 2.6.0"]
    for _ in range(6):
        server.clock.advance(10)
    assert all(client.transport.disconnecting for client in slow)
