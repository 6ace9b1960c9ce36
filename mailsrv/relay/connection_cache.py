"""Connections that wait a few seconds for the next message to the same destination, bounded in all.

A key is the destination and what its messages demand of security: nothing is sent over a connection
that was opened for less. A server may close a waiting connection at any time; it is forgotten then.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from attrs import define
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailsrv.relay.opening import OpenConnection
from mailsrv.relay.settings import RelaySettings


@define(eq=False)
class _Idle:
    key: Hashable
    connection: OpenConnection


class ConnectionCache:
    """The idle connections of a process."""

    def __init__(self, settings: RelaySettings, clock: IReactorTime) -> None:
        self._settings = settings
        self._clock = clock
        self._all: OrderedDict[int, _Idle] = OrderedDict()
        """By the identity of the connection; the longest idle first."""
        self._by_key: dict[Hashable, list[OpenConnection]] = {}
        self._timer: IDelayedCall | None = None
        self._is_stopped = False

    def __len__(self) -> int:
        return len(self._all)

    def take(self, key: Hashable) -> OpenConnection | None:
        """The one used last, which is the least likely to have been closed."""
        waiting = self._by_key.get(key)
        if not waiting:
            return None
        connection = waiting[-1]
        self._forget(connection)
        return connection

    def give(self, key: Hashable, connection: OpenConnection) -> None:
        """A connection nothing is under way on. It is kept, or closed with QUIT."""
        settings, now = self._settings, self._clock.seconds()
        protocol = connection.protocol
        limit = protocol.session.capabilities.message_limit
        most = settings.messages_a_connection if limit is None else min(limit, settings.messages_a_connection)
        if (
            self._is_stopped
            or not protocol.session.is_idle
            or connection.messages >= most
            or now - connection.opened_at >= settings.connection_seconds
            or settings.idle_seconds <= 0
            or not settings.idle_connections
        ):
            protocol.quit()
            return
        if len(self._all) >= settings.idle_connections:
            oldest = next(iter(self._all.values())).connection
            self._forget(oldest)
            oldest.protocol.quit()
        connection.idle_since = now
        self._all[id(connection)] = _Idle(key, connection)
        self._by_key.setdefault(key, []).append(connection)
        protocol.closed = lambda: self._forget(connection)
        if self._timer is None:
            self._timer = self._clock.callLater(settings.idle_seconds, self._expire)

    def stop(self) -> None:
        """QUIT all, and keep none from now on."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for idle in tuple(self._all.values()):
            self._forget(idle.connection)
            idle.connection.protocol.quit()

    def _forget(self, connection: OpenConnection) -> None:
        idle = self._all.pop(id(connection), None)
        if idle is None:
            return
        connection.protocol.closed = None
        waiting = self._by_key[idle.key]
        waiting.remove(connection)
        if not waiting:
            del self._by_key[idle.key]

    def _expire(self) -> None:
        self._timer = None
        now, limit = self._clock.seconds(), self._settings.idle_seconds
        for idle in tuple(self._all.values()):
            left = idle.connection.idle_since + limit - now
            if left > 0:
                self._timer = self._clock.callLater(left, self._expire)
                return
            self._forget(idle.connection)
            idle.connection.protocol.quit()
