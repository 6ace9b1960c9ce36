"""SASL exchanges as POP3 carries them (RFC 5034): base64 lines, ``+`` challenges, ``*`` to cancel.

PLAIN (RFC 4616) and LOGIN (never standardised, but some clients know nothing else). Decoding is
strict: padding, alphabet and UTF-8 (R-AUTH-3).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Protocol

from attrs import field, frozen

from mailsrv.errors import MailError
from mailsrv.status import BAD_SYNTAX


class ExchangeFailed(MailError):
    """The exchange is over without credentials; that is no failed log-in."""

    def __init__(self, text: str) -> None:
        super().__init__(BAD_SYNTAX, text)


@frozen
class Credentials:
    """What an exchange collected."""

    authcid: str
    password: str = field(repr=False)
    authzid: str = ""


class Exchange(Protocol):
    """One exchange; each client line gives the next challenge or the credentials."""

    def first_challenge(self) -> bytes:
        """What to say where the client gave no initial response."""

    def respond(self, line: bytes) -> bytes | Credentials:
        """The answer to a client's line; raises :class:`ExchangeFailed`."""


def decode_response(line: bytes) -> str:
    """A client's line."""
    if line == b"*":
        raise ExchangeFailed("Authentication cancelled")
    try:
        text = base64.b64decode(line, validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise ExchangeFailed("Not base64 of UTF-8") from error
    return text


def format_challenge(octets: bytes = b"") -> bytes:
    """``+ base64``; the space stands also before an empty challenge (RFC 5034 4)."""
    return b"+ " + base64.b64encode(octets) + b"\r\n"


class PlainExchange:
    """``[authzid] NUL authcid NUL passwd`` (RFC 4616 2)."""

    def first_challenge(self) -> bytes:
        return format_challenge()

    def respond(self, line: bytes) -> bytes | Credentials:
        parts = decode_response(line).split("\0")
        if len(parts) != 3 or not parts[1] or not parts[2]:
            raise ExchangeFailed("Not a PLAIN message")
        return Credentials(authcid=parts[1], password=parts[2], authzid=parts[0])


class LoginExchange:
    """Name, then password."""

    def __init__(self) -> None:
        self._name = ""

    def first_challenge(self) -> bytes:
        return format_challenge(b"Username:")

    def respond(self, line: bytes) -> bytes | Credentials:
        text = decode_response(line)
        if not text or "\0" in text:
            raise ExchangeFailed("Not a LOGIN message")
        if not self._name:
            self._name = text
            return format_challenge(b"Password:")
        return Credentials(authcid=self._name, password=text)


MECHANISMS: dict[str, Callable[[], Exchange]] = {"PLAIN": PlainExchange, "LOGIN": LoginExchange}
