"""What a server keeps of a password for SCRAM (RFC 5802 3): from it nobody can log in, but anybody can guess.

Written as Dovecot and RFC 5803 have it: ``ITERATIONS,SALT,STORED-KEY,SERVER-KEY``, the octets in base64.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable

from attrs import field, frozen

from mailsrv.sasl.saslprep import prepare_password

DIGESTS = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-1": "sha1"}
"""The mechanisms and the names of their hashes, the better first."""

SALT_OCTETS = 16
ITERATIONS_LIMIT = 10_000_000
"""Past it a client would hash for many seconds: such a line is a mistake."""

_FORM = re.compile(r"(\d{1,9}),([A-Za-z0-9+/=]+),([A-Za-z0-9+/=]+),([A-Za-z0-9+/=]+)", re.ASCII)


@frozen
class ScramKeys:
    """The keys of one user for one mechanism (without ``-PLUS``)."""

    mechanism: str
    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def parse(cls, mechanism: str, text: str) -> ScramKeys:
        """Raises ValueError, whose text has no key in it."""
        match = _FORM.fullmatch(text)
        size = hashlib.new(DIGESTS[mechanism]).digest_size
        if match is None:
            raise ValueError("malformed SCRAM keys")
        try:
            salt, stored, server = (base64.b64decode(part, validate=True) for part in match.groups()[1:])
        except binascii.Error:
            raise ValueError("malformed SCRAM keys") from None
        iterations = int(match[1])
        if not 1 <= iterations <= ITERATIONS_LIMIT or not salt or len(stored) != size or len(server) != size:
            raise ValueError("malformed SCRAM keys")
        return cls(mechanism, iterations, salt, stored, server)

    @classmethod
    def derive(cls, mechanism: str, password: str, iterations: int, salt: bytes | None = None) -> ScramKeys:
        """From a password, with a random salt if none is given. Takes as long as its iterations."""
        salt = secrets.token_bytes(SALT_OCTETS) if salt is None else salt
        return cls(mechanism, iterations, salt, *derive_keys(mechanism, prepare_password(password), iterations, salt))

    def format(self) -> str:
        """As :meth:`parse` reads it."""
        parts = (base64.b64encode(part).decode("ascii") for part in (self.salt, self.stored_key, self.server_key))
        return ",".join((str(self.iterations), *parts))


def derive_keys(mechanism: str, password: bytes, iterations: int, salt: bytes) -> tuple[bytes, bytes]:
    """StoredKey and ServerKey (RFC 5802 3) of a password that is prepared already."""
    digest = DIGESTS[mechanism]
    salted = hashlib.pbkdf2_hmac(digest, password, salt, iterations)
    stored_key = hashlib.new(digest, hmac.digest(salted, b"Client Key", digest)).digest()
    return stored_key, hmac.digest(salted, b"Server Key", digest)


def find_keys(mechanism: str, stored: Iterable[str]) -> ScramKeys | None:
    """The keys for a mechanism among stored forms of a password (``{SCRAM-SHA-256}…``)."""
    prefix = f"{{{mechanism}}}"
    for secret in stored:
        if secret[: len(prefix)].upper() == prefix:
            try:
                return ScramKeys.parse(mechanism, secret[len(prefix) :])
            except ValueError:
                continue
    return None


def make_decoy(mechanism: str, name: str, secret: bytes, *, iterations: int, salt_octets: int) -> ScramKeys:
    """Keys nobody has the password of, the same for a name each time (R-AUTH-4): an unknown user looks like one."""
    digest = DIGESTS[mechanism]
    size = hashlib.new(digest).digest_size

    def stream(purpose: bytes, octets: int) -> bytes:
        key = hmac.digest(secret, purpose + b"\0" + mechanism.encode("ascii"), "sha256")
        return hashlib.shake_256(key + name.encode("utf-8", "surrogatepass")).digest(octets)

    return ScramKeys(mechanism, iterations, stream(b"salt", salt_octets), stream(b"key", size), stream(b"server", size))
