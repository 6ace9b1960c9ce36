"""What the tests of this folder share: an engine, and what is said to it."""

from __future__ import annotations

from typing import Any

from mailsrv.address import Address
from mailsrv.smtp.client.commands import OutgoingMessage, OutgoingRecipient
from mailsrv.smtp.client.events import Wait
from mailsrv.smtp.client.session import SmtpClientSession
from mailsrv.smtp.client.settings import SmtpClientSettings

ANN = Address("ann", "example.test")


def make_session(keywords: str | None = None, *, is_lmtp: bool = False, **changes) -> Any:
    """An engine; with ``keywords`` it is greeted and idle."""
    session = SmtpClientSession(SmtpClientSettings(**changes), hostname="mail.example.test", is_lmtp=is_lmtp)
    if keywords is not None:
        lines = ["hop.example", *keywords.split(",")] if keywords else ["hop.example"]
        hear(session, "220 hop.example")
        text = "".join(f"250{' ' if n == len(lines) - 1 else '-'}{line}\r\n" for n, line in enumerate(lines))
        session.receive_octets(text.encode())
        events(session)
        session.octets_to_send()
    return session


def message(*names: str, **changes) -> OutgoingMessage:
    recipients = tuple(OutgoingRecipient(Address(name, "example.net")) for name in names or ("bob",))
    return OutgoingMessage(ANN, recipients, changes.pop("size", 10), **changes)


def events(session: SmtpClientSession) -> list[Any]:
    found: list[Any] = []
    while not isinstance(event := session.next_event(), Wait):
        found.append(event)
    return found


def hear(session: SmtpClientSession, *lines: str) -> list[Any]:
    """The server says these lines."""
    for line in lines:
        session.receive_octets(line.encode() + b"\r\n")
    return events(session)


def said(session: SmtpClientSession) -> list[str]:
    """What the client has said since."""
    return session.octets_to_send().decode().split("\r\n")[:-1]
