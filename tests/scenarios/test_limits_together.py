"""Limits over workers, restarts and proxies, with the whole server."""

from __future__ import annotations

import json
import os
import signal
import smtplib
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.server import ALICE, BOB, PASSWORD, WholeServer

LIMITS = "exempt_networks = []\nsmtp_connections_per_network = 4\n"
QUICK = {"smtp": "greeting_delay_seconds = 0.0"}
pytestmark = pytest.mark.slow


def greeted(server: WholeServer, header: bytes = b"", port: str = "mx") -> tuple[socket.socket, bytes]:
    """A connection and the code it was greeted with."""
    connection = socket.create_connection(("127.0.0.1", server.ports[port]), timeout=20)
    connection.sendall(header)
    line = b""
    while not line.endswith(b"\n"):
        line += connection.recv(1)
    return connection, line[:3]


def is_open(connection: socket.socket) -> bool:
    """Whether the server still holds it; nothing is waiting to be read."""
    connection.settimeout(0.3)
    try:
        return connection.recv(1) != b""
    except TimeoutError:
        return True
    except ConnectionResetError:
        return False


def fill(server: WholeServer, attempts: int) -> list[socket.socket]:
    """Try to connect so often; the connections that were taken, the others closed."""
    taken = []
    for _ in range(attempts):
        connection, code = greeted(server)
        if code == b"220":
            taken.append(connection)
        else:
            assert code == b"421"
            connection.close()
    return taken


def test_r_lim_2_connections_are_counted_over_workers_and_a_dead_one_s_are_freed(make_server: Any) -> None:
    with make_server(workers=2, sections={**QUICK, "limits": LIMITS}) as server:
        taken = fill(server, 12)
        # Two workers that look at the same moment may each take the last place.
        assert 4 <= len(taken) <= 5
        os.kill(server.worker_processes()[0], signal.SIGKILL)
        server.wait_for_event("died (signal 9)")
        server.wait_for_event("lmtp listens", count=3)
        alive = [connection for connection in taken if is_open(connection)]
        more = fill(server, 12)
        assert 4 <= len(alive) + len(more) <= 5
        for connection in taken + more:
            connection.close()


def submit(server: WholeServer, user: str) -> int:
    """The code of MAIL from a user."""
    with smtplib.SMTP("127.0.0.1", server.ports["submission"], timeout=20) as client:
        client.login(user, PASSWORD)
        return client.mail(user)[0]


def control(server: WholeServer, *arguments: str) -> str:
    """What ``mailsrvctl`` prints."""
    command = [str(Path(sys.executable).with_name("mailsrvctl")), "--config", str(server.config_path), *arguments]
    printed: str = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return printed


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stolen_account_is_contained_shown_and_let_go(make_server: Any, workers: int) -> None:
    sections = {**QUICK, "submission": "messages_per_hour = 3\n"}
    with make_server(workers=workers, sections=sections) as server:
        assert [submit(server, ALICE) for _ in range(5)] == [250, 250, 250, 450, 450]
        assert submit(server, BOB) == 250
        assert len(server.events_with("is over the limit")) == 1
        server.restart()
        assert submit(server, ALICE) == 450
        server.kill()
        server.start()
        assert submit(server, ALICE) == 450
        [row] = json.loads(control(server, "rates", "blocked", "--json"))
        assert (row["user"], row["blocked_by"], row["refusals"]) == (ALICE, "messages_per_hour", 4)
        control(server, "rates", "lift", ALICE)
        assert submit(server, ALICE) == 250


@pytest.mark.parametrize("workers", [1, 2])
def test_r_proxy_1_the_whole_server_behind_a_proxy(make_server: Any, workers: int) -> None:
    server = make_server(workers=workers, sections=QUICK)
    text = server.config_path.read_text()
    first = text.index('service = "mx"')
    server.config_path.write_text(text[:first] + 'proxy_protocol_from = ["127.0.0.0/8"]\n' + text[first:])
    # The harness writes the file anew with the ports it found; here it stays as it is.
    server.write_config = lambda **_: None
    with server:
        connection, code = greeted(server, b"PROXY TCP4 192.0.2.77 192.0.2.25 40000 25\r\n")
        assert code == b"220"
        with connection, connection.makefile("rwb") as stream:
            for line in (b"EHLO client.example", b"MAIL FROM:<a@example.org>", f"RCPT TO:<{BOB}>".encode(), b"DATA"):
                stream.write(line + b"\r\n")
                stream.flush()
                while stream.readline()[3:4] == b"-":
                    pass
            stream.write(b"Subject: told\r\n\r\nx\r\n.\r\n")
            stream.flush()
            assert stream.readline().startswith(b"250")
        deadline = time.monotonic() + 20
        while not server.messages(BOB):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert b"192.0.2.77" in server.messages(BOB)[0]
        rude = socket.create_connection(("127.0.0.1", server.ports["mx"]), timeout=20)
        rude.sendall(b"EHLO x\r\n")
        assert not is_open(rude)
        rude.close()
