"""How a listener uses TLS."""

from __future__ import annotations

import enum


class TlsMode(enum.Enum):
    """The ``tls`` key of a listener."""

    NONE = "none"
    """Never."""
    STARTTLS = "starttls"
    """From a command of the client on (RFC 3207, RFC 9051 6.2.1, RFC 2595)."""
    IMPLICIT = "implicit"
    """From the first octet (RFC 8314). The composition wraps the factory; the protocol finds TLS already there."""
