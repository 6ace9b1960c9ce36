"""One worker: ``python -m mailsrv.app.worker NAME``, started by the supervisor and by nobody else.

The first line on standard input is the start order (:class:`mailsrv.app.control.Start`); more
orders follow. End of input means that the supervisor is gone: the worker finishes what it has and
ends. Exit status 0 after an orderly stop, 1 if it could not start.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet._posixstdio import StandardIO
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.logger import Logger, globalLogBeginner

from mailsrv.app import control
from mailsrv.app.garbage import set_apart
from mailsrv.app.life import ServerLife
from mailsrv.app.listening import BoundSocket
from mailsrv.app.logging import LogWriter, make_log_writer
from mailsrv.app.reload import Reloader, apply_settings
from mailsrv.app.server import CannotStart, Server
from mailsrv.app.signals import HELD_SIGNALS, install_signal_actions, stop_reactor
from mailsrv.config.load import parse
from mailsrv.config.problems import ConfigurationError
from mailsrv.config.schema import Settings

_log = Logger()

WorkerBuilder = Callable[[Settings, Any, control.Start], Server]
"""Makes the object graph of a worker."""


class Orders(Protocol):
    """Lines from the supervisor."""

    def __init__(self, obey: Callable[[dict[str, Any]], None], lost: Callable[[], None]) -> None:
        self._obey = obey
        self._lost = lost
        self._received = b""

    def dataReceived(self, data: bytes) -> None:
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            self._obey(control.parse_message(line))

    def readConnectionLost(self) -> None:
        """Only our reports keep a direction open: the supervisor is gone."""
        self._lost()

    def connectionLost(self, reason: Any = None) -> None:
        self._lost()


class Worker:
    """A worker's life."""

    def __init__(
        self, start: control.Start, settings: Settings, server: Server, reactor: Any, log_writer: LogWriter | None
    ) -> None:
        self._start_order = start
        self._settings = settings
        self._reactor = reactor
        self._log_writer = log_writer
        listeners: Sequence[BoundSocket] = [_inherited(descriptor) for descriptor in start.listeners]
        self._life = ServerLife(server, listeners, settings, reactor)
        self._transport: Any = None
        self._starting: Deferred[None] | None = None
        self._text = start.config_text
        self._reloader = Reloader(self._reload)
        self.exit_status = 0

    def run(self) -> None:
        """Until it is told to stop."""
        # The terminal's Ctrl-C reaches the whole group; the supervisor decides what comes of it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        install_signal_actions(
            self._reactor,
            {
                signal.SIGTERM: lambda: stop_reactor(self._reactor),
                signal.SIGINT: lambda: None,
                # To all processes at once: the supervisor hands on what they mean.
                **dict.fromkeys(HELD_SIGNALS, lambda: None),
            },
        )
        self._reactor.callWhenRunning(self._begin)
        self._reactor.addSystemEventTrigger("before", "shutdown", self._stop)
        self._reactor.run()

    def _begin(self) -> None:
        orders = Orders(self._obey, lambda: stop_reactor(self._reactor))
        self._transport = StandardIO(orders, stdin=0, stdout=control.REPORT_DESCRIPTOR, reactor=self._reactor)
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._failed)

    async def _start(self) -> None:
        await self._life.prepare()
        self._report("prepared")
        if self._start_order.accept_at_once:
            await self._accept()

    async def _accept(self) -> None:
        await self._life.accept()
        self._report("accepting")

    def _failed(self, failure: Any) -> None:
        _log.failure("the worker cannot start: {reason}", failure, reason=failure.getErrorMessage())
        self.exit_status = 1
        stop_reactor(self._reactor)

    def _report(self, report: str) -> None:
        self._transport.write(control.format_message({"report": report}))

    def _obey(self, message: dict[str, Any]) -> None:
        order = message.get("order")
        if order == "accept":
            Deferred.fromCoroutine(self._accept()).addErrback(self._failed)
        elif order == "stop":
            stop_reactor(self._reactor)
        elif order == "reopen-log" and self._log_writer is not None:
            self._log_writer.target.reopen()
        elif order == "reload":
            self._text = message["text"]
            self._reloader()

    async def _reload(self) -> None:
        if self._starting is not None:
            await self._starting
        try:
            settings = parse(self._text, self._start_order.config_path)
        except ConfigurationError as error:
            _log.error("reload refused, the old settings stay: {problem}", problem=str(error))
            return
        await apply_settings(self._life, settings, self._log_writer)

    def _stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._finish())

    async def _finish(self) -> None:
        if self._starting is not None:
            await self._starting
        await self._life.stop()


def _inherited(descriptor: int) -> BoundSocket:
    listener = socket.socket(fileno=descriptor)
    listener.setblocking(False)
    os.set_inheritable(descriptor, False)
    return BoundSocket(listener)


def read_start(descriptor: int) -> control.Start:
    """The first line of input, read octet by octet so that what follows stays for the reactor."""
    received = bytearray()
    while not received.endswith(b"\n"):
        # The pipe hands over what is there, and more orders may be there already.
        octet = os.read(descriptor, 1)
        if not octet or len(received) > control.MAX_LINE_OCTETS:
            raise SystemExit("a worker is started by the supervisor of mailsrv (workers = 2 or more)")
        received += octet
    return control.parse_start(bytes(received))


def main(build: WorkerBuilder) -> int:
    """Run the worker; answers with the exit status."""
    start = read_start(0)
    settings = parse(start.config_text, start.config_path)
    log_writer = make_log_writer(settings.log, path=start.log_path, worker=str(start.worker))
    globalLogBeginner.beginLoggingTo([log_writer], redirectStandardIO=False)
    from twisted.internet import reactor

    set_apart()
    try:
        server = build(settings, reactor, start)
    except CannotStart as error:
        _log.critical("the worker cannot start: {reason}", reason=str(error))
        return 1
    worker = Worker(start, settings, server, reactor, log_writer)
    worker.run()
    return worker.exit_status


if __name__ == "__main__":
    from mailsrv.app.build import build_worker

    sys.exit(main(build_worker))
