"""Signing keys: what signs, with which algorithm, and the record others find its public half in.

RFC 6376 3.6.1, RFC 8301 3.2 (RSA of 2048 bits at least), RFC 8463 (Ed25519).
"""

from __future__ import annotations

import base64
import enum
import re

from attrs import field, frozen
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

MINIMUM_RSA_BITS = 2048
MAXIMUM_RSA_BITS = 4096
"""Verifiers need not go further (RFC 8301 3.2)."""
TXT_STRING_OCTETS = 255
"""RFC 1035 3.3."""
SLOW_RSA_BITS = 3072
"""Larger ones take more than a millisecond for a signature."""

_SELECTOR = re.compile(r"(?=.{1,63}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_PKCS1 = padding.PKCS1v15()
_PREHASHED = utils.Prehashed(SHA256())


class KeyProblem(ValueError):
    """A key cannot be used; the text says why, as the rest of a sentence about its file."""


class Algorithm(enum.Enum):
    """a= of a signature is this and the hash; k= of a record is this."""

    RSA = "rsa"
    ED25519 = "ed25519"


def is_selector(text: str) -> bool:
    """RFC 6376 3.1, in lower case, because it is part of a domain name and of a file name here."""
    return _SELECTOR.fullmatch(text) is not None


@frozen(eq=False)
class SigningKey:
    """A private key with the name its public half is found under. Only itself is equal to it."""

    domain: str
    """A-labels (RFC 8616 3), lower case."""
    selector: str
    private: PrivateKey = field(repr=False)

    @property
    def algorithm(self) -> Algorithm:
        return Algorithm.RSA if isinstance(self.private, rsa.RSAPrivateKey) else Algorithm.ED25519

    @property
    def bits(self) -> int:
        return self.private.key_size if isinstance(self.private, rsa.RSAPrivateKey) else 256

    @property
    def is_slow(self) -> bool:
        """Whether a signature takes long enough to be made in a thread."""
        return isinstance(self.private, rsa.RSAPrivateKey) and self.private.key_size > SLOW_RSA_BITS

    @property
    def record_name(self) -> str:
        """Where the TXT record stands (RFC 6376 3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def record(self) -> str:
        """The text of that record, in one piece."""
        public = self.private.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            octets = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        else:
            octets = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return f"v=DKIM1; k={self.algorithm.value}; p={base64.b64encode(octets).decode('ascii')}"

    def sign(self, digest: bytes) -> bytes:
        """The signature of a SHA-256 digest: RFC 6376 3.3.1; RFC 8463 3 signs the digest as a message."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(digest, _PKCS1, _PREHASHED)
        return self.private.sign(digest)


def new_private_key(algorithm: Algorithm, bits: int = MINIMUM_RSA_BITS) -> PrivateKey:
    """A fresh key. KeyProblem for an RSA key of a size that is not for signing mail."""
    if algorithm is Algorithm.ED25519:
        return ed25519.Ed25519PrivateKey.generate()
    _check_bits(bits)
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def format_private_key(key: PrivateKey) -> bytes:
    """PEM, PKCS #8, without passphrase."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def parse_private_key(pem: bytes) -> PrivateKey:
    """The key in a PEM file. Raises KeyProblem."""
    try:
        key = load_pem_private_key(pem, None)
    except TypeError as error:
        raise KeyProblem("has a passphrase; it must have none") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyProblem("has no private key that can be read") from error
    if isinstance(key, rsa.RSAPrivateKey):
        _check_bits(key.key_size)
    elif not isinstance(key, ed25519.Ed25519PrivateKey):
        raise KeyProblem("has a kind of key that DKIM does not know; RSA and Ed25519 are known")
    return key


def _check_bits(bits: int) -> None:
    if not MINIMUM_RSA_BITS <= bits <= MAXIMUM_RSA_BITS:
        raise KeyProblem(f"has an RSA key of {bits} bits; it must have {MINIMUM_RSA_BITS} to {MAXIMUM_RSA_BITS}")


def split_text(text: str) -> tuple[str, ...]:
    """The character-strings of a TXT record: 255 octets at most each (RFC 1035 3.3)."""
    return tuple(text[start : start + TXT_STRING_OCTETS] for start in range(0, len(text), TXT_STRING_OCTETS)) or ("",)


def fold_base64(octets: bytes, width: int = 72) -> bytes:
    """Base64 on lines that begin with a space, but for the first one, for a header field (RFC 6376 3.5, b=)."""
    text = base64.b64encode(octets)
    return b"\r\n ".join([text[start : start + width] for start in range(0, len(text), width)])
