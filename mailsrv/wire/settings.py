"""What can be adjusted about connections (the ``[limits]`` table of the configuration)."""

from __future__ import annotations

from typing import Any

from attrs import Attribute, field, frozen, validators

from mailsrv.wire.rates import parse_rate


def _is_rate(_record: object, _attribute: Attribute[Any], value: str) -> None:
    parse_rate(value)


@frozen
class LimitsSettings:
    """Bounds on connections and rates (RELIABILITY 7.1).

    What is counted by network or user holds for all workers together. A rate is
    ``300 per minute, burst 600``: so many, evenly, and the burst at once after a quiet time.
    """

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
            "help": "Networks and users whose rates are remembered; past that those are dropped that recovered first."
        },
    )
    network_transactions: str = field(
        default="300 per minute, burst 600",
        validator=_is_rate,
        metadata={"help": "MAIL commands from one network; more get 450. Empty here and below: no limit."},
    )
    network_recipients: str = field(
        default="1000 per minute, burst 2000",
        validator=_is_rate,
        metadata={"help": "RCPT commands from one network; more get 450."},
    )
    network_wrong_recipients: str = field(
        default="10 per minute, burst 50",
        validator=_is_rate,
        metadata={
            "help": "Recipients named from one network that do not exist; more are answered late, then the "
            "connection is closed with 421."
        },
    )
    network_errors: str = field(
        default="20 per minute, burst 100",
        validator=_is_rate,
        metadata={
            "help": "Refused SMTP commands from one network; more are answered late, then the connection is closed "
            "with 421."
        },
    )
    user_connections: str = field(
        default="60 per minute, burst 200",
        validator=_is_rate,
        metadata={
            "help": "Log-ins of one user to any protocol; more are refused. A user is counted under the name, not the "
            "network."
        },
    )
    user_transactions: str = field(
        default="60 per minute, burst 300",
        validator=_is_rate,
        metadata={"help": "MAIL commands of one user; more get 450."},
    )
    user_recipients: str = field(
        default="1000 per minute, burst 2000",
        validator=_is_rate,
        metadata={"help": "RCPT commands of one user; more get 450."},
    )
    user_wrong_recipients: str = field(
        default="10 per minute, burst 100",
        validator=_is_rate,
        metadata={"help": "Refused recipients of one user; more are answered late, then 421."},
    )
    user_errors: str = field(
        default="20 per minute, burst 100",
        validator=_is_rate,
        metadata={"help": "Refused SMTP commands of one user; more are answered late, then 421."},
    )
