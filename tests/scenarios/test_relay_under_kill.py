"""Users send to another host whose server has moods, and our server is killed again and again while it relays.

R-DUR-1 and R-Q-2 for mail on its way out: every acknowledged message arrives or comes back as a notice; it comes
twice only where the 250 of the next hop was cut off, by the next hop or by the kill, and these are counted.
"""

from __future__ import annotations

import contextlib
import email
import imaplib
import os
import random
import signal
import smtplib
import threading
import time
from collections import Counter
from collections.abc import Callable
from email.message import Message

import pytest

from tests.scenarios.conftest import MakeServer
from tests.scenarios.flaky_next_hop import FlakyNextHop, Moods, duplicates_without_reason
from tests.scenarios.server import DOMAIN, WholeServer

pytestmark = pytest.mark.slow

USERS = ["user0", "user1", "user2", "user3"]
ELSEWHERE = "elsewhere.example.org"
MOODY = Moods(refuse_connection=0.05, hang_up_in_command=0.02, defer_command=0.05, cut_reply=0.03, refuse_for_good=0.05)
SECTIONS = {
    "smtp": "greeting_delay_seconds = 0.0\nmessages_per_session = 1000000",
    "limits": 'exempt_networks = ["127.0.0.0/8"]',
    "submission": "messages_per_hour = 0\nmessages_per_day = 0\nrecipients_per_hour = 0\nrecipients_per_day = 0",
    "queue.retry": "first_seconds = 0.3\nlongest_seconds = 1.0",
    "queue.schedule": "first_probe_seconds = 0.3\nlongest_probe_seconds = 0.5\nstop_seconds = 5.0",
}
SETTLE_WINDOW_SECONDS = 3.0
"""Between the next hop's 250 and our note of it, on a machine that is busy with something else."""


