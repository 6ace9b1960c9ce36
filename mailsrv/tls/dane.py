"""Matching certificates against TLSA records (RFC 6698, RFC 7671, and RFC 7672 for SMTP).

Usages 2 (DANE-TA) and 3 (DANE-EE) count; 0 and 1 are for applications with a set of trusted CAs and
are unusable for SMTP (RFC 7672 3.1.3). :func:`usable` keeps the records that can be matched at all;
where none is left, TLS is demanded and nothing of the certificate (RFC 7672 2.2). No I/O.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from OpenSSL import crypto

from mailsrv.interfaces.resolver import TlsaRecord

TRUST_ANCHOR = 2
END_ENTITY = 3
_WHOLE_CERTIFICATE, _PUBLIC_KEY = 0, 1
_EXACT, _SHA256, _SHA512 = 0, 1, 2
_DIGESTS = {_SHA256: hashlib.sha256, _SHA512: hashlib.sha512}
_DIGEST_OCTETS = {_SHA256: 32, _SHA512: 64}


def usable(records: Iterable[TlsaRecord]) -> tuple[TlsaRecord, ...]:
    """Those that a certificate can be matched against, in their order, weaker digests left out (RFC 7671 9)."""
    known = [record for record in records if _is_usable(record)]
    strong = {(record.usage, record.selector) for record in known if record.matching_type == _SHA512}
    return tuple(
        record
        for record in known
        if not (record.matching_type == _SHA256 and (record.usage, record.selector) in strong)
    )


def _is_usable(record: TlsaRecord) -> bool:
    if record.usage not in {TRUST_ANCHOR, END_ENTITY} or record.selector not in {_WHOLE_CERTIFICATE, _PUBLIC_KEY}:
        return False
    if record.matching_type in _DIGEST_OCTETS:
        return len(record.data) == _DIGEST_OCTETS[record.matching_type]
    if record.matching_type != _EXACT:
        return False
    try:
        if record.selector == _WHOLE_CERTIFICATE:
            x509.load_der_x509_certificate(record.data)
        else:
            load_der_public_key(record.data)
    except Exception:  # whatever the parser says of somebody else's octets: they are no certificate
        return False
    return True


def matches(record: TlsaRecord, certificate: x509.Certificate) -> bool:
    """Whether the certificate, or its key, is the one of the record (RFC 6698 2.1.2, 2.1.3)."""
    if record.selector == _PUBLIC_KEY:
        selected = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    else:
        selected = certificate.public_bytes(Encoding.DER)
    if record.matching_type == _EXACT:
        return selected == record.data
    digest = _DIGESTS.get(record.matching_type)
    return digest is not None and digest(selected).digest() == record.data


def matches_end_entity(records: Iterable[TlsaRecord], leaf: x509.Certificate) -> bool:
    """DANE-EE: neither names nor dates are looked at (RFC 7672 3.1.1)."""
    return any(record.usage == END_ENTITY and matches(record, leaf) for record in records)


def trust_anchors(records: Sequence[TlsaRecord], chain: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """The certificates DANE-TA records stand for: of the peer's chain, or whole ones of the DNS itself.

    A bare key that matches nothing in the chain anchors nothing: servers have to send the
    certificate of their trust anchor (RFC 7672 3.1.2).
    """
    of_anchors = [record for record in records if record.usage == TRUST_ANCHOR]
    found = [one for one in chain[1:] if any(matches(record, one) for record in of_anchors)]
    found += [
        x509.load_der_x509_certificate(record.data)
        for record in of_anchors
        if record.selector == _WHOLE_CERTIFICATE and record.matching_type == _EXACT
    ]
    return found


def chain_error(chain: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate]) -> int | None:
    """Verify the peer's chain up to one of the anchors, at the present time; OpenSSL's error number, None if good.

    The anchors need not be self-signed (RFC 7671 5.2).
    """
    store = crypto.X509Store()
    for anchor in anchors:
        store.add_cert(crypto.X509.from_cryptography(anchor))
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    others = [crypto.X509.from_cryptography(one) for one in chain[1:]]
    context = crypto.X509StoreContext(store, crypto.X509.from_cryptography(chain[0]), others)
    try:
        context.verify_certificate()
    except crypto.X509StoreContextError as error:
        number = error.errors[0]
        return number if isinstance(number, int) else 0
    return None
