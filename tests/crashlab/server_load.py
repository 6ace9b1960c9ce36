"""The whole server: SMTP and APPEND in, IMAP reading along, EXPUNGE, MOVE, POP3 deleting, and a power cut.

Senders and the audit are those of ``tests/scenarios``. Where a power cut differs from a kill: a message that a
reader saw may come back under a new UID (its index row was not synced), but the UID it had names no other.
"""

from __future__ import annotations

import contextlib
import imaplib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from attrs import define

from tests.scenarios.load import ARCHIVE, MAILBOXES, MOVED, Ledger, Load, fetch, identify
from tests.scenarios.server import DOMAIN, WholeServer

USERS = [f"user{number}" for number in range(4)]
ACCOUNTS = [f"{user}@{DOMAIN}" for user in USERS]
SECTIONS = {
    "smtp": "greeting_delay_seconds = 0.0\nmessages_per_session = 1000000",
    "limits": 'exempt_networks = ["127.0.0.0/8"]',
    "journal": "segment_octets = 2097152\ncheckpoint_interval = 0.5\nfree_space_floor = 8388608",
}


def make_server(directory: str) -> WholeServer:
    """Over what a crash may have left of an earlier one: its configuration was never synced."""
    folder = Path(directory)
    for name in ("passwd", "cert.pem", "key.pem", "mailsrv.toml", "lmtp.sock"):
        with contextlib.suppress(FileNotFoundError):
            (folder / name).unlink()
    return WholeServer(folder, users=USERS, sections=SECTIONS)


@define
class SpeakingLedger(Ledger):
    """Prints every promise."""

    def promise(self, identifier: str, account: str) -> None:
        self._say("promise", identifier, account)

    def tell(self, account: str, uid_validity: int, uid: int, identifier: str) -> None:
        self._say("tell", account, uid_validity, uid, identifier)

    def begin(self, fate_of_these: int, identifiers: Collection[str]) -> None:
        self._say("moving" if fate_of_these == MOVED else "leaving", *identifiers)

    def end(self, fate_of_these: int, identifiers: Collection[str]) -> None:
        self._say("moved" if fate_of_these == MOVED else "gone", *identifiers)

    def _say(self, *values: object) -> None:
        with self.lock:
            sys.stdout.write(json.dumps(values) + "\n")
            sys.stdout.flush()


class ServerLoad:
    """See :class:`tests.crashlab.loads.Load`."""

    lines_before = 1

    def command(self, directory: str) -> Sequence[str]:
        return [sys.executable, "-m", "tests.crashlab.server_load", directory]

    def audit(self, directory: str, acknowledged: Sequence[str], later: Sequence[str]) -> Sequence[str]:
        promised: dict[str, str] = {}
        told: dict[tuple[str, int, int], str] = {}
        sets: dict[str, set[str]] = {"moving": set(), "leaving": set(), "moved": set(), "gone": set()}
        for line in acknowledged:
            kind, *values = json.loads(line)
            if kind == "promise":
                promised[values[0]] = values[1]
            elif kind in sets:
                sets[kind].update(values)
            else:
                told[values[0], values[1], values[2]] = values[3]
        for line in later:
            # Asked for, and perhaps done, before anybody read the line.
            kind, *values = json.loads(line)
            if kind in {"moving", "leaving"}:
                sets[kind].update(values)
        server = make_server(directory)
        server.start()
        try:
            return self._compare(server, promised, told, sets)
        finally:
            server.stop()

    def _compare(
        self,
        server: WholeServer,
        promised: dict[str, str],
        told: dict[tuple[str, int, int], str],
        sets: dict[str, set[str]],
    ) -> Sequence[str]:
        problems = []
        found: Counter[str] = Counter()
        places: dict[str, str] = {}
        for account in ACCOUNTS:
            client = imaplib.IMAP4("127.0.0.1", server.ports["imap"], timeout=60)
            client.login(account, server.password)
            for mailbox in MAILBOXES:
                client.select(mailbox, readonly=True)
                uid_validity = int(client.response("UIDVALIDITY")[1][0] or 0)
                for uid, octets in fetch(client, "1:*", "BODY.PEEK[]"):
                    identifier, is_whole = identify(octets)
                    if not is_whole:
                        problems.append(f"UID {uid} of {account} is damaged: {identifier or octets[:100]!r}")
                    if told.get((account, uid_validity, uid), identifier) != identifier:
                        problems.append(f"UID {uid} of {account} was told as another message")
                    if promised.get(identifier, account) != account:
                        problems.append(f"{identifier} is in the wrong account")
                    places[identifier] = mailbox
                    found[identifier] += 1
            client.logout()
        problems += [f"{identifier} is there {count} times" for identifier, count in found.items() if count > 1]
        problems += [f"{identifier} was removed and is back" for identifier in sets["gone"] if found[identifier]]
        problems += [
            f"{identifier} was moved and is in {places.get(identifier, 'no mailbox')}"
            for identifier in sets["moved"]
            if places.get(identifier) != ARCHIVE
        ]
        problems += [
            f"{identifier} for {promised[identifier]} is lost"
            for identifier in promised
            if not found[identifier] and identifier not in sets["leaving"]
        ]
        return problems


def main(directory: str) -> None:
    """Serve and send without end."""
    server = make_server(directory)
    server.start()
    load = Load.on(server, ACCOUNTS, int(time.time()))
    load.ledger = SpeakingLedger()
    load.start()
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1])
