"""What a worker tells of itself, by a fake clock."""

from __future__ import annotations

import os
from typing import Any

import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from zope.interface import implementer

from mailsrv import __version__
from mailsrv.app.status import ServerMark, StatusParts, WorkerIdentity, WorkerStatus
from mailsrv.app.status_file import read_statuses, status_folder
from mailsrv.config.load import parse
from mailsrv.directory.domains import LocalDomains
from mailsrv.directory.kept_domains import KeptDomains
from mailsrv.directory.supplied_domains import SuppliedDomains
from mailsrv.interfaces.directory_state import DirectoryServerState, DirectoryState, IReportsState
from mailsrv.journal import JournalStatus
from tests.smallest_config import SMALLEST


class Factory:
    def __init__(self, connection_count: int) -> None:
        self.connection_count = connection_count


@implementer(IReportsState)
class Directory:
    def __init__(self, *states: DirectoryState) -> None:
        self._states = states

    def states(self) -> Any:
        return self._states


class Case:
    def __init__(self, folder: Any) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.folder = str(folder)
        self.directory: object = Directory(DirectoryState("passwd-file users"))
        domains = LocalDomains(())
        self.domains = SuppliedDomains(
            domains, (), (), KeptDomains(str(folder)), clock=self.clock, run_in_thread=maybeDeferred
        )
        self.threads: list[tuple[Deferred[Any], Any]] | None = None
        self.status = WorkerStatus(
            self.folder,
            WorkerIdentity(2, 5),
            StatusParts(
                listening=lambda: [("imap", Factory(3)), ("imap", Factory(4)), ("mx", Factory(0))],
                domains=lambda: self.domains,
                directory=lambda: self.directory,
                journal=lambda: JournalStatus(True, 1, 2, 3, 4, 5, 6),
                certificate_ends=lambda: 2000.0,
                refused_logins=lambda: 7,
                refused_certificates=lambda: 8,
                accounts=lambda: 6,
            ),
            clock=self.clock,
            run_in_thread=self.run_in_thread,
            seconds=5,
        )

    def run_in_thread(self, function: Any, *arguments: Any) -> Deferred[Any]:
        if self.threads is None:
            return maybeDeferred(function, *arguments)
        waiting: Deferred[Any] = Deferred()
        self.threads.append((waiting, lambda: function(*arguments)))
        return waiting

    def found(self) -> Any:
        [found] = read_statuses(status_folder(self.folder))
        return found


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


def test_it_is_written_at_once_and_every_few_seconds(case):
    case.status.start()
    content = case.found().content
    assert content["connections"] == {"imap": 7, "mx": 0}
    assert (content["worker"], content["pid"], content["version"]) == (2, os.getpid(), __version__)
    assert (content["started_at"], content["written_at"]) == (1000, 1000)
    assert content["refused_certificates"] == 8
    assert (content["refused_logins"], content["accounts"], content["certificate_ends"]) == (7, 6, 2000)
    assert content["journal"]["blocked_deliveries"] == 3
    assert case.found().name == "worker-5"
    case.clock.advance(5)
    assert case.found().content["written_at"] == 1005
    case.status.stop()
    case.clock.advance(50)
    assert case.found().content["written_at"] == 1005
    assert not case.found().is_alive
    assert not case.clock.getDelayedCalls()


def test_a_slow_disk_is_waited_for_and_nothing_piles_up(case):
    case.threads = []
    case.status.start()
    for _ in range(10):
        case.clock.advance(5)
    assert len(case.threads) == 1
    waiting, work = case.threads.pop()
    waiting.callback(work())
    case.clock.advance(5)
    assert len(case.threads) == 1


def test_a_disk_that_is_full_is_no_end_of_it(case):
    os.mkdir(case.folder + "/status")
    os.mkdir(case.folder + "/status/worker-5.json")
    case.status.start()
    case.clock.advance(5)
    os.rmdir(case.folder + "/status/worker-5.json")
    case.clock.advance(5)
    assert case.found().content["written_at"] == 1010


def test_who_never_started_stops_at_once(case):
    case.threads = []
    assert case.status.stop().called


def test_directories_tell_how_they_are_within_bounds(case):
    servers = tuple(
        DirectoryServerState(f"ldap://{number}", False, 9.0, "\N{GRINNING FACE}" * 9999) for number in range(99)
    )
    case.directory = Directory(
        *(DirectoryState(f"ldap {number}", True, 3.0, "y" * 9999, servers) for number in range(99))
    )
    case.status.start()
    told = case.found().content["directories"]
    assert len(told) == 16
    assert len(told[0]["servers"]) == 8
    assert (told[0]["is_out"], told[0]["out_seconds"], len(told[0]["trouble"])) == (True, 3.0, 300)
    case.directory = object()
    case.clock.advance(5)
    assert case.found().content["directories"] == []


def test_the_mark_of_the_server_clears_what_an_earlier_run_left(tmp_path):
    settings = parse("workers = 3\n" + SMALLEST, str(tmp_path / "m.toml"))
    folder = tmp_path / "state" / "status"
    folder.mkdir(parents=True)
    (folder / "worker-9.json").write_text("{}")
    mark = ServerMark()
    mark.write(settings, str(tmp_path / "m.toml"))
    [found] = read_statuses(str(folder))
    assert (found.name, found.is_alive, found.content["workers"]) == ("server", True, 3)
    mark.remove()
    assert not read_statuses(str(folder))[0].is_alive


def test_a_mark_that_cannot_be_made_keeps_nobody_from_starting(tmp_path):
    (tmp_path / "state").write_text("no folder")
    mark = ServerMark()
    mark.write(parse(SMALLEST, str(tmp_path / "m.toml")), "m.toml")
    mark.remove()