class Senders:
    """Threads that submit until they are stopped and remember what was acknowledged."""

    def __init__(self, server: WholeServer, seed: int) -> None:
        self.acknowledged: dict[str, tuple[str, str]] = {}
        """Message-ID → user, recipient."""
        self.refused: Counter[str] = Counter()
        self._server = server
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep_on, args=(user, random.Random(f"{user} {seed}")), daemon=True)
            for user in USERS
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def _keep_on(self, user: str, rng: random.Random) -> None:
        number = 0
        while not self._over.is_set():
            try:
                with smtplib.SMTP("127.0.0.1", self._server.ports["submission"], timeout=20) as client:
                    client.login(f"{user}@{DOMAIN}", self._server.password)
                    for _ in range(rng.randint(1, 10)):
                        number += 1
                        self._send(client, user, number, rng)
            except (OSError, smtplib.SMTPException) as error:
                self.refused[type(error).__name__] += 1
                time.sleep(0.05)

    def _send(self, client: smtplib.SMTP, user: str, number: int, rng: random.Random) -> None:
        identifier = f"{user}.{number}.{rng.getrandbits(32):x}@{DOMAIN}"
        recipient = f"r{rng.randrange(40)}@{ELSEWHERE}"
        size = 200_000 if rng.random() < 0.03 else rng.randrange(20, 3000)
        text = f"From: <{user}@{DOMAIN}>\r\nTo: <{recipient}>\r\nMessage-ID: <{identifier}>\r\nSubject: x\r\n\r\n"
        client.sendmail(f"{user}@{DOMAIN}", [recipient], text + "x" * 70 + "\r\n" + ("y" * 70 + "\r\n") * (size // 72))
        self.acknowledged[identifier] = (user, recipient)


def notices(server: WholeServer, user: str) -> Counter[str]:
    """How often each message came back to its sender, by Message-ID."""
    found: Counter[str] = Counter()
    with imaplib.IMAP4("127.0.0.1", server.ports["imap"], timeout=30) as client:
        client.login(f"{user}@{DOMAIN}", server.password)
        client.select("INBOX", readonly=True)
        _, data = client.fetch("1:*", "(BODY.PEEK[])")
        for item in data:
            if isinstance(item, tuple):
                found.update(_returned(email.message_from_bytes(item[1])))
    return found


def _returned(notice: Message) -> list[str]:
    """Message-IDs of what a notice brings back: the message, or its header section where it is large."""
    found = []
    for part in notice.walk():
        if part.get_content_type() == "text/rfc822-headers":
            part = email.message_from_string(str(part.get_payload()))
        if part is not notice and part["Message-ID"] is not None:
            found.append(part["Message-ID"].strip("<> \r\n"))
    return found


def unfinished(server: WholeServer, hop: FlakyNextHop, senders: Senders) -> tuple[list[str], Counter[str]]:
    """What neither arrived nor came back, and how often each came back."""
    arrived = {identifier for identifier, _ in hop.arrived()}
    returned: Counter[str] = Counter()
    for user in USERS:
        with contextlib.suppress(imaplib.IMAP4.error, OSError):
            returned += notices(server, user)
    missing = [one for one in senders.acknowledged if one not in arrived and not returned[one]]
    return missing, returned


def settle(server: WholeServer, hop: FlakyNextHop, senders: Senders, kills: list[float]) -> int:
    """Stop sending and wait for the end of all mail; each came exactly once, or (so many) twice for a reason."""
    senders.stop()
    hop.moods = Moods(refuse_for_good=MOODY.refuse_for_good)
    deadline = time.monotonic() + 60
    missing, returned = unfinished(server, hop, senders)
    while missing and time.monotonic() < deadline:
        time.sleep(0.5)
        missing, returned = unfinished(server, hop, senders)
    assert len(senders.acknowledged) >= 150, (senders.refused, server.log_text()[-4000:])
    assert not missing, (missing, server.log_text()[-4000:])
    # Exactly once: a notice, or an arrival; twice only for a reason.
    for identifier, (_, recipient) in senders.acknowledged.items():
        times = returned[identifier]
        assert times == (1 if hop.refuses(recipient) else 0), (identifier, recipient, times)
    assert duplicates_without_reason(hop, kills, SETTLE_WINDOW_SECONDS) == []
    return sum(len(arrivals) - 1 for arrivals in hop.arrived().values())


@pytest.mark.parametrize("workers", [1, 2])
def test_r_dur_1_r_q_2_kill_9_while_relaying_to_a_flaky_next_hop(
    make_server: MakeServer, workers: int, record_property: Callable[[str, object], None]
) -> None:
    with FlakyNextHop(MOODY, seed=workers) as hop:
        route = f'\n[[route]]\nto = "{ELSEWHERE}"\nvia = "smtp:127.0.0.1:{hop.port}"\n'
        server = make_server(users=USERS, workers=workers, sections=SECTIONS, extra=route)
        server.start()
        senders = Senders(server, seed=workers)
        senders.start()
        rng = random.Random(workers)
        kills: list[float] = []
        for _ in range(6 // workers):
            time.sleep(rng.uniform(0.4, 1.5))
            kills.append(time.monotonic())
            server.kill()
            server.start()
        deadline = time.monotonic() + 60
        while len(senders.acknowledged) < 150 and time.monotonic() < deadline:
            time.sleep(0.1)
        twice = settle(server, hop, senders, kills)
        record_property("acknowledged", len(senders.acknowledged))
        record_property("came twice for a reason", twice)
        server.check_log()
        server.stop()


@pytest.mark.parametrize("seed", [1])
def test_r_dur_1_r_q_2_single_workers_die_and_all_are_replaced_while_relaying(
    make_server: MakeServer, seed: int, record_property: Callable[[str, object], None]
) -> None:
    with FlakyNextHop(MOODY, seed=seed) as hop:
        route = f'\n[[route]]\nto = "{ELSEWHERE}"\nvia = "smtp:127.0.0.1:{hop.port}"\n'
        server = make_server(users=USERS, workers=2, sections=SECTIONS, extra=route)
        server.start()
        senders = Senders(server, seed=seed)
        senders.start()
        rng = random.Random(seed)
        kills: list[float] = []
        rolls = 0
        for number in range(10):
            time.sleep(rng.uniform(0.4, 1.5))
            if number % 3 == 2:
                os.kill(server.processes()[0], signal.SIGUSR2)
                rolls += 1
                time.sleep(rng.uniform(0.0, 3.0))
            workers = server.processes()[1:]
            if workers:
                kills.append(time.monotonic())
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(workers), signal.SIGKILL)
        deadline = time.monotonic() + 60
        while len(senders.acknowledged) < 150 and time.monotonic() < deadline:
            time.sleep(0.1)
        twice = settle(server, hop, senders, kills)
        record_property("acknowledged", len(senders.acknowledged))
        record_property("came twice for a reason", twice)
        record_property("replacements of all", rolls)
        deadline = time.monotonic() + 60
        while len(server.processes()) > 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(server.processes()) == 3
        server.check_log()
        server.stop()
