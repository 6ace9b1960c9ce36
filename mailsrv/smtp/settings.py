"""What can be adjusted about SMTP, submission and LMTP sessions (RELIABILITY 7.1 gives the defaults)."""

from __future__ import annotations

import enum

from attrs import Attribute, frozen

from mailsrv.setting import setting
from mailsrv.wire.networks import are_networks


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


def _check_services(_record: object, _attribute: Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
    names = [service.value for service in Service]
    for name in value:
        if name not in names:
            raise ValueError(f"expected names among {', '.join(names)}")


@frozen(cache_hash=True)
class SmtpSettings:
    """Limits of one session, all of them per connection, and which extensions are offered."""

    command_line_octets: int = setting(2048, "Longest command line, with its line end.", at_least=512, unit="octets")
    auth_line_octets: int = setting(
        12288, "Longest AUTH command and longest answer to its challenges (RFC 4954).", at_least=512, unit="octets"
    )
    message_octets: int = setting(50 * 1024 * 1024, "Largest message that is accepted.", at_least=1, unit="octets")
    text_line_octets: int = setting(
        65536,
        "Longest line of a message; up to this, lines are kept as they came, never folded.",
        at_least=1,
        unit="octets",
    )
    recipients_mx: int = setting(100, "Recipients in one transaction from other servers, and over LMTP.", at_least=1)
    recipients_submission: int = setting(1000, "Recipients in one transaction of a logged-in user.", at_least=1)
    messages_per_session: int = setting(
        100, "Messages in one connection; clients in limits.exempt_networks and LMTP have no such limit.", at_least=1
    )
    errors_before_tarpit: int = setting(10, "Errors after which each further error is answered late.", at_least=0)
    tarpit_seconds: float = setting(
        1.0, "How late the first of them is answered; it doubles with each further one.", at_least=0, unit="seconds"
    )
    tarpit_limit_seconds: float = setting(15.0, "No answer is later than this.", at_least=0, unit="seconds")
    late_answers_before_drop: int = setting(
        5,
        "Errors of a client past the rates of [limits] that are answered late before the connection is "
        "closed with 421.",
        at_least=0,
    )
    errors_before_drop: int = setting(20, "Errors after which the connection is closed with 421.", at_least=1)
    junk_commands: int = setting(
        50, "Commands without effect (NOOP, RSET, VRFY, …) between two messages before 421.", at_least=0
    )
    auth_failures_before_drop: int = setting(
        3, "Failed log-ins in one connection before it is closed with 421.", at_least=1
    )
    greeting_delay_seconds: float = setting(
        4.0,
        "How long clients that have not delivered mail before wait for the greeting of an MX listener; "
        "who talks earlier is refused.",
        at_least=0,
        unit="seconds",
    )
    known_clients: int = setting(
        10_000,
        "Networks that delivered mail and are remembered as known, so that they are greeted at once.",
        at_least=1,
    )
    command_timeout_seconds: float = setting(
        300.0, "How long a client may be silent (RFC 5321 4.5.3.2.7).", at_least=1, unit="seconds"
    )
    handshake_timeout_seconds: float = setting(
        60.0, "How long a TLS handshake may take, from the first octet or after STARTTLS.", at_least=1, unit="seconds"
    )
    session_timeout_seconds: float = setting(
        1800.0, "How long a connection to an MX listener may last; 0 for ever.", at_least=0, unit="seconds"
    )
    data_rate_octets: int = setting(
        500, "Slowest rate at which a message may arrive, a second; 0 for any.", at_least=0, unit="octets"
    )
    data_rate_grace_seconds: float = setting(
        60.0, "How long a message may arrive more slowly than that.", at_least=1, unit="seconds"
    )
    input_buffer_octets: int = setting(
        65536, "Unread input at which reading from the client stops until it is used up.", at_least=1024, unit="octets"
    )
    extensions_off: tuple[str, ...] = setting(
        (),
        "EHLO keywords that are not announced and whose commands and parameters are then refused.",
        check=_check_extensions,
        example=("EXPN", "XCLIENT"),
    )
    small_chunks: int = setting(
        1000, "Chunks of less than 1024 octets (BDAT, RFC 3030) in one message before 421.", at_least=0
    )
    hold_seconds: int = setting(
        30 * 24 * 3600,
        "How far ahead users may date the release of a message (FUTURERELEASE, RFC 4865); 0: not at all.",
        at_least=0,
        at_most=999_999_999,
        unit="seconds",
    )
    deliver_by_seconds: int = setting(
        60,
        "Shortest time in which a message may be asked to be delivered or returned (DELIVERBY, RFC 2852).",
        at_least=0,
        at_most=999_999_999,
        unit="seconds",
    )
    priority_services: tuple[str, ...] = setting(
        ("submission",),
        "Listeners whose clients may give their mail a priority (MT-PRIORITY, RFC 6710).",
        check=_check_services,
    )
    priority_lowest: int = setting(-9, "Priorities below this become this.", at_least=-9, at_most=0)
    priority_highest: int = setting(4, "Priorities above this become this.", at_least=0, at_most=9)
    verify: Verification = setting(Verification.OFF, "Who gets an answer to VRFY; others get 252, which says nothing.")
    expand: Verification = setting(
        Verification.OFF, "Who gets an answer to EXPN, which tells what an alias stands for; others get 502."
    )
    xclient_networks: tuple[str, ...] = setting(
        (),
        "Proxies that may say by XCLIENT whose connection they pass on. They can take on any address.",
        check=are_networks,
        example=("192.0.2.25/32",),
    )
