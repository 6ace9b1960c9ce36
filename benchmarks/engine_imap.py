"""What the IMAP engine costs without sockets: CPU time per command and row, and memory per idle session.

    python benchmarks/engine_imap.py [--messages 20000]

The store is the one in memory, the transport throws away what it gets; so the figures are those
of parsing, rows and the Twisted shell. Reactor and system calls come on top.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import tracemalloc
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mailsrv.wire.settings import LimitsSettings
from tests.imap.server import CLIENT, MESSAGES, Server


class Sink:
    """A transport that counts octets."""

    disconnecting = False

    def __init__(self) -> None:
        self.octets = 0

    def write(self, data: bytes) -> None:
        self.octets += len(data)

    def getPeer(self) -> object:
        return CLIENT

    def registerProducer(self, producer: object, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def loseConnection(self) -> None: ...


class Connection:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.sink = Sink()
        self.protocol = server.factory.buildProtocol(CLIENT)
        self.protocol.makeConnection(self.sink)

    def say(self, line: bytes) -> int:
        before = self.sink.octets
        self.protocol.dataReceived(line)
        while self.protocol._is_working:
            self.server.clock.advance(0)
        return self.sink.octets - before


def best(run, times: int = 5) -> float:
    """CPU seconds, the least of several runs."""
    found = []
    for _ in range(times):
        gc.collect()
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return min(found)


def measure(messages: int) -> dict[str, float]:
    server = Server()
    mailbox = server.mailbox()
    made = [server.account.new_message(MESSAGES["plain"], (), 1_700_000_000 + n, 60) for n in range(messages)]
    mailbox.add(made)
    connection = Connection(server)
    connection.say(b"a LOGIN alice secret\r\n")
    connection.say(b"a SELECT INBOX\r\n")
    results: dict[str, float] = {}

    def single(name: str, line: bytes, count: int = 2000) -> None:
        def run() -> None:
            for _ in range(count):
                connection.say(line)

        results[f"{name}, us"] = best(run) / count * 1e6

    single("NOOP", b"a NOOP\r\n")
    single("UID FETCH 5 (FLAGS)", b"a UID FETCH 5 (FLAGS)\r\n")
    single("UID FETCH 5 (UID FLAGS RFC822.SIZE)", b"a UID FETCH 5 (UID FLAGS RFC822.SIZE)\r\n")
    single("UID FETCH 5 (BODY.PEEK[])", b"a UID FETCH 5 (BODY.PEEK[])\r\n")
    single("SEARCH UNSEEN of all", b"a SEARCH UNSEEN\r\n", 5)
    flip = [b"a UID STORE 7 +FLAGS (\\Seen)\r\n", b"a UID STORE 7 -FLAGS (\\Seen)\r\n"]

    def store() -> None:
        for number in range(2000):
            connection.say(flip[number & 1])

    results["UID STORE 7 FLAGS, us"] = best(store) / 2000 * 1e6
    results[f"FETCH 1:* (FLAGS) of {messages}, ms"] = best(lambda: connection.say(b"a FETCH 1:* (FLAGS)\r\n")) * 1e3

    listing = b"UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER.FIELDS (Date From To Cc Subject)])"
    full = b"FETCH 1:* (FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)"
    for name, items in (("message list", listing), ("full metadata", full)):
        start = time.process_time()
        connection.say(b"a " + items + b"\r\n")
        results[f"{name} cold, rows/s"] = messages / (time.process_time() - start)
        warm = best(lambda items=items: connection.say(b"a " + items + b"\r\n"))
        results[f"{name} warm, rows/s"] = messages / warm
    bodies = best(lambda: connection.say(b"a FETCH 1:2000 (BODY.PEEK[])\r\n"), 3)
    results["small bodies, messages/s"] = 2000 / bodies
    server.add(MESSAGES["plain"] + b"x" * 77 * 600_000)
    connection.say(b"a NOOP\r\n")
    large = best(lambda: connection.say(b"a FETCH * (BODY.PEEK[])\r\n"), 3)
    results["one large body, MB/s"] = 46.2 / large
    return results


def measure_memory(count: int = 500) -> dict[str, float]:
    server = Server(limits=LimitsSettings(exempt_networks=("192.0.2.0/24",)))
    server.fill("plain*100")

    def open_all(lines: list[bytes]) -> list[Connection]:
        connections = [Connection(server) for _ in range(count)]
        for connection in connections:
            for line in lines:
                connection.say(line)
        return connections

    results = {}
    for name, lines in (
        ("connected", []),
        ("logged in", [b"a LOGIN alice secret\r\n"]),
        ("selected", [b"a LOGIN alice secret\r\n", b"b SELECT INBOX\r\n", b"c UID FETCH 1:* (FLAGS)\r\n"]),
        ("in IDLE", [b"a LOGIN alice secret\r\n", b"b SELECT INBOX\r\n", b"d IDLE\r\n"]),
    ):
        warm = open_all(lines)
        del warm
        gc.collect()
        tracemalloc.start()
        kept = open_all(lines)
        gc.collect()
        octets, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        results[f"session {name}, octets"] = octets / count
        for connection in kept:
            connection.protocol.connectionLost()
        del kept
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = measure(options.messages) | measure_memory()
    if options.json:
        print(json.dumps(results))
        return
    for name, value in results.items():
        print(f"{name:48} {value:14,.1f}")


if __name__ == "__main__":
    main()
