"""What the processes of a running server tell of themselves, for ``mailsrvctl status``.

The process that watches (or serves alone) writes once, at the start: who it is and what belongs to it. Each worker
writes every few seconds how it is: connections, directories, journal. All of it comes from memory.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from attrs import asdict, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv import __version__
from mailsrv.app.status_file import SERVER, StatusFile, clear_statuses, status_folder
from mailsrv.config.schema import Settings
from mailsrv.directory.supplied_domains import SourceState, SuppliedDomains
from mailsrv.interfaces.directory_state import IReportsState
from mailsrv.journal import JournalStatus

_log = Logger()
# Together well below what a file may hold, whatever the characters.
_MOST_DIRECTORIES = 16
_MOST_SERVERS = 8
_MOST_TEXT = 300


class RunInThread(Protocol):
    """Runs a function in a thread; the Deferred fires in the reactor thread."""

    def __call__(self, function: Callable[..., Any], /, *arguments: Any) -> Deferred[Any]: ...


class HasConnections(Protocol):
    """A factory that knows how many connections it has."""

    @property
    def connection_count(self) -> int: ...


@frozen
class WorkerIdentity:
    """Which of the workers a process is. ``seat``: as in the start order, no other living process has it."""

    worker: int = 1
    seat: int = 0


class ServerMark:
    """The file of the process that the others belong to; it is there, and locked, while that process lives."""

    def __init__(self) -> None:
        self._file: StatusFile | None = None

    def write(self, settings: Settings, config_path: str) -> None:
        """At the start, before there are workers, as the user we run as. A failure costs a status, no more."""
        folder = status_folder(settings.state_dir)
        clear_statuses(folder)
        self._file = StatusFile(folder, SERVER)
        content = {
            "pid": os.getpid(),
            "version": __version__,
            "started_at": time.time(),
            "workers": settings.workers,
            "hostname": settings.hostname,
            "config": os.path.abspath(config_path),
        }
        try:
            self._file.write(content)
        except OSError as error:
            _log.error("mailsrvctl status will know nothing: {error}", error=error.strerror or str(error))

    def remove(self) -> None:
        """At the end."""
        if self._file is not None:
            self._file.close()


@frozen(eq=False)
class StatusParts:
    """Where a worker's numbers come from; each is asked when it is written."""

    listening: Callable[[], Iterable[tuple[str, HasConnections]]]
    """Services and factories, one for each listener."""
    directory: Callable[[], object]
    domains: Callable[[], SuppliedDomains]
    journal: Callable[[], JournalStatus]
    certificate_ends: Callable[[], float | None]
    """In seconds since the epoch; None where there is none."""
    refused_logins: Callable[[], int]
    refused_certificates: Callable[[], int]
    """Client certificates that were no good, and handshakes without one where it is required."""
    accounts: Callable[[], int]
    """Accounts that somebody is logged in to."""


class WorkerStatus:
    """Writes this worker's file every ``seconds``, one at a time, in a thread."""

    def __init__(
        self,
        state_dir: str,
        identity: WorkerIdentity,
        parts: StatusParts,
        *,
        clock: IReactorTime,
        run_in_thread: RunInThread,
        seconds: float,
    ) -> None:
        self._file = StatusFile(status_folder(state_dir), f"worker-{identity.seat}")
        self._identity = identity
        self._parts = parts
        self._run_in_thread = run_in_thread
        self._seconds = seconds
        self._started_at = clock.seconds()
        self._loop = LoopingCall(self._write)
        self._loop.clock = clock
        self._has_failed = False

    def start(self) -> None:
        """From now on."""
        self._loop.start(self._seconds)

    def stop(self) -> Deferred[None]:
        """No more; fires when the file is let go. Who never started has nothing to stop, nor threads to do it in."""
        if not self._loop.running:
            return succeed(None)
        self._loop.stop()
        done: Deferred[None] = self._run_in_thread(self._file.close)
        return done.addErrback(lambda failure: _log.failure("the status file does not close", failure))

    def _write(self) -> Deferred[None]:
        # LoopingCall waits for it, and leaves out what came due meanwhile.
        content = self.content(self._loop.clock.seconds())
        return self._run_in_thread(self._file.write, content).addCallbacks(self._written, self._failed)

    def _written(self, _: object) -> None:
        self._has_failed = False

    def _failed(self, failure: Failure) -> None:
        """Once in a row: a full disk has other things to say."""
        failure.trap(OSError)
        if not self._has_failed:
            self._has_failed = True
            _log.warn("the status file cannot be written: {reason}", reason=failure.getErrorMessage())

    def content(self, now: float) -> Mapping[str, Any]:
        """What the file says, of bounded size."""
        parts = self._parts
        connections: Counter[str] = Counter()
        for service, factory in parts.listening():
            connections[service] += factory.connection_count
        journal = parts.journal()
        return {
            "pid": os.getpid(),
            "worker": self._identity.worker,
            "version": __version__,
            "started_at": self._started_at,
            "written_at": now,
            "every_seconds": self._seconds,
            "connections": dict(connections),
            "accounts": parts.accounts(),
            "refused_logins": parts.refused_logins(),
            "refused_certificates": parts.refused_certificates(),
            "certificate_ends": parts.certificate_ends(),
            "journal": asdict(journal),
            "directories": _directories(parts.directory()),
            "domains": _domains(parts.domains().states()),
        }


def _directories(directory: object) -> list[dict[str, Any]]:
    if not IReportsState.providedBy(directory):
        return []
    told = []
    for state in IReportsState(directory).states()[:_MOST_DIRECTORIES]:
        row = asdict(state)
        row["name"], row["trouble"] = row["name"][:_MOST_TEXT], row["trouble"][:_MOST_TEXT]
        row["servers"] = [
            {**server, "uri": server["uri"][:_MOST_TEXT], "cause": server["cause"][:_MOST_TEXT]}
            for server in row["servers"][:_MOST_SERVERS]
        ]
        told.append(row)
    return told


def _domains(states: Iterable[SourceState]) -> list[dict[str, Any]]:
    return [
        {
            "name": state.name[:_MOST_TEXT],
            "knowledge": state.knowledge.value,
            "domains": state.domains,
            "age_seconds": state.age_seconds,
            "trouble": state.trouble[:_MOST_TEXT],
        }
        for state in itertools.islice(states, _MOST_DIRECTORIES)
    ]
