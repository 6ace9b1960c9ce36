"""Server contexts whose certificates can be replaced while connections are open.

``contexts.for_listener(name)`` is what ``transport.startTLS`` and ``TLSMemoryBIOFactory`` take.
Every listener has a context of its own, with its own ticket keys and session-id context: a session
begun at one cannot be resumed at another (R-TLS-3). Sessions are resumed by tickets only, so the
server keeps nothing for them; the keys live as long as the context, that is until a reload, and
in one process. Listeners that ask for client certificates resume none (:mod:`mailsrv.tls.client_certificates`).

:meth:`TlsContexts.reload` replaces the context, never changes one in use: open connections go on
with theirs, and when a file is broken everything stays as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime

from attrs import frozen
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from mailsrv.tls.certificates import ServerCertificate, TlsError, load_certificate
from mailsrv.tls.client_certificates import CertificateCounts, ClientTrust, ask_for_certificates, load_client_trust
from mailsrv.tls.lean_connection import make_connection
from mailsrv.tls.settings import TlsSettings, TlsVersion
from mailsrv.wire.client_certificate import CertificateUse, expect_certificate

_VERSIONS = {TlsVersion.TLS_1_2: SSL.TLS1_2_VERSION, TlsVersion.TLS_1_3: SSL.TLS1_3_VERSION}


@frozen
class _Loaded:
    """Everything a context is made of, read and checked."""

    main: ServerCertificate
    more: tuple[ServerCertificate, ...]
    trust: ClientTrust | None


class TlsContexts:
    """The contexts of all listeners of a process. The constructor reads the files: it waits, and raises TlsError."""

    _log = Logger()

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._loaded = self._load(settings)
        self._listeners: dict[str, ListenerContext] = {}

    @property
    def expires(self) -> datetime:
        """When the first of the certificates in use ends."""
        return min(certificate.expires for certificate in (self._loaded.main, *self._loaded.more))

    @property
    def refused_client_certificates(self) -> int:
        """At all listeners, since the start."""
        return sum(listener.client_certificates.refused for listener in self._listeners.values())

    def for_listener(self, name: str, use: CertificateUse = CertificateUse.OFF) -> ListenerContext:
        """The context of a listener, the same object for the same name. ``use``: of clients' certificates."""
        listener = self._listeners.get(name)
        if listener is None:
            listener = ListenerContext(name, use)
            listener.context = self._make(listener, self._settings, self._loaded)
            self._listeners[name] = listener
        return listener

    def reload(self, settings: TlsSettings | None = None) -> None:
        """Read certificates and keys again, perhaps by other settings.

        Waits for the disk: call it in a thread (putting the new contexts in place is safe there).
        Raises TlsError and leaves the old ones in force if anything is wrong with the new.
        """
        new_settings = settings if settings is not None else self._settings
        loaded = self._load(new_settings)
        made = [(one, self._make(one, new_settings, loaded)) for one in tuple(self._listeners.values())]
        self._settings, self._loaded = new_settings, loaded
        for listener, context in made:
            listener.context = context

    def _load(self, settings: TlsSettings) -> _Loaded:
        if not settings.certificate or not settings.key:
            raise TlsError("tls.certificate and tls.key are not set")
        loaded = _Loaded(
            load_certificate(settings.certificate, settings.key),
            tuple(load_certificate(path, path) for path in settings.more_certificates),
            load_client_trust(settings.client_ca_file, settings.client_crl_file),
        )
        for path, certificate in zip(
            (settings.certificate, *settings.more_certificates), (loaded.main, *loaded.more), strict=True
        ):
            if certificate.expires <= datetime.now(UTC):
                self._log.warn(
                    "The certificate in {path} ended on {expires}: clients will refuse it",
                    path=path,
                    expires=certificate.expires.isoformat(),
                )
        return loaded

    def _make(self, listener: ListenerContext, settings: TlsSettings, loaded: _Loaded) -> SSL.Context:
        def make(certificate: ServerCertificate) -> SSL.Context:
            context = _make_context(listener, settings, certificate)
            if listener.use is not CertificateUse.OFF:
                if loaded.trust is None:
                    raise TlsError("tls.client_ca_file is not set: nobody is trusted to issue client certificates")
                ask_for_certificates(
                    context, listener.use, loaded.trust, listener=listener.name, counts=listener.client_certificates
                )
            return context

        context = make(loaded.main)
        # The callback costs memory and needs executable pages: only where there is a choice.
        if loaded.more:
            by_name = {
                host: other
                for other, certificate in [(make(one), one) for one in loaded.more]
                for host in certificate.names
            }
            context.set_tlsext_servername_callback(lambda connection: _choose(connection, by_name))
        return context


@implementer(IOpenSSLServerConnectionCreator)
class ListenerContext:
    """Makes the TLS connections of one listener; ``context`` is what new ones are made with."""

    __slots__ = ("client_certificates", "context", "name", "use")

    context: SSL.Context

    def __init__(self, name: str, use: CertificateUse = CertificateUse.OFF) -> None:
        self.name = name
        self.use = use
        self.client_certificates = CertificateCounts()

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        context = self.context
        connection = make_connection(context)
        if self.use is not CertificateUse.OFF:
            expect_certificate(connection, context)
        return connection

    def getContext(self) -> SSL.Context:
        """For what still asks by the older interface."""
        return self.context


def _choose(connection: SSL.Connection, by_name: Mapping[str, SSL.Context]) -> None:
    """Show the certificate for the name the client asked for (RFC 6066 section 3); the main one if there is none."""
    asked = connection.get_servername()
    if asked is None:
        return
    name = asked.decode("ascii", "replace").lower()
    # A wildcard stands for exactly one label (RFC 9525 6.3).
    context = by_name.get(name) or by_name.get("*." + name.partition(".")[2])
    if context is not None:
        connection.set_context(context)


def _make_context(listener: ListenerContext, settings: TlsSettings, certificate: ServerCertificate) -> SSL.Context:
    resumes = settings.session_seconds > 0 and listener.use is CertificateUse.OFF
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(_VERSIONS[settings.minimum_version])
    # Compression tells lengths (RFC 7525 3.3), renegotiation only costs (RFC 9325 3.5).
    options = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE
    if not resumes:
        options |= SSL.OP_NO_TICKET
    context.set_options(options)
    # Buffers of 16 KiB and more each way are given back while a connection is idle.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(hashlib.sha256(b"mailsrv listener " + listener.name.encode()).digest())
    if resumes:
        context.set_timeout(settings.session_seconds)
    try:
        context.set_cipher_list(settings.ciphers.encode("ascii"))
    except (SSL.Error, UnicodeEncodeError) as error:
        raise TlsError("tls.ciphers names no cipher that OpenSSL has") from error
    try:
        _use(context, certificate)
    except (SSL.Error, TypeError, ValueError) as error:
        raise TlsError(f"{settings.certificate}: OpenSSL does not take this certificate or its key") from error
    return context


def _use(context: SSL.Context, certificate: ServerCertificate) -> None:
    context.use_certificate(certificate.chain[0])
    for intermediate in certificate.chain[1:]:
        context.add_extra_chain_cert(intermediate)
    context.use_privatekey(certificate.key)
    context.check_privatekey()
