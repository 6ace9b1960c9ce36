"""What can be adjusted about handing mail on to other hosts."""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable

from attrs import frozen, validators

from mailsrv.address import AddressError, parse_domain
from mailsrv.setting import setting
from mailsrv.smtp.client.settings import SmtpClientSettings


class AddressFamilies(enum.Enum):
    """Which addresses of a host are tried."""

    BOTH = "both"
    """IPv6 and IPv4 in turn."""
    IPV4 = "ipv4"
    IPV6 = "ipv6"


class LongLines(enum.Enum):
    """What becomes of messages with lines of more than 998 octets (RFC 5321 4.5.3.1.6)."""

    ENCODE = "encode"
    """The parts concerned are encoded. What cannot be (signed or encrypted parts) is returned to its sender."""
    KEEP = "keep"
    """They go out as they came: some servers break such lines, others refuse them."""


def _is_address(version: int = 0) -> Callable[[object, object, str], None]:
    """A check for an IP address, of this version if one is given; empty is good."""

    def check(_: object, __: object, text: str) -> None:
        try:
            if text and ipaddress.ip_address(text).version not in (version or 4, version or 6):
                raise ValueError
        except ValueError:
            raise ValueError(f"expected an IPv{version} address" if version else "expected IP addresses") from None

    return check


def _check_helo(_: object, __: object, text: str) -> None:
    try:
        if text:
            parse_domain(text)
    except AddressError as error:
        raise ValueError("expected a host name, or an address in brackets") from error


@frozen
class RelaySettings(SmtpClientSettings):
    """Connections to the next hop, with what the client on them waits for."""

    connect_timeout: float = setting(
        30.0, "How long a connection to one address may take to open.", above=0.0, unit="seconds"
    )
    port: int = setting(25, "The port at which MX hosts are spoken to.", at_least=1, at_most=65535)
    helo_name: str = setting("", "What EHLO says; empty: the server's host name.", check=_check_helo)
    bind_ipv4: str = setting("", "The local address of connections over IPv4.", check=_is_address(4))
    bind_ipv6: str = setting("", "The local address of connections over IPv6.", check=_is_address(6))
    address_families: AddressFamilies = setting(AddressFamilies.BOTH, "Which addresses of other hosts are tried.")
    own_names: tuple[str, ...] = setting((), "Names beside the host name under which this server stands in MX records.")
    own_addresses: tuple[str, ...] = setting(
        (),
        "Addresses under which this server is reached, for instance before address translation.",
        check=validators.deep_iterable(_is_address()),
    )
    refuses_private_addresses: bool = setting(
        False, "Whether loopback and private addresses are refused as MX hosts and in address literals."
    )
    mx_addresses: int = setting(5, "Addresses tried for one recipient and attempt.", at_least=1)
    sessions_tried: int = setting(
        2, "Hosts that are spoken to for one recipient and attempt, where the first fails.", at_least=1
    )
    idle_seconds: float = setting(
        5.0, "How long a connection is kept open for the next message.", at_least=0.0, unit="seconds"
    )
    idle_connections: int = setting(200, "Connections kept open without work, in all.", at_least=0)
    messages_a_connection: int = setting(100, "Messages sent over one connection.", at_least=1)
    connection_seconds: float = setting(
        300.0, "How old a connection may be and still get another message.", above=0.0, unit="seconds"
    )
    conversion_octets: int = setting(
        67_108_864,
        "Largest message that is converted for a host without 8BITMIME or BINARYMIME.",
        at_least=1024,
        unit="octets",
    )
    broken_tls_seconds: float = setting(
        600.0,
        "How long a host whose TLS failed, and need not be, is spoken to without trying it again; 0: it is "
        "tried with each connection.",
        at_least=0.0,
        unit="seconds",
    )
    broken_tls_hosts: int = setting(
        10_000, "Addresses of such hosts that are remembered; past that the oldest are forgotten.", at_least=1
    )
    long_lines: LongLines = setting(
        LongLines.ENCODE,
        "What becomes of messages with lines over 998 octets for hosts without BINARYMIME: encode the "
        "parts concerned (DKIM signatures of others do not survive that; mail of users is signed again; what may "
        "not be encoded is returned), or keep them.",
    )
    stop_seconds: float = setting(
        20.0, "How long attempts that are under way may last when the server stops.", at_least=0.0, unit="seconds"
    )
