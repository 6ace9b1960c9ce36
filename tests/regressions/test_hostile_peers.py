"""The whole server under attack from outside: what strangers, users and clumsy programs send, over real sockets.

One server for all of it, as a real one would have it; its log is read in the end.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import resource
import select
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.server import ALICE, BOB, PASSWORD, WholeServer

pytestmark = pytest.mark.slow

WRONG_PASSWORD = "Tr0ub4dor-wrong"
CONTENT = "only-in-the-message-text"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeServer]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    running = WholeServer(tmp_path_factory.mktemp("s"), sections={"smtp": "greeting_delay_seconds = 0.0"})
    try:
        running.start()
        yield running
        running.stop()
        running.check_log()
        check_secrets(running.log_text())
    finally:
        running.kill()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def check_secrets(log: str) -> None:
    """No password, in no coding, and nothing of a message."""
    for secret in (PASSWORD, WRONG_PASSWORD, CONTENT):
        assert secret not in log
    for name in (ALICE, BOB, "nobody@example.test"):
        for password in (PASSWORD, WRONG_PASSWORD):
            assert plain(name, password).decode() not in log
    assert base64.b64encode(PASSWORD.encode()).decode() not in log


def plain(name: str, password: str) -> bytes:
    return base64.b64encode(f"\0{name}\0{password}".encode())


class Peer:
    """A connection that says octets and reads lines."""

    def __init__(self, server: WholeServer, port: str, *, tls: bool = False) -> None:
        self.socket: socket.socket = socket.create_connection(("localhost", server.ports[port]), 30)
        if tls:
            self.socket = server.client_context().wrap_socket(self.socket, server_hostname="localhost")
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def send(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def line(self) -> bytes:
        return self.file.readline()

    def reply(self) -> bytes:
        """A reply of SMTP, all its lines."""
        lines = [self.line()]
        while lines[-1][3:4] == b"-":
            lines.append(self.line())
        return b"".join(lines)

    def say(self, *lines: bytes) -> list[bytes]:
        """Commands of SMTP, one after the other."""
        said = []
        for line in lines:
            self.send(line + b"\r\n")
            said.append(self.reply())
        return said

    def exchange(self, octets: bytes, count: int) -> bytes:
        """Sends and reads at once, until `count` octets came or the peer closed.

        In one thread: two must not be inside one TLS connection at the same time.
        """
        said = bytearray()
        rest = memoryview(octets)
        self.socket.setblocking(False)
        while len(said) < count:
            readable, writable, _ = select.select([self.socket], [self.socket] if rest else [], [], 30)
            assert readable or writable, "the server neither reads nor answers"
            with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                while chunk := self.socket.recv(65_536):
                    said += chunk
                return bytes(said)
            with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                while rest:
                    rest = rest[self.socket.send(rest[:65_536]) :]
        self.socket.setblocking(True)
        return bytes(said)

    def command(self, command: bytes) -> bytes:
        """A command of IMAP."""
        self.send(b"tag " + command + b"\r\n")
        lines = [self.line()]
        while lines[-1] and not lines[-1].startswith(b"tag "):
            lines.append(self.line())
        return b"".join(lines)

    def rest(self) -> bytes:
        """All until the server closes."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            return self.file.read()
        return b""


def smtp(server: WholeServer, *lines: bytes) -> Peer:
    peer = Peer(server, "mx")
    assert peer.reply().startswith(b"220")
    peer.say(b"EHLO client.example.org", *lines)
    return peer


def imap(server: WholeServer, user: str) -> Peer:
    peer = Peer(server, "imaps", tls=True)
    peer.line()
    assert b"tag OK" in peer.command(f'LOGIN {user} "{PASSWORD}"'.encode())
    peer.command(b"SELECT INBOX")
    return peer


def resident_octets(server: WholeServer) -> int:
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in server.processes())
    return pages * os.sysconf("SC_PAGE_SIZE")


