"""Where mail goes: one rule of the file's ``[[route]]`` tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import Attribute, field, frozen

from mailsrv.interfaces.tls_policy import TlsLevel
from mailsrv.routing.pattern import parse_pattern
from mailsrv.routing.via import parse_via


def _parses(parse: Callable[[str], object]) -> Callable[[object, Attribute[Any], str], None]:
    def check(record: object, attribute: Attribute[Any], value: str) -> None:
        parse(value)

    return check


@frozen
class RouteSettings:
    """One transport rule; the first that matches wins. Malformed values raise ValueError."""

    via: str = field(
        validator=_parses(parse_via),
        metadata={
            "help": "local, mx, smtp:HOST:PORT, lmtp:ENDPOINT (a Twisted client endpoint), discard, or reject "
            "(reject:TEXT says why).",
            "example": "smtp:mail.example.net:587",
        },
    )
    to: str = field(
        default="*",
        validator=_parses(parse_pattern),
        metadata={
            "help": "Recipients it is for: an address, a domain, *.domain for those below it, or * for all "
            "elsewhere (a domain of [[domain]] has to be named)."
        },
    )
    sender: str = field(
        default="*",
        validator=_parses(parse_pattern),
        metadata={"key": "from", "help": "Envelope senders it is for, written likewise; <> is the null sender."},
    )
    username: str = field(
        default="", metadata={"help": "smtp: the name to log in with.", "example": "relay@example.test"}
    )
    password_file: str = field(
        default="",
        metadata={"help": "smtp: the file whose first line is the password.", "example": "smarthost.secret"},
    )
    tls: TlsLevel | None = field(
        default=None,
        metadata={
            "help": "smtp: what the connection must fulfil; unset: opportunistic, and verify with a username.",
            "example": "verify",
        },
    )
