"""One SASL exchange as the text protocols carry it: base64 lines, ``=`` and ``*``.

The same for SMTP AUTH (RFC 4954), IMAP AUTHENTICATE with SASL-IR (RFC 4959) and POP3 AUTH (RFC 5034)::

    exchange = SaslExchange(mechanism_name)
    step = exchange.begin(initial_response)     # Challenge, PasswordGiven or ResponseGiven
    step = exchange.receive(line)               # as long as it is a Challenge

After a ResponseGiven it is for who decides about the log-in to make further challenges; ``receive`` decodes the
responses to them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Protocol

from cryptography.x509 import Certificate

from mailsrv.sasl.errors import SaslCancelled, SaslError
from mailsrv.sasl.mechanisms import Challenge, Conversing, Login, Mechanism, PasswordGiven, Plain, ResponseGiven

_MECHANISMS: dict[str, type[Plain] | type[Login] | type[Conversing]] = {
    "EXTERNAL": Conversing,
    "SCRAM-SHA-256-PLUS": Conversing,
    "GSSAPI": Conversing,
    "SCRAM-SHA-256": Conversing,
    "SCRAM-SHA-1": Conversing,
    "OAUTHBEARER": Conversing,
    "XOAUTH2": Conversing,
    "PLAIN": Plain,
    "LOGIN": Login,
}
ALL_MECHANISMS = tuple(_MECHANISMS)
"""In the order of preference."""
MECHANISM_NAMES = ("PLAIN", "LOGIN")
"""What can be announced wherever passwords can be checked."""

OfferedMechanisms = Callable[[bool], tuple[str, ...]]
"""What a session may announce now; the argument: whether it is under TLS."""


class ServerMechanisms(Protocol):
    """What all sessions may announce: to each what suits its connection."""

    def __call__(self, is_tls: bool, certificate: Certificate | None = None, /) -> tuple[str, ...]:
        """``certificate``: the client's, verified in the TLS handshake."""


def password_mechanisms(is_tls: bool, certificate: Certificate | None = None, /) -> tuple[str, ...]:
    """Those that hand a password over, and no others."""
    return MECHANISM_NAMES


RESPONSE_LIMIT_OCTETS = 12288
"""RFC 4954 4: a line of base64 may have this many octets with its CRLF."""


Step = Challenge | PasswordGiven | ResponseGiven


class SaslExchange:
    """From the client's choice of a mechanism to what it gives. Raises ``KeyError`` for a mechanism it has not."""

    def __init__(self, mechanism_name: str) -> None:
        self.mechanism_name = mechanism_name.upper()
        self._mechanism: Mechanism = _MECHANISMS[self.mechanism_name]()
        self.is_conversing = False
        """A response was handed out to who decides, and that one waits for those to come."""

    def begin(self, initial_response: bytes | None = None) -> Step:
        """Start. ``initial_response`` is in base64, ``=`` for an empty one (RFC 4954 4), None if there was none.

        Raises :class:`SaslError`.
        """
        if initial_response is None:
            return self._mechanism.begin()
        return self._respond(b"" if initial_response == b"=" else decode_base64(initial_response))

    def receive(self, line: bytes) -> Step:
        """A response line without its CRLF; raises :class:`SaslError` and :class:`SaslCancelled`."""
        return self._respond(decode_response(line))

    def _respond(self, response: bytes) -> Step:
        step = self._mechanism.respond(response)
        self.is_conversing = isinstance(step, ResponseGiven)
        return step


def decode_response(line: bytes) -> bytes:
    """A response to a challenge of who decides; raises :class:`SaslError` and :class:`SaslCancelled`."""
    if line == b"*":
        raise SaslCancelled
    return decode_base64(line)


def encode_challenge(challenge: Challenge) -> bytes:
    """A challenge as it stands on the wire."""
    return base64.b64encode(challenge.octets)


def decode_base64(text: bytes) -> bytes:
    """Strict base64 (RFC 4648 3, R-AUTH-3): its alphabet only, no white space, canonical padding and last bits."""
    if len(text) > RESPONSE_LIMIT_OCTETS:
        raise SaslError
    try:
        octets = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SaslError from None
    if base64.b64encode(octets) != text:
        raise SaslError
    return octets
