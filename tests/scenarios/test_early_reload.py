"""A reload that comes before the server is there to hear it: the start goes on, and the reload is done after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from tests.scenarios.server import ROOT, WholeServer

pytestmark = pytest.mark.slow

_Found = TypeVar("_Found")


def wait_until(look: Callable[[], _Found]) -> _Found:
    deadline = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return found


def catches_sighup(pid: int) -> bool:
    """proc(5): a mask with bit 0 for signal 1."""
    status = Path(f"/proc/{pid}/status").read_text()
    [mask] = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
    return bool(int(mask, 16) & 1 << (signal.SIGHUP - 1))


def begin(server: WholeServer, *options: str) -> subprocess.Popen[bytes]:
    command: list[str | Path] = [Path(sys.executable).with_name("twistd"), *options]
    with server.log_path.open("ab") as log:
        return subprocess.Popen([*command, "mailsrv", "--config", server.config_path], cwd=ROOT, stdout=log, stderr=log)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_at_any_moment_of_the_start_comes_after_it(make_server, workers: int) -> None:
    server = make_server(workers=workers)
    server.process = begin(server, "--nodaemon", "--pidfile=")
    pid = server.process.pid
    wait_until(lambda: catches_sighup(pid))
    assert not server.state_dir.exists(), "from before the first thing that a start does"
    while not server.events_with("mailsrv is ready"):
        assert server.process.poll() is None, server.log_text()
        os.kill(pid, signal.SIGHUP)
        time.sleep(0.02)
    server.wait_for_event("reloaded: ", 30, count=workers)
    server.stop()
    server.check_log()


def test_a_reload_by_the_pid_file_of_a_daemon_that_starts_does_not_end_it(make_server, tmp_path: Path) -> None:
    server = make_server()
    pid_file = tmp_path / "pid"
    starting = begin(server, f"--pidfile={pid_file}", f"--logfile={server.log_path}")
    pid = int(wait_until(lambda: pid_file.exists() and pid_file.read_text()))
    os.kill(pid, signal.SIGHUP)
    try:
        assert starting.wait(60) == 0
        server.wait_for_event("reloaded: ", 60)
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not pid_file.exists())


def test_signals_to_workers_whose_interpreter_is_just_starting_do_not_end_them(make_server) -> None:
    server = make_server(workers=2)
    server.process = begin(server, "--nodaemon", "--pidfile=")
    for event in server.wait_for_event("started", 60, count=2):
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(event["process_id"], number)
    server.wait_for_event("mailsrv is ready", 60)
    server.stop()
    server.check_log()
