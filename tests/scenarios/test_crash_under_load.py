"""Kill, stop and reload the server while mail goes in and is read; then hold it to its promises.

R-DUR-1 (what was acknowledged is there, whole), R-DUR-3 (what was removed stays so), R-Q-2 (exactly once, also over
kill -9), RELIABILITY 8.5 (a UID that was told never means another message), R-STOP-1 (a stop loses nothing).
"""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from tests.scenarios.conftest import MakeServer
from tests.scenarios.load import Load, audit
from tests.scenarios.server import DOMAIN, WholeServer

pytestmark = pytest.mark.slow

ACCOUNTS = [f"user{number}@{DOMAIN}" for number in range(4)]
QUICK = {
    "smtp": "greeting_delay_seconds = 0.0\nmessages_per_session = 1000000",
    "limits": 'exempt_networks = ["127.0.0.0/8"]',
}


def loaded_server(make_server: MakeServer, workers: int, seed: int | None = None) -> tuple[WholeServer, Load]:
    users = [account.partition("@")[0] for account in ACCOUNTS]
    server = make_server(users=users, workers=workers, sections=QUICK)
    server.start()
    load = Load.on(server, ACCOUNTS, workers if seed is None else seed)
    load.start()
    return server, load


def check(server: WholeServer, load: Load, *, at_least: int) -> None:
    """The load goes on until it was one, however slow the machine is."""
    deadline = time.monotonic() + 60
    while len(load.ledger.acknowledged) < at_least and time.monotonic() < deadline:
        time.sleep(0.05)
    ledger = load.stop()
    assert len(ledger.acknowledged) >= at_least, (len(ledger.acknowledged), ledger.refused, server.log_text()[-4000:])
    audit(ledger, imap_port=server.ports["imap"], accounts=ACCOUNTS, password=server.password)
    server.check_log()


@pytest.mark.parametrize("workers", [1, 2])
def test_r_dur_1_r_q_2_kill_9_in_a_loop_loses_nothing_and_doubles_nothing(
    make_server: MakeServer, workers: int
) -> None:
    server, load = loaded_server(make_server, workers)
    rng = random.Random(workers)
    for _ in range(8):
        time.sleep(rng.uniform(0.3, 1.5))
        server.kill()
        server.start()
    time.sleep(0.5)
    check(server, load, at_least=200)
    server.restart()
    audit(load.ledger, imap_port=server.ports["imap"], accounts=ACCOUNTS, password=server.password)
    server.stop()


@pytest.mark.parametrize("workers", [1, 2])
def test_r_stop_1_sigterm_under_load_loses_nothing(make_server: MakeServer, workers: int) -> None:
    server, load = loaded_server(make_server, workers)
    for _ in range(3):
        time.sleep(1)
        server.stop()
        server.start()
    time.sleep(0.5)
    check(server, load, at_least=100)
    server.stop()


def test_sighup_under_load_drops_no_connection(make_server: MakeServer) -> None:
    server, load = loaded_server(make_server, 1)
    time.sleep(0.5)
    with server.imap(ACCOUNTS[0]) as client:
        client.select("INBOX")
        for _ in range(5):
            server.reload()
            assert client.noop()[0] == "OK"
    check(server, load, at_least=50)
    assert not load.ledger.refused, load.ledger.refused
    server.stop()


def test_a_dead_worker_is_replaced_and_nothing_is_lost(make_server: MakeServer) -> None:

    server, load = loaded_server(make_server, 2)
    for _ in range(4):
        time.sleep(0.7)
        os.kill(server.worker_processes()[0], signal.SIGKILL)
    time.sleep(2)
    assert len(server.worker_processes()) == 2
    ledger = load.stop()
    audit(ledger, imap_port=server.ports["imap"], accounts=ACCOUNTS, password=server.password)
    server.stop()
