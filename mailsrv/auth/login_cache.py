"""Log-ins verified a moment ago, so that a client that opens ten connections costs one hash.

The key is a keyed digest over mechanism, service, realm, full user and the credential's own keyed
digest, every field with its length before it: no two users, services or mechanisms share one
(R-AUTH-2). The key of the digest is random for each process; no password is kept. An entry is
good for the directory entry it was verified against: when that changes, it is gone.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict

from twisted.internet.interfaces import IReactorTime

from mailsrv.address import Address


class LoginCache:
    """Least recently used of bounded size; entries also end after a time. ``seconds`` 0: remembers nothing."""

    def __init__(self, *, clock: IReactorTime, seconds: float, entries: int) -> None:
        self._clock = clock
        self._seconds = seconds
        self._limit = entries
        self._secret = secrets.token_bytes(32)
        self._entries: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def key(self, mechanism: str, service: str, user: Address, password: str) -> bytes:
        """The name of a log-in. The domain of the user is its realm."""
        credential = hashlib.blake2b(_octets(password), key=self._secret, person=b"credential").digest()
        digest = hashlib.blake2b(key=self._secret, digest_size=32, person=b"login")
        for part in (_octets(mechanism), _octets(service), _octets(user.domain), _octets(str(user)), credential):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return digest.digest()

    def knows(self, key: bytes, fingerprint: bytes) -> bool:
        """Whether this log-in was verified lately against the entry as it still is."""
        entry = self._entries.get(key)
        if entry is None:
            return False
        known_fingerprint, expires = entry
        if known_fingerprint != fingerprint or self._clock.seconds() >= expires:
            del self._entries[key]
            return False
        self._entries.move_to_end(key)
        return True

    def add(self, key: bytes, fingerprint: bytes) -> None:
        """Remember a log-in just verified."""
        if self._seconds <= 0 or self._limit <= 0:
            return
        self._entries[key] = (fingerprint, self._clock.seconds() + self._seconds)
        self._entries.move_to_end(key)
        while len(self._entries) > self._limit:
            self._entries.popitem(last=False)


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
