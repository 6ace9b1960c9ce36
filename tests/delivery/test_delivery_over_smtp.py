"""The receiver behind real SMTP and LMTP sessions: what a client reads for each decision."""

import pytest
from twisted.internet.address import IPv4Address

from mailsrv.address import Address
from mailsrv.errors import InsufficientStorage
from mailsrv.filters.function import filter_function
from mailsrv.interfaces.filter import Reject
from mailsrv.smtp.factory import SmtpServerFactory
from mailsrv.smtp.settings import Service, SmtpSettings
from mailsrv.testing.dialogue import Mode, parse_dialogue, run_dialogue
from mailsrv.wire.connection_limits import ConnectionTable
from mailsrv.wire.networks import NetworkSet
from mailsrv.wire.settings import LimitsSettings
from mailsrv.wire.tls_mode import TlsMode

from .conftest import ALICE, BOB, FULL, make_house

MX = """
S: 220 ...
C: EHLO client.example.net
S* 250 ...
C: MAIL FROM:<sender@example.net>
S: 250 ...
C: RCPT TO:<nobody@example.test>
S: 550 5.1.1 ...
C: RCPT TO:<friend@example.org>
S: 550 5.7.1 ...
C: RCPT TO:<friend%example.org@example.test>
S: 550 5.1.1 ...
C: RCPT TO:<"friend@example.org"@example.test>
S: 550 5.1.1 ...
C: RCPT TO:<example.org!friend@example.test>
S: 550 5.1.1 ...
C: RCPT TO:<@example.test:friend@example.org>
S: 550 5.7.1 ...
@do down
C: RCPT TO:<alice@example.test>
S: 451 4.3.0 ...
@do up
C: RCPT TO:<alice@example.test>
S: 250 ...
C: RCPT TO:<bob@example.test>
S: 250 ...
C: DATA
S: 354 ...
C: Subject: hello
C:
C: .. dots
C: .
S: 250 2.6.0 ...
C: MAIL FROM:<sender@example.net>
S: 250 ...
C: RCPT TO:<alice@example.test>
S: 250 ...
@do full
C: DATA
S: 452 4.3.1 ...
C: QUIT
S: 221 ...
@closed
"""

LMTP = """
S: 220 ...
C: LHLO client.example.net
S* 250 ...
C: MAIL FROM:<>
S: 250 ...
C: RCPT TO:<alice@example.test>
S: 250 ...
C: RCPT TO:<full@example.test>
S: 250 ...
C: RCPT TO:<alice@example.test>
S: 250 ...
C: DATA
S: 354 ...
C: Subject: hello
C:
C< \\*300{x}\\r\\n
C: .
S: 250 2.6.0 ...
S~ (452 4|552 5)\\.2\\.2 .*
S: 250 2.6.0 ...
C: QUIT
S: 221 ...
@closed
"""

FILTERED = """
S: 220 ...
C: EHLO client.example.net
S* 250 ...
C: MAIL FROM:<sender@example.net>
S: 250 ...
C: RCPT TO:<alice@example.test>
S: 250 ...
C: DATA
S: 354 ...
C: Subject: casino
C:
C: x
C: .
S: 550 5.7.1 No games
C: MAIL FROM:<sender@example.net>
S: 250 ...
C: QUIT
S: 221 ...
@closed
"""


@filter_function(phase="headers")
def no_games(message):
    return Reject("No games") if b"casino" in message.header else None


def run(house, text, mode):
    clock = house.clock
    factory = SmtpServerFactory(
        SmtpSettings(),
        house.receiver,
        service=Service(house.service),
        hostname="mail.example.test",
        portal=None,
        context_factory=None,
        tls_mode=TlsMode.NONE,
        plaintext_networks=NetworkSet(()),
        connections=ConnectionTable(LimitsSettings(), clock.seconds),
        clock=clock,
    )
    peer = IPv4Address("TCP", "127.0.0.1", 40000)
    hooks = {
        "down": lambda: setattr(house.directory, "is_down", True),
        "up": lambda: setattr(house.directory, "is_down", False),
        "full": lambda: setattr(house.journal, "refusal", InsufficientStorage()),
    }
    run_dialogue(
        parse_dialogue(text), lambda: factory.buildProtocol(peer), mode=mode, clock=clock, hooks=hooks, peer=peer
    )


@pytest.mark.parametrize("mode", [Mode.WHOLE, Mode.OCTETS])
def test_the_mx_takes_mail_for_its_own_and_relays_nothing(mode):
    house = make_house()
    run(house, MX, mode)
    (stored,) = house.inbox()
    assert house.inbox(BOB) == [stored]
    assert stored.endswith(b"\r\nSubject: hello\r\n\r\n. dots\r\n")
    assert len(house.journal.records) == 1


@pytest.mark.parametrize("mode", [Mode.WHOLE, Mode.OCTETS])
def test_lmtp_answers_for_each_recipient(mode):
    house = make_house("lmtp")
    run(house, LMTP, mode)
    assert len(house.inbox()) == 1
    assert not house.inbox(FULL)
    assert house.store.account(ALICE).reserved_octets == 0


@pytest.mark.parametrize("mode", [Mode.WHOLE, Mode.OCTETS])
def test_a_filters_refusal_is_what_the_peer_reads(mode):
    house = make_house(filters=[no_games])
    run(house, FILTERED, mode)
    assert not house.inbox(Address("alice", "example.test"))
