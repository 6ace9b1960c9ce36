"""Asking clients for certificates: who is trusted to issue them, and verification during the handshake.

OpenSSL verifies chain, dates, purpose and revocation; its callback here only notes what it found, once for each
certificate, and adds that a client's certificate has to say that it is for clients. Listeners that ask resume no
sessions: each connection is verified afresh, and no ticket can carry an identity anywhere (RFC 8446 4.6.1, C.4).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL, crypto
from twisted.logger import Logger

from mailsrv.tls.certificates import TlsError, read_pem
from mailsrv.wire.client_certificate import CertificateUse, verdict_of

_log = Logger()
_BEGIN_CRL = b"-----BEGIN X509 CRL-----"
_END_CRL = b"-----END X509 CRL-----"
_SUBJECT_LIMIT = 200
_MOST_INTERMEDIATES = 8
# TLS 1.2 has no alert of its own for a missing certificate, and says that the handshake failed.
_CERTIFICATE_REQUIRED = frozenset({40, 116})
_REASONS = {
    number: name.removeprefix("ERR_").replace("_", " ").lower()
    for name, number in vars(SSL.X509VerificationCodes).items()
    if isinstance(number, int)
}

Verify = Callable[[SSL.Connection, crypto.X509, int, int, int], bool]


@frozen
class ClientTrust:
    """Issuers of client certificates, and their revocation lists."""

    issuers: tuple[x509.Certificate, ...]
    revocations: tuple[x509.CertificateRevocationList, ...] = ()


def load_client_trust(ca_file: str, crl_file: str) -> ClientTrust | None:
    """From PEM files; None where no ``ca_file`` is named. Waits for the disk, raises TlsError."""
    if not ca_file:
        return None
    try:
        issuers = x509.load_pem_x509_certificates(read_pem(ca_file))
    except ValueError as error:
        raise TlsError(f"{ca_file} has no certificate that can be read") from error
    return ClientTrust(tuple(issuers), _load_revocations(crl_file) if crl_file else ())


def _load_revocations(path: str) -> tuple[x509.CertificateRevocationList, ...]:
    parts = read_pem(path).split(_BEGIN_CRL)[1:]
    try:
        lists = tuple(
            x509.load_pem_x509_crl(_BEGIN_CRL + part.partition(_END_CRL)[0] + _END_CRL + b"\n") for part in parts
        )
    except ValueError as error:
        raise TlsError(f"{path} has a revocation list that cannot be read") from error
    if not lists:
        raise TlsError(f"{path} has no revocation list")
    for one in lists:
        until = one.next_update_utc
        if until is not None and until <= datetime.now(UTC):
            _log.warn(
                "The revocation list of {issuer} in {path} was good until {until}: certificates it is about are "
                "refused until there is a new one",
                issuer=one.issuer.rfc4514_string()[:_SUBJECT_LIMIT],
                path=path,
                until=until.isoformat(),
            )
    return lists


class CertificateCounts:
    """What became of the client certificates shown at a listener since the start."""

    __slots__ = ("accepted", "refused")

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0


def ask_for_certificates(
    context: SSL.Context, use: CertificateUse, trust: ClientTrust, *, listener: str, counts: CertificateCounts
) -> None:
    """Make a server's context ask its clients. ``use`` is not OFF."""
    store = context.get_cert_store()
    if store is None:
        raise TlsError("OpenSSL has no store for the issuers of client certificates")
    flags = crypto.X509StoreFlags.PARTIAL_CHAIN
    for issuer in trust.issuers:
        store.add_cert(crypto.X509.from_cryptography(issuer))
        context.add_client_ca(issuer)
    for revocation in trust.revocations:
        store.add_crl(revocation)
    if trust.revocations:
        flags |= crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL
    store.set_flags(flags)
    mode = SSL.VERIFY_PEER
    if use is CertificateUse.REQUIRE:
        mode |= SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        context.set_info_callback(_make_watch(listener, counts))
    context.set_verify_depth(_MOST_INTERMEDIATES)
    context.set_verify(mode, _make_verify(listener, counts, is_required=use is CertificateUse.REQUIRE))


def _make_verify(listener: str, counts: CertificateCounts, *, is_required: bool) -> Verify:
    def verify(connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, is_good: int) -> bool:
        """Called for every certificate from the root down, and for every error; the last call is for the client's."""
        verdict = verdict_of(connection)
        if verdict is None:
            return False
        objection = "" if is_good else _REASONS.get(error, f"error {error}")
        if is_good and depth == 0 and not verdict.objection:
            objection = _purpose_objection(certificate)
            if not objection:
                verdict.is_good = True
                counts.accepted += 1
        if objection and not verdict.objection:
            verdict.objection = objection
            counts.refused += 1
            _log.info(
                "{listener}: a client certificate is not good: {reason} ({subject}, {depth} above the client's)",
                listener=listener,
                reason=objection,
                subject=_subject(certificate),
                depth=depth,
            )
        return not (is_required and verdict.objection)

    return verify


def _make_watch(listener: str, counts: CertificateCounts) -> Callable[[SSL.Connection, int, int], None]:
    def watch(connection: SSL.Connection, where: int, value: int) -> None:
        """Called for each state of a handshake; verification is not asked about a certificate that is not there."""
        if where != SSL.SSL_CB_WRITE_ALERT or value & 0xFF not in _CERTIFICATE_REQUIRED:
            return
        verdict = verdict_of(connection)
        if verdict is not None and not verdict.objection and not verdict.is_good:
            verdict.objection = "none"
            counts.refused += 1
            _log.info("{listener}: a client without a certificate, or without anything in common", listener=listener)

    return watch


def _purpose_objection(certificate: crypto.X509) -> str:
    """RFC 5280 4.2.1.12. OpenSSL lets pass what says nothing about its purpose: such certificates are for anything."""
    try:
        usage = certificate.to_cryptography().extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return "no extended key usage"
    except ValueError:
        return "malformed extensions"
    return "" if ExtendedKeyUsageOID.CLIENT_AUTH in usage else "not for client authentication"


def _subject(certificate: Any) -> str:
    """For the log; whoever is refused may have written anything there."""
    try:
        name = certificate.to_cryptography().subject.rfc4514_string()
    except ValueError:
        return "unreadable subject"
    return ascii(name[:_SUBJECT_LIMIT])
