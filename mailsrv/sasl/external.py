"""EXTERNAL (RFC 4422 appendix A): the client says by whom it wants to be, and something else has proven who it is."""

from __future__ import annotations

import re

from mailsrv.sasl.errors import SaslError
from mailsrv.sasl.mechanisms import FIELD_LIMIT_OCTETS

EXTERNAL = "EXTERNAL"

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")


def parse_external(message: bytes) -> str:
    """``[authz-id-string]``: whom the client wants to be, "" for whoever the proof is of. Raises SaslError."""
    if len(message) > FIELD_LIMIT_OCTETS:
        raise SaslError
    try:
        authzid = message.decode("utf-8")
    except UnicodeDecodeError:
        raise SaslError from None
    if _CONTROLS.search(authzid):
        raise SaslError
    return authzid
