"""twistd's process when there are several workers: it binds, spawns and watches; it serves nothing.

Workers are started by exec (``reactor.spawnProcess``) with the listening sockets inherited. At a
start all of them replay the journal, each the slots it gets hold of, before any accepts. One that
dies is replaced, with a pause that doubles while deaths come fast; its replacement replays its slot
and accepts. Workers end when their standard input ends, so none outlives the supervisor.

SIGHUP: the file is read and checked here once, then given to the workers as text. SIGUSR2: workers
are replaced one after the other, each new one accepting before the old one stops (a new version
of the code without a refused connection).
"""

from __future__ import annotations

import os
import secrets
import signal
import site
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

import mailsrv
from mailsrv.app import control
from mailsrv.app.listening import BoundSocket, Listener
from mailsrv.app.logging import LogWriter
from mailsrv.app.privileges import Privileges
from mailsrv.app.reload import LoadedConfiguration, read_again
from mailsrv.app.server import CannotStart
from mailsrv.app.service import bind_patiently, exit_with_failure, failures_told
from mailsrv.app.signals import blocked_for_children, install_signal_actions, stop_reactor
from mailsrv.app.status import ServerMark
from mailsrv.app.systemd import ServiceManager
from mailsrv.app.worker_process import STANDARD_ERROR_DESCRIPTOR, WorkerProcess, WorkerState
from mailsrv.config.schema import Settings
from mailsrv.coroutines import pause

_log = Logger()

_STABLE_SECONDS = 60.0
"""A worker that lived this long owes its death to itself: the pause before its replacement starts anew."""
_BIND_PATIENCE_SECONDS = 3.0
"""Workers of a supervisor that was killed hold the ports for a moment longer."""
# These speak to twistd's process alone.
_PRIVATE_ENVIRONMENT = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


