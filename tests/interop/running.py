"""Run other people's programs against a whole server, and see what arrived."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from pathlib import Path
from typing import IO

from tests.scenarios.server import ALICE, BOB, DOMAIN, WholeServer

__all__ = ["ALICE", "BOB", "MailServer", "run"]

WAIT_SECONDS = 60


class MailServer(WholeServer):
    """The server with what these tests ask of it."""

    def address(self, user: str) -> str:
        """The address of one of the users this server was made with."""
        return f"{user}@{DOMAIN}"

    def wait_for_subject(self, user: str, subject: str) -> bytes:
        """The message of this subject in the user's INBOX, once it is there."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            with self.imap(user) as client:
                client.select("INBOX", readonly=True)
                found = client.search(None, "SUBJECT", f'"{subject}"')[1][0].split()
                if found:
                    part = client.fetch(found[-1], "(BODY.PEEK[])")[1][0]
                    assert isinstance(part, tuple)
                    return part[1]
            time.sleep(0.05)
        raise AssertionError(f"no message {subject!r} for {user}:\n{self.log_text()[-4000:]}")


def run(
    *words: object,
    expect: int = 0,
    stdin: IO[str] | None = None,
    home: Path | None = None,
    terminal: bool = False,
) -> str:
    """Run a program to its end; what it printed. ``terminal``: it wants one."""
    environment = dict(os.environ, LC_ALL="C.UTF-8", TERM="xterm")
    if home is not None:
        environment["HOME"] = str(home)
    command = [str(word) for word in words]
    if terminal:
        status, output = _run_on_terminal(command, environment)
    else:
        done = subprocess.run(
            command,
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=60,
            check=False,
        )
        status, output = done.returncode, done.stdout.decode(errors="replace")
    assert status == expect, f"{command[0]} ended with {status}:\n{output}"
    return output


def _run_on_terminal(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    here, there = pty.openpty()
    process = subprocess.Popen(
        command, stdin=there, stdout=there, stderr=there, env=environment, start_new_session=True
    )
    os.close(there)
    printed = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not select.select([here], [], [], 1)[0]:
            continue
        try:
            data = os.read(here, 65536)
        except OSError:  # the other end is closed: the program ended
            break
        if not data:
            break
        printed += data
    else:
        process.kill()
    os.close(here)
    return process.wait(60), printed.decode(errors="replace")
