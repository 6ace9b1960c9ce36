"""XCLIENT: a trusted proxy says whose connection it passes on (the protocol of Postfix's XCLIENT_README).

Attributes are xtext, read strictly (R-PROXY-1). An address is never "unavailable" here: a session
without one would pass for one of a Unix socket. LOGIN is read and forgotten: nobody is logged in by
the word of somebody else.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping

from attrs import define

from mailsrv.smtp.grammar import HELO_NAME
from mailsrv.smtp.xtext import decode_xtext

ANNOUNCED = "NAME ADDR PORT PROTO HELO DESTADDR DESTPORT"

_UNAVAILABLE = frozenset({"[UNAVAILABLE]", "[TEMPUNAVAIL]"})
_VALUE_LIMIT = 255


@define
class Xclient:
    """What was said; None where nothing was said about it. Not changed after it was read."""

    address: str | None = None
    """Textual IP address."""
    port: int | None = None
    name: str | None = None
    """From the proxy's DNS, for the log; "" if it has none."""
    helo: str | None = None
    is_extended: bool | None = None
    destination_address: str | None = None
    destination_port: int | None = None


def parse_xclient(text: str) -> Xclient:
    """The arguments of the command; raises ValueError."""
    found = Xclient()
    seen: set[str] = set()
    for word in text.split(" "):
        name, equals, value = word.partition("=")
        name = name.upper()
        take = _ATTRIBUTES.get(name)
        if take is None or not equals or name in seen or len(value) > _VALUE_LIMIT:
            raise ValueError("bad attribute")
        seen.add(name)
        take(found, decode_xtext(value))
    return found


def _take_address(found: Xclient, value: str) -> None:
    found.address = _parse_address(value)


def _take_port(found: Xclient, value: str) -> None:
    found.port = _parse_port(value)


def _take_name(found: Xclient, value: str) -> None:
    found.name = _parse_name(value)


def _take_helo(found: Xclient, value: str) -> None:
    found.helo = _parse_name(value)


def _take_protocol(found: Xclient, value: str) -> None:
    if value.upper() not in {"SMTP", "ESMTP"}:
        raise ValueError("bad protocol")
    found.is_extended = value.upper() == "ESMTP"


def _take_login(_found: Xclient, _value: str) -> None:
    """R-PROXY-1: no authentication state is imported."""


def _take_destination_address(found: Xclient, value: str) -> None:
    found.destination_address = _parse_address(value)


def _take_destination_port(found: Xclient, value: str) -> None:
    found.destination_port = _parse_port(value)


def _parse_address(value: str) -> str:
    is_v6 = value[:5].upper() == "IPV6:"
    parsed = ipaddress.ip_address(value[5:] if is_v6 else value)
    if isinstance(parsed, ipaddress.IPv6Address):
        if not is_v6 or parsed.scope_id is not None:
            raise ValueError("bad address")
        return str(parsed.ipv4_mapped or parsed)
    if is_v6:
        raise ValueError("bad address")
    return str(parsed)


def _parse_port(value: str) -> int:
    if value.upper() in _UNAVAILABLE:
        return 0
    if not (value.isdecimal() and len(value) <= 5 and 0 < int(value) < 65536):
        raise ValueError("bad port")
    return int(value)


def _parse_name(value: str) -> str:
    if value.upper() in _UNAVAILABLE:
        return ""
    if not HELO_NAME.fullmatch(value):
        raise ValueError("bad name")
    return value


_ATTRIBUTES: Mapping[str, Callable[[Xclient, str], None]] = {
    "NAME": _take_name,
    "ADDR": _take_address,
    "PORT": _take_port,
    "PROTO": _take_protocol,
    "HELO": _take_helo,
    "LOGIN": _take_login,
    "DESTADDR": _take_destination_address,
    "DESTPORT": _take_destination_port,
}
