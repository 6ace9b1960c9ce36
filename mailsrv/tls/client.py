"""TLS towards other hosts: what a connection is made with, and whether what came of it is enough.

``connection_creator(policy)`` goes to ``transport.startTLS`` (or ``TLSMemoryBIOFactory``). No
certificate ends a handshake: when it is done, ``check(policy, transport)`` says whether mail may
flow, and the word for the report (RFC 8460 4.3) where something is wrong. A handshake that fails
by itself is judged by ``failed_handshake(policy, …)``.

All connections speak TLS 1.2 or later and send the host's name (SNI). Where any certificate
will do, weak keys will too (any encryption is better than none, RFC 7435), and sessions are
resumed; a verified connection always makes a full handshake.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import Any

import service_identity
import service_identity.pyopenssl
from attrs import frozen
from cryptography import x509
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from mailsrv.interfaces.tls_policy import HostTlsPolicy, TlsLevel
from mailsrv.tls import dane
from mailsrv.tls.certificates import TlsError
from mailsrv.tls.client_settings import TlsClientSettings

_ANY_CIPHER = b"DEFAULT:!aNULL:!eNULL:@SECLEVEL=0"
# X509_V_ERR_…: not yet valid, expired, and errors in those fields.
_DATE_ERRORS = frozenset({9, 10, 13, 14})


@frozen
class TlsVerdict:
    """Whether mail may flow; ``result_type`` (RFC 8460 4.3) is "" where nothing is to be reported.

    With a policy that is only tested (MTA-STS) a failure has its ``result_type`` and is OK all the same.
    """

    is_ok: bool
    result_type: str = ""
    detail: str = ""


class ClientTls:
    """The client side of TLS of a process. The constructor reads the trusted CAs: it waits, and raises TlsError."""

    def __init__(self, settings: TlsClientSettings | None = None) -> None:
        settings = settings or TlsClientSettings()
        self._sessions = _Sessions(settings.remembered_sessions)
        self._any = _make_context(_ANY_CIPHER)
        self._any.set_session_cache_mode(SSL.SESS_CACHE_CLIENT | SSL.SESS_CACHE_NO_INTERNAL)
        self._any.set_verify(SSL.VERIFY_NONE)
        try:
            ciphers = settings.ciphers.encode("ascii")
            self._verified = _make_context(ciphers)
            # DANE has no use for the trusted CAs: a chain is looked at when it is known which records match.
            self._dane = _make_context(ciphers)
        except (SSL.Error, UnicodeEncodeError) as error:
            raise TlsError("tls_client.ciphers names no cipher that OpenSSL has") from error
        self._dane.set_verify(SSL.VERIFY_NONE)
        self._verified.set_verify(SSL.VERIFY_PEER, _note_chain_error)
        for context in (self._verified, self._dane):
            context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        if not settings.ca_file:
            self._verified.set_default_verify_paths()
            return
        try:
            self._verified.load_verify_locations(settings.ca_file)
        except SSL.Error as error:
            raise TlsError(f"{settings.ca_file} has no certificates that can be read") from error

    def connection_creator(self, policy: HostTlsPolicy) -> IOpenSSLClientConnectionCreator:
        """For one connection to the policy's host."""
        if policy.level is TlsLevel.VERIFY:
            return _Creator(self._verified, policy.host, None)
        if policy.level is TlsLevel.DANE:
            # RFC 7672 8.1: the name sent is that of the TLSA records, the first of the names.
            return _Creator(self._dane, policy.names[0] if policy.names else policy.host, None)
        return _Creator(self._any, policy.host, self._sessions)

    def check(self, policy: HostTlsPolicy, transport: Any) -> TlsVerdict:
        """To be called once the handshake is done, before anything is sent. Never raises."""
        if policy.level not in {TlsLevel.VERIFY, TlsLevel.DANE}:
            return TlsVerdict(is_ok=True)
        if policy.level is TlsLevel.DANE and not policy.tlsa:
            return _judge(policy, "dane-required", "DANE is demanded and there are no TLSA records that can be used")
        connection = transport.getHandle()
        chain = connection.get_peer_cert_chain(as_cryptography=True) or []
        if not chain:
            return _judge(policy, "certificate-not-trusted", "the host showed no certificate")
        check = _check_dane if policy.level is TlsLevel.DANE else _check_chain
        return check(policy, connection, chain)

    def failed_handshake(self, policy: HostTlsPolicy, detail: str = "") -> TlsVerdict:
        """The verdict where TLS was begun and did not come about; it is OK to go on without TLS if ``is_ok``."""
        return _judge(policy, "validation-failure", detail or "the TLS handshake failed")

    def not_offered(self, policy: HostTlsPolicy) -> TlsVerdict:
        """The verdict where the host has no STARTTLS."""
        return _judge(policy, "starttls-not-supported", "the host does not offer STARTTLS")


