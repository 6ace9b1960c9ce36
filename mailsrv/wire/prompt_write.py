"""Writing an answer at once, where the socket takes it.

``transport.write`` only queues: the reactor is asked to watch for writability, told to stop again, and
the octets leave in its next turn. That costs two system calls and an event for every reply of a
dialogue, about a quarter of what a short answer costs in all. An idle TCP connection nearly always
takes the answer straight away.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Connection as TcpConnection


def set_no_delay(transport: Any) -> None:
    """Let TCP send an answer although the one before is not acknowledged yet; other transports have no such delay."""
    set_tcp_no_delay = getattr(transport, "setTcpNoDelay", None)
    if set_tcp_no_delay is not None:
        set_tcp_no_delay(True)


def write_promptly(transport: Any, octets: bytes) -> None:
    """As ``transport.write``, but sent now if the transport is a plain TCP connection with nothing queued.

    What the socket does not take, and whatever goes wrong, is left to ``transport.write``.
    """
    if (
        isinstance(transport, TcpConnection)
        and not transport.TLS
        and transport.connected
        and not transport.disconnecting
        and not transport._writeDisconnected
        and not transport._tempDataBuffer
        and not transport.dataBuffer
    ):
        sent = transport.writeSomeData(octets)
        if isinstance(sent, int) and sent > 0:
            if sent == len(octets):
                return
            octets = octets[sent:]
    transport.write(octets)
