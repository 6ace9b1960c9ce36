"""AUTH PLAIN and LOGIN as a client says them (RFC 4954 4, RFC 4616). Nothing here goes into a log."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Collection

_INITIAL_OCTETS = 400
"""Longer responses wait for a challenge: the line of AUTH has a limit (RFC 4954 4)."""


def begin_login(mechanisms: Collection[str], username: str, password: str) -> tuple[bytes, deque[bytes]] | None:
    """The command, and the answers to the challenges that follow; None where nothing that is offered can be used."""
    if "\0" in username or "\0" in password:
        return None
    name, secret = username.encode("utf-8"), password.encode("utf-8")
    if "PLAIN" in mechanisms:
        response = base64.b64encode(b"\0%b\0%b" % (name, secret))
        if len(response) <= _INITIAL_OCTETS:
            return b"AUTH PLAIN %b\r\n" % response, deque()
        return b"AUTH PLAIN\r\n", deque((response,))
    if "LOGIN" in mechanisms:
        return b"AUTH LOGIN\r\n", deque((base64.b64encode(name), base64.b64encode(secret)))
    return None
