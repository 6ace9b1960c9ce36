"""Who logs in while their directory does not answer: those who have lately, by the password that was right then.

Off unless ``auth.outage_seconds`` says how long: meanwhile nobody can tell that somebody was disabled, or has another
password. What is remembered is the user as the directory told them, and for each service a keyed digest of the password
(R-AUTH-2, :mod:`mailsrv.auth.password_digest`); whatever rule holds for a log-in holds here, too.

Log-ins that are remembered for ``auth.cache_seconds`` go on working in an outage, too, as long as the directory's
answer about the user is remembered. So both are known here, to tell what is a guess at such a password.

Kept in memory: a restart or a reload forgets it.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from mailsrv.address import Address
from mailsrv.auth.password_digest import PasswordDigest
from mailsrv.interfaces.account import PasswordCredentials
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.interfaces.sessions import DirectoryProof

_MECHANISM = "PASSWORD"


@define
class _Known:
    user: DirectoryUser
    since: float
    proofs: dict[str, bytes] = field(factory=dict)
    """By service: the digest of the password that was right last."""


class OutageLogins:
    """By the name that was used. At most ``entries``, the one used longest ago goes first.

    ``seconds``: for so long they are let in; 0: never. ``cache_seconds``: for so long others let them in.
    """

    def __init__(self, *, clock: IReactorTime, seconds: float, cache_seconds: float, entries: int) -> None:
        self._clock = clock
        self._seconds = seconds
        self._known_seconds = max(seconds, cache_seconds)
        self._limit = entries if self._known_seconds > 0 else 0
        self._digest = PasswordDigest()
        self._known: OrderedDict[Address, _Known] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def note(self, name: Address, user: DirectoryUser, credentials: PasswordCredentials, *, is_password: bool) -> None:
        """The directory let them in just now. ``is_password``: by its own password."""
        if not self._limit:
            return
        known = self._known.get(name)
        if known is None or known.user.address != user.address or _has_changed(known.user, user):
            known = self._known[name] = _Known(user, 0.0)
        known.user, known.since = user, self._clock.seconds()
        if is_password:
            known.proofs[credentials.service] = self._digest_of(user, credentials)
        self._known.move_to_end(name)
        while len(self._known) > self._limit:
            self._known.popitem(last=False)

    def forget(self, name: Address) -> None:
        """The directory says that nobody may log in by this name."""
        self._known.pop(name, None)

    def user(self, name: Address) -> DirectoryUser | None:
        """Who logged in by this name, if that was lately enough."""
        known = self._known.get(name)
        if known is None or self._clock.seconds() - known.since >= self._seconds:
            return None
        return known.user

    def is_proven(self, name: Address, credentials: PasswordCredentials) -> bool | None:
        """True: the password is the one that was right then. False: another one is. None: neither is known by now."""
        known = self._known.get(name)
        proof = None if known is None else known.proofs.get(credentials.service)
        if known is None or proof is None:
            return None
        age = self._clock.seconds() - known.since
        if age >= self._known_seconds:
            return None
        if not hmac.compare_digest(proof, self._digest_of(known.user, credentials)):
            return False
        return True if age < self._seconds else None

    def _digest_of(self, user: DirectoryUser, credentials: PasswordCredentials) -> bytes:
        return self._digest(_MECHANISM, credentials.service, user.address, credentials.password)


def _has_changed(before: DirectoryUser, now: DirectoryUser) -> bool:
    """Whether the password may be another."""
    return DirectoryProof(before).is_outdated(now)
