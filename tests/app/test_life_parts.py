"""The parts of a process's life, with values and a fake clock."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher

from mailsrv.app import control
from mailsrv.app.life import LagWatch
from mailsrv.app.privileges import PrivilegesRemain, check_dropped
from mailsrv.app.reload import Reloader, warn_of_restart_keys
from mailsrv.app.storage import retry_stuck
from mailsrv.app.supervisor import worker_environment
from mailsrv.app.systemd import ServiceManager
from mailsrv.config.load import parse
from mailsrv.errors import Unavailable
from tests.smallest_config import SMALLEST


@pytest.fixture
def events():
    seen: list[Any] = []
    observer: Any = seen.append
    globalLogPublisher.addObserver(observer)
    yield seen
    globalLogPublisher.removeObserver(observer)


def test_a_reactor_that_was_busy_for_long_says_so(events):
    clock = Clock()
    watch = LagWatch(clock, warning_seconds=0.5)
    watch.start()
    clock.advance(1.0)
    clock.advance(1.3)
    assert not [event for event in events if event["log_level"] is LogLevel.warn]
    clock.advance(4.0)
    [warning] = [event for event in events if event["log_level"] is LogLevel.warn]
    assert warning["late_seconds"] == pytest.approx(3.0)
    watch.stop()
    assert not clock.getDelayedCalls()


def test_reloads_come_one_after_the_other_and_none_is_forgotten(events):
    running: list[Deferred[None]] = []

    async def reload():
        running.append(Deferred())
        await running[-1]

    reloader = Reloader(reload)
    reloader()
    reloader()
    reloader()
    assert len(running) == 1
    running[0].callback(None)
    assert len(running) == 2
    running[1].errback(ValueError("broken"))
    assert len(running) == 2
    assert any("reload refused" in str(event.get("log_format")) for event in events)
    reloader()
    assert len(running) == 3


def test_a_server_that_stops_right_after_a_reload_leaves_a_line_and_no_traceback(events):
    class ClosedJournal:
        def list_stuck(self):
            return fail(Unavailable(cause="the journal is not open"))

    journal: Any = ClosedJournal()
    assert Deferred.fromCoroutine(retry_stuck(journal)).called
    assert events[-1]["log_level"] is LogLevel.warn
    assert "the journal is not open" in str(events[-1]["error"])
    assert "log_failure" not in events[-1]


def test_what_waits_for_a_restart_is_named(events):
    old = parse(SMALLEST, "/x.toml")
    new = parse("workers = 2\n" + SMALLEST + '[log]\npath = "l"\n[smtp]\n', "/x.toml")
    warn_of_restart_keys(old, new)
    assert events[-1]["keys"] == "workers, log"


def test_a_start_order_survives_its_way():
    start = control.Start(
        seat=5,
        worker=2,
        workers=4,
        config_path="/etc/mailsrv/ä.toml",
        config_text='hostname = "ü"\n[[listen]]\n',
        run_id=bytes(range(16)),
        listeners=(4, 5, 6),
        log_path="",
        accept_at_once=True,
    )
    line = control.format_start(start)
    assert line.count(b"\n") == 1
    assert control.parse_start(line) == start


def test_workers_do_not_get_what_is_meant_for_the_supervisor(monkeypatch):
    for name in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("KEEP", "this")
    environment = worker_environment()
    assert environment["KEEP"] == "this"
    assert not {"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC"} & set(environment)


def test_without_systemd_nothing_is_said_and_nothing_fails():
    manager = ServiceManager.from_environment({}, 1)
    assert not manager.is_present
    manager.ready("x")
    manager.start_watchdog(Clock())
    manager.stopping()
    ServiceManager("/nonexistent/socket").ready("x")


def test_an_abstract_socket_is_found_and_the_watchdog_is_this_processs_only():
    name = f"mailsrv-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind("\0" + name)
        notify.settimeout(5)
        clock = Clock()
        manager = ServiceManager.from_environment({"NOTIFY_SOCKET": "@" + name, "WATCHDOG_USEC": "3000000"}, 7)
        manager.start_watchdog(clock)
        assert notify.recv(100) == b"WATCHDOG=1"
        clock.advance(1)
        assert notify.recv(100) == b"WATCHDOG=1"
        manager.stopping()
        assert notify.recv(100).startswith(b"STOPPING=1")
        other = ServiceManager.from_environment({"WATCHDOG_USEC": "1", "WATCHDOG_PID": "8"}, 7)
        other.start_watchdog(clock)
        assert not clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("effective", "real", "can_return", "groups", "says"),
    [
        (0, 1000, True, [], "still root"),
        (1000, 1000, True, [], "can become root again"),
        (1000, 1000, False, [0, 1000], "group root"),
        (1000, 1000, False, [1000], ""),
        (0, 0, True, [0], ""),
    ],
)
def test_root_that_remains_stops_the_start(monkeypatch, effective, real, can_return, groups, says):
    def setuid(_uid):
        if not can_return:
            raise PermissionError

    for name, value in {
        "geteuid": lambda: effective,
        "getuid": lambda: real,
        "getgid": lambda: 1000,
        "getgroups": lambda: groups,
        "setuid": setuid,
    }.items():
        monkeypatch.setattr(os, name, value)
    if says:
        with pytest.raises(PrivilegesRemain, match=says):
            check_dropped(started_as_root=True)
    else:
        check_dropped(started_as_root=True)
