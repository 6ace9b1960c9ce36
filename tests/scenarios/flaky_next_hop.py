"""A next hop with moods: an SMTP server in threads that refuses, breaks off and cuts its 250 short, by a seed.

It remembers what it took, and how sure the client can be of it: ``CERTAIN`` where the 250 went out on a connection that
then lived on, ``CUT`` where it closed the connection instead of, or within, the 250 after the end of data. Those are
the only ones a client may deliver twice (RFC 1047).
"""

from __future__ import annotations

import enum
import random
import re
import socketserver
import threading
import time
from collections.abc import Sequence
from typing import cast

from attrs import Factory, define

IDENTIFIER = re.compile(rb"^Message-ID: <([^>]+)>", re.MULTILINE | re.IGNORECASE)


class Certainty(enum.Enum):
    """What the client knows of a message that was taken."""

    CERTAIN = "certain"
    CUT = "cut"


@define
class Arrival:
    """One message for one recipient."""

    identifier: str
    recipient: str
    certainty: Certainty
    at: float
    """By time.monotonic, when the 250 was sent or withheld."""
    octets: bytes


@define
class Moods:
    """How often what goes wrong, as probabilities."""

    refuse_connection: float = 0.0
    hang_up_in_command: float = 0.0
    defer_command: float = 0.0
    cut_reply: float = 0.0
    """After the end of data: the message is kept and the connection closed without a reply."""
    refuse_for_good: float = 0.0
    """550 at RCPT; by recipient, so that it stays so."""


@define
class Memory:
    """What arrived; one lock guards it."""

    lock: threading.Lock = Factory(threading.Lock)
    arrivals: list[Arrival] = Factory(list)
    transactions: int = 0


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128
    hop: FlakyNextHop


class _Session(socketserver.StreamRequestHandler):
    """One connection."""

    timeout = 60

    def handle(self) -> None:
        hop = cast("_Server", self.server).hop
        try:
            self._converse(hop)
        except (OSError, ValueError):
            return

    def _say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")

    def _converse(self, hop: FlakyNextHop) -> None:
        if hop.happens(hop.moods.refuse_connection):
            self._say("421 4.3.2 Not now")
            return
        self._say("220 flaky.example.org ESMTP")
        recipients: list[str] = []
        is_begun = False
        while line := self.rfile.readline():
            verb = line[:4].upper()
            if hop.happens(hop.moods.hang_up_in_command):
                return
            if verb == b"MAIL":
                is_begun, recipients = False, []
            if verb in {b"MAIL", b"RCPT", b"DATA"} and hop.happens(hop.moods.defer_command):
                self._say("451 4.3.0 Try again later")
                continue
            if verb == b"EHLO":
                self._say("250-flaky.example.org\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 DSN")
            elif verb == b"MAIL":
                is_begun = True
                self._say("250 2.1.0 OK")
            elif verb == b"RCPT":
                address = line[line.index(b"<") + 1 : line.index(b">")].decode()
                # A client that sends commands ahead would have to end an empty message (RFC 2920 3.1).
                if not is_begun:
                    self._say("503 5.5.1 MAIL first")
                elif hop.refuses(address):
                    self._say("550 5.1.1 No such user")
                else:
                    recipients.append(address)
                    self._say("250 2.1.5 OK")
            elif verb == b"DATA":
                if not recipients:
                    self._say("503 5.5.1 No recipients")
                    continue
                self._say("354 Go on")
                content = self._content()
                if hop.happens(hop.moods.cut_reply):
                    hop.remember(content, recipients, Certainty.CUT)
                    return
                hop.remember(content, recipients, Certainty.CERTAIN)
                self._say("250 2.0.0 Taken")
                is_begun, recipients = False, []
            elif verb == b"QUIT":
                self._say("221 2.0.0 Bye")
                return
            else:
                self._say("250 2.0.0 OK")

    def _content(self) -> bytes:
        lines: list[bytes] = []
        while True:
            line = self.rfile.readline()
            if not line:
                raise ValueError("cut off within the content")
            if line == b".\r\n":
                return b"".join(lines)
            lines.append(line[1:] if line.startswith(b".") else line)


class FlakyNextHop:
    """Listens on loopback from :meth:`start` to :meth:`stop`."""

    def __init__(self, moods: Moods, seed: int) -> None:
        self.moods = moods
        self.memory = Memory()
        self._rng = random.Random(seed)
        self._seed = seed
        self._server: _Server | None = None
        self.port = 0

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), _Session)
        self._server.hop = self
        self.port = cast("tuple[str, int]", self._server.server_address)[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> FlakyNextHop:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def happens(self, probability: float) -> bool:
        """Whether this one goes wrong."""
        with self.memory.lock:
            return self._rng.random() < probability

    def refuses(self, address: str) -> bool:
        """Whether this recipient is refused, always."""
        return random.Random(f"{self._seed} {address}").random() < self.moods.refuse_for_good

    def remember(self, content: bytes, recipients: Sequence[str], certainty: Certainty) -> None:
        found = IDENTIFIER.search(content)
        identifier = found[1].decode() if found is not None else ""
        at = time.monotonic()
        with self.memory.lock:
            self.memory.transactions += 1
            self.memory.arrivals += [Arrival(identifier, one, certainty, at, content) for one in recipients]

    def arrived(self) -> dict[tuple[str, str], list[Arrival]]:
        """By Message-ID and recipient, in the order they came."""
        found: dict[tuple[str, str], list[Arrival]] = {}
        with self.memory.lock:
            for arrival in self.memory.arrivals:
                found.setdefault((arrival.identifier, arrival.recipient), []).append(arrival)
        return found


def duplicates_without_reason(hop: FlakyNextHop, kills: Sequence[float], window: float) -> list[str]:
    """What came twice although the client had its 250: the reply was not cut, no kill came within ``window`` s."""
    wrong = []
    for (identifier, recipient), arrivals in hop.arrived().items():
        for earlier in arrivals[:-1]:
            is_excused = earlier.certainty is Certainty.CUT or any(
                -0.5 <= kill - earlier.at <= window for kill in kills
            )
            if not is_excused:
                wrong.append(f"{identifier} for {recipient} came {len(arrivals)} times")
    return wrong
