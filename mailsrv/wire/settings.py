"""What can be adjusted about connections (the ``[limits]`` table of the configuration)."""

from __future__ import annotations

from typing import Any

from attrs import Attribute, frozen

from mailsrv.setting import setting
from mailsrv.wire.networks import are_networks
from mailsrv.wire.rates import parse_rate


def _is_rate(_record: object, _attribute: Attribute[Any], value: str) -> None:
    parse_rate(value)


@frozen
class LimitsSettings:
    """Bounds on connections and rates (RELIABILITY 7.1).

    What is counted by network or user holds for all workers together. A rate is
    ``300 per minute, burst 600``: so many, evenly, and the burst at once after a quiet time.
    """

    exempt_networks: tuple[str, ...] = setting(
        ("127.0.0.0/8", "::1/128"),
        "Networks whose clients are exempt from limits and delays that are counted by address.",
        check=are_networks,
        example=("127.0.0.0/8", "192.0.2.0/24"),
    )
    connections_total: int = setting(8000, "Connections of all protocols that one process holds at a time.", at_least=1)
    smtp_connections_per_network: int = setting(
        20,
        "SMTP and submission connections that are not logged in, from one IPv4 address or IPv6 /64 network.",
        at_least=1,
    )
    imap_connections_per_network: int = setting(
        30, "IMAP connections that are not logged in, from one IPv4 address or IPv6 /64 network.", at_least=1
    )
    pop3_connections_per_network: int = setting(
        30, "POP3 connections that are not logged in, from one IPv4 address or IPv6 /64 network.", at_least=1
    )
    connections_per_user_and_network: int = setting(
        10, "Connections of one protocol that one user has from one IPv4 address or IPv6 /64 network.", at_least=1
    )
    new_connections_per_minute: int = setting(
        60,
        "New connections from one IPv4 address or IPv6 /64 network in a minute; those that log in are not counted.",
        at_least=1,
    )
    networks_remembered: int = setting(
        10_000,
        "Networks and users whose rates are remembered; past that those are dropped that recovered first.",
        at_least=1,
    )
    network_transactions: str = setting(
        "300 per minute, burst 600",
        "MAIL commands from one network; more get 450. Empty here and below: no limit.",
        check=_is_rate,
    )
    network_recipients: str = setting(
        "1000 per minute, burst 2000", "RCPT commands from one network; more get 450.", check=_is_rate
    )
    network_wrong_recipients: str = setting(
        "10 per minute, burst 50",
        "Recipients named from one network that do not exist; more are answered late, then the "
        "connection is closed with 421.",
        check=_is_rate,
    )
    network_errors: str = setting(
        "20 per minute, burst 100",
        "Refused SMTP commands from one network; more are answered late, then the connection is closed with 421.",
        check=_is_rate,
    )
    user_connections: str = setting(
        "60 per minute, burst 200",
        "Log-ins of one user to any protocol; more are refused. A user is counted under the name, not the network.",
        check=_is_rate,
    )
    user_transactions: str = setting(
        "60 per minute, burst 300", "MAIL commands of one user; more get 450.", check=_is_rate
    )
    user_recipients: str = setting(
        "1000 per minute, burst 2000", "RCPT commands of one user; more get 450.", check=_is_rate
    )
    user_wrong_recipients: str = setting(
        "10 per minute, burst 100", "Refused recipients of one user; more are answered late, then 421.", check=_is_rate
    )
    user_errors: str = setting(
        "20 per minute, burst 100",
        "Refused SMTP commands of one user; more are answered late, then 421.",
        check=_is_rate,
    )
