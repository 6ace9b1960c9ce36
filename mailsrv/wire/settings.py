"""What can be adjusted about connections (the ``[limits]`` table of the configuration)."""

from __future__ import annotations

from attrs import field, frozen, validators


@frozen
class LimitsSettings:
    """Bounds on connections, for each process (RELIABILITY 7.1)."""

    exempt_networks: tuple[str, ...] = field(
        default=("127.0.0.0/8", "::1/128"),
        metadata={
            "help": "Networks whose clients are exempt from limits and delays that are counted by address.",
            "example": ("127.0.0.0/8", "192.0.2.0/24"),
        },
    )
    connections_total: int = field(
        default=8000,
        validator=validators.ge(1),
        metadata={"help": "Connections of all protocols that one process holds at a time."},
    )
    smtp_connections_per_network: int = field(
        default=20,
        validator=validators.ge(1),
        metadata={
            "help": "SMTP and submission connections that are not logged in, from one IPv4 address or IPv6 /64 network."
        },
    )
    imap_connections_per_network: int = field(
        default=30,
        validator=validators.ge(1),
        metadata={"help": "IMAP connections that are not logged in, from one IPv4 address or IPv6 /64 network."},
    )
    pop3_connections_per_network: int = field(
        default=30,
        validator=validators.ge(1),
        metadata={"help": "POP3 connections that are not logged in, from one IPv4 address or IPv6 /64 network."},
    )
    connections_per_user_and_network: int = field(
        default=10,
        validator=validators.ge(1),
        metadata={"help": "Connections of one protocol that one user has from one IPv4 address or IPv6 /64 network."},
    )
    new_connections_per_minute: int = field(
        default=60,
        validator=validators.ge(1),
        metadata={
            "help": "New connections from one IPv4 address or IPv6 /64 network in a minute; "
            "those that log in are not counted."
        },
    )
    networks_remembered: int = field(
        default=10_000,
        validator=validators.ge(1),
        metadata={
            "help": "Networks whose rate of new connections is remembered; past that the longest quiet is dropped."
        },
    )
