"""Makes IMAP connections, and looks after all of them: time limits, draining, new settings."""

from __future__ import annotations

from itertools import count

from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import ServerFactory
from zope.interface import implementer

from mailsrv.imap.protocol import ImapProtocol
from mailsrv.imap.services import Services
from mailsrv.imap.settings import ImapSettings
from mailsrv.interfaces.content import ISpool
from mailsrv.interfaces.service import IDrainable
from mailsrv.sasl import ServerMechanisms, password_mechanisms
from mailsrv.wire.connection_limits import ConnectionTable
from mailsrv.wire.networks import NetworkSet
from mailsrv.wire.open_connections import OpenConnections
from mailsrv.wire.tls_mode import TlsMode

_LOOK_EVERY_SECONDS = 5.0
_STOPPING = "Server shutting down"
_connection_numbers = count(1)
"""One sequence for all listeners of a process, so that a name in the log means one connection."""


@implementer(IDrainable)
class ImapServerFactory(ServerFactory):
    """One listener's connections. ``clock`` is the reactor: threads are used if it has them."""

    noisy = False

    def __init__(
        self,
        settings: ImapSettings,
        *,
        hostname: str,
        portal: Portal,
        spool: ISpool,
        context_factory: object | None,
        tls_mode: TlsMode,
        plaintext_networks: NetworkSet,
        connections: ConnectionTable,
        clock: IReactorTime,
        mechanisms: ServerMechanisms = password_mechanisms,
    ) -> None:
        self.mechanisms = mechanisms
        """Of log-in. A reload puts another here."""
        self.services = Services.build(settings, hostname=hostname, portal=portal, spool=spool)
        self.context_factory = context_factory
        self.tls_mode = tls_mode
        self.plaintext_networks = plaintext_networks
        self.connections = connections
        self.clock = clock
        self._open: OpenConnections[ImapProtocol] = OpenConnections()
        self._look: IDelayedCall | None = None

    def buildProtocol(self, addr: IAddress | None) -> ImapProtocol | None:  # type: ignore[override]
        """A connection; None (it is closed unanswered) while draining."""
        if self._open.is_draining:
            return None
        protocol = ImapProtocol()
        protocol.factory = self
        return protocol

    def replace_settings(self, settings: ImapSettings) -> None:
        """New connections get these; those that are open keep what they began with."""
        known = self.services
        self.services = Services.build(
            settings, hostname=known.hostname, portal=known.portal, spool=known.spool, row_cache=known.row_cache
        )

    def next_connection_id(self) -> str:
        """A name for a connection in the log."""
        return f"imap-{next(_connection_numbers)}"

    @property
    def connection_count(self) -> int:
        """Open connections."""
        return len(self._open)

    def opened(self, protocol: ImapProtocol) -> None:
        """Look after a connection."""
        self._open.add(protocol)
        if self._look is None:
            self._look = self.clock.callLater(_LOOK_EVERY_SECONDS, self._look_at_time)

    def closed(self, protocol: ImapProtocol) -> None:
        """A connection is gone, with all that ran for it."""
        self._open.discard(protocol)
        if not self._open and self._look is not None:
            self._look.cancel()
            self._look = None

    def _look_at_time(self) -> None:
        """One timer for all connections: a few tenths of a microsecond each."""
        self._look = self.clock.callLater(_LOOK_EVERY_SECONDS, self._look_at_time)
        now = self.clock.seconds()
        for protocol in self._open:
            protocol.check_time(now)

    def drain(self) -> Deferred[None]:
        return self._open.drain(lambda protocol: protocol.stop(_STOPPING))

    def abort_all(self) -> None:
        for protocol in self._open:
            protocol.cut_off()
