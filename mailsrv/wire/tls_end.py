"""The end of transports that Twisted puts methods into: of their own, or of a half that refers to them.

For every such connection two dozen objects would stay until the collector of cycles comes.
"""

from __future__ import annotations

from typing import Any

from twisted.protocols.tls import TLSMemoryBIOProtocol

_TLS_METHODS = ("getHandle", "getPeerCertificate")
"""Of the TLS half, put into the TCP half by STARTTLS."""
_CONNECTING_METHODS = ("doRead", "doWrite")
"""Of a client that connects: the method by which it tries."""
_PRODUCER = "_producer"
"""Of a TLS half: it keeps who makes what it sends, as the TCP half does not."""


def _nothing() -> None:
    """What they answer when the connection is gone, as the methods of the TLS half do."""


def let_go_of_tls(transport: Any) -> None:
    """To be called when the connection is lost; of a transport without TLS nothing changes."""
    _let_go(transport, _TLS_METHODS)
    if isinstance(transport, TLSMemoryBIOProtocol):
        # As it was before there was one.
        vars(transport).pop(_PRODUCER, None)


def let_go_of_attempt(transport: Any) -> None:
    """To be called when the reactor is done with a connection that has failed; None is none."""
    _let_go(transport, _CONNECTING_METHODS)


def _let_go(transport: Any, names: tuple[str, ...]) -> None:
    attributes = getattr(transport, "__dict__", {})
    for name in names:
        if name in attributes:
            attributes[name] = _nothing
