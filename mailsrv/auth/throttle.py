"""Slows down the guessing of passwords, per account and per network, never for everybody (R-AUTH-6).

Two measures. The *delay* of the answer to a failure: 2 s, doubling with each further failure of
the account or of the network up to 15 s, halving with time. And two *limits*, past which a log-in
fails without a look at the password: different wrong passwords for one account from one network
in an hour, and different failures from one network in a day.

An office behind one address is one network (R-NAT-1): the same wrong password again, sent by a
forgotten telephone, counts once; a network somebody logged in from lately is neither refused nor
delayed as a whole; and a password that was right from this network before is looked at even when
the account is past its limit there.

Attempts under way count as failures until they have ended, so that many at once gain nothing.
Passwords are remembered only as digests under a key of this process, or of the run. Everything is
kept in tables of bounded size; the least recently used entry is forgotten first.

Workers remember each for itself. Beside that they share counts (:mod:`mailsrv.auth.shared_failures`), so
that guessing at all of them gains nothing: past a limit counted by all, a password that nobody
knows to be right is not looked at either.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Iterable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailsrv.auth.settings import AuthSettings
from mailsrv.auth.shared_failures import DAY, HOUR, SharedFailures
from mailsrv.wire.networks import NetworkSet, network_key
from mailsrv.wire.rates import Buckets

_REMEMBERED = 32
"""Digests of wrong passwords kept for an account over all networks, and of right ones for a pair."""

_LEVEL_LIMIT = 8.0
"""Delays double no further; so a long attack is forgotten as fast as a short one."""


class _Record:
    """What is known of one account, network, or pair."""

    __slots__ = ("in_flight", "last_success", "level", "level_at", "right", "wrong")

    def __init__(self) -> None:
        self.level = 0.0
        self.level_at = 0.0
        self.wrong: dict[bytes, float] = {}
        self.right: dict[bytes, float] = {}
        self.in_flight: dict[bytes, int] = {}
        self.last_success: float | None = None

    def forget_before(self, then: float) -> None:
        while self.wrong:
            oldest = next(iter(self.wrong))
            if self.wrong[oldest] > then:
                return
            del self.wrong[oldest]

    def count(self, digest: bytes) -> int:
        """Different failures, counting attempts under way, other than with this password."""
        return sum(other != digest for other in self.wrong) + sum(
            other != digest and other not in self.wrong for other in self.in_flight
        )

    def begin(self, digest: bytes) -> None:
        self.in_flight[digest] = self.in_flight.get(digest, 0) + 1

    def end(self, digest: bytes) -> None:
        left = self.in_flight.pop(digest, 0) - 1
        if left > 0:
            self.in_flight[digest] = left

    def fail(self, digest: bytes, now: float, decay: float, remembered: int) -> None:
        """Count a failure, unless the same password has failed already."""
        is_new = self.wrong.pop(digest, None) is None
        self.wrong[digest] = now
        while len(self.wrong) > remembered:
            del self.wrong[next(iter(self.wrong))]
        if is_new:
            self.level = min(self.level_now(now, decay) + 1, _LEVEL_LIMIT)
            self.level_at = now

    def level_now(self, now: float, decay: float) -> float:
        return max(0.0, self.level - (now - self.level_at) / decay)


class _Table:
    """Records under names, the least recently used dropped first."""

    def __init__(self, limit: int) -> None:
        self._limit = max(limit, 1)
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def get(self, name: str) -> _Record:
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = _Record()
            if len(self._records) > self._limit:
                self._records.popitem(last=False)
        else:
            self._records.move_to_end(name)
        return record


class Attempt:
    """One log-in being decided. Ends with exactly one of ``succeeded``, ``failed`` and ``abandoned``."""

    def __init__(self, throttle: LoginThrottle, account: str, network: str, password: str) -> None:
        self._throttle = throttle
        self._digest = throttle.digest(account, password)
        self._account = throttle.accounts.get(account)
        self._network = throttle.networks.get(network) if network else None
        pair = f"{network} {account}"
        self._pair = throttle.pairs.get(pair)
        self._place = (network, pair)
        self.is_refused = throttle.is_past_limit(self._digest, *self._place)
        """Whether to fail without looking at the password."""
        self._records = [record for record in (self._account, self._network, self._pair) if record is not None]
        if not self.is_refused:
            for record in self._records:
                record.begin(self._digest)

    def succeeded(self) -> None:
        """The password was right."""
        self.abandoned()
        now = self._throttle.now()
        if self._throttle.shared is not None:
            self._throttle.shared.succeeded(self._digest, *self._place, now)
        if self._network is not None:
            self._network.last_success = now
        pair = self._pair
        pair.wrong.clear()
        pair.right.pop(self._digest, None)
        pair.right[self._digest] = now
        while len(pair.right) > _REMEMBERED:
            del pair.right[next(iter(pair.right))]

    def failed(self) -> float:
        """It was wrong (or not looked at): seconds from the start of the attempt to the answer."""
        if not self.is_refused:
            self.abandoned()
            self._throttle.count_failure(self._digest, self._account, self._network, self._pair)
            if self._throttle.shared is not None:
                self._throttle.shared.failed(self._digest, *self._place, self._throttle.now())
        return self._throttle.delay(self._account, self._network)

    def abandoned(self) -> None:
        """It was not found out: nothing counts."""
        if not self.is_refused:
            for record in self._records:
                record.end(self._digest)


class _ExemptAttempt(Attempt):
    """From a network that is exempt: nothing is counted, refused or delayed."""

    def __init__(self) -> None:
        self.is_refused = False

    def succeeded(self) -> None:
        pass

    def failed(self) -> float:
        return 0.0

    def abandoned(self) -> None:
        pass


class LoginThrottle:
    """Knows who failed where. ``begin`` every attempt, then tell how it went."""

    _log = Logger()

    def __init__(
        self,
        settings: AuthSettings,
        *,
        clock: IReactorTime,
        exempt_networks: Iterable[str] = (),
        shared: Buckets | None = None,
    ) -> None:
        """``shared``: of all workers; their clock has to be the wall clock then."""
        self._settings = settings
        self._clock = clock
        self._exempt = NetworkSet(exempt_networks)
        self.shared = None if shared is None else SharedFailures(shared, settings)
        self._secret = secrets.token_bytes(32) if self.shared is None else self.shared.key()
        self.refused = 0
        """How many attempts were past a limit."""
        self.accounts = _Table(settings.throttle_entries)
        self.networks = _Table(settings.throttle_entries)
        self.pairs = _Table(settings.throttle_entries)

    def begin(self, account: str, client_address: str, password: str) -> Attempt:
        """An attempt to log in as ``account`` (which may not exist). "" as address is a Unix socket."""
        if client_address in self._exempt:
            return _ExemptAttempt()
        attempt = Attempt(self, account, network_key(client_address), password)
        if attempt.is_refused:
            self.refused += 1
            self._log.info(
                "Log-in as {account} from {address} refused: too many failures", account=account, address=client_address
            )
        return attempt

    def now(self) -> float:
        return self._clock.seconds()

    def digest(self, account: str, password: str) -> bytes:
        """Stands for a password of an account."""
        name = account.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(
            len(name).to_bytes(8, "big") + name + password.encode("utf-8", "surrogatepass"),
            key=self._secret,
            digest_size=16,
        ).digest()

    def is_past_limit(self, digest: bytes, network: str, pair: str) -> bool:
        """Whether the limits refuse an attempt with this password from ``network`` ("": a Unix socket)."""
        now, shared = self.now(), self.shared
        tried = self.pairs.get(pair)
        tried.forget_before(now - HOUR)
        right_at = tried.right.get(digest)
        if right_at is not None and now - right_at < self._settings.success_memory_seconds:
            return False
        if shared is not None and shared.is_right(digest, pair, now):
            return False
        if tried.count(digest) >= self._settings.failures_per_user:
            return True
        if shared is not None and shared.is_pair_past_limit(pair, now):
            return True
        return bool(network) and self._is_network_past_limit(digest, network, now)

    def _is_network_past_limit(self, digest: bytes, network: str, now: float) -> bool:
        record, shared = self.networks.get(network), self.shared
        if self._is_trusted(record) or (shared is not None and shared.is_trusted(network, now)):
            return False
        record.forget_before(now - DAY)
        return record.count(digest) >= self._settings.failures_per_network or (
            shared is not None and shared.is_network_past_limit(network, now)
        )

    def count_failure(self, digest: bytes, account: _Record, network: _Record | None, pair: _Record) -> None:
        """Note a wrong password."""
        now, decay = self.now(), self._settings.failure_decay_seconds
        account.forget_before(now - HOUR)
        account.fail(digest, now, decay, _REMEMBERED)
        pair.right.pop(digest, None)
        pair.fail(digest, now, decay, self._settings.failures_per_user)
        if network is not None:
            network.fail(digest, now, decay, self._settings.failures_per_network)

    def delay(self, account: _Record, network: _Record | None) -> float:
        """Seconds the answer to a failure takes now."""
        now, decay = self.now(), self._settings.failure_decay_seconds
        level = account.level_now(now, decay)
        if network is not None and not self._is_trusted(network):
            level = max(level, network.level_now(now, decay))
        doubled = self._settings.failure_delay_seconds * 2 ** max(level - 1, 0)
        return min(doubled, self._settings.failure_delay_limit_seconds)

    def _is_trusted(self, network: _Record) -> bool:
        then = network.last_success
        return then is not None and self.now() - then < self._settings.success_memory_seconds
