"""The whole server relaying, and a power cut: users submit to another host whose server has moods.

The next hop runs in the load's process: what it took it prints, outside of the disk that is cloned. The audit starts
the server on the clone, with the next hop at its old port again, and waits until nothing is owed: every message
that was acknowledged before the cut has arrived, before the cut or after, or came back as a notice.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.scenarios.flaky_next_hop import Certainty, FlakyNextHop, Moods
from tests.scenarios.server import WholeServer
from tests.scenarios.test_relay_under_kill import ELSEWHERE, MOODY, SECTIONS, USERS, Senders, notices

AUDIT_SECONDS = 60.0
CUT_SECONDS = 5.0
JOURNAL = "segment_octets = 2097152\ncheckpoint_interval = 0.5\nfree_space_floor = 8388608"
QUEUE = "free_space_floor = 8388608"


class SpeakingHop(FlakyNextHop):
    """Prints what it took before it says so."""

    def remember(self, content: bytes, recipients: Sequence[str], certainty: Certainty) -> None:
        super().remember(content, recipients, certainty)
        say("arrived", self.memory.arrivals[-1].identifier, certainty.name, *recipients)


class SpeakingSenders(Senders):
    """Print what was acknowledged, and the port of the next hop."""

    def __init__(self, server: WholeServer, port: int) -> None:
        super().__init__(server, seed=int(time.time()))
        self._port = port

    def start(self) -> None:
        super().start()
        threading.Thread(target=self._tell, daemon=True).start()

    def _tell(self) -> None:
        told = 0
        while True:
            for identifier, (user, recipient) in list(self.acknowledged.items())[told:]:
                say("promise", identifier, user, recipient, self._port)
                told += 1
            time.sleep(0.01)


_lock = threading.Lock()


def say(*values: object) -> None:
    with _lock:
        sys.stdout.write(json.dumps((time.monotonic(), *values)) + "\n")
        sys.stdout.flush()


def make_server(directory: str, port: int) -> WholeServer:
    """Over what a crash may have left of an earlier one: its configuration was never synced."""
    folder = Path(directory)
    for name in ("passwd", "cert.pem", "key.pem", "mailsrv.toml", "lmtp.sock"):
        with contextlib.suppress(FileNotFoundError):
            (folder / name).unlink()
    route = f'\n[[route]]\nto = "{ELSEWHERE}"\nvia = "smtp:127.0.0.1:{port}"\n'
    sections = {**SECTIONS, "journal": JOURNAL, "queue.storage": QUEUE}
    return WholeServer(folder, users=USERS, sections=sections, extra=route)


class RelayLoad:
    """See :class:`tests.crashlab.loads.Load`."""

    lines_before = 100

    def command(self, directory: str) -> Sequence[str]:
        return [sys.executable, "-m", "tests.crashlab.relay_load", directory]

    def audit(self, directory: str, acknowledged: Sequence[str], later: Sequence[str]) -> Sequence[str]:
        promised: dict[str, str] = {}
        before: set[str] = set()
        at, port = 0.0, 0
        for line in acknowledged:
            at, kind, identifier, *values = json.loads(line)
            if kind == "promise":
                promised[identifier], port = values[1], values[2]
            elif kind == "arrived":
                before.add(identifier)
        # The clone is made a moment after the lines were counted.
        at_the_cut = {one[2] for one in map(json.loads, later) if one[1] == "arrived" and one[0] < at + CUT_SECONDS}
        hop = FlakyNextHop(Moods(refuse_for_good=MOODY.refuse_for_good), seed=1)
        # What is queued goes where it was to go when it was accepted.
        hop.port = port
        with hop:
            server = make_server(directory, hop.port)
            server.start()
            try:
                return self._compare(server, hop, promised, before, at_the_cut)
            finally:
                server.stop()

    def _compare(
        self, server: WholeServer, hop: FlakyNextHop, promised: dict[str, str], before: set[str], at_the_cut: set[str]
    ) -> Sequence[str]:
        deadline = time.monotonic() + AUDIT_SECONDS
        while True:
            after = {identifier for identifier, _ in hop.arrived()}
            returned = {identifier for user in USERS for identifier in notices(server, user)}
            lost = [one for one in promised if one not in before | after | returned | at_the_cut]
            if not lost or time.monotonic() > deadline:
                break
            time.sleep(0.3)
        problems = [f"{identifier} for {promised[identifier]} is lost" for identifier in lost]
        problems += [
            f"{identifier} came {len(arrivals)} times after the cut"
            for (identifier, _), arrivals in hop.arrived().items()
            if len(arrivals) > 1
        ]
        problems += [f"{one} arrived and came back" for one in returned & (before | after)]
        return problems


def main(directory: str) -> None:
    """Serve and send without end."""
    with SpeakingHop(MOODY, seed=1) as hop:
        server = make_server(directory, hop.port)
        server.start()
        SpeakingSenders(server, hop.port).start()
        threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1])
