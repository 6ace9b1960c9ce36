"""One spawned worker, from the supervisor's side: its state, its orders and reports, what it prints, its end."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger

from mailsrv.app import control
from mailsrv.app.worker_output import WorkerOutput

_log = Logger()

STANDARD_ERROR_DESCRIPTOR = 2
_KILL_GRACE_SECONDS = 15.0
"""How much longer than sessions and attempts together a worker may take to stop before it is killed."""


class WorkerState(enum.Enum):
    """Where a worker is in its life."""

    STARTING = "starting"
    PREPARED = "prepared"
    ACCEPTING = "accepting"
    STOPPING = "stopping"
    ENDED = "ended"


class WorkerProcess(ProcessProtocol):
    """One spawned worker, from the supervisor's side."""

    transport: Any

    def __init__(
        self, number: int, start: control.Start, reactor: Any, changed: Callable[[WorkerProcess], None]
    ) -> None:
        self.number = number
        self.state = WorkerState.STARTING
        self.ended: Deferred[None] = Deferred()
        self.started_at = reactor.seconds()
        self.exit_text = ""
        self._start = start
        self._reactor = reactor
        self._changed = changed
        self._received = b""
        self._output = WorkerOutput(number)

    @property
    def process_id(self) -> int | None:
        pid: int | None = self.transport.pid
        return pid

    @property
    def lived_seconds(self) -> float:
        lived: float = self._reactor.seconds() - self.started_at
        return lived

    def connectionMade(self) -> None:
        self.transport.writeToChild(0, control.format_start(self._start))

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == STANDARD_ERROR_DESCRIPTOR:
            self._output.received(data)
            return
        *lines, self._received = (self._received + data).split(b"\n")
        if len(self._received) > control.MAX_LINE_OCTETS:
            self.kill()
            return
        for line in lines:
            self._report(control.parse_message(line))

    def _report(self, message: Mapping[str, Any]) -> None:
        report = message.get("report")
        if report == "prepared" and self.state is WorkerState.STARTING:
            self.state = WorkerState.PREPARED
        elif report == "accepting" and self.state is not WorkerState.STOPPING:
            self.state = WorkerState.ACCEPTING
        self._changed(self)

    def order(self, order: str, **details: Any) -> None:
        """Tell the worker; nothing happens if it has ended."""
        if self.state is not WorkerState.ENDED:
            self.transport.writeToChild(0, control.format_message({"order": order, **details}))

    def stop(self, seconds: float) -> Deferred[None]:
        """Ask the worker to stop; it is killed if that takes longer than it may. Fires when it has ended."""
        done: Deferred[None] = Deferred()
        if self.state is WorkerState.ENDED:
            done.callback(None)
            return done
        if self.state is not WorkerState.STOPPING:
            self.state = WorkerState.STOPPING
            self.order_stop()
            killer = self._reactor.callLater(seconds + _KILL_GRACE_SECONDS, self.kill)
            self.ended.addBoth(lambda _: killer.cancel() if killer.active() else None)
        self.ended.addBoth(lambda _: done.callback(None))
        return done

    def order_stop(self) -> None:
        self.transport.writeToChild(0, control.format_message({"order": "stop"}))

    def kill(self) -> None:
        """SIGKILL: nothing that was acknowledged is lost by it."""
        _log.error("worker {worker} does not stop and is killed", worker=self.number)
        try:
            self.transport.signalProcess("KILL")
        except ProcessExitedAlready:
            return

    def not_spawned(self, reason: str) -> None:
        """The program could not be started at all."""
        self.exit_text = reason
        self.state = WorkerState.ENDED
        self._changed(self)
        self.ended.callback(None)

    def processEnded(self, reason: Any) -> None:
        self._output.ended()
        status = reason.value
        self.exit_text = f"signal {status.signal}" if status.signal is not None else f"status {status.exitCode}"
        was_stopping = self.state is WorkerState.STOPPING
        self.state = WorkerState.ENDED
        if not was_stopping:
            self._changed(self)
        self.ended.callback(None)
