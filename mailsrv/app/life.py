"""The life of a serving process, the same whether it is twistd's own or a worker.

Start: replay (``prepare``), then ``accept``. Stop (RELIABILITY 7.2, 6): stop accepting, let sessions
finish what is in flight for at most ``drain_seconds`` while each is told that the server goes,
then close what is left, then the journal, then the store.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from mailsrv.app.garbage import Collector
from mailsrv.app.listening import Listener, PluginListener, start_accepting
from mailsrv.app.server import Server
from mailsrv.config.schema import Settings
from mailsrv.coroutines import fires_within

_log = Logger()
_ABORT_GRACE_SECONDS = 5.0


class ServerLife:
    """Starts and stops one :class:`~mailsrv.app.server.Server` on listeners that are bound already."""

    def __init__(self, server: Server, listeners: Sequence[Listener], settings: Settings, reactor: Any) -> None:
        self.server = server
        self._listeners = listeners
        self._settings = settings
        self._reactor = reactor
        self._ports: list[IListeningPort] = []
        self._lag = LagWatch(reactor, settings.server.lag_warning_seconds)
        self._collector = Collector(reactor, settings.server.growth_mib)

    async def prepare(self) -> None:
        """Everything up to the point where connections can be taken."""
        raise_descriptor_limit()
        await self.server.start()

    async def accept(self) -> None:
        """Take connections at every listener, and begin to send what is queued."""
        for listen, listener, factory in zip(
            self._settings.listen, self._listeners, self.server.factories, strict=True
        ):
            port = await start_accepting(listener, self._reactor, factory)
            self._ports.append(port)
            address = str(port.getHost()) if isinstance(listener, PluginListener) else listener.address
            _log.info(
                "{service} listens at {address} (tls {tls})",
                service=listen.service.value,
                address=address,
                tls=listen.tls.value,
                endpoint=listen.endpoint,
            )
        # After a power cut a lease may be lost and what came of it be in the journal of another process: only now,
        # when each has replayed its own, is what waits known to wait.
        self.server.begin_sending()
        self._lag.start()
        self._collector.start()

    async def reload(self, settings: Settings) -> Sequence[str]:
        """As :meth:`mailsrv.app.server.Server.reload`; what was replaced is seen to a little later."""
        effects = await self.server.reload(settings)
        self._collector.look_after_reload()
        return effects

    async def stop(self) -> None:
        """Bounded by ``drain_seconds`` and what the journal needs to sync. Never fails."""
        self._lag.stop()
        self._collector.stop()
        await self._stop_accepting()
        await self._drain()
        try:
            await self.server.stop()
        except Exception:
            _log.failure("the store did not close cleanly; the next start replays the journal")

    async def _stop_accepting(self) -> None:
        ports, self._ports = self._ports, []
        await DeferredList([maybeDeferred(port.stopListening) for port in ports], consumeErrors=True)
        for listener in self._listeners:
            listener.close()

    async def _drain(self) -> None:
        drainables = self.server.drainables
        drained = DeferredList([drainable.drain() for drainable in drainables], consumeErrors=True)
        seconds = self._settings.server.drain_seconds
        if await fires_within(drained, seconds, self._reactor):
            return
        _log.warn("sessions still busy after {seconds} s are closed", seconds=seconds)
        for drainable in drainables:
            drainable.abort_all()
        if not await fires_within(drained, _ABORT_GRACE_SECONDS, self._reactor):
            _log.error("some sessions did not end")


class LagWatch:
    """Notices a reactor that was busy for too long without a pause: everybody else waited meanwhile."""

    def __init__(self, reactor: Any, warning_seconds: float) -> None:
        self._reactor = reactor
        self._warning_seconds = warning_seconds
        self._interval = 1.0
        self._call: Any = None
        self._due = 0.0

    def start(self) -> None:
        self._due = self._reactor.seconds() + self._interval
        self._call = self._reactor.callLater(self._interval, self._look)

    def stop(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _look(self) -> None:
        late = self._reactor.seconds() - self._due
        if late > self._warning_seconds:
            _log.warn("the reactor was busy for {late_seconds} s", late_seconds=round(late, 3))
        self.start()


def raise_descriptor_limit() -> None:
    """Allow as many open files as the system lets us have: a connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
