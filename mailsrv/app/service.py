"""The server in twistd's own process (``workers = 1``).

twistd calls ``privilegedStartService`` (possibly as root: keys are read and sockets bound), gives up
its user id, and calls ``startService``: the journal is replayed, then connections are accepted.
"""

from __future__ import annotations

import atexit
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailsrv.app.garbage import set_apart
from mailsrv.app.life import ServerLife
from mailsrv.app.listening import Listener, open_listener
from mailsrv.app.logging import LogWriter
from mailsrv.app.privileges import Privileges
from mailsrv.app.reload import LoadedConfiguration, Reloader, apply_settings, read_again
from mailsrv.app.server import CannotStart, Server
from mailsrv.app.signals import install_signal_actions, stop_reactor
from mailsrv.app.status import ServerMark
from mailsrv.app.systemd import ServiceManager
from mailsrv.config.schema import Settings

_log = Logger()

ServerBuilder = Callable[[Settings, Any], Server]
"""Makes the object graph from settings and reactor."""


class CannotListen(CannotStart):
    """A listener cannot be bound; the text names it."""


@contextmanager
def failures_told(is_daemon: bool) -> Iterator[None]:
    """What twistd calls to start us: a :class:`CannotStart` is one line in the log and the end, with status 1.

    Of a daemon's failure twistd tells the terminal, and removes the pid file, if it is an ordinary exception; a
    SystemExit would leave the command that started it waiting for ever. In the foreground the log is the terminal's,
    and an exception would be followed by its traceback.
    """
    try:
        yield
    except CannotStart as error:
        _log.critical("{reason}", reason=str(error))
        if is_daemon:
            raise
        raise SystemExit(1) from error


def bind_all(settings: Settings, owner: tuple[int, int] | None = None) -> list[Listener]:
    """Bind every ``[[listen]]``, or none: raises :class:`CannotListen`. Socket files are to belong to ``owner``."""
    bound: list[Listener] = []
    for index, listen in enumerate(settings.listen):
        try:
            bound.append(open_listener(listen.endpoint, settings.server.backlog, owner))
        except (OSError, ValueError) as error:
            for listener in bound:
                listener.close()
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            if isinstance(error, PermissionError) and listen.endpoint.startswith("tcp"):
                reason += " (ports below 1024 need root and --uid, or sockets of systemd's)"
            raise CannotListen(f"listen[{index}] cannot listen at {listen.endpoint}: {reason}") from error
    return bound


def bind_patiently(settings: Settings, patience_seconds: float, owner: tuple[int, int] | None = None) -> list[Listener]:
    """:func:`bind_all`, waiting for ``patience_seconds`` while ports are still taken: before the reactor runs."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return bind_all(settings, owner)
        except CannotListen as error:
            is_taken = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE
            if not is_taken or time.monotonic() >= deadline:
                raise
            time.sleep(0.05)


class MailService(Service):
    """One process that does everything."""

    name = "mailsrv"

    def __init__(
        self,
        configuration: LoadedConfiguration,
        build: ServerBuilder,
        reactor: Any,
        *,
        manager: ServiceManager,
        log_writer: LogWriter | None = None,
        owner: tuple[int, int] | None = None,
        run_as: tuple[int, int] | None = None,
        is_daemon: bool = False,
    ) -> None:
        """``owner``: whom socket files are to belong to; ``run_as``: see :class:`Privileges`."""
        self._configuration = configuration
        self._build = build
        self._reactor = reactor
        self._manager = manager
        self._log_writer = log_writer
        self._owner = owner
        self._privileges = Privileges(run_as)
        self._is_daemon = is_daemon
        self._mark = ServerMark()
        self._life: ServerLife | None = None
        self._starting: Deferred[None] | None = None

    def privilegedStartService(self) -> None:
        settings = self._configuration.settings
        with failures_told(self._is_daemon):
            listeners: Sequence[Listener] = bind_all(settings, self._owner)
            set_apart()
            server = self._build(settings, self._reactor)
        self._life = ServerLife(server, listeners, settings, self._reactor)

    def startService(self) -> None:
        super().startService()
        with failures_told(self._is_daemon):
            self._privileges.give_up()
        self._mark.write(self._configuration.settings, self._configuration.path)
        install_signal_actions(
            self._reactor,
            {
                signal.SIGTERM: self._stop,
                signal.SIGINT: self._stop,
                signal.SIGHUP: Reloader(self._reload),
                signal.SIGUSR1: self._reopen_log,
            },
        )
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._start_failed)

    async def _start(self) -> None:
        life = self._served()
        await life.prepare()
        await life.accept()
        self._manager.start_watchdog(self._reactor)
        self._manager.ready("serving")
        _log.info("mailsrv is ready", hostname=self._configuration.settings.hostname)

    def _start_failed(self, failure: Any) -> None:
        _log.failure("mailsrv cannot start: {reason}", failure, reason=failure.getErrorMessage())
        exit_with_failure()
        stop_reactor(self._reactor)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self._manager.stopping()
        return Deferred.fromCoroutine(self._finish())

    async def _finish(self) -> None:
        _log.info("stopping")
        if self._starting is not None:
            # A start that is under way is let finish: half-open stores are worse than a second more.
            await self._starting
        if self._life is not None:
            await self._life.stop()
        self._mark.remove()
        _log.info("stopped")

    def _served(self) -> ServerLife:
        if self._life is None:
            raise RuntimeError("startService before privilegedStartService")
        return self._life

    def _stop(self) -> None:
        stop_reactor(self._reactor)

    async def _reload(self) -> None:
        if self._starting is not None:
            await self._starting
        if not self.running:
            return
        self._manager.reloading()
        self._reopen_log()
        loaded = read_again(self._configuration)
        if loaded is not None and await apply_settings(self._served(), loaded.settings, self._log_writer):
            self._configuration = loaded
        self._manager.ready("serving")

    def _reopen_log(self) -> None:
        if self._log_writer is not None:
            self._log_writer.target.reopen()


def exit_with_failure() -> None:
    """Make the process end with status 1 although twistd ends a stopped reactor with 0.

    Registered last, so run first of the exit functions: twistd has removed its pid file by then.
    """
    atexit.register(os._exit, 1)
