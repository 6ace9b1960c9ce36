"""The mechanisms that hand a password over: PLAIN (RFC 4616), and LOGIN (no standard, but many clients' first choice).

A mechanism takes decoded responses and answers with a challenge or with what was given. It knows
no base64 and no protocol. Octets that no name has (NUL, controls, broken UTF-8) end the exchange
(R-CTL-1); so does an empty password, which some directories would take for an anonymous bind (R-AUTH-1).
"""

from __future__ import annotations

import re
from typing import Protocol

from attrs import field, frozen

from mailsrv.sasl.errors import SaslError

FIELD_LIMIT_OCTETS = 1024
"""Longest name or password; RFC 4616 asks for at least 255."""

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")


@frozen
class Challenge:
    """The server's next word, not yet in base64."""

    octets: bytes


@frozen
class PasswordGiven:
    """The exchange is over on the client's side: a name and a password to be checked (RFC 4422 2: identities)."""

    authcid: str
    password: str = field(repr=False)
    authzid: str = ""


@frozen
class ResponseGiven:
    """A response to be judged by who decides about the log-in: there may be another challenge."""

    octets: bytes = field(repr=False)


class Mechanism(Protocol):
    """One exchange of one mechanism."""

    def begin(self) -> Challenge:
        """The first challenge, where the client gave no initial response."""

    def respond(self, response: bytes) -> Challenge | PasswordGiven | ResponseGiven:
        """The client's next response; raises :class:`SaslError`."""


class Plain:
    """``message = [authzid] UTF8NUL authcid UTF8NUL passwd`` (RFC 4616 2)."""

    def begin(self) -> Challenge:
        return Challenge(b"")

    def respond(self, response: bytes) -> PasswordGiven:
        fields = response.split(b"\0")
        if len(fields) != 3:
            raise SaslError
        authzid, authcid, password = fields
        return PasswordGiven(
            _decode_name(authcid), _decode_password(password), _decode_name(authzid) if authzid else ""
        )


class Login:
    """Asks for the name, then for the password. The prompts are the ones clients look for."""

    def __init__(self) -> None:
        self._authcid = ""

    def begin(self) -> Challenge:
        return Challenge(b"Username:")

    def respond(self, response: bytes) -> Challenge | PasswordGiven:
        if not self._authcid:
            self._authcid = _decode_name(response)
            return Challenge(b"Password:")
        return PasswordGiven(self._authcid, _decode_password(response))


class Conversing:
    """Any mechanism that the client begins and whose messages are none of the protocol's business."""

    def begin(self) -> Challenge:
        return Challenge(b"")

    def respond(self, response: bytes) -> ResponseGiven:
        return ResponseGiven(response)


def _decode_name(octets: bytes) -> str:
    name = _decode(octets)
    if _CONTROLS.search(name):
        raise SaslError
    return name


def _decode_password(octets: bytes) -> str:
    password = _decode(octets)
    if "\0" in password:
        raise SaslError
    return password


def _decode(octets: bytes) -> str:
    if not 0 < len(octets) <= FIELD_LIMIT_OCTETS:
        raise SaslError
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        # Without the cause: its text would hold the password.
        raise SaslError from None
