"""What can be adjusted about handing mail on to other hosts."""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable

from attrs import field, frozen, validators

from mailsrv.address import AddressError, parse_domain
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

    connect_timeout: float = field(
        default=30.0,
        validator=validators.gt(0.0),
        metadata={"help": "How long a connection to one address may take to open.", "unit": "seconds"},
    )
    port: int = field(
        default=25,
        validator=[validators.ge(1), validators.le(65535)],
        metadata={"help": "The port at which MX hosts are spoken to."},
    )
    helo_name: str = field(
        default="", validator=_check_helo, metadata={"help": "What EHLO says; empty: the server's host name."}
    )
    bind_ipv4: str = field(
        default="", validator=_is_address(4), metadata={"help": "The local address of connections over IPv4."}
    )
    bind_ipv6: str = field(
        default="", validator=_is_address(6), metadata={"help": "The local address of connections over IPv6."}
    )
    address_families: AddressFamilies = field(
        default=AddressFamilies.BOTH, metadata={"help": "Which addresses of other hosts are tried."}
    )
    own_names: tuple[str, ...] = field(
        default=(),
        metadata={"help": "Names beside the host name under which this server stands in MX records."},
    )
    own_addresses: tuple[str, ...] = field(
        default=(),
        validator=validators.deep_iterable(_is_address()),
        metadata={"help": "Addresses under which this server is reached, for instance before address translation."},
    )
    refuses_private_addresses: bool = field(
        default=False,
        metadata={"help": "Whether loopback and private addresses are refused as MX hosts and in address literals."},
    )
    mx_addresses: int = field(
        default=5, validator=validators.ge(1), metadata={"help": "Addresses tried for one recipient and attempt."}
    )
    sessions_tried: int = field(
        default=2,
        validator=validators.ge(1),
        metadata={"help": "Hosts that are spoken to for one recipient and attempt, where the first fails."},
    )
    idle_seconds: float = field(
        default=5.0,
        validator=validators.ge(0.0),
        metadata={"help": "How long a connection is kept open for the next message.", "unit": "seconds"},
    )
    idle_connections: int = field(
        default=200, validator=validators.ge(0), metadata={"help": "Connections kept open without work, in all."}
    )
    messages_a_connection: int = field(
        default=100, validator=validators.ge(1), metadata={"help": "Messages sent over one connection."}
    )
    connection_seconds: float = field(
        default=300.0,
        validator=validators.gt(0.0),
        metadata={"help": "How old a connection may be and still get another message.", "unit": "seconds"},
    )
    conversion_octets: int = field(
        default=67_108_864,
        validator=validators.ge(1024),
        metadata={
            "help": "Largest message that is converted for a host without 8BITMIME or BINARYMIME.",
            "unit": "octets",
        },
    )
    broken_tls_seconds: float = field(
        default=600.0,
        validator=validators.ge(0.0),
        metadata={
            "help": "How long a host whose TLS failed, and need not be, is spoken to without trying it again; 0: it is "
            "tried with each connection.",
            "unit": "seconds",
        },
    )
    broken_tls_hosts: int = field(
        default=10_000,
        validator=validators.ge(1),
        metadata={"help": "Addresses of such hosts that are remembered; past that the oldest are forgotten."},
    )
    long_lines: LongLines = field(
        default=LongLines.ENCODE,
        metadata={
            "help": "What becomes of messages with lines over 998 octets for hosts without BINARYMIME: encode the "
            "parts concerned (DKIM signatures of others do not survive that; mail of users is signed again; what may "
            "not be encoded is returned), or keep them."
        },
    )
    stop_seconds: float = field(
        default=20.0,
        validator=validators.ge(0.0),
        metadata={"help": "How long attempts that are under way may last when the server stops.", "unit": "seconds"},
    )
