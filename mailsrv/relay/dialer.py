"""Opening connections: to an address and port, or to a Twisted endpoint."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, clientFromString
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory
from zope.interface import Interface, implementer

from mailsrv.relay.settings import RelaySettings


class IDialer(Interface):
    """Makes connections; the double in tests keeps them in memory."""

    def connect(address: str, port: int, protocol: IProtocol) -> Deferred[IProtocol]:
        """To an IP address. Fails with what the reactor says."""

    def connect_endpoint(endpoint: str, protocol: IProtocol) -> Deferred[IProtocol]:
        """To a client endpoint string. Fails also with ValueError for one that is none."""


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
        is_version6 = ":" in address
        local = settings.bind_ipv6 if is_version6 else settings.bind_ipv4
        endpoint_type = TCP6ClientEndpoint if is_version6 else TCP4ClientEndpoint
        endpoint = endpoint_type(
            self._reactor, address, port, timeout=settings.connect_timeout, bindAddress=(local, 0) if local else None
        )
        connecting: Deferred[IProtocol] = endpoint.connect(_OneProtocol(protocol))
        return connecting

    def connect_endpoint(self, endpoint: str, protocol: IProtocol) -> Deferred[IProtocol]:
        made = clientFromString(self._reactor, endpoint)
        connecting: Deferred[IProtocol] = made.connect(_OneProtocol(protocol))
        # An endpoint string may bring a timeout of its own, or none.
        connecting.addTimeout(self._settings.connect_timeout, self._reactor)
        return connecting
