"""Certificates of hosts, the TLSA records for them, and servers that show them."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL

from mailsrv.interfaces.resolver import TlsaRecord
from mailsrv.interfaces.tls_policy import HostTlsPolicy
from mailsrv.tls.client import ClientTls
from tests.tls.authority import Issued, issue_for_host

HOST = "mx.example.test"
DIGESTS = {0: lambda data: data, 1: lambda data: hashlib.sha256(data).digest(), 2: lambda d: hashlib.sha512(d).digest()}


CA = issue_for_host("ca.example.test", is_ca=True)
MIDDLE = issue_for_host("middle.example.test", CA, is_ca=True)
LEAF = issue_for_host(HOST, MIDDLE)
OTHER = issue_for_host("other.example.test", MIDDLE)
EXPIRED = issue_for_host(HOST, MIDDLE, from_days=-9, to_days=-2)
SELF = issue_for_host(HOST)
ADDRESSED = issue_for_host(HOST, MIDDLE, addresses=("192.0.2.1", "2001:db8::1"))


def octets_of(certificate: x509.Certificate, selector: int) -> bytes:
    if selector == 0:
        return certificate.public_bytes(Encoding.DER)
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def tlsa(usage: int, certificate: x509.Certificate, selector: int = 1, matching_type: int = 1) -> TlsaRecord:
    return TlsaRecord(usage, selector, matching_type, DIGESTS[matching_type](octets_of(certificate, selector)))


def server_context(*chain: Issued) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(chain[0].certificate)
    context.use_privatekey(chain[0].key)
    for one in chain[1:]:
        context.add_extra_chain_cert(one.certificate)
    context.set_session_id(b"test")
    return context


class Handshake:
    """What ``check`` asks of a transport, after a handshake in memory."""

    def __init__(self, tls: ClientTls, policy: HostTlsPolicy, server: Any) -> None:
        unused: Any = None
        self.client = tls.connection_creator(policy).clientConnectionForTLS(unused)
        self.client.set_connect_state()
        self.server = SSL.Connection(server, None)
        self.server.set_accept_state()
        for _ in range(4):
            for one, other in ((self.client, self.server), (self.server, self.client)):
                with contextlib.suppress(SSL.WantReadError):
                    one.do_handshake()
                with contextlib.suppress(SSL.WantReadError):
                    while True:
                        other.bio_write(one.bio_read(2**15))
        with contextlib.suppress(SSL.WantReadError):
            self.client.recv(1)

    def getHandle(self) -> Any:
        return self.client
