"""The open connections of one listener, and the moment when the last one is gone.

Every protocol's factory keeps one: it is what makes it an
:class:`~mailsrv.interfaces.service.IDrainable`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, succeed

Connection = TypeVar("Connection")


class OpenConnections(Generic[Connection]):
    """Connections in the order they came. Iteration goes over a copy: what is told to close may be gone at once."""

    def __init__(self) -> None:
        self._open: dict[Connection, None] = {}
        self._waiting: list[Deferred[None]] = []
        self.is_draining = False

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._open))

    def add(self, connection: Connection) -> None:
        """It is open now."""
        self._open[connection] = None

    def discard(self, connection: Connection) -> None:
        """It is gone, with all that ran for it; harmless if it was never counted."""
        self._open.pop(connection, None)
        if not self._open:
            waiting, self._waiting = self._waiting, []
            for deferred in waiting:
                deferred.callback(None)

    def drain(self, tell: Callable[[Connection], object]) -> Deferred[None]:
        """Tell each that the server stops; fires when the last one is gone. May be called again."""
        self.is_draining = True
        if not self._open:
            return succeed(None)
        drained: Deferred[None] = Deferred()
        self._waiting.append(drained)
        for connection in self:
            tell(connection)
        return drained
