"""Makes a protocol for each connection of one listener, and ends them in order when the server stops."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import ServerFactory
from zope.interface import implementer

from mailsrv.interfaces.account import IAccount
from mailsrv.interfaces.delivery import IMessageReceiver
from mailsrv.interfaces.service import IDrainable
from mailsrv.sasl import ServerMechanisms, password_mechanisms
from mailsrv.smtp.protocol import SmtpProtocol
from mailsrv.smtp.settings import Service, SmtpSettings
from mailsrv.wire.connection_limits import ConnectionSlot, ConnectionTable
from mailsrv.wire.networks import NetworkSet
from mailsrv.wire.open_connections import OpenConnections
from mailsrv.wire.tls_mode import TlsMode

Admission = Callable[[object, str], IAccount | bool]
"""(transport, client address) → the account that the system says a client has; or whether it may submit without one."""


@implementer(IDrainable)
class SmtpServerFactory(ServerFactory):
    """The listeners of ``mx``, ``submission`` and ``lmtp``.

    ``context_factory`` is what ``transport.startTLS`` takes; None means no STARTTLS. With
    ``tls_mode`` ``IMPLICIT`` the composition wraps this factory. ``portal`` is needed for
    submission only.
    """

    noisy = False

    def __init__(
        self,
        settings: SmtpSettings,
        receiver: IMessageReceiver,
        *,
        service: Service,
        hostname: str,
        portal: Portal | None,
        context_factory: object | None,
        tls_mode: TlsMode,
        plaintext_networks: NetworkSet,
        connections: ConnectionTable,
        clock: IReactorTime,
        admission: Admission | None = None,
        mechanisms: ServerMechanisms = password_mechanisms,
    ) -> None:
        self.mechanisms = mechanisms
        """Of log-in. A reload puts another here."""
        self.admission = admission
        """For submission: who needs no log-in. A reload puts another here."""
        self.replace_settings(settings)
        self.receiver = receiver
        self.service = service
        self.hostname = hostname
        self.portal = portal
        self.context_factory = context_factory
        self.tls_mode = tls_mode
        self.plaintext_networks = plaintext_networks
        self.connections = connections
        self.clock = clock
        self._open: OpenConnections[SmtpProtocol] = OpenConnections()
        self._known: OrderedDict[str, None] = OrderedDict()
        """Networks that delivered mail, the longest quiet first."""

    @property
    def offers_starttls(self) -> bool:
        """Whether a connection that begins in the clear may change to TLS."""
        return self.tls_mode is TlsMode.STARTTLS and self.context_factory is not None

    def buildProtocol(self, addr: IAddress | None) -> SmtpProtocol:
        """A protocol for a client; it refuses by itself where a limit is reached."""
        host = getattr(addr, "host", "")
        return SmtpProtocol(self, host if isinstance(host, str) else "", getattr(addr, "port", 0) if host else 0)

    def replace_settings(self, settings: SmtpSettings) -> None:
        """Use these for sessions from now on."""
        self.settings = settings
        self.xclient_networks = NetworkSet(settings.xclient_networks)

    # -- stopping

    @property
    def connection_count(self) -> int:
        """Open now."""
        return len(self._open)

    def drain(self) -> Deferred[None]:
        """See :class:`~mailsrv.interfaces.service.IDrainable`."""
        return self._open.drain(SmtpProtocol.drain)

    def abort_all(self) -> None:
        """See :class:`~mailsrv.interfaces.service.IDrainable`."""
        for protocol in self._open:
            protocol.cut_off()

    # -- what the protocols tell

    def connection_opened(self, protocol: SmtpProtocol) -> None:
        """A connection is there; while draining it is told so."""
        self._open.add(protocol)
        if self._open.is_draining:
            protocol.drain()

    def connection_closed(self, protocol: SmtpProtocol) -> None:
        """It is gone."""
        self._open.discard(protocol)

    def greeting_delay(self, slot: ConnectionSlot | None) -> float:
        """How long this client waits for its greeting."""
        if self.service is not Service.MX or slot is None or slot.is_exempt or slot.network in self._known:
            return 0.0
        return self.settings.greeting_delay_seconds

    def mail_accepted(self, slot: ConnectionSlot | None) -> None:
        """A client delivered mail: its network is known from now on."""
        if slot is None or not slot.network or self.service is not Service.MX:
            return
        self._known[slot.network] = None
        self._known.move_to_end(slot.network)
        if len(self._known) > self.settings.known_clients:
            self._known.popitem(last=False)
