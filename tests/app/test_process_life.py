"""Real processes: start, workers and their deaths, reload, rotation, stop (DESIGN decision 11)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("trivial_server.py")


class Running:
    """The trivial server as a child process."""

    def __init__(
        self,
        folder: Path,
        workers: int,
        extra: str = "",
        environment: dict[str, str] | None = None,
        restart_delay: float = 0.05,
    ) -> None:
        self.restart_delay = restart_delay
        self.folder = folder
        self.socket_path = folder / "unix.sock"
        self.config = folder / "server.toml"
        self.log_path = folder / "server.toml.log"
        (folder / "state").mkdir()
        self.write_config(workers, extra)
        self.process = subprocess.Popen(
            [sys.executable, PROGRAM, self.config],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
            stdin=subprocess.DEVNULL,
        )

    def write_config(self, workers: int, extra: str = "") -> None:
        self.config.write_text(
            f'hostname = "mail.example.test"\nstate_dir = "state"\nworkers = {workers}\n'
            '[[domain]]\nname = "example.test"\n[[directory]]\ntype = "passwd-file"\npath = "users"\n'
            f"[server]\ndrain_seconds = 1.0\nrestart_delay_seconds = {self.restart_delay}\n"
            '[[listen]]\nservice = "lmtp"\nendpoint = "tcp:0:interface=127.0.0.1"\n'
            '[[listen]]\nservice = "lmtp"\nendpoint = "unix:unix.sock:mode=600"\n' + extra
        )

    def events(self) -> list[dict]:
        if not self.log_path.exists():
            return []
        written = self.log_path.read_text()
        # A line may be seen half written while the server goes on: it counts when it has its end.
        return [json.loads(line) for line in written[: written.rfind("\n") + 1].splitlines()]

    def wait_for(self, text: str, count: int = 1) -> list[dict]:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = [event for event in self.events() if text in event["text"]]
            if len(found) >= count:
                return found
            if self.process.poll() is not None and text != "stopped":
                raise AssertionError(f"the server ended: {self.log_path.read_text()}")
            time.sleep(0.02)
        raise AssertionError(f"{text!r} never came: {self.log_path.read_text()}")

    def connect(self) -> Connection:
        address = self.wait_for("listens at 127")[0]["address"]
        host, _, port = address.rpartition(":")
        return Connection(socket.create_connection((host, int(port)), 10))

    def connect_unix(self) -> Connection:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        client.connect(str(self.socket_path))
        return Connection(client)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


class Connection:
    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.lines = client.makefile("rb")
        _, pid, self.run_id = self.read().split()
        self.pid = int(pid)

    def read(self) -> str:
        return self.lines.readline().decode().strip()

    def ask(self, text: str) -> str:
        self.client.sendall(text.encode() + b"\n")
        return self.read()


@pytest.fixture
def start(tmp_path):
    running: list[Running] = []

    def _start(workers, extra="", environment=None, **more):
        running.append(Running(tmp_path, workers, extra, environment, **more))
        return running[-1]

    yield _start
    for each in running:
        with contextlib.suppress(ProcessLookupError):
            each.process.kill()
        each.process.wait()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_serves_then_stops_with_status_0_and_tells_every_session_r_stop_1(start, workers):
    server = start(workers)
    server.wait_for("mailsrv is ready")
    over_tcp, over_unix = server.connect(), server.connect_unix()
    assert over_tcp.ask("what") == "what"
    assert server.socket_path.stat().st_mode & 0o777 == 0o600
    assert server.stop() == 0
    assert over_tcp.read() == "bye"
    assert over_unix.read() == "bye"
    assert not server.socket_path.exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_session_that_does_not_end_is_closed_after_the_drain_time(start, workers):
    server = start(workers)
    server.wait_for("mailsrv is ready")
    busy = server.connect()
    assert busy.ask("hold") == "hold"
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began >= 0.9
    assert server.wait_for("sessions still busy")


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_nobody_waits_in_vain(start):
    server = start(2)
    server.wait_for("mailsrv is ready")
    victim = server.connect()
    victim.client.sendall(b"die\n")
    assert victim.read() == ""
    server.wait_for("died (signal 9)")
    server.wait_for("listens at 127", count=3)
    seen = {server.connect().pid for _ in range(20)}
    assert victim.pid not in seen
    assert len({connection.run_id for connection in [victim, server.connect()]}) == 1


@pytest.mark.slow
def test_why_the_interpreter_of_a_worker_ended_is_in_the_log(start):
    server = start(2, environment={"WORKERS_CANNOT_START": "1"})
    assert server.process.wait(timeout=20) == 1
    assert server.wait_for("printed: ImportError: a module is missing")
    assert server.wait_for("cannot start (status 1)")


@pytest.mark.slow
def test_workers_do_not_outlive_a_supervisor_that_was_killed(start):
    server = start(2)
    server.wait_for("mailsrv is ready")
    workers = [event["process_id"] for event in server.wait_for("started", count=2)]
    server.process.kill()
    server.process.wait()
    deadline = time.monotonic() + 15
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_sigusr2_replaces_all_workers_without_a_refused_connection(start):
    server = start(2)
    server.wait_for("mailsrv is ready")
    before = {event["process_id"] for event in server.wait_for("started", count=2)}
    server.process.send_signal(signal.SIGUSR2)
    connections = 0
    while not any("all workers were replaced" in event["text"] for event in server.events()):
        connection = server.connect()
        assert connection.pid
        connection.client.close()
        connections += 1
    assert connections > 1
    assert {server.connect().pid for _ in range(10)}.isdisjoint(before)
    assert server.stop() == 0


@pytest.mark.slow
def test_a_worker_that_died_before_a_replacement_of_all_is_replaced_once(start):
    """Two of a number would share a seat: each would free what the other has leased of the queue."""
    server = start(2, restart_delay=1.0)
    server.wait_for("mailsrv is ready")
    for event in server.wait_for("started", count=2):
        os.kill(event["process_id"], signal.SIGKILL)
    server.wait_for("died (signal 9)", count=2)
    server.process.send_signal(signal.SIGUSR2)
    server.wait_for("all workers were replaced")
    time.sleep(1.5)
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    assert len(children) == 2
    assert server.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_start_ends_with_status_1_and_says_why(start, workers, tmp_path):
    (tmp_path / "broken").touch()
    server = start(workers)
    # Made before the server looks: the trivial server takes it as a broken store.
    (tmp_path / "state" / "broken").touch()
    assert server.process.wait(20) == 1
    assert any("the store is broken" in event["text"] for event in server.events())


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_sighup_takes_a_good_file_and_refuses_a_broken_one_with_the_reasons(start, workers):
    server = start(workers)
    server.wait_for("mailsrv is ready")
    held = server.connect()
    server.write_config(workers, "bogus = 1\n")
    server.process.send_signal(signal.SIGHUP)
    assert "bogus" in server.wait_for("reload refused")[0]["problem"]
    server.write_config(workers + 1)
    server.process.send_signal(signal.SIGHUP)
    assert server.wait_for("take effect at the next start")[0]["keys"] == "workers"
    server.wait_for("reloaded: everything", count=workers)
    server.write_config(workers, '[log]\npath = "refuse-this"\n')
    assert held.ask("still here") == "still here"
    assert server.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_during_the_start_comes_after_it(start, tmp_path, workers):
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(tmp_path / "notify"))
    notify.settimeout(20)
    server = start(workers, environment={"NOTIFY_SOCKET": str(tmp_path / "notify"), "START_SECONDS": "1"})
    server.wait_for("replaying", count=workers)
    server.process.send_signal(signal.SIGHUP)
    told = b""
    while b"READY=1" not in told:
        told = notify.recv(4096)
    # Nobody is told that it serves before it does.
    assert len([event for event in server.events() if "listens at" in event["text"]]) == 2 * workers
    server.wait_for("reloaded: everything", count=workers)
    steps = [(event.get("worker"), event["text"]) for event in server.events()]
    for worker in {worker for worker, text in steps if text == "replayed"}:
        assert steps.index((worker, "reloaded: everything")) > steps.index((worker, "replayed"))
    assert server.stop() == 0


@pytest.mark.slow
def test_r_q_2_no_worker_sends_before_all_have_replayed_their_journals(start):
    """What became of mail that one takes for waiting may stand in the journal of another."""
    server = start(2, environment={"START_SECONDS": "0.7", "UNEVEN_START": "1"})
    server.wait_for("mailsrv is ready")
    server.wait_for("sending", count=2)
    steps = [event["text"] for event in server.events() if event["text"] in ("replayed", "sending")]
    assert steps == ["replayed", "replayed", "sending", "sending"]
    assert server.stop() == 0


def test_the_log_file_is_opened_anew_by_everybody_at_sigusr1(start):
    server = start(2)
    server.wait_for("mailsrv is ready")
    moved = server.log_path.rename(server.log_path.with_suffix(".1"))
    server.process.send_signal(signal.SIGUSR1)
    deadline = time.monotonic() + 10
    while not server.log_path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert server.stop() == 0
    assert "mailsrv is ready" in moved.read_text()
    assert "stopped" in server.log_path.read_text()


@pytest.mark.slow
def test_systemd_hears_ready_reloading_watchdog_and_stopping(start, tmp_path):
    path = tmp_path / "notify"
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(path))
    notify.settimeout(20)
    server = start(2, environment={"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "300000"})

    def wait_for(text: bytes) -> bytes:
        while True:
            message = notify.recv(4096)
            if text in message:
                return message

    assert b"STATUS=serving with 2 workers" in wait_for(b"READY=1")
    wait_for(b"WATCHDOG=1")
    server.process.send_signal(signal.SIGHUP)
    assert b"MONOTONIC_USEC=" in wait_for(b"RELOADING=1")
    wait_for(b"READY=1")
    server.process.send_signal(signal.SIGTERM)
    wait_for(b"STOPPING=1")
    assert server.process.wait(30) == 0
