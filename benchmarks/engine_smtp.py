"""CPU time per message of the SMTP engine alone, and of engine and Twisted shell over a transport in memory.

    python benchmarks/engine_smtp.py [--octets 4096] [--messages 5000] [--recipients 1] [--profile]

The client's side is prepared beforehand: MAIL, RCPT and DATA in one segment, then the text. The
receiver keeps nothing. Figures are the minimum of five runs, in microseconds of CPU a message.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable

from twisted.internet.address import IPv4Address
from twisted.internet.defer import succeed
from twisted.internet.task import Clock

from mailsrv.interfaces.delivery import Accepted
from mailsrv.smtp import replies
from mailsrv.smtp.events import ContentReceived, TransactionAborted, Wait
from mailsrv.smtp.factory import SmtpServerFactory
from mailsrv.smtp.session import SmtpSession
from mailsrv.smtp.settings import Service, SmtpSettings
from mailsrv.wire.connection_limits import ConnectionTable
from mailsrv.wire.networks import NetworkSet
from mailsrv.wire.settings import LimitsSettings
from mailsrv.wire.tls_mode import TlsMode


class NullTransaction:
    transaction_id = "t1"

    def __init__(self) -> None:
        self.recipients = []

    def add_recipient(self, forward_path, parameters=None):
        self.recipients.append(forward_path)
        return succeed(None)

    def begin_content(self):
        return succeed(None)

    def write(self, octets):
        return None

    def finish(self):
        return succeed([Accepted(recipient, "t1") for recipient in self.recipients])

    def abort(self):
        pass


class NullReceiver:
    def connected(self, session):
        return succeed(None)

    greeted = connected

    def begin(self, session, reverse_path, parameters, account):
        return succeed(NullTransaction())


class NullTransport:
    disconnecting = False

    def write(self, octets):
        pass

    def getHost(self):
        return IPv4Address("TCP", "127.0.0.1", 25)

    def registerProducer(self, producer, streaming):
        pass

    def unregisterProducer(self):
        pass

    pauseProducing = resumeProducing = loseConnection = abortConnection = lambda self: None


def make_segments(octets: int, recipients: int, senders: int) -> tuple[list[bytes], bytes]:
    """The envelopes of different messages, to be taken in turn, and their text."""
    line = b"x" * 76 + b"\r\n"
    text = (b"Subject: benchmark\r\n\r\n" + line * (octets // len(line) + 1))[: octets - 2] + b"\r\n"
    heads = []
    for sender in range(senders):
        named = b"".join(b"RCPT TO:<user%d.%d@example.test>\r\n" % (number, sender) for number in range(recipients))
        heads.append(b"MAIL FROM:<client%d@client.example> SIZE=%d\r\n" % (sender, octets) + named + b"DATA\r\n")
    return heads, text + b".\r\n"


def drive_engine(messages: int, heads: list[bytes], text: bytes) -> None:
    session = SmtpSession(SmtpSettings(), service=Service.MX, hostname="mail.example.test", is_exempt=True)
    session.next_event()
    session.reply()
    session.receive_octets(b"EHLO client.example\r\n")
    session.next_event()
    session.reply()
    for number in range(messages):
        for octets in (heads[number % len(heads)], text):
            session.receive_octets(octets)
            while not isinstance(event := session.next_event(), Wait):
                if not isinstance(event, ContentReceived | TransactionAborted):
                    session.reply()
            session.octets_to_send()
    if session.messages != messages:
        raise RuntimeError("the engine did not take all messages")


def drive_shell(messages: int, heads: list[bytes], text: bytes) -> None:
    clock = Clock()
    factory = SmtpServerFactory(
        SmtpSettings(),
        NullReceiver(),
        service=Service.MX,
        hostname="mail.example.test",
        portal=None,
        context_factory=None,
        tls_mode=TlsMode.NONE,
        plaintext_networks=NetworkSet(),
        connections=ConnectionTable(LimitsSettings(), clock.seconds),
        clock=clock,
    )
    protocol = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 4000))
    protocol.makeConnection(NullTransport())
    protocol.dataReceived(b"EHLO client.example\r\n")
    for number in range(messages):
        protocol.dataReceived(heads[number % len(heads)])
        protocol.dataReceived(text)
    if protocol._session.messages != messages:
        raise RuntimeError("the server did not take all messages")


def measure(run: Callable[[int, list[bytes], bytes], None], messages: int, heads: list[bytes], text: bytes) -> float:
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        run(messages, heads, text)
        best = min(best, time.process_time() - began)
    return best / messages * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--octets", type=int, default=4096)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--recipients", type=int, default=1)
    parser.add_argument("--senders", type=int, default=100, help="more than 2,048 are not remembered by the parser")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    heads, text = make_segments(options.octets, options.recipients, options.senders)
    if options.profile:
        profile = cProfile.Profile()
        profile.runcall(drive_shell, options.messages, heads, text)
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
        return
    print(
        f"{options.octets} octets, {options.recipients} recipients, {options.senders} senders, reply {replies.OK.code}"
    )
    print(f"engine           {measure(drive_engine, options.messages, heads, text):7.1f} us")
    print(f"engine and shell {measure(drive_shell, options.messages, heads, text):7.1f} us")


if __name__ == "__main__":
    main()