class SupervisorService(Service):
    """Keeps ``workers`` workers running."""

    name = "mailsrv"

    def __init__(
        self,
        configuration: LoadedConfiguration,
        reactor: Any,
        *,
        manager: ServiceManager,
        log_writer: LogWriter | None = None,
        owner: tuple[int, int] | None = None,
        run_as: tuple[int, int] | None = None,
        is_daemon: bool = False,
        log_path: str = "",
        command: tuple[str, ...] = (),
        check: Callable[[Settings], None] | None = None,
    ) -> None:
        """``owner`` and ``run_as`` as in :class:`~mailsrv.app.service.MailService`.

        ``command`` replaces the workers' program.
        ``check`` raises CannotStart for settings that cannot be used (a key that cannot be read).
        """
        self._configuration = configuration
        self._reactor = reactor
        self._manager = manager
        self._log_writer = log_writer
        self._owner = owner
        self._privileges = Privileges(run_as)
        self._is_daemon = is_daemon
        self._log_path = log_path
        self._command = command or (sys.executable, "-P", "-m", "mailsrv.app.worker")
        self._check = check
        self._run_id = secrets.token_bytes(16)
        self._mark = ServerMark()
        self._listeners: list[BoundSocket] = []
        self._workers: dict[int, WorkerProcess] = {}
        self._failures: dict[int, int] = {}
        self._replacements: dict[int, Any] = {}
        """Calls that will start a new worker where one died."""
        self._leaving: set[WorkerProcess] = set()
        """Replaced and not yet ended."""
        self._has_started = False
        self._is_stopping = False
        self._is_rolling = False
        self._seats: dict[int, int] = {}

    @property
    def workers(self) -> Mapping[int, WorkerProcess]:
        """The current worker of each number."""
        return self._workers

    def privilegedStartService(self) -> None:
        settings = self._configuration.settings
        with failures_told(self._is_daemon):
            if self._check is not None:
                self._check(settings)
            bound: list[Listener] = bind_patiently(settings, _BIND_PATIENCE_SECONDS, self._owner)
        self._listeners = [listener for listener in bound if isinstance(listener, BoundSocket)]

    def startService(self) -> None:
        super().startService()
        with failures_told(self._is_daemon):
            self._privileges.give_up()
        self._mark.write(self._configuration.settings, self._configuration.path)
        install_signal_actions(
            self._reactor,
            {
                signal.SIGTERM: lambda: stop_reactor(self._reactor),
                signal.SIGINT: lambda: stop_reactor(self._reactor),
                signal.SIGHUP: self._reload,
                signal.SIGUSR1: self._reopen_logs,
                signal.SIGUSR2: self.roll,
            },
        )
        # Only a running reactor reaps children.
        self._reactor.callWhenRunning(self._start_all)

    def _start_all(self) -> None:
        for number in range(1, self._configuration.settings.workers + 1):
            self._spawn(number, accept_at_once=False)

    def _spawn(self, number: int, *, accept_at_once: bool = True, beside_old: bool = False) -> WorkerProcess:
        """``beside_old``: the one of this number still lives, so its place is taken."""
        first = control.FIRST_LISTENER_DESCRIPTOR
        workers = self._configuration.settings.workers
        seat = self._seats.get(number, number - 1)
        if beside_old:
            seat = (seat + workers) % (2 * workers)
        self._seats[number] = seat
        start = control.Start(
            worker=number,
            seat=seat,
            workers=workers,
            config_path=self._configuration.path,
            config_text=self._configuration.text,
            run_id=self._run_id,
            listeners=tuple(range(first, first + len(self._listeners))),
            log_path=self._log_path,
            accept_at_once=accept_at_once,
        )
        worker = WorkerProcess(number, start, self._reactor, self._worker_changed)
        descriptors: dict[int, int | str] = {
            0: "w",
            1: 1,
            STANDARD_ERROR_DESCRIPTOR: "r",
            control.REPORT_DESCRIPTOR: "r",
        }
        descriptors.update({first + index: bound.socket.fileno() for index, bound in enumerate(self._listeners)})
        command = [*self._command, f"worker-{number}"]
        self._workers[number] = worker
        try:
            with blocked_for_children():
                self._reactor.spawnProcess(worker, command[0], command, env=worker_environment(), childFDs=descriptors)
        except OSError as error:
            worker.not_spawned(str(error))
            return worker
        _log.info("worker {worker} started", worker=number, process_id=worker.process_id)
        return worker

    def _worker_changed(self, worker: WorkerProcess) -> None:
        if worker.state is WorkerState.ENDED:
            self._worker_died(worker)
        elif self._has_started:
            return
        elif self._all_are(WorkerState.PREPARED):
            for each in self._workers.values():
                each.order("accept")
        elif self._all_are(WorkerState.ACCEPTING):
            self._has_started = True
            self._manager.start_watchdog(self._reactor)
            self._tell_ready()
            _log.info("mailsrv is ready", hostname=self._configuration.settings.hostname, workers=len(self._workers))

    def _all_are(self, state: WorkerState) -> bool:
        return all(worker.state is state for worker in self._workers.values())

    def _worker_died(self, worker: WorkerProcess) -> None:
        if self._is_stopping or self._workers.get(worker.number) is not worker:
            return
        if not self._has_started:
            _log.critical("worker {worker} cannot start ({end}); see above", worker=worker.number, end=worker.exit_text)
            exit_with_failure()
            stop_reactor(self._reactor)
            return
        failures = 0 if worker.lived_seconds > _STABLE_SECONDS else self._failures.get(worker.number, 0)
        self._failures[worker.number] = failures + 1
        server = self._configuration.settings.server
        delay = min(server.restart_delay_seconds * 2.0 ** min(failures, 30), server.restart_delay_limit_seconds)
        _log.error(
            "worker {worker} died ({end}) and is replaced in {delay} s",
            worker=worker.number,
            end=worker.exit_text,
            delay=delay,
        )
        self._replacements[worker.number] = self._reactor.callLater(delay, self._replace, worker.number)

    def _replace(self, number: int) -> None:
        del self._replacements[number]
        self._spawn(number)

    def _reload(self) -> None:
        self._manager.reloading()
        self._reopen_logs()
        loaded = read_again(self._configuration)
        if loaded is not None and self._is_usable(loaded.settings):
            self._configuration = loaded
            if self._log_writer is not None:
                self._log_writer.set_level(loaded.settings.log.level)
            for worker in self._workers.values():
                worker.order("reload", text=loaded.text)
        self._tell_ready()

    def _tell_ready(self) -> None:
        if not self._has_started:
            return
        self._manager.ready(f"serving with {len(self._workers)} workers")

    def _is_usable(self, settings: Settings) -> bool:
        if self._check is None:
            return True
        try:
            self._check(settings)
        except CannotStart as error:
            _log.error("reload refused, the old settings stay: {problem}", problem=str(error))
            return False
        return True

    def _reopen_logs(self) -> None:
        if self._log_writer is not None:
            self._log_writer.target.reopen()
        for worker in self._workers.values():
            worker.order("reopen-log")

    def roll(self) -> Deferred[None]:
        """Replace every worker, one after the other; fires when all are new."""
        if self._is_rolling or self._is_stopping or not self._has_started:
            done: Deferred[None] = Deferred()
            done.callback(None)
            return done
        self._is_rolling = True
        rolled = Deferred.fromCoroutine(self._roll())
        rolled.addErrback(lambda failure: _log.failure("workers could not all be replaced", failure))
        return rolled

    async def _roll(self) -> None:
        try:
            for number in sorted(self._workers):
                # Who died meanwhile may have been replaced, or be about to be: two of a number would share a seat.
                self._cancel_replacement(number)
                old, seat = self._workers[number], self._seats[number]
                new = self._spawn(number, beside_old=old.state is not WorkerState.ENDED)
                self._leaving.add(old)
                old.ended.addBoth(self._left, old)
                while new.state in (WorkerState.STARTING, WorkerState.PREPARED):
                    await pause(self._reactor, 0.05)
                if self._must_stop():
                    return
                if new.state is not WorkerState.ACCEPTING:
                    _log.error("worker {worker}: the new one ended, the old one stays", worker=number)
                    if old.state is WorkerState.ACCEPTING:
                        self._cancel_replacement(number)
                        self._leaving.discard(old)
                        self._workers[number] = old
                        self._seats[number] = seat
                    return
                await old.stop(self._stop_seconds)
                if self._must_stop():
                    return
            _log.info("all workers were replaced")
        finally:
            self._is_rolling = False

    def _left(self, _: object, worker: WorkerProcess) -> None:
        self._leaving.discard(worker)

    def _must_stop(self) -> bool:
        return self._is_stopping

    def _cancel_replacement(self, number: int) -> None:
        call = self._replacements.pop(number, None)
        if call is not None:
            call.cancel()

    @property
    def _stop_seconds(self) -> float:
        """What sessions and then delivery attempts may take."""
        settings = self._configuration.settings
        return settings.server.drain_seconds + settings.queue.schedule.stop_seconds

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self._is_stopping = True
        self._manager.stopping()
        _log.info("stopping")
        for number in list(self._replacements):
            self._cancel_replacement(number)
        for listener in self._listeners:
            listener.close()
        workers = {*self._workers.values(), *self._leaving}
        ended = DeferredList([worker.stop(self._stop_seconds) for worker in workers], consumeErrors=True)
        return ended.addCallback(self._stopped)

    def _stopped(self, _: object) -> None:
        self._mark.remove()
        _log.info("stopped")


def worker_environment() -> dict[str, str]:
    """The environment of a worker: ours, without what is meant for this process, and able to import mailsrv."""
    environment = {name: value for name, value in os.environ.items() if name not in _PRIVATE_ENVIRONMENT}
    root = str(Path(mailsrv.__file__).resolve().parent.parent)
    if root not in site.getsitepackages():
        known = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{root}{os.pathsep}{known}" if known else root
    return environment
