"""The resolver for commands, which have no reactor running: every question is waited for where it is asked."""

from __future__ import annotations

import builtins
import functools
import socket
import time
from collections.abc import Callable

from twisted.internet import defer
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock

from mailsrv.dns.resolver import Resolver
from mailsrv.dns.servers import Server
from mailsrv.dns.settings import DnsSettings

_MAX_DATAGRAM_OCTETS = 4096


def make_blocking_resolver(settings: DnsSettings) -> Callable[[], Resolver]:
    """Makes one when it is first wanted, and the same one then. All its Deferreds have fired when they are seen."""
    return functools.cache(lambda: Resolver(settings, Clock(), exchange=BlockingExchange()))


class BlockingExchange:
    """See :class:`~mailsrv.dns.exchange.DnsExchange`. Each question ends by its time-out, even if answers trickle."""

    def ask_udp(self, server: Server, query: bytes, timeout: float) -> Deferred[bytes]:
        return execute(_within, timeout, functools.partial(_ask_udp, server, query))

    def ask_tcp(self, server: Server, query: bytes, timeout: float) -> Deferred[bytes]:
        return execute(_within, timeout, functools.partial(_ask_tcp, server, query))


def _within(timeout: float, ask: Callable[[Callable[[], float]], bytes]) -> bytes:
    end = time.monotonic() + timeout

    def left() -> float:
        seconds = end - time.monotonic()
        if seconds <= 0:
            raise defer.TimeoutError("no answer in time")
        return seconds

    try:
        return ask(left)
    except builtins.TimeoutError as error:
        raise TimeoutError("no answer in time") from error


def _family(server: Server) -> socket.AddressFamily:
    return socket.AF_INET6 if server.is_ipv6 else socket.AF_INET


def _ask_udp(server: Server, query: bytes, left: Callable[[], float]) -> bytes:
    with socket.socket(_family(server), socket.SOCK_DGRAM) as one:
        # Connected: nobody else's datagrams are read, and a refusal is heard of.
        one.connect((server.address, server.port))
        one.send(query)
        while True:
            one.settimeout(left())
            datagram = one.recv(_MAX_DATAGRAM_OCTETS)
            if datagram[:2] == query[:2]:
                return datagram


def _ask_tcp(server: Server, query: bytes, left: Callable[[], float]) -> bytes:
    with socket.create_connection((server.address, server.port), left()) as one:
        one.sendall(len(query).to_bytes(2, "big") + query)

        def read(size: int) -> bytes:
            octets = b""
            while len(octets) < size:
                one.settimeout(left())
                data = one.recv(size - len(octets))
                if not data:
                    raise ConnectionResetError("the server closed the connection")
                octets += data
            return octets

        return read(int.from_bytes(read(2), "big"))
