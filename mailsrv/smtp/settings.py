"""What can be adjusted about SMTP, submission and LMTP sessions (RELIABILITY 7.1 gives the defaults)."""

from __future__ import annotations

import enum

from attrs import field, frozen, validators


class Service(enum.Enum):
    """What a listener is for; one engine serves all three."""

    MX = "mx"
    """Mail from other ADMDs, for our domains (RFC 5321)."""
    SUBMISSION = "submission"
    """Mail from our users, after AUTH (RFC 6409)."""
    LMTP = "lmtp"
    """Mail from an MTA of ours: one reply a recipient at the end (RFC 2033)."""


@frozen
class SmtpSettings:
    """Limits of one session, all of them per connection."""

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
        metadata={"help": "How late errors are answered then.", "unit": "seconds"},
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
