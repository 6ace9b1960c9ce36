"""What all workers together know of failed log-ins, and what follows from it: limits and delays (R-AUTH-6, R-NAT-1).

Nothing of the passwords: they come as keyed digests. A count falls evenly with time, a delay halves. ``now`` is the
wall clock everywhere.
"""

from __future__ import annotations

from attrs import evolve

from mailsrv.auth.failure_table import FailureRecord, FailureRecords, FailureTable
from mailsrv.auth.settings import AuthSettings
from mailsrv.wire.mapped_file import LateTable
from mailsrv.wire.rates import Rate

HOUR, DAY = 3600.0, 86_400.0
ALMOST = 0.5
"""Of a failure: counts fall continuously, and a limit holds until one whole failure is forgotten."""
_LEVEL_LIMIT = 8.0
"""Delays double no further; so a long attack is forgotten as fast as a short one."""


class SharedFailures:
    """Counts of failures by account, network, and pair of both; and which passwords were right where."""

    def __init__(self, file: LateTable[FailureTable], settings: AuthSettings) -> None:
        self._file = file
        self._settings = settings
        self.per_pair = Rate(settings.failures_per_user, HOUR, settings.failures_per_user)
        self.per_network = Rate(settings.failures_per_network, DAY, settings.failures_per_network)
        # Accounts have no limit of their own: anybody could shut anybody out. Their counts are for show.
        self._per_account = Rate(settings.failures_per_network, DAY, settings.failures_per_network)
        memory = settings.success_memory_seconds
        self._memory = Rate(1, memory, 1) if memory > 0 else None

    @property
    def table(self) -> FailureTable:
        """Where it is remembered."""
        return self._file.table

    def key(self) -> bytes:
        """A key for digests of passwords that is the same in all workers."""
        return self.table.digests.derive_key(b"passwords")

    # Limits

    def is_right(self, digest: bytes, pair: str, now: float) -> bool:
        """Whether the password was right there lately."""
        if self._memory is None:
            return False
        return self.table.digests.used("right", _with_digest(pair, digest), self._memory, now) > 0

    def is_trusted(self, network: str, now: float) -> bool:
        """Whether somebody logged in from the network lately (R-NAT-1)."""
        return self.trusts(self.table.networks.get(network), now)

    def trusts(self, network: FailureRecord, now: float) -> bool:
        """The same, of a record."""
        then = network.last_success
        return 0 < then <= now + DAY and now - then < self._settings.success_memory_seconds

    def pair_used(self, pair: str, now: float) -> float:
        """How much is used up of the wrong passwords for this account from this network."""
        return used(self.table.pairs.get(pair), self.per_pair, now)

    def network_used(self, network: str, now: float) -> float:
        """How much is used up of the failures from this network."""
        return used(self.table.networks.get(network), self.per_network, now)

    # Delays

    def delay(self, account: str, network: str, now: float) -> float:
        """Seconds the answer to a failure takes now."""
        level = self.level(self.table.accounts.get(account), now)
        if network:
            record = self.table.networks.get(network)
            if not self.trusts(record, now):
                level = max(level, self.level(record, now))
        return self.delay_of(level)

    def level(self, record: FailureRecord, now: float) -> float:
        """How far the delay has grown. A clock that was set back makes it neither longer nor shorter."""
        elapsed = max(0.0, now - record.level_at)
        return max(0.0, min(record.level, _LEVEL_LIMIT) - elapsed / self._settings.failure_decay_seconds)

    def level_ends(self, record: FailureRecord, now: float) -> float:
        """When nothing of the delay is left."""
        return now + self.level(record, now) * self._settings.failure_decay_seconds

    def delay_of(self, level: float) -> float:
        """The delay of an answer at this level."""
        doubled = self._settings.failure_delay_seconds * 2 ** max(level - 1, 0)
        return min(doubled, self._settings.failure_delay_limit_seconds)

    # Counting

    def failed(self, digest: bytes, account: str, network: str, pair: str, now: float) -> None:
        """Count a wrong password, once for the account and for each place it was tried from."""
        table = self.table
        table.digests.clear("right", _with_digest(pair, digest))
        if self._is_new("account", account, digest, HOUR, now):
            self._count(table.accounts, account, self._per_account, now)
        if self._is_new("pair", pair, digest, HOUR, now):
            self._count(table.pairs, pair, self.per_pair, now)
        if network and self._is_new("network", network, digest, DAY, now):
            self._count(table.networks, network, self.per_network, now)

    def succeeded(self, digest: bytes, network: str, pair: str, now: float) -> None:
        """The password was right. Where it was not right lately, somebody has found it: what went wrong is forgotten.

        A program that logs in every few minutes forgives nothing: by that, somebody else in its network could go on
        guessing for ever.
        """
        table = self.table
        tried = table.pairs.get(pair)
        if tried.failures and not self.is_right(digest, pair, now):
            table.pairs.put(FailureRecord(pair, last_success=now))
        if self._memory is not None:
            name = _with_digest(pair, digest)
            table.digests.clear("right", name)
            table.digests.take("right", name, self._memory, now)
        if network:
            table.networks.put(evolve(table.networks.get(network), last_success=now))

    def _is_new(self, kind: str, name: str, digest: bytes, seconds: float, now: float) -> bool:
        return self.table.digests.take(f"wrong {kind}", _with_digest(name, digest), Rate(1, seconds, 1), now)

    def _count(self, records: FailureRecords, name: str, rate: Rate, now: float) -> None:
        record = records.get(name)
        before = used(record, rate, now)
        level = self.level(record, now)
        is_first = before <= 0 and level <= 0
        records.put(
            evolve(
                record,
                arrival=now + min(before + 1, rate.burst + ALMOST) * rate.interval,
                level=min(level + 1, _LEVEL_LIMIT),
                level_at=now,
                since=now if is_first else record.since,
                last_failure=now,
                failures=1 if is_first else record.failures + 1,
            )
        )


def used(record: FailureRecord, rate: Rate, now: float) -> float:
    """How much of a limit is used up, whatever the arrival time that is stored: 0 to a little over ``rate.burst``.

    The little more makes that whoever was let through after a whole failure was forgotten waits for another whole one.
    """
    ahead = record.arrival - now
    return min(ahead / rate.interval, rate.burst + ALMOST) if ahead > 0 else 0.0


def _with_digest(name: str, digest: bytes) -> str:
    return f"{name} {digest.hex()}"
