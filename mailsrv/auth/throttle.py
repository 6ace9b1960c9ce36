"""Slows down the guessing of passwords, per account and per network, never for everybody (R-AUTH-6).

Two measures. The *delay* of the answer to a failure: 2 s, doubling with each further failure of
the account or of the network up to 15 s, halving with time. And two *limits*, past which a log-in
fails without a look at the password: different wrong passwords for one account from one network
in an hour, and different failures from one network in a day. Past a limit one more attempt is looked at
as often as the limit allows in the long run.

An office behind one address is one network (R-NAT-1): the same wrong password again, sent by a
forgotten telephone, counts once; a network somebody logged in from lately is neither refused nor
delayed as a whole; and a password that was right from this network before is looked at even when
the account is past its limit there.

What is remembered is shared by all workers and outlives them (:mod:`mailsrv.auth.failure_table`);
``mailsrvctl auth`` shows it and lets people go on. Passwords are remembered only as keyed digests. Attempts under way
count as failures until they have ended, so that many at once gain nothing; each worker counts its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailsrv.auth.failure_table import FailureFile, FailureTable
from mailsrv.auth.settings import AuthSettings
from mailsrv.auth.shared_failures import ALMOST, SharedFailures
from mailsrv.wire.mapped_file import LateTable
from mailsrv.wire.networks import NetworkSet, network_key


class _UnderWay:
    """Attempts that have not ended, by network or pair; as many as there are log-ins being decided."""

    def __init__(self) -> None:
        self._digests: dict[str, dict[bytes, int]] = {}

    def __len__(self) -> int:
        return len(self._digests)

    def begin(self, name: str, digest: bytes) -> None:
        digests = self._digests.setdefault(name, {})
        digests[digest] = digests.get(digest, 0) + 1

    def end(self, name: str, digest: bytes) -> None:
        digests = self._digests.get(name, {})
        left = digests.pop(digest, 0) - 1
        if left > 0:
            digests[digest] = left
        if not digests:
            self._digests.pop(name, None)

    def others(self, name: str, digest: bytes) -> int:
        """With other passwords than this one."""
        return sum(other != digest for other in self._digests.get(name, ()))


class Attempt:
    """One log-in being decided. Ends with exactly one of ``succeeded``, ``failed`` and ``abandoned``."""

    def __init__(self, throttle: LoginThrottle, account: str, network: str, password: str) -> None:
        self._throttle = throttle
        self._account = account
        self._network = network
        self._pair = _pair(network, account)
        self._digest = throttle.digest(account, password)
        self.is_refused = throttle.is_past_limit(self._digest, network, self._pair)
        """Whether to fail without looking at the password."""
        if not self.is_refused:
            throttle.under_way.begin(self._pair, self._digest)
            if network:
                throttle.under_way.begin(network, self._digest)

    def succeeded(self) -> None:
        """The password was right."""
        self.abandoned()
        self._throttle.failures.succeeded(self._digest, self._network, self._pair, self._throttle.now())

    def failed(self) -> float:
        """It was wrong (or not looked at): seconds from the start of the attempt to the answer."""
        throttle = self._throttle
        if not self.is_refused:
            self.abandoned()
            throttle.failures.failed(self._digest, self._account, self._network, self._pair, throttle.now())
        return throttle.failures.delay(self._account, self._network, throttle.now())

    def abandoned(self) -> None:
        """It was not found out: nothing counts."""
        if not self.is_refused:
            self._throttle.under_way.end(self._pair, self._digest)
            if self._network:
                self._throttle.under_way.end(self._network, self._digest)


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
        failures: LateTable[FailureTable] | None = None,
    ) -> None:
        """``failures``: what all workers share; ``clock`` has to be the wall clock then."""
        self._settings = settings
        self._clock = clock
        self._exempt = NetworkSet(exempt_networks)
        self.failures = SharedFailures(failures or FailureFile(None, settings.throttle_entries), settings)
        self.under_way = _UnderWay()
        self.refused = 0
        """How many attempts were past a limit."""

    def is_exempt(self, client_address: str) -> bool:
        """Whether nothing is counted there."""
        return client_address in self._exempt

    def begin(self, account: str, client_address: str, password: str) -> Attempt:
        """An attempt to log in as ``account`` (which may not exist). "" as address is a Unix socket."""
        if self.is_exempt(client_address):
            return _ExemptAttempt()
        attempt = Attempt(self, account, network_key(client_address), password)
        if attempt.is_refused:
            self.refused += 1
            self._log.info(
                "Log-in as {account} from {address} refused: too many failures", account=account, address=client_address
            )
        return attempt

    def proven(self, account: str, client_address: str, proof: str) -> None:
        """Somebody was let in by what nobody can guess (a certificate, ticket, token): no limit holds for that."""
        if not self.is_exempt(client_address):
            network = network_key(client_address)
            self.failures.succeeded(self.digest(account, proof), network, _pair(network, account), self.now())

    def now(self) -> float:
        return self._clock.seconds()

    def digest(self, account: str, password: str) -> bytes:
        """Stands for a password of an account."""
        name = account.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(
            len(name).to_bytes(8, "big") + name + password.encode("utf-8", "surrogatepass"),
            key=self.failures.key(),
            digest_size=16,
        ).digest()

    def is_past_limit(self, digest: bytes, network: str, pair: str) -> bool:
        """Whether the limits refuse an attempt with this password from ``network`` ("": a Unix socket)."""
        now, failures = self.now(), self.failures
        if failures.is_right(digest, pair, now):
            return False
        tried = failures.pair_used(pair, now) + self.under_way.others(pair, digest)
        if tried > self._settings.failures_per_user - ALMOST:
            return True
        if not network or failures.is_trusted(network, now):
            return False
        tried = failures.network_used(network, now) + self.under_way.others(network, digest)
        return tried > self._settings.failures_per_network - ALMOST


def _pair(network: str, account: str) -> str:
    """What an account at a network is counted under."""
    return f"{network} {account}"
