"""What can be adjusted about SMTP, submission and LMTP sessions (RELIABILITY 7.1 gives the defaults)."""

from __future__ import annotations

import enum
import ipaddress

from attrs import Attribute, field, frozen, validators


class Service(enum.Enum):
    """What a listener is for; one engine serves all three."""

    MX = "mx"
    """Mail from other ADMDs, for our domains (RFC 5321)."""
    SUBMISSION = "submission"
    """Mail from our users, after AUTH (RFC 6409)."""
    LMTP = "lmtp"
    """Mail from an MTA of ours: one reply a recipient at the end (RFC 2033)."""


class Verification(enum.Enum):
    """Who may ask by VRFY or EXPN what an address stands for (RFC 5321 3.5)."""

    OFF = "off"
    AUTHENTICATED = "authenticated"
    """Users, after AUTH; and whoever may speak LMTP."""
    ON = "on"


EXTENSIONS = (
    "PIPELINING",
    "SIZE",
    "8BITMIME",
    "SMTPUTF8",
    "ENHANCEDSTATUSCODES",
    "CHUNKING",
    "BINARYMIME",
    "DSN",
    "DELIVERBY",
    "FUTURERELEASE",
    "MT-PRIORITY",
    "LIMITS",
    "REQUIRETLS",
    "XCLIENT",
    "VRFY",
    "EXPN",
    "HELP",
    "STARTTLS",
    "AUTH",
)
"""EHLO keywords, in the order in which they are announced."""


