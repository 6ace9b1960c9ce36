"""A socket that ends every operation by a point in time, however slowly the peer trickles.

A time-out alone begins anew with each octet; and an answer has a bound in octets.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable


class DeadlineSocket:
    """Stands in for a socket where ldap3 has one. ``expect`` before each operation."""

    def __init__(self, inner: socket.socket, *, seconds: Callable[[], float] = time.monotonic) -> None:
        self._inner = inner
        self._seconds = seconds
        self._deadline = 0.0
        self._octets_left = 0

    def expect(self, deadline: float, octets: int) -> None:
        """From now on: all is over at ``deadline`` (of the monotonic clock) or after so many octets."""
        self._deadline = deadline
        self._octets_left = octets

    def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Shake hands. Raises OSError, which ssl.SSLError is."""
        self._inner.settimeout(self._remaining())
        self._inner = context.wrap_socket(self._inner, server_hostname=host)

    @property
    def is_tls(self) -> bool:
        return isinstance(self._inner, ssl.SSLSocket)

    @property
    def tls_version(self) -> str:
        return (self._inner.version() or "") if isinstance(self._inner, ssl.SSLSocket) else ""

    def _remaining(self) -> float:
        remaining = self._deadline - self._seconds()
        if remaining <= 0:
            raise TimeoutError("no answer in time")
        return remaining

    def recv(self, size: int) -> bytes:
        self._inner.settimeout(self._remaining())
        data = self._inner.recv(size)
        self._octets_left -= len(data)
        if self._octets_left < 0:
            raise OSError("the answer is too large")
        return data

    def sendall(self, data: bytes) -> None:
        self._inner.settimeout(self._remaining())
        self._inner.sendall(data)

    def shutdown(self, how: int) -> None:
        # Not SSLSocket's unwrap: nothing is waited for when closing.
        self._inner.shutdown(how)

    def close(self) -> None:
        self._inner.close()

    def fileno(self) -> int:
        return self._inner.fileno()

    def getsockname(self) -> object:
        return self._inner.getsockname()

    def getpeername(self) -> object:
        return self._inner.getpeername()
