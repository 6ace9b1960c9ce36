"""What ties a log-in to its TLS connection: ``tls-server-end-point`` (RFC 5929 4) and ``tls-exporter`` (RFC 9266)."""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL.SSL import Error

_EXPORTER_LABEL = b"EXPORTER-Channel-Binding"
_EXPORTER_OCTETS = 32


class TlsChannel:
    """The connection of a server's transport. Asked when a client wants to be bound to it, not before."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __call__(self, kind: str) -> bytes | None:
        """The data of a type of channel binding; None where it cannot be had."""
        get_handle = getattr(self._transport, "getHandle", None)
        connection = get_handle() if get_handle is not None else None
        if connection is None or not hasattr(connection, "export_keying_material"):
            return None
        if kind == "tls-server-end-point":
            return _end_point(connection)
        # RFC 9266 2: with TLS 1.2 only under the extended master secret, which cannot be asked for here.
        if kind == "tls-exporter" and connection.get_protocol_version_name() == "TLSv1.3":
            try:
                exported: bytes = connection.export_keying_material(_EXPORTER_LABEL, _EXPORTER_OCTETS, b"")
            except Error:
                return None
            return exported
        return None


def _end_point(connection: Any) -> bytes | None:
    """The hash of our certificate, by the hash of its signature; SHA-256 in place of MD5 and SHA-1."""
    certificate = connection.get_certificate()
    if certificate is None:
        return None
    certificate = certificate.to_cryptography()
    algorithm = certificate.signature_hash_algorithm
    if algorithm is None:  # Ed25519: RFC 5929 leaves it undefined
        return None
    name = "sha256" if algorithm.name in {"md5", "sha1"} else algorithm.name
    return hashlib.new(name, certificate.public_bytes(Encoding.DER)).digest()
