"""What a process that serves mail consists of, seen from its life cycle.

:mod:`mailsrv.app.build` makes one from settings; :mod:`mailsrv.app.life` starts and stops it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory

from mailsrv.config.schema import Settings


class Drainable(Protocol):
    """See :class:`mailsrv.interfaces.service.IDrainable`."""

    def drain(self) -> Deferred[None]: ...

    def abort_all(self) -> None: ...


class CannotStart(Exception):
    """The server cannot run with these settings; the text is one sentence for the administrator."""


class ReloadRefused(Exception):
    """The new settings (or a file they name) cannot be used; everything stays as it was."""


class Server(Protocol):
    """The object graph of one process."""

    @property
    def factories(self) -> Sequence[IProtocolFactory]:
        """One for each ``[[listen]]``, in order, TLS wrapping included."""

    @property
    def drainables(self) -> Sequence[Drainable]:
        """The protocols' own factories."""

    def start(self) -> Deferred[None]:
        """Open the store and replay the journal. Fails if this process must not serve."""

    def begin_sending(self) -> None:
        """Mail may leave the queue: all journals were replayed, and none holds a settlement any more."""

    def stop(self) -> Deferred[None]:
        """Finish the journal, then the store. Sessions are gone by now."""

    def reload(self, settings: Settings) -> Deferred[Sequence[str]]:
        """Take new settings and certificates in; answers with what took effect, for the log.

        Fails with :class:`ReloadRefused`, with nothing changed.
        """