ENDS_OF_DATA = [
    before + b"." + after
    for before in (b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r\n", b"\r\n\r")
    for after in (b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r\n", b"\n\r")
    if (before, after) not in {(b"\r\n", b"\r\n")}
]


def test_r_smtp_1_no_other_end_of_data_ends_it(server: WholeServer) -> None:
    for number, end in enumerate(ENDS_OF_DATA):
        with smtp(server, b"MAIL FROM:<a@example.org>", b"RCPT TO:<%b>" % ALICE.encode(), b"DATA") as peer:
            text = b"Subject: outer %d\r\n\r\nx" % number + end
            smuggled = (
                b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<%b>\r\nDATA\r\nSubject: inner\r\n\r\n" % ALICE.encode()
            )
            whole = text + smuggled + b"y\r\n.\r\n"
            cut = number % len(whole)
            peer.send(whole[:cut])
            peer.send(whole[cut:])
            assert peer.rest().startswith(b"550 5.5.2"), end
    assert server.messages(ALICE) == []


def test_r_tls_1_nothing_said_before_tls_counts_after_it(server: WholeServer) -> None:
    dialogues = {
        "mx": (b"EHLO x\r\n", b"STARTTLS\r\n", b"MAIL FROM:<>\r\n", b"220 "),
        "submission": (b"EHLO x\r\n", b"STARTTLS\r\n", b"EHLO y\r\n", b"220 "),
        "imap": (b"", b"a STARTTLS\r\n", b"b CAPABILITY\r\n", b"a OK"),
        "pop3": (b"", b"STLS\r\n", b"CAPA\r\n", b"+OK"),
    }
    for port, (first, start, injected, agreed) in dialogues.items():
        for is_together in (True, False):
            with Peer(server, port) as peer:
                peer.reply()
                if first:
                    peer.send(first)
                    peer.reply()
                peer.send(start + injected if is_together else start)
                if not is_together:
                    assert peer.line().startswith(agreed)
                    peer.send(injected)
                said = peer.rest()
                assert said.count(b"\n") <= 1, (port, said)
                assert b"250" not in said
                assert b"CAPA" not in said


def test_r_tls_4_nothing_is_compressed(server: WholeServer) -> None:
    with Peer(server, "imaps", tls=True) as peer:
        peer.line()
        assert b"tag OK" in peer.command(f'LOGIN {ALICE} "{PASSWORD}"'.encode())
        assert b"COMPRESS" not in peer.command(b"CAPABILITY")
        assert b"tag BAD" in peer.command(b"COMPRESS DEFLATE")
        assert isinstance(peer.socket, ssl.SSLSocket)
        assert peer.socket.compression() is None


def test_tls_garbage_ends_the_connection(server: WholeServer) -> None:
    for port in ("imaps", "pop3s", "submissions"):
        for octets in (os.urandom(2000), b"GET / HTTP/1.0\r\n\r\n", b"EHLO x\r\n" * 100):
            with Peer(server, port) as peer:
                peer.send(octets)
                peer.rest()
    with Peer(server, "imaps", tls=True) as peer:
        assert peer.line().startswith(b"* OK")


def test_r_ctl_1_control_octets_are_no_commands(server: WholeServer) -> None:
    for line in (b"NOOP \0", b"EHLO a\0b", b"\0", b"NOOP \x1b[2J", b"EHLO \xc2\x85"):
        with Peer(server, "mx") as peer:
            peer.reply()
            peer.send(line + b"\r\n")
            assert peer.line().startswith(b"500 5.5.2"), line
        with Peer(server, "imap") as peer:
            peer.line()
            assert b"tag BAD" in peer.command(line)
        with Peer(server, "pop3") as peer:
            peer.line()
            peer.send(line + b"\r\n")
            assert peer.line().startswith(b"-ERR"), line


def test_it_relays_for_nobody(server: WholeServer) -> None:
    refused = {
        "x@foreign.test": b"550 5.7.1",
        "x@[127.0.0.1]": b"550 5.7.1",
        "@example.test:x@foreign.test": b"550 5.7.1",
        "alice@mail.example.test": b"550 5.7.1",
        "x%foreign.test@example.test": b"550 5.1.1",
        "foreign.test!x@example.test": b"550 5.1.1",
        '"x@foreign.test"@example.test': b"550 5.1.1",
        "nobody@example.test": b"550 5.1.1",
        "x@foreign.test@example.test": b"501 5.1.3",
    }
    for path, reply in refused.items():
        with smtp(server, b"MAIL FROM:<a@example.org>") as peer:
            assert peer.say(f"RCPT TO:<{path}>".encode())[0].startswith(reply), path


HOSTILE = {
    "a literal before log-in": ("imap", b"a LOGIN {4096+}\r\n" + b"x" * 4000),
    "many literals": ("imap", b"a LOGIN " + (b"{4000+}\r\n" + b"y" * 4000 + b" ") * 15),
    "a literal of 4 GiB": ("imap", b"a LOGIN {4294967295+}\r\n" + b"x" * 100_000),
    "parentheses": ("imap", b"a ID " + b"(" * 8000),
    "a long line": ("mx", b"x" * 100_000),
    "a long name": ("pop3", b"USER " + b"x" * 2000),
}


def test_r_imap_1_a_thousand_hostile_connections_cost_less_than_a_mebibyte_each(server: WholeServer) -> None:
    for what, (port, octets) in HOSTILE.items():
        before = resident_octets(server)
        peers = []
        try:
            for _ in range(1000):
                peers.append(Peer(server, port))
                with contextlib.suppress(ConnectionError):
                    peers[-1].send(octets)
            with imap(server, ALICE) as client:
                assert b"tag OK" in client.command(b"NOOP")
            assert resident_octets(server) - before < 1000 * 256 * 1024, what
        finally:
            for peer in peers:
                peer.__exit__()


@pytest.mark.parametrize("port", ["imaps", "pop3s"])
def test_a_hundred_thousand_commands_in_one_breath(server: WholeServer, port: str) -> None:
    count = 100_000
    with Peer(server, port, tls=True) as peer:
        peer.line()
        if port == "imaps":
            peer.command(f'LOGIN {ALICE} "{PASSWORD}"'.encode())
            command, answer = b"n NOOP\r\n", b"n OK NOOP completed\r\n"
        else:
            peer.send(f"USER {ALICE}\r\nPASS {PASSWORD}\r\n".encode())
            peer.line(), peer.line()
            command, answer = b"NOOP\r\n", b"+OK Nothing done\r\n"
        before = resident_octets(server)
        said = peer.exchange(command * count, len(answer) * count)
        assert said.count(answer) == count
        assert len(said) == len(answer) * count
        assert resident_octets(server) - before < 16 * 1024 * 1024


def test_a_hundred_thousand_commands_of_a_stranger_end_the_connection(server: WholeServer) -> None:
    with Peer(server, "mx") as peer, contextlib.suppress(ConnectionError):
        peer.send(b"NOOP\r\n" * 100_000)
        assert b"421" in peer.rest()


def bombs() -> Iterator[tuple[str, bytes]]:
    numbers = range(10_000)
    yield (
        "nested",
        b"".join(
            b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (number, number) for number in numbers
        ),
    )
    yield "messages", b"Content-Type: message/rfc822\r\n\r\n" * 10_000
    yield "parts", b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 100_000
    yield "parentheses", b"From: " + b"\r\n ".join([b"(" * 50_000] * 2) + b"\r\n\r\nx\r\n"
    yield "field", b"Subject: " + b"\r\n ".join([b"x" * 60_000] * 17) + b"\r\n\r\nx\r\n"
    yield "addresses", b"To: " + b",\r\n ".join(b"a%d@example.org" % number for number in numbers) + b"\r\n\r\nx\r\n"
    yield "parameters", b"Content-Type: text/plain" + b"".join(b";\r\n p*%d*=%%41" % n for n in numbers) + b"\r\n\r\n"
    yield "words", b"Subject: " + b"\r\n ".join([b"=?utf-8?q?=41?="] * 50_000) + b"\r\n\r\nx\r\n"


def test_r_bomb_1_others_do_not_notice(server: WholeServer) -> None:
    """Absolute times, with room for a busy machine: bombs of this kind cost minutes where they work."""
    waits: list[float] = []
    is_over = threading.Event()

    def look() -> None:
        with imap(server, ALICE) as other:
            while not is_over.is_set():
                began = time.monotonic()
                other.command(b"NOOP")
                waits.append(time.monotonic() - began)
                time.sleep(0.01)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for name, bomb in bombs():
            began = time.monotonic()
            with smtp(server, b"MAIL FROM:<a@example.org>", b"RCPT TO:<%b>" % BOB.encode(), b"DATA") as peer:
                assert peer.say(bomb + b"\r\n%b\r\n." % CONTENT.encode())[0].startswith(b"250"), name
            assert time.monotonic() - began < 10, name
        with imap(server, BOB) as client:
            for command in (
                b"FETCH 1:* (ENVELOPE BODYSTRUCTURE)",
                b"FETCH 1:* (BODY.PEEK[1] BODY.PEEK[1.1.1.HEADER] BINARY.SIZE[1])",
                b"FETCH 1:* (BODY.PEEK[HEADER.FIELDS (FROM TO SUBJECT X)])",
                b"SEARCH OR TEXT nowhere FROM nobody",
                b"SEARCH SUBJECT AAAAAB",
            ):
                began = time.monotonic()
                client.send(b"unlikely " + command + b"\r\n")
                while not (line := client.line()).startswith(b"unlikely "):
                    assert line
                assert line.startswith(b"unlikely OK"), command
                assert time.monotonic() - began < 15, command
    finally:
        is_over.set()
        looking.join()
    assert max(waits) < 5
    assert sorted(waits)[len(waits) * 9 // 10] < 1


def test_r_auth_6_who_exists_is_not_told(server: WholeServer) -> None:
    answers: dict[str, set[bytes]] = {}
    for user in (ALICE, "nobody@example.test", "no body", "nobody@foreign.test"):
        with Peer(server, "imaps", tls=True) as peer:
            peer.line()
            answers.setdefault("imap", set()).add(peer.command(f'LOGIN "{user}" "{WRONG_PASSWORD}"'.encode()))
        with Peer(server, "pop3s", tls=True) as peer:
            peer.line()
            peer.send(f"USER {user}\r\nPASS {WRONG_PASSWORD}\r\n".encode())
            answers.setdefault("pop3", set()).add(peer.line() + peer.line())
        with Peer(server, "submissions", tls=True) as peer:
            peer.reply()
            peer.say(b"EHLO client.example.org")
            (said,) = peer.say(b"AUTH PLAIN " + plain(user, WRONG_PASSWORD))
            answers.setdefault("smtp", set()).add(said)
    assert {name: len(said) for name, said in answers.items()} == {"imap": 1, "pop3": 1, "smtp": 1}


def test_r_auth_7_a_directory_that_is_gone_is_no_wrong_password(server: WholeServer) -> None:
    away = server.passwd_path.with_suffix(".away")
    server.passwd_path.rename(away)
    time.sleep(1.2)
    try:
        for user in (ALICE, "nobody@example.test"):
            with Peer(server, "imaps", tls=True) as peer:
                peer.line()
                assert b"NO [UNAVAILABLE]" in peer.command(f'LOGIN {user} "{PASSWORD}"'.encode())
            with Peer(server, "pop3s", tls=True) as peer:
                peer.line()
                peer.send(f"USER {user}\r\nPASS {PASSWORD}\r\n".encode())
                assert b"-ERR [SYS/TEMP]" in peer.line() + peer.line()
            with Peer(server, "submissions", tls=True) as peer:
                peer.reply()
                said = peer.say(b"EHLO client.example.org", b"AUTH PLAIN " + plain(user, PASSWORD))
                assert said[1].startswith(b"454 4.7.0")
            with smtp(server, b"MAIL FROM:<>") as peer:
                assert peer.say(f"RCPT TO:<{user}>".encode())[0].startswith(b"451 4.3.0")
            with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
                server.deliver(user, b"\r\nx\r\n")
            assert next(iter(refused.value.recipients.values()))[0] == 451
    finally:
        away.rename(server.passwd_path)
    time.sleep(1.2)
    with imap(server, ALICE) as client:
        assert b"tag OK" in client.command(b"NOOP")


def test_r_stop_1_a_stop_waits_for_nobody_who_never_began(server: WholeServer) -> None:
    """The last test: it stops the server (and starts it again, for the fixture to stop)."""
    silent = [Peer(server, port) for port in ("imaps", "pop3s", "submissions")]
    told = [Peer(server, port) for port in ("imap", "pop3", "mx", "submission")]
    for peer in told:
        peer.reply()
    time.sleep(0.2)
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 15
    for peer, word in zip(told, (rb"\* BYE", b"-ERR", b"421", b"421"), strict=True):
        assert re.match(word, peer.line())
    for peer in [*silent, *told]:
        peer.__exit__()
    server.start()
