"""Decides whether a name and a password are right.

In this order: is the user name one at all; is this attempt past a limit; who is that in the
directory; was the same log-in verified a moment ago; does the directory say the password is
right. Unknown user, wrong password, a user who may not log in, and an attempt past a limit get the
same answer after the same work and the same delay (R-AUTH-4, R-AUTH-6). A directory that does not
answer is Unavailable and counts for nothing (R-AUTH-7).
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnhandledCredentials
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from zope.interface import Interface, implementer

from mailsrv.address import Address
from mailsrv.auth.login_cache import LoginCache
from mailsrv.auth.rules import LoginRules, find_login
from mailsrv.auth.settings import AuthSettings
from mailsrv.auth.throttle import Attempt, LoginThrottle
from mailsrv.interfaces.account import InvalidCredentials, PasswordCredentials
from mailsrv.interfaces.directory import DirectoryUser, IDirectory

MAX_PASSWORD_OCTETS = 4096
_MECHANISM = "PLAIN"
"""All credentials with a plain password are alike, whichever way they came (AUTH PLAIN, LOGIN, USER/PASS)."""


@implementer(ICredentialsChecker)
class PasswordChecker:
    """Checks :class:`PasswordCredentials`; the avatar id is the :class:`DirectoryUser` itself.

    So the realm need not ask the directory once more. A log-in past its deadline may be cancelled.
    """

    credentialInterfaces: Sequence[type[Interface]] = (ICredentials,)

    def __init__(
        self,
        directory: IDirectory,
        settings: AuthSettings,
        *,
        clock: IReactorTime,
        throttle: LoginThrottle,
        cache: LoginCache,
    ) -> None:
        self._directory = directory
        self._rules = LoginRules(settings, clock)
        self._clock = clock
        self._throttle = throttle
        self._cache = cache

    # cred's interface speaks of octets as avatar id; its portal hands on whatever it gets.
    def requestAvatarId(self, credentials: object) -> Deferred[DirectoryUser]:  # type: ignore[override]
        """The user, or InvalidCredentials or Unavailable."""
        if not isinstance(credentials, PasswordCredentials):
            return fail(UnhandledCredentials())
        return Deferred.fromCoroutine(self._check(credentials))

    async def _check(self, credentials: PasswordCredentials) -> DirectoryUser:
        started = self._clock.seconds()
        address, name = self._rules.account_name(credentials.authcid)
        attempt = self._throttle.begin(name, credentials.client_address, credentials.password)
        try:
            user, reason = await self._find_out(credentials, address, attempt)
        except BaseException:
            attempt.abandoned()
            raise
        if user is not None:
            attempt.succeeded()
            return user
        await self._rules.refuse(attempt, credentials, name=name, reason=reason, started=started)
        raise InvalidCredentials(cause=reason)

    async def _find_out(
        self, credentials: PasswordCredentials, address: Address | None, attempt: Attempt
    ) -> tuple[DirectoryUser | None, str]:
        """The user, or None and the reason for the log."""
        if attempt.is_refused:
            return None, "too many failures"
        if not _is_possible(credentials.password):
            return None, "no password anybody could have"
        if address is None:
            # The work is done all the same: a name that cannot be is as unknown as another.
            await self._directory.check_password(None, credentials.password)
            return None, "no user name"
        user = await find_login(self._directory, address)
        objection = self._rules.objection(user, credentials.authzid, credentials.client_address)
        if user is None or objection:
            await self._directory.check_password(None, credentials.password)
            return None, objection
        key = self._cache.key(_MECHANISM, credentials.service, user.address, credentials.password)
        if self._cache.knows(key, user.fingerprint):
            return user, ""
        if not await self._directory.check_password(user, credentials.password):
            return None, "wrong password"
        self._cache.add(key, user.fingerprint)
        return user, ""


def _is_possible(password: str) -> bool:
    """Not empty (R-AUTH-1: an LDAP bind without a password succeeds), not huge, text without NUL."""
    try:
        size = len(password.encode("utf-8"))
    except UnicodeEncodeError:
        return False
    return 0 < size <= MAX_PASSWORD_OCTETS and "\0" not in password
