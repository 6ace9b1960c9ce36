"""What can be adjusted about asking the DNS."""

from __future__ import annotations

from attrs import field, frozen


@frozen
class DnsSettings:
    """The resolver."""

    servers: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Resolvers to ask, ADDRESS or ADDRESS:PORT; empty: those of /etc/resolv.conf.",
            "example": ("127.0.0.1",),
        },
    )
