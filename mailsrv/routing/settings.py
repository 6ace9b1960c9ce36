"""Where mail goes: one rule of the file's ``[[route]]`` tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import Attribute, field, frozen

from mailsrv.interfaces.tls_policy import TlsLevel
from mailsrv.routing.pattern import parse_pattern
from mailsrv.routing.via import parse_via
from mailsrv.setting import required, setting


def _parses(parse: Callable[[str], object]) -> Callable[[object, Attribute[Any], str], None]:
    def check(record: object, attribute: Attribute[Any], value: str) -> None:
        parse(value)

    return check


@frozen
class RouteSettings:
    """One transport rule; the first that matches wins. Malformed values raise ValueError."""

    via: str = required(
        "local, mx, smtp:HOST:PORT, lmtp:ENDPOINT (a Twisted client endpoint), discard, or reject "
        "(reject:TEXT says why).",
        check=_parses(parse_via),
        example="smtp:mail.example.net:587",
    )
    to: str = setting(
        "*",
        "Recipients it is for: an address, a domain, *.domain for those below it, or * for all "
        "elsewhere (a domain of [[domain]] has to be named).",
        check=_parses(parse_pattern),
    )
    sender: str = field(
        default="*",
        validator=_parses(parse_pattern),
        metadata={"key": "from", "help": "Envelope senders it is for, written likewise; <> is the null sender."},
    )
    username: str = setting("", "smtp: the name to log in with.", example="relay@example.test")
    password_file: str = setting("", "smtp: the file whose first line is the password.", example="smarthost.secret")
    tls: TlsLevel | None = setting(
        None,
        "smtp: what the connection must fulfil; unset: opportunistic, and verify with a username.",
        example="verify",
    )
