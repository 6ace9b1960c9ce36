"""Kerberos tickets as the log-in sees them, whichever library looks at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import frozen

from mailsrv.auth.gssapi_settings import GssapiSettings


class KeytabUnusable(Exception):
    """Nobody can log in; the text is for the log and names the file."""


class TicketRefused(Exception):
    """The client's ticket is not good; the text is for the log."""


@frozen
class Accepted:
    """One step of a security context. ``token`` is for the client, maybe empty; ``principal`` is known at the end."""

    token: bytes
    principal: str = ""


class Acceptor(Protocol):
    """The acceptor's side of one context. Every method may wait: for threads."""

    def accept(self, token: bytes) -> Accepted:
        """The client's next token. Raises KeytabUnusable, TicketRefused and SaslError."""

    def wrap(self, octets: bytes) -> bytes:
        """With integrity, not encrypted (RFC 4752 3.2); for a context that is complete."""

    def unwrap(self, octets: bytes) -> bytes:
        """Raises SaslError."""


MakeAcceptor = Callable[[GssapiSettings, str, bytes | None], Acceptor]
"""(settings, service, the data of tls-server-end-point if the connection has any) → the acceptor of one exchange."""