def _judge(policy: HostTlsPolicy, result_type: str, detail: str) -> TlsVerdict:
    may_go_on = policy.is_testing or policy.level in {TlsLevel.NONE, TlsLevel.OPPORTUNISTIC}
    return TlsVerdict(may_go_on, result_type, detail)


def _check_chain(policy: HostTlsPolicy, connection: SSL.Connection, chain: list[x509.Certificate]) -> TlsVerdict:
    error = getattr(connection, "chain_error", None)
    if error is not None:
        return _chain_failure(policy, error)
    return _check_names(policy, connection)


def _check_dane(policy: HostTlsPolicy, connection: SSL.Connection, chain: list[x509.Certificate]) -> TlsVerdict:
    if dane.matches_end_entity(policy.tlsa, chain[0]):
        return TlsVerdict(is_ok=True)
    anchors = dane.trust_anchors(policy.tlsa, chain)
    if not anchors:
        return _judge(policy, "certificate-not-trusted", "no TLSA record matches the certificate")
    error = dane.chain_error(chain, anchors)
    if error is not None:
        return _chain_failure(policy, error)
    return _check_names(policy, connection)


def _chain_failure(policy: HostTlsPolicy, error: int) -> TlsVerdict:
    if error in _DATE_ERRORS:
        return _judge(policy, "certificate-expired", "the certificate is not valid at this time")
    return _judge(
        policy, "certificate-not-trusted", f"the certificate leads to nobody we trust (OpenSSL error {error})"
    )


def _check_names(policy: HostTlsPolicy, connection: SSL.Connection) -> TlsVerdict:
    """RFC 9525 by service_identity; one of the names is enough. An address is compared with addresses alone (6.1)."""
    for name in policy.names or (policy.host,):
        address = _address(name)
        try:
            if address:
                service_identity.pyopenssl.verify_ip_address(connection, address)
            else:
                service_identity.pyopenssl.verify_hostname(connection, name)
        except (service_identity.VerificationError, service_identity.CertificateError, ValueError):
            continue
        return TlsVerdict(is_ok=True)
    wanted = ", ".join(policy.names or (policy.host,))
    return _judge(policy, "certificate-host-mismatch", f"the certificate is for none of {wanted}")


def _address(name: str) -> str:
    """The IP address that ``name`` is, bare or as an address literal of SMTP (RFC 5321 4.1.3); "" where it is none."""
    literal = name.strip("[]")
    if literal[:5].lower() == "ipv6:":
        literal = literal[5:]
    try:
        return str(ipaddress.ip_address(literal))
    except ValueError:
        return ""


class _Connection(SSL.Connection):
    """A client's connection that knows what was wrong with the chain, and leaves its session when it ends."""

    chain_error: int | None = None
    sessions: _Sessions | None = None
    host = ""

    def shutdown(self) -> bool:
        # Only now: the tickets of TLS 1.3 come after the handshake.
        if self.sessions is not None:
            self.sessions.keep(self.host, self)
            self.sessions = None
        return super().shutdown()


class _Sessions:
    """The last session of each host, so many at most; which was used longest ago goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._by_host: OrderedDict[str, SSL.Session] = OrderedDict()

    def keep(self, host: str, connection: SSL.Connection) -> None:
        session = connection.get_session()
        if session is None or not self._limit:
            return
        self._by_host[host] = session
        self._by_host.move_to_end(host)
        if len(self._by_host) > self._limit:
            self._by_host.popitem(last=False)

    def take(self, host: str) -> SSL.Session | None:
        """A ticket is used once (RFC 8446 C.4)."""
        return self._by_host.pop(host, None)


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    """Makes the connection; pyOpenSSL's way to tell Twisted about a context."""

    __slots__ = ("_context", "_host", "_sessions")

    def __init__(self, context: SSL.Context, host: str, sessions: _Sessions | None) -> None:
        self._context, self._host, self._sessions = context, host, sessions

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = _Connection(self._context, None)
        host = self._host
        # RFC 6066 section 3: a literal address is no name. (Only they have a colon or a last label of digits.)
        if host and ":" not in host and not host.strip("[]").rpartition(".")[2].isdigit():
            connection.set_tlsext_host_name(host.encode("ascii", "ignore"))
        if self._sessions is not None:
            connection.sessions, connection.host = self._sessions, self._host
            session = self._sessions.take(self._host)
            if session is not None:
                connection.set_session(session)
        return connection


def _note_chain_error(connection: SSL.Connection, certificate: Any, error: int, depth: int, is_good: int) -> bool:
    """Go on with the handshake whatever is wrong: ``check`` tells of it, and in words."""
    if not is_good and isinstance(connection, _Connection) and connection.chain_error is None:
        connection.chain_error = error
    return True


def _make_context(ciphers: bytes) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_cipher_list(ciphers)
    return context
