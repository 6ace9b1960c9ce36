"""A self-signed certificate, so that a first start has TLS before there is a real one.

P-256, because its handshakes cost the least. Both files are private (0600), written beside and
renamed, the key first: whoever finds the certificate finds the key. Waits for the disk.
"""

from __future__ import annotations

import ipaddress
import os
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mailsrv.disk import replace_file
from mailsrv.tls.certificates import TlsError

VALID_DAYS = 825
"""Some clients refuse certificates that are valid for longer."""


def make_self_signed(
    hostname: str, *, now: datetime | None = None, valid_days: int = VALID_DAYS
) -> tuple[bytes, bytes]:
    """Certificate and key as PEM, for the host name, ``localhost`` and the loopback addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    # RFC 5280: a common name has at most 64 characters; the alternative names are what counts.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    begin = (now or datetime.now(UTC)).replace(microsecond=0) - timedelta(hours=1)
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in dict.fromkeys((hostname, "localhost"))]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=valid_days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def write_self_signed(hostname: str, certificate_path: str, key_path: str) -> None:
    """Make a certificate and put it into these files, whose folders are made (0700) if missing.

    Replaces what is there. Raises TlsError.
    """
    certificate, key = make_self_signed(hostname)
    for path, octets in ((key_path, key), (certificate_path, certificate)):
        try:
            os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
            replace_file(path, octets)
        except OSError as error:
            raise TlsError(f"{path} cannot be written: {error.strerror}") from error
