"""Certificates and keys from PEM files.

Everything that can be wrong is found before anything is used, and named with its file:
:class:`TlsError`. Reading waits for the disk.
"""

from __future__ import annotations

from datetime import datetime

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

ServerKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

MAX_PEM_OCTETS = 1024 * 1024


class TlsError(Exception):
    """A certificate or key cannot be used; the text names the file and says why."""


@frozen
class ServerCertificate:
    """A certificate, the intermediate ones that go with it, and its key."""

    chain: tuple[x509.Certificate, ...]
    key: ServerKey = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The DNS names of the subject alternative name extension, in lower case."""
        try:
            extension = self.chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            return ()
        return tuple(name.lower() for name in extension.value.get_values_for_type(x509.DNSName))

    @property
    def expires(self) -> datetime:
        """The end of validity, with its time zone."""
        return self.chain[0].not_valid_after_utc


def load_certificate(certificate_path: str, key_path: str) -> ServerCertificate:
    """Certificate (chain) and key of one or two files. Raises TlsError."""
    certificate_pem = read_pem(certificate_path)
    try:
        chain = x509.load_pem_x509_certificates(certificate_pem)
    except ValueError as error:
        raise TlsError(f"{certificate_path} has no certificate that can be read") from error
    key_pem = certificate_pem if key_path == certificate_path else read_pem(key_path)
    try:
        key = load_pem_private_key(key_pem, None)
    except TypeError as error:
        raise TlsError(f"{key_path} has a key with a passphrase; it must have none") from error
    except ValueError as error:
        raise TlsError(f"{key_path} has no private key that can be read") from error
    if not isinstance(key, ServerKey):
        raise TlsError(f"{key_path} has a kind of key that TLS servers do not use")
    own = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if chain[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != own:
        raise TlsError(f"the key in {key_path} does not belong to the certificate in {certificate_path}")
    return ServerCertificate(tuple(chain), key)


def read_pem(path: str) -> bytes:
    """The octets of a file of a size PEM files have. Raises TlsError."""
    try:
        with open(path, "rb") as file:
            octets = file.read(MAX_PEM_OCTETS + 1)
    except OSError as error:
        raise TlsError(f"{path} cannot be read: {error.strerror}") from error
    if len(octets) > MAX_PEM_OCTETS:
        raise TlsError(f"{path} is too large for a PEM file")
    return octets
