"""What all workers together know of failed log-ins: how many, of whom, from where; nothing of the passwords.

Beside its own memory (:mod:`mailsrv.auth.throttle`) a worker has these counts, in the buckets that all
share. Passwords come as keyed digests. A count falls evenly with time.
"""

from __future__ import annotations

from mailsrv.auth.settings import AuthSettings
from mailsrv.wire.rates import Buckets, Rate

HOUR, DAY = 3600.0, 86_400.0
_ALMOST = 0.5
"""Of a failure: counts fall continuously, and a limit holds until one whole failure is forgotten."""


class SharedFailures:
    """Counts of failures by pair (network and account) and by network. ``now`` is the wall clock."""

    def __init__(self, buckets: Buckets, settings: AuthSettings) -> None:
        self._buckets = buckets
        self._per_pair = Rate(settings.failures_per_user, HOUR, settings.failures_per_user)
        self._per_network = Rate(settings.failures_per_network, DAY, settings.failures_per_network)
        memory = settings.success_memory_seconds
        self._memory = Rate(1, memory, 1) if memory > 0 else None

    def key(self) -> bytes:
        """A key for digests of passwords that is the same in all workers."""
        return self._buckets.derive_key(b"passwords")

    def is_right(self, digest: bytes, pair: str, now: float) -> bool:
        """Whether the password was right there lately."""
        return self._is_marked("right", _with_digest(pair, digest), now)

    def is_trusted(self, network: str, now: float) -> bool:
        """Whether somebody logged in from the network lately (R-NAT-1)."""
        return self._is_marked("trusted", network, now)

    def is_pair_past_limit(self, pair: str, now: float) -> bool:
        """Whether too many passwords for this account were wrong from this network."""
        return self._used("pair", pair, self._per_pair, now) > self._per_pair.burst - _ALMOST

    def is_network_past_limit(self, network: str, now: float) -> bool:
        """Whether too many log-ins from this network failed."""
        return self._used("network", network, self._per_network, now) > self._per_network.burst - _ALMOST

    def failed(self, digest: bytes, network: str, pair: str, now: float) -> None:
        """Count a wrong password, once for each place it was tried from."""
        self._unmark("right", _with_digest(pair, digest))
        if self._take("wrong", _with_digest(pair, digest), Rate(1, HOUR, 1), now):
            self._take("pair", pair, self._per_pair, now)
        if network and self._take("wrong", _with_digest(network, digest), Rate(1, DAY, 1), now):
            self._take("network", network, self._per_network, now)

    def succeeded(self, digest: bytes, network: str, pair: str, now: float) -> None:
        """The password was right: what went wrong before in this place is forgotten."""
        self._buckets.clear("log-in pair", pair)
        self._mark("right", _with_digest(pair, digest), now)
        if network:
            self._mark("trusted", network, now)

    def _take(self, kind: str, name: str, rate: Rate, now: float) -> bool:
        return self._buckets.take(f"log-in {kind}", name, rate, now)

    def _used(self, kind: str, name: str, rate: Rate, now: float) -> float:
        return self._buckets.used(f"log-in {kind}", name, rate, now)

    def _mark(self, kind: str, name: str, now: float) -> None:
        if self._memory is not None:
            self._unmark(kind, name)
            self._take(kind, name, self._memory, now)

    def _unmark(self, kind: str, name: str) -> None:
        self._buckets.clear(f"log-in {kind}", name)

    def _is_marked(self, kind: str, name: str, now: float) -> bool:
        return self._memory is not None and self._used(kind, name, self._memory, now) > 0


def _with_digest(name: str, digest: bytes) -> str:
    return f"{name} {digest.hex()}"
