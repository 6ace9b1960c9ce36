"""Both ends of a TLS connection find the same data for channel binding."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from mailsrv.tls.self_signed import make_self_signed
from mailsrv.wire.channel_binding import TlsChannel


class Transport:
    def __init__(self, connection):
        self.connection = connection

    def getHandle(self):
        return self.connection


def connected(version):
    """A server's and a client's end after the handshake, and the certificate."""
    pem, key = make_self_signed("mail.example.test")
    certificate = x509.load_pem_x509_certificate(pem)
    server_context = SSL.Context(SSL.TLS_SERVER_METHOD)
    server_context.use_certificate(certificate)
    private = serialization.load_pem_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    server_context.use_privatekey(private)
    client_context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    for context in (server_context, client_context):
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
    server, client = SSL.Connection(server_context, None), SSL.Connection(client_context, None)
    server.set_accept_state()
    client.set_connect_state()
    for _ in range(4):
        for near, far in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                near.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                far.bio_write(near.bio_read(65536))
    return server, client, certificate


def test_tls_1_3_has_both_types():
    server, client, certificate = connected(SSL.TLS1_3_VERSION)
    channel = TlsChannel(Transport(server))
    assert channel("tls-exporter") == client.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
    assert channel("tls-server-end-point") == hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()


def test_tls_1_2_has_no_exporter_that_could_be_trusted():
    server, _, certificate = connected(SSL.TLS1_2_VERSION)
    channel = TlsChannel(Transport(server))
    assert channel("tls-exporter") is None
    assert channel("tls-server-end-point") == hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()


@pytest.mark.parametrize("transport", [object(), Transport(None), Transport(object())])
def test_without_tls_there_is_nothing(transport):
    assert TlsChannel(transport)("tls-exporter") is None


def test_unknown_types_are_unknown():
    server, _, _ = connected(SSL.TLS1_3_VERSION)
    assert TlsChannel(Transport(server))("tls-unique") is None
