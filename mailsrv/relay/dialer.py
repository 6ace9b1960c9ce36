"""Opening connections: to an address and port, or to a Twisted endpoint."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import ClientFactory, Factory
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from mailsrv.relay.settings import RelaySettings
from mailsrv.wire.tls_end import let_go_of_attempt


class IDialer(Interface):
    """Makes connections; the double in tests keeps them in memory."""

    def connect(address: str, port: int, protocol: IProtocol) -> Deferred[IProtocol]:
        """To an IP address. Fails with what the reactor says."""

    def connect_endpoint(endpoint: str, protocol: IProtocol) -> Deferred[IProtocol]:
        """To a client endpoint string. Fails also with ValueError for one that is none."""


class _Attempt(ClientFactory):
    """Gives the one protocol to the one connection, and leaves nothing that only the collector of cycles would find.

    An endpoint's own wrapper refers to its connector, the connector to its transport, and both of them back for ever:
    a relay that opens a connection for every message would keep thousands of them until the next collection.
    """

    noisy = False

    def __init__(self, reactor: Any, protocol: IProtocol) -> None:
        self._reactor = reactor
        self._protocol: Any = protocol
        self._connecting: Deferred[IProtocol] | None = Deferred(self._give_up)
        self._connector: Any = None
        self._transport: Any = None

    def connect(self, address: str, port: int, timeout: float, local: str | None) -> Deferred[IProtocol]:
        connecting = self._connecting
        if connecting is None:
            raise RuntimeError("an attempt is made once")
        self._connector = self._reactor.connectTCP(
            address, port, self, timeout=timeout, bindAddress=(local, 0) if local else None
        )
        self._transport = getattr(self._connector, "transport", None)
        return connecting

    def buildProtocol(self, addr: object) -> Any:
        # The transport is the protocol's when this has returned.
        self._transport = None
        self._reactor.callLater(0, self._connected)
        return self._protocol

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        # Once it has begun to connect it refers to itself, and it may be about to begin even now.
        self._reactor.callLater(0, let_go_of_attempt, self._transport)
        connecting, self._connecting, self._connector, self._protocol = self._connecting, None, None, None
        self._transport = None
        if connecting is not None:
            connecting.errback(reason)

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        connector.transport = None

    def _connected(self) -> None:
        connecting, self._connecting, self._connector = self._connecting, None, None
        protocol, self._protocol = self._protocol, None
        if connecting is not None:
            connecting.callback(protocol)

    def _give_up(self, _connecting: Deferred[IProtocol]) -> None:
        """Nobody waits for it any more: the connection is cut. The Deferred fails by itself, with CancelledError."""
        self._connecting = None
        if self._connector is not None:
            self._connector.disconnect()


class _OneProtocol(Factory):
    """Gives the one protocol to the one connection."""

    noisy = False

    def __init__(self, protocol: IProtocol) -> None:
        self._protocol: Any = protocol

    def buildProtocol(self, addr: object) -> Any:
        return self._protocol


@implementer(IDialer)
class TwistedDialer:
    """By the reactor."""

    def __init__(self, reactor: Any, settings: RelaySettings) -> None:
        self._reactor = reactor
        self._settings = settings

    def connect(self, address: str, port: int, protocol: IProtocol) -> Deferred[IProtocol]:
        settings = self._settings
        local = settings.bind_ipv6 if ":" in address else settings.bind_ipv4
        return _Attempt(self._reactor, protocol).connect(address, port, settings.connect_timeout, local or None)

    def connect_endpoint(self, endpoint: str, protocol: IProtocol) -> Deferred[IProtocol]:
        made = clientFromString(self._reactor, endpoint)
        connecting: Deferred[IProtocol] = made.connect(_OneProtocol(protocol))
        # An endpoint string may bring a timeout of its own, or none.
        connecting.addTimeout(self._settings.connect_timeout, self._reactor)
        return connecting
