"""The end of a connection that had STARTTLS.

Twisted puts methods of its TLS half into the TCP half, which the TLS half refers to as well: for every
such connection two dozen objects would stay until the collector of cycles comes.
"""

from __future__ import annotations

from typing import Any

_TLS_METHODS = ("getHandle", "getPeerCertificate")


def _nothing() -> None:
    """What they answer when the connection is gone, as the methods of the TLS half do."""


def let_go_of_tls(transport: Any) -> None:
    """To be called when the connection is lost; of a transport without STARTTLS nothing changes."""
    attributes = getattr(transport, "__dict__", {})
    for name in _TLS_METHODS:
        if name in attributes:
            attributes[name] = _nothing
