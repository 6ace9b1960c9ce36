"""GSSAPI (RFC 4752): what is said after the security context is there. We have no security layer but TLS.

::

    client → token, server → token, …         the context (RFC 4121), by a library
    server → wrap(OFFER)                       which layers there are: none
    client → wrap(parse_choice)                which it takes, and by whom it wants to be
"""

from __future__ import annotations

import re

from mailsrv.sasl.errors import SaslError
from mailsrv.sasl.mechanisms import FIELD_LIMIT_OCTETS

GSSAPI = "GSSAPI"
TOKENS_LIMIT = 10
"""Kerberos needs two of the client's."""

_NO_LAYER = 1
OFFER = bytes((_NO_LAYER, 0, 0, 0))
"""RFC 4752 3.2, 3.3: a bit for each security layer, and the most octets we take in one, which is 0 without any."""

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")


def parse_choice(message: bytes) -> str:
    """The authorization identity ("" for none) of the client's unwrapped choice. Raises SaslError.

    A client that wants integrity or confidentiality is refused: it would take its next octets for protected. How much
    it could take in a layer says nothing without one.
    """
    if not 4 <= len(message) <= FIELD_LIMIT_OCTETS + 4:
        raise SaslError
    if message[0] != _NO_LAYER:
        raise SaslError("No security layer can be had", cause="the client asks for a security layer")
    try:
        # RFC 4752 3.3: not ended by a NUL.
        authzid = message[4:].decode("utf-8")
    except UnicodeDecodeError:
        raise SaslError from None
    if _CONTROLS.search(authzid):
        raise SaslError
    return authzid
