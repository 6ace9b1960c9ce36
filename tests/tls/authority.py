"""A small CA: certificates for servers and clients, good and bad in every way, and revocation lists, in PEM."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.internet.ssl import PrivateCertificate

SMTP_UTF8_MAILBOX = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9")
USER_PRINCIPAL_NAME = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)
_KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@frozen
class Issued:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def for_twisted(self) -> PrivateCertificate:
        certified: PrivateCertificate = PrivateCertificate.loadPEM(self.key_pem + self.pem)
        return certified


def email(address: str) -> x509.GeneralName:
    return x509.RFC822Name(address)


def other_name(kind: x509.ObjectIdentifier, text: str) -> x509.GeneralName:
    octets = text.encode()
    assert len(octets) < 128
    return x509.OtherName(kind, bytes((0x0C, len(octets))) + octets)


def issue(
    issuer: Issued | None,
    *names: x509.GeneralName,
    common_name: str = "somebody",
    subject: tuple[x509.NameAttribute, ...] = (),
    usages: tuple[x509.ObjectIdentifier, ...] = CLIENT,
    from_days: int = -2,
    to_days: int = 30,
    is_ca: bool = False,
) -> Issued:
    """``issuer`` None: it signs itself. ``usages`` empty: no such extension."""
    key = ec.generate_private_key(ec.SECP256R1())
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name), *subject])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(own)
        .issuer_name(issuer.certificate.subject if issuer else own)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=from_days))
        .not_valid_after(now + timedelta(days=to_days))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        builder = builder.add_extension(identifier, critical=False)
    if is_ca:
        # One that signs itself may serve, too.
        allowed = ("digital_signature", "key_cert_sign", "crl_sign")
        usage = {name: name in allowed for name in _KEY_USAGES}
        builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if usages and not is_ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return Issued(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def issue_for_host(
    name: str,
    issuer: Issued | None = None,
    *,
    is_ca: bool = False,
    from_days: int = -2,
    to_days: int = 30,
    addresses: tuple[str, ...] = (),
) -> Issued:
    """As servers have them, or a CA of servers."""
    names = [x509.DNSName(name), *(x509.IPAddress(ipaddress.ip_address(one)) for one in addresses)]
    return issue(issuer, *names, common_name=name, usages=(), from_days=from_days, to_days=to_days, is_ca=is_ca)


def revoke(issuer: Issued, *revoked: Issued, from_days: int = -1, to_days: int = 30) -> bytes:
    """A revocation list, in PEM."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(now + timedelta(days=from_days))
        .next_update(now + timedelta(days=to_days))
    )
    for one in revoked:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(one.certificate.serial_number)
            .revocation_date(now + timedelta(days=from_days))
            .build()
        )
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.PEM)
