"""What a rule does with mail: the value of ``via``.

::

    local                    into a mailbox here, whatever a later rule says
    mx                       to the mail exchangers of the recipient's domain
    smtp:HOST:PORT           to a smarthost; the port is 25 where none is said
    lmtp:ENDPOINT            to an LMTP server at a Twisted client endpoint, lmtp:unix:/run/cyrus/lmtp
    discard                  accepted and dropped, with a line in the log
    reject, reject:TEXT      refused at RCPT with 550
"""

from __future__ import annotations

import enum
import re

from attrs import frozen

from mailsrv.address import AddressError, parse_domain
from mailsrv.interfaces.queue import Destination, Transport

REFUSAL = "Mail for this recipient is not accepted"
_TEXT = re.compile(r"[ -~]{1,200}")
_IPV4 = re.compile(r"\d+(?:\.\d+){3}")
_ENDPOINT = re.compile(r"[a-z][a-z0-9]*:[!-~](?:[ -~]*[!-~])?")
_MOST_ENDPOINT = 400


class Action(enum.Enum):
    """What becomes of mail that a rule matches."""

    LOCAL = "local"
    MX = "mx"
    SMTP = "smtp"
    LMTP = "lmtp"
    DISCARD = "discard"
    REJECT = "reject"


@frozen
class Via:
    """A parsed ``via``. ``argument``: host and port, the endpoint, or the text of a refusal."""

    action: Action
    argument: str = ""


def parse_via(text: str) -> Via:
    """Raises ValueError with a sentence for the administrator."""
    name, colon, argument = text.partition(":")
    try:
        action = Action(name)
    except ValueError:
        raise ValueError("expected local, mx, smtp:HOST:PORT, lmtp:ENDPOINT, discard or reject:TEXT") from None
    if action is Action.SMTP:
        return Via(action, _parse_host_and_port(argument))
    if action is Action.LMTP:
        return Via(action, _parse_endpoint(argument))
    if action is Action.REJECT:
        if colon and not _TEXT.fullmatch(argument):
            raise ValueError("expected one line of ASCII, at most 200 characters, after reject:")
        return Via(action, argument or REFUSAL)
    if colon:
        raise ValueError(f'expected nothing after "{name}"')
    return Via(action)


def parse_destination(text: str) -> Destination:
    """One place of mail, named by the administrator: as ``str(Destination)``, in canonical form. Raises ValueError."""
    name, _, argument = text.partition(":")
    if name == Transport.MX.value and argument:
        try:
            return Destination(Transport.MX, parse_domain(argument))
        except AddressError as error:
            raise ValueError(f"expected mx:DOMAIN: {error.text}") from error
    if name in {Transport.SMTP.value, Transport.LMTP.value, Transport.LOCAL.value}:
        via = parse_via(text)
        return Destination(Transport(via.action.value), via.argument)
    raise ValueError("expected mx:DOMAIN, smtp:HOST:PORT, lmtp:ENDPOINT or local")


def _parse_host_and_port(text: str) -> str:
    """``host:port`` in canonical form: ``[2001:db8::1]:587``, ``192.0.2.1:25``, ``mail.example.net:25``."""
    match = re.fullmatch(r"(\[[^\]]+\]|[^:]+)(?::([0-9]{1,5}))?", text)
    if match is None or not 1 <= (port := int(match[2] or 25)) <= 65535:
        raise ValueError("expected smtp:HOST:PORT, an IPv6 address in brackets")
    host = match[1]
    try:
        if host.startswith("["):
            inner = host[1:-1]
            literal = parse_domain(f"[IPv6:{inner}]" if ":" in inner and inner[:5].lower() != "ipv6:" else host)
            host = literal.removeprefix("[ipv6:").strip("[]")
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if _IPV4.fullmatch(host):
            return f"{parse_domain(f'[{host}]').strip('[]')}:{port}"
        return f"{parse_domain(host)}:{port}"
    except AddressError as error:
        raise ValueError(f"expected a host name or an address in smtp:HOST:PORT: {error.text}") from error


def split_host_and_port(target: str) -> tuple[str, int]:
    """The parts of a canonical ``host:port``; the brackets of an IPv6 address are taken off."""
    host, _, port = target.rpartition(":")
    return host.strip("[]"), int(port)


def _parse_endpoint(text: str) -> str:
    if not _ENDPOINT.fullmatch(text) or len(text) > _MOST_ENDPOINT:
        raise ValueError("expected a client endpoint such as lmtp:unix:/run/lmtp.sock or lmtp:tcp:localhost:24")
    kind, _, rest = text.partition(":")
    if kind == "unix" and not rest.removeprefix("path=").startswith("/"):
        raise ValueError("expected an absolute path in lmtp:unix:")
    return text
