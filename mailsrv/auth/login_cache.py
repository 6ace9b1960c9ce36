"""Log-ins verified a moment ago, so that a client that opens ten connections costs one hash.

No password is kept, but a digest of it (:mod:`mailsrv.auth.password_digest`). An entry is good for the directory
entry it was verified against: when that changes, it is gone.
"""

from __future__ import annotations

from collections import OrderedDict

from twisted.internet.interfaces import IReactorTime

from mailsrv.address import Address
from mailsrv.auth.password_digest import PasswordDigest


class LoginCache:
    """Least recently used of bounded size; entries also end after a time. ``seconds`` 0: remembers nothing."""

    def __init__(self, *, clock: IReactorTime, seconds: float, entries: int) -> None:
        self._clock = clock
        self._seconds = seconds
        self._limit = entries
        self._digest = PasswordDigest()
        self._entries: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def key(self, mechanism: str, service: str, user: Address, password: str) -> bytes:
        """The name of a log-in."""
        return self._digest(mechanism, service, user, password)

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
