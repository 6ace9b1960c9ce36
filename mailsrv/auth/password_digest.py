"""A digest that names a log-in in memory, so that no password is kept (R-AUTH-2).

It is keyed over mechanism, service, realm, full user and the credential's own keyed digest, every field with its
length before it: no two users, services or mechanisms share one.
"""

from __future__ import annotations

import hashlib
import secrets

from mailsrv.address import Address


class PasswordDigest:
    """Each has a random key of its own: what one makes tells nothing about another's, or about other processes'."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def __call__(self, mechanism: str, service: str, user: Address, password: str) -> bytes:
        """32 octets. The domain of the user is its realm."""
        credential = hashlib.blake2b(_octets(password), key=self._secret, person=b"credential").digest()
        digest = hashlib.blake2b(key=self._secret, digest_size=32, person=b"login")
        for part in (_octets(mechanism), _octets(service), _octets(user.domain), _octets(str(user)), credential):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return digest.digest()


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
