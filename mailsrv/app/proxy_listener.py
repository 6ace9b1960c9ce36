"""A listener behind proxies: the client's address is what a trusted proxy says it is (R-PROXY-1).

:func:`behind_proxy` goes around the factory of a listener, TLS included: the header comes before the
handshake. Who is not a listed proxy is closed at once, without a word, and so is a proxy that does not
send a whole and correct header in time. After the header the connection belongs to the factory's own
protocol, which finds the told address where it finds others: in ``buildProtocol`` and by
``transport.getPeer()``. Nothing but addresses is taken from a header.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.wire.networks import NetworkSet
from mailsrv.wire.proxy_protocol import Endpoints, ProxyHeaderReader, ProxyProtocolError

_log = Logger()


@frozen
class ProxyTrust:
    """Who may say whose connection it is. Empty networks: nobody, there is no proxy."""

    networks: NetworkSet
    seconds: float
    """How long a proxy has to say it."""


def behind_proxy(factory: IProtocolFactory, trust: ProxyTrust, clock: IReactorTime) -> IProtocolFactory:
    """``factory``, for connections that come through proxies; itself where no proxy is listed."""
    return ProxiedFactory(factory, trust, clock) if trust.networks else factory


class ProxiedFactory(Factory):
    """Waits for the header, then asks the real factory for a protocol."""

    noisy = False

    def __init__(self, factory: Any, trust: ProxyTrust, clock: IReactorTime) -> None:
        self.factory = factory
        self.trust = trust
        self.clock = clock

    def doStart(self) -> None:
        self.factory.doStart()

    def doStop(self) -> None:
        self.factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """None, which closes the connection, for everybody but the proxies.

        Who may connect to a Unix socket is settled by the mode of its file.
        """
        host = getattr(addr, "host", "")
        if isinstance(host, str) and host and host not in self.trust.networks:
            _log.debug("connection from {address}, which is no listed proxy, closed", address=host)
            return None
        return ProxyPreamble(self, addr)


class ProxyPreamble(Protocol):
    """A connection until its header is there; if the transport cannot be handed over, it passes on after that."""

    transport: Any

    def __init__(self, factory: ProxiedFactory, peer: IAddress | None) -> None:
        self._shared = factory
        self._peer = peer
        self._reader = ProxyHeaderReader()
        self._inner: Any = None
        self._timer: Any = None

    def connectionMade(self) -> None:
        self._timer = self._shared.clock.callLater(self._shared.trust.seconds, self._give_up, "no header in time")

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        if self._timer is None:
            return  # given up
        try:
            header = self._reader.feed(data)
        except ProxyProtocolError as error:
            self._give_up(str(error))
            return
        if header is not None:
            self._stop_timer()
            self._hand_over(header.endpoints)

    def _hand_over(self, told: Endpoints | None) -> None:
        transport = self.transport
        peer = self._peer
        if told is not None:
            peer = _address(told.source, told.source_port)
            host = _address(told.destination, told.destination_port)
            # What the protocols ask their transport for, whichever kind it is.
            vars(transport)["getPeer"] = lambda: peer
            vars(transport)["getHost"] = lambda: host
        inner: IProtocol | None = self._shared.factory.buildProtocol(peer)
        if inner is None:
            transport.loseConnection()
            return
        self._inner = inner
        if getattr(transport, "protocol", None) is self:
            # From now on the transport knows only the real protocol: the preamble costs nothing more.
            transport.protocol = inner
        inner.makeConnection(transport)
        unused, self._reader.unused = self._reader.unused, b""
        if unused:
            inner.dataReceived(unused)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_timer()
        if self._inner is not None:
            self._inner.connectionLost(reason)

    def _give_up(self, reason: str) -> None:
        self._stop_timer()
        _log.warn(
            "connection from proxy {address} closed: {reason}",
            address=str(getattr(self._peer, "host", "") or "at a Unix socket"),
            reason=reason,
        )
        abort = getattr(self.transport, "abortConnection", None)
        if abort is not None:
            abort()
        else:
            self.transport.loseConnection()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


def _address(host: str, port: int) -> IPv4Address | IPv6Address:
    kind = IPv4Address if ipaddress.ip_address(host).version == 4 else IPv6Address
    return kind("TCP", host, port)
