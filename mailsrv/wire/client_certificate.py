"""The certificate a client showed in its TLS handshake: what the handshake found out about it, and who may see it.

Whoever verifies (:mod:`mailsrv.tls.client_certificates`) notes the verdict on the connection, for OpenSSL itself
forgets an objection that did not end the handshake. Sessions read it here and see none but good certificates.
"""

from __future__ import annotations

import enum
from typing import Any

from attrs import define, field
from cryptography import x509

_VERDICT = "client_certificate_verdict"


class CertificateUse(enum.Enum):
    """The ``client_certificates`` key of a listener."""

    OFF = "off"
    """Clients are not asked."""
    REQUEST = "request"
    """Who has none, or one that is not good, is served all the same, as if it had none."""
    REQUIRE = "require"
    """The handshake fails without a good one."""


@define
class CertificateVerdict:
    """What verification has come to, on one connection."""

    objection: str = ""
    """The first thing that was wrong."""
    is_good: bool = False
    """The client's own certificate was reached, and nothing was wrong up to it."""
    context: object = field(default=None, repr=False)
    """What the connection began with: OpenSSL may call its callbacks even when another has taken its place (SNI)."""


def asks_for_certificate(transport: Any) -> bool:
    """Whether a connection under TLS may have a client certificate, now or when its handshake is done."""
    return verdict_of(_connection(transport)) is not None


def client_certificate(transport: Any) -> x509.Certificate | None:
    """The verified certificate of the client of a server's transport; None without TLS, without one, with a bad one."""
    connection = _connection(transport)
    verdict = verdict_of(connection)
    if verdict is None or not verdict.is_good or verdict.objection:
        return None
    certificate: x509.Certificate | None = connection.get_peer_certificate(as_cryptography=True)
    return certificate


def expect_certificate(connection: Any, context: object) -> None:
    """Verification will note its verdict on this connection. (Its application data are Twisted's.)"""
    setattr(connection, _VERDICT, CertificateVerdict(context=context))


def _connection(transport: Any) -> Any:
    get_handle = getattr(transport, "getHandle", None)
    return get_handle() if get_handle is not None else None


def verdict_of(connection: Any) -> CertificateVerdict | None:
    """As far as verification has come; None where no certificate was asked for."""
    noted = getattr(connection, _VERDICT, None)
    return noted if isinstance(noted, CertificateVerdict) else None
