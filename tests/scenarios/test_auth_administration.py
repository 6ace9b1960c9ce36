"""Two workers as an administrator sees them: who is blocked, who acts for whom, which rules hold, how the server is."""

from __future__ import annotations

import imaplib
import json
import os
import poplib
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.server import ALICE, PASSWORD, WholeServer

CONFIG = """
[auth.impersonation]
enabled = true

[[access]]
action = "deny"
groups = ["kiosk"]
services = ["imap"]
"""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeServer]:
    server = WholeServer(
        tmp_path_factory.mktemp("administration"),
        workers=2,
        extra=CONFIG,
        sections={
            "auth": "failure_delay_seconds = 0\nthrottle_entries = 100",
            "limits": "exempt_networks = []",
            "server": "status_seconds = 0.2\nrestart_delay_seconds = 5",
        },
    )
    with server.passwd_path.open("a") as file:
        file.write(f"admin@example.test:{{PLAIN}}{PASSWORD}::::::administrator=yes\n")
        file.write(f"kiosk@example.test:{{PLAIN}}{PASSWORD}::::::groups=kiosk\n")
    with server:
        yield server


def control(server: WholeServer, *arguments: str) -> tuple[int, str]:
    command = [str(Path(sys.executable).with_name("mailsrvctl")), "--config", str(server.config_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert PASSWORD not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


def logs_in(server: WholeServer, name: str = ALICE, password: str = PASSWORD) -> bool:
    client = imaplib.IMAP4_SSL("localhost", server.ports["imaps"], ssl_context=server.client_context(), timeout=30)
    try:
        client.authenticate("PLAIN", lambda _: f"\0{name}\0{password}".encode())
    except imaplib.IMAP4.error:
        return False
    finally:
        client.shutdown()
    return True


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def events(server: WholeServer, text: str) -> list[dict[str, Any]]:
    return [event for event in server.events() if text in event["text"]]


def test_r_auth_6_a_block_holds_at_both_workers_over_a_restart_and_is_lifted_at_once(server: WholeServer) -> None:
    for number in range(12):
        assert not logs_in(server, password=f"guess {number}")
    assert len(events(server, "failed: wrong password")) == 10
    assert len(events(server, "failed: too many failures")) == 2
    assert not any(logs_in(server) for _ in range(6))
    status, out = control(server, "auth", "blocks")
    assert status == 0
    assert out.startswith(f"{ALICE} from 127.0.0.1  blocked  since ")
    server.restart()
    assert not any(logs_in(server) for _ in range(6))
    assert control(server, "auth", "unblock", "alice") == (0, f"{ALICE}: failed log-ins are forgotten\n")
    assert all(logs_in(server) for _ in range(6))
    assert control(server, "auth", "unblock", "--all")[0] == 0
    assert control(server, "auth", "blocks") == (0, "nobody is blocked or delayed\n")


def test_an_administrator_reads_a_users_mail_and_sends_none(server: WholeServer) -> None:
    context = server.client_context()
    imap = imaplib.IMAP4_SSL("localhost", server.ports["imaps"], ssl_context=context, timeout=30)
    imap.login('"alice*admin"', PASSWORD)
    assert imap.select("INBOX")[0] == "OK"
    imap.logout()
    pop3 = poplib.POP3_SSL("localhost", server.ports["pop3s"], context=context, timeout=30)
    pop3.user("alice*admin")
    pop3.pass_(PASSWORD)
    pop3.quit()
    with (
        smtplib.SMTP_SSL("localhost", server.ports["submissions"], context=context, timeout=30) as smtp,
        pytest.raises(smtplib.SMTPAuthenticationError),
    ):
        smtp.login("alice*admin", PASSWORD)
    both = "alice@example.test (by admin@example.test)"
    assert len(server.wait_for_event("admin@example.test logs in as alice@example.test", count=2)) == 2
    assert server.wait_for_event(f"{both} logged in from")
    assert server.wait_for_event(f"of {both} from 127.0.0.1 begins")
    assert server.wait_for_event("act for somebody else by submission")
    assert not logs_in(server, "admin*alice")


def test_groups_are_denied_a_service_and_not_the_others(server: WholeServer) -> None:
    assert not logs_in(server, "kiosk")
    assert server.wait_for_event("kiosk@example.test from 127.0.0.1 failed: access rule 1 denies it")
    pop3 = poplib.POP3_SSL("localhost", server.ports["pop3s"], context=server.client_context(), timeout=30)
    pop3.user("kiosk")
    pop3.pass_(PASSWORD)
    pop3.quit()


def test_what_the_commands_say_of_a_log_in_is_what_happens(server: WholeServer, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    for name in ("alice", "alice*admin", "admin*alice", "kiosk", "nobody"):
        status, _ = control(server, "auth", "test", name, "--password-file", str(password))
        assert (status == 0) is logs_in(server, name)


def test_status_of_a_server_that_is_well_one_worker_short_and_stopped(server: WholeServer) -> None:
    wait_for(lambda: control(server, "status")[0] == 0)
    with server.imap("bob"):
        wait_for(lambda: json.loads(control(server, "status", "--json")[1])["connections"]["imap"] == 1)
    told = json.loads(control(server, "status", "--json")[1])
    assert (told["condition"], told["workers_expected"]) == ("healthy", 2)
    assert {worker["pid"] for worker in told["workers"]} == set(server.worker_processes())
    assert (server.state_dir / "status").stat().st_mode & 0o777 == 0o700
    os.kill(told["workers"][0]["pid"], signal.SIGKILL)
    wait_for(lambda: control(server, "status")[0] == 1)
    status, out = control(server, "status")
    assert status == 0 or "! 1 of 2 workers run" in out
    wait_for(lambda: control(server, "status")[0] == 0)
    server.stop()
    status, out = control(server, "status")
    assert status == 2
    assert out.startswith("mailsrv")
    assert "not running" in out.splitlines()[0]