def _check_extensions(_record: object, _attribute: Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
    for name in value:
        if name not in EXTENSIONS:
            raise ValueError(f"expected names among {', '.join(EXTENSIONS)}")


def _check_networks(_record: object, _attribute: Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
    for text in value:
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            raise ValueError(f"expected networks such as 192.0.2.0/24 ({error})") from error


def _check_services(_record: object, _attribute: Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
    names = [service.value for service in Service]
    for name in value:
        if name not in names:
            raise ValueError(f"expected names among {', '.join(names)}")


@frozen(cache_hash=True)
class SmtpSettings:
    """Limits of one session, all of them per connection, and which extensions are offered."""

    command_line_octets: int = field(
        default=2048,
        validator=validators.ge(512),
        metadata={"help": "Longest command line, with its line end.", "unit": "octets"},
    )
    auth_line_octets: int = field(
        default=12288,
        validator=validators.ge(512),
        metadata={"help": "Longest AUTH command and longest answer to its challenges (RFC 4954).", "unit": "octets"},
    )
    message_octets: int = field(
        default=50 * 1024 * 1024,
        validator=validators.ge(1),
        metadata={"help": "Largest message that is accepted.", "unit": "octets"},
    )
    text_line_octets: int = field(
        default=65536,
        validator=validators.ge(1),
        metadata={
            "help": "Longest line of a message; up to this, lines are kept as they came, never folded.",
            "unit": "octets",
        },
    )
    recipients_mx: int = field(
        default=100,
        validator=validators.ge(1),
        metadata={"help": "Recipients in one transaction from other servers, and over LMTP."},
    )
    recipients_submission: int = field(
        default=1000,
        validator=validators.ge(1),
        metadata={"help": "Recipients in one transaction of a logged-in user."},
    )
    messages_per_session: int = field(
        default=100,
        validator=validators.ge(1),
        metadata={"help": "Messages in one connection; clients in limits.exempt_networks and LMTP have no such limit."},
    )
    errors_before_tarpit: int = field(
        default=10,
        validator=validators.ge(0),
        metadata={"help": "Errors after which each further error is answered late."},
    )
    tarpit_seconds: float = field(
        default=1.0,
        validator=validators.ge(0),
        metadata={
            "help": "How late the first of them is answered; it doubles with each further one.",
            "unit": "seconds",
        },
    )
    tarpit_limit_seconds: float = field(
        default=15.0,
        validator=validators.ge(0),
        metadata={"help": "No answer is later than this.", "unit": "seconds"},
    )
    late_answers_before_drop: int = field(
        default=5,
        validator=validators.ge(0),
        metadata={
            "help": "Errors of a client past the rates of [limits] that are answered late before the connection is "
            "closed with 421."
        },
    )
    errors_before_drop: int = field(
        default=20,
        validator=validators.ge(1),
        metadata={"help": "Errors after which the connection is closed with 421."},
    )
    junk_commands: int = field(
        default=50,
        validator=validators.ge(0),
        metadata={"help": "Commands without effect (NOOP, RSET, VRFY, …) between two messages before 421."},
    )
    auth_failures_before_drop: int = field(
        default=3,
        validator=validators.ge(1),
        metadata={"help": "Failed log-ins in one connection before it is closed with 421."},
    )
    greeting_delay_seconds: float = field(
        default=4.0,
        validator=validators.ge(0),
        metadata={
            "help": "How long clients that have not delivered mail before wait for the greeting of an MX listener; "
            "who talks earlier is refused.",
            "unit": "seconds",
        },
    )
    known_clients: int = field(
        default=10_000,
        validator=validators.ge(1),
        metadata={
            "help": "Networks that delivered mail and are remembered as known, so that they are greeted at once."
        },
    )
    command_timeout_seconds: float = field(
        default=300.0,
        validator=validators.ge(1),
        metadata={"help": "How long a client may be silent (RFC 5321 4.5.3.2.7).", "unit": "seconds"},
    )
    handshake_timeout_seconds: float = field(
        default=60.0,
        validator=validators.ge(1),
        metadata={
            "help": "How long a TLS handshake may take, from the first octet or after STARTTLS.",
            "unit": "seconds",
        },
    )
    session_timeout_seconds: float = field(
        default=1800.0,
        validator=validators.ge(0),
        metadata={"help": "How long a connection to an MX listener may last; 0 for ever.", "unit": "seconds"},
    )
    data_rate_octets: int = field(
        default=500,
        validator=validators.ge(0),
        metadata={"help": "Slowest rate at which a message may arrive, a second; 0 for any.", "unit": "octets"},
    )
    data_rate_grace_seconds: float = field(
        default=60.0,
        validator=validators.ge(1),
        metadata={"help": "How long a message may arrive more slowly than that.", "unit": "seconds"},
    )
    input_buffer_octets: int = field(
        default=65536,
        validator=validators.ge(1024),
        metadata={"help": "Unread input at which reading from the client stops until it is used up.", "unit": "octets"},
    )
    extensions_off: tuple[str, ...] = field(
        default=(),
        validator=_check_extensions,
        metadata={
            "help": "EHLO keywords that are not announced and whose commands and parameters are then refused.",
            "example": ("EXPN", "XCLIENT"),
        },
    )
    small_chunks: int = field(
        default=1000,
        validator=validators.ge(0),
        metadata={"help": "Chunks of less than 1024 octets (BDAT, RFC 3030) in one message before 421."},
    )
    hold_seconds: int = field(
        default=30 * 24 * 3600,
        validator=[validators.ge(0), validators.le(999_999_999)],
        metadata={
            "help": "How far ahead users may date the release of a message (FUTURERELEASE, RFC 4865); 0: not at all.",
            "unit": "seconds",
        },
    )
    deliver_by_seconds: int = field(
        default=60,
        validator=[validators.ge(0), validators.le(999_999_999)],
        metadata={
            "help": "Shortest time in which a message may be asked to be delivered or returned (DELIVERBY, RFC 2852).",
            "unit": "seconds",
        },
    )
    priority_services: tuple[str, ...] = field(
        default=("submission",),
        validator=_check_services,
        metadata={"help": "Listeners whose clients may give their mail a priority (MT-PRIORITY, RFC 6710)."},
    )
    priority_lowest: int = field(
        default=-9,
        validator=[validators.ge(-9), validators.le(0)],
        metadata={"help": "Priorities below this become this."},
    )
    priority_highest: int = field(
        default=4,
        validator=[validators.ge(0), validators.le(9)],
        metadata={"help": "Priorities above this become this."},
    )
    verify: Verification = field(
        default=Verification.OFF,
        metadata={"help": "Who gets an answer to VRFY; others get 252, which says nothing."},
    )
    expand: Verification = field(
        default=Verification.OFF,
        metadata={"help": "Who gets an answer to EXPN, which tells what an alias stands for; others get 502."},
    )
    xclient_networks: tuple[str, ...] = field(
        default=(),
        validator=_check_networks,
        metadata={
            "help": "Proxies that may say by XCLIENT whose connection they pass on. They can take on any address.",
            "example": ("192.0.2.25/32",),
        },
    )
