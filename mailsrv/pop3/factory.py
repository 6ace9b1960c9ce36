"""Makes POP3 sessions, and ends them in order (R-STOP-1)."""

from __future__ import annotations

from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import ServerFactory
from zope.interface import implementer

from mailsrv.interfaces.service import IDrainable
from mailsrv.pop3.protocol import Pop3Protocol
from mailsrv.pop3.session import Pop3Session
from mailsrv.pop3.settings import Pop3Settings
from mailsrv.sasl import ServerMechanisms, password_mechanisms
from mailsrv.wire.client_certificate import client_certificate
from mailsrv.wire.connection_limits import ConnectionSlot, ConnectionTable
from mailsrv.wire.networks import NetworkSet
from mailsrv.wire.open_connections import OpenConnections
from mailsrv.wire.tls_mode import TlsMode


@implementer(IDrainable)
class Pop3ServerFactory(ServerFactory):
    """One listener. With implicit TLS the composition wraps it; ``context_factory`` is for STLS."""

    noisy = False

    def __init__(
        self,
        settings: Pop3Settings,
        *,
        hostname: str,
        portal: Portal,
        context_factory: object | None,
        tls_mode: TlsMode,
        plaintext_networks: NetworkSet,
        connections: ConnectionTable,
        clock: IReactorTime,
        mechanisms: ServerMechanisms = password_mechanisms,
    ) -> None:
        self.mechanisms = mechanisms
        """Of log-in. A reload puts another here."""
        self.settings = settings
        self.hostname = hostname
        self.portal = portal
        self.context_factory = context_factory
        self.tls_mode = tls_mode
        self.plaintext_networks = plaintext_networks
        self.connections = connections
        self.clock = clock
        self._sessions: OpenConnections[Pop3Protocol] = OpenConnections()

    def buildProtocol(self, addr: IAddress | None) -> Pop3Protocol | None:
        """A session, or None (the connection is closed) once the server stops."""
        return None if self._sessions.is_draining else Pop3Protocol(self)

    def replace_settings(self, settings: Pop3Settings) -> None:
        """For sessions from now on."""
        self.settings = settings

    def make_session(self, client_address: str, transport: object) -> Pop3Session:
        """The engine of a new connection."""
        return Pop3Session(
            self.settings,
            hostname=self.hostname,
            is_encrypted=self.tls_mode is TlsMode.IMPLICIT,
            may_start_tls=self.tls_mode is TlsMode.STARTTLS and self.context_factory is not None,
            may_log_in_plainly=client_address in self.plaintext_networks,
            mechanisms=lambda is_tls: self.mechanisms(is_tls, client_certificate(transport) if is_tls else None),
        )

    def open_slot(self, client_address: str) -> ConnectionSlot:
        """Count a connection; raises TooManyConnections."""
        return self.connections.open(client_address, "pop3")

    def opened(self, session: Pop3Protocol) -> None:
        """A connection is a session now."""
        self._sessions.add(session)

    def closed(self, session: Pop3Protocol) -> None:
        """It is gone."""
        self._sessions.discard(session)

    @property
    def connection_count(self) -> int:
        """Sessions open now."""
        return len(self._sessions)

    def drain(self) -> Deferred[None]:
        return self._sessions.drain(Pop3Protocol.drain)

    def abort_all(self) -> None:
        for session in self._sessions:
            session.abort()
