"""The client as the engine of a session sees it. The shell provides it (`protocol.py`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from cryptography.x509 import Certificate

from mailsrv.interfaces.account import IAccount

_T = TypeVar("_T")


class Peer(Protocol):
    """One client, over one connection."""

    client_address: str
    connection_id: str

    def is_tls(self) -> bool:
        """Whether TLS is on."""

    def may_start_tls(self) -> bool:
        """Whether STARTTLS would be possible."""

    def may_log_in(self) -> bool:
        """Whether passwords may be sent as things are: over TLS, or from a network that is trusted (R-TRUST-1)."""

    def mechanisms(self) -> tuple[str, ...]:
        """The SASL mechanisms that can be had as things are."""

    def channel_binding(self, kind: str) -> bytes | None:
        """The data of a type of channel binding; None where there is none."""

    def has_settled(self) -> bool:
        """Whether nothing that a TLS handshake under way may show would change what can be had."""

    def client_certificate(self) -> Certificate | None:
        """The client's, verified in the TLS handshake."""

    def start_tls(self) -> None:
        """Send what is there and begin TLS."""

    def breathe(self) -> Awaitable[None]:
        """Send what is there, let others have their turn, and wait until the peer took enough. PeerGone."""

    def more_input(self) -> Awaitable[None]:
        """Send what is there and wait for octets. PeerGone."""

    def logged_in(self, account: IAccount) -> None:
        """Count the connection as this user's, and log it; raises MailError if there are too many."""

    def wake(self) -> None:
        """There may be work although no octets came; look soon."""

    async def wait_seconds(self, seconds: float) -> None:
        """Let time pass."""

    def compute(self, octets: int, function: Callable[[], _T]) -> Awaitable[_T]:
        """Do work that takes time in proportion to ``octets``: much of it not in the reactor's thread."""

    def seconds(self) -> float:
        """A clock that only goes forward."""
