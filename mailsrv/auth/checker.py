"""Decides whether a name and a password are right.

In this order: is this attempt past a limit; is the password one at all; who is that in the directory, and does anything
speak against them; then the deciders (:mod:`mailsrv.auth.deciders`), one after the other. Unknown user, wrong password,
a user who may not log in, and an attempt past a limit get the same answer after the same work and the same delay
(R-AUTH-4, R-AUTH-6). A directory that does not answer is Unavailable and counts for nothing (R-AUTH-7), but where
:mod:`mailsrv.auth.outage_logins` lets somebody in meanwhile: guesses at such a password are told the same, and count.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnhandledCredentials
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from zope.interface import Interface, implementer

from mailsrv.auth.access import AccessRules
from mailsrv.auth.app_passwords.judge import AppPasswordJudge
from mailsrv.auth.deciders import (
    NotProven,
    PasswordLogin,
    Refused,
    Right,
    Verdict,
    asks_directory,
    decides_app_passwords,
    demands_second_factor,
    refuses_without_standing,
)
from mailsrv.auth.impersonation import Claim
from mailsrv.auth.login_cache import LoginCache
from mailsrv.auth.outage_logins import OutageLogins
from mailsrv.auth.rules import LoginRules, Standing
from mailsrv.auth.settings import AuthSettings
from mailsrv.auth.throttle import Attempt, LoginThrottle
from mailsrv.errors import Unavailable
from mailsrv.interfaces.account import InvalidCredentials, PasswordCredentials
from mailsrv.interfaces.directory import DirectoryUser, IDirectory
from mailsrv.interfaces.sessions import Login

MAX_PASSWORD_OCTETS = 4096
_NOBODY = Standing(None)


@implementer(ICredentialsChecker)
class PasswordChecker:
    """Checks :class:`PasswordCredentials`; the avatar id is the :class:`DirectoryUser` itself, or a :class:`Login`.

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
        access: AccessRules | None = None,
        app_passwords: AppPasswordJudge | None = None,
    ) -> None:
        self._directory = directory
        self._rules = LoginRules(settings, clock, access)
        self._clock = clock
        self._throttle = throttle
        self._outage = OutageLogins(
            clock=clock,
            seconds=settings.outage_seconds,
            cache_seconds=settings.cache_seconds,
            entries=settings.cache_entries,
        )
        self._deciders = (
            decides_app_passwords(app_passwords),
            refuses_without_standing(directory),
            demands_second_factor(directory, self._rules.second_factor),
            asks_directory(directory, cache, self._outage),
        )

    # cred's interface speaks of octets as avatar id; its portal hands on whatever it gets.
    def requestAvatarId(self, credentials: object) -> Deferred[DirectoryUser | Login]:  # type: ignore[override]
        """Who it is, or InvalidCredentials or Unavailable."""
        if not isinstance(credentials, PasswordCredentials):
            return fail(UnhandledCredentials())
        return Deferred.fromCoroutine(self._check(credentials))

    async def _check(self, credentials: PasswordCredentials) -> DirectoryUser | Login:
        started = self._clock.seconds()
        claim = self._rules.claim(credentials.authcid, credentials.authzid)
        attempt = self._throttle.begin(claim.name, credentials.client_address, credentials.password)
        try:
            standing, verdict = await self._find_out(credentials, claim, attempt)
        except NotProven as error:
            await self._rules.refuse(attempt, credentials, name=claim.name, reason=str(error.cause), started=started)
            raise
        except BaseException:
            attempt.abandoned()
            raise
        if isinstance(verdict, Right):
            attempt.succeeded()
            return self._rules.admit(standing, credentials, verdict.proof)
        await self._rules.refuse(attempt, credentials, name=claim.name, reason=verdict.reason, started=started)
        raise InvalidCredentials(cause=verdict.reason)

    async def _find_out(
        self, credentials: PasswordCredentials, claim: Claim, attempt: Attempt
    ) -> tuple[Standing, Verdict]:
        if attempt.is_refused:
            return _NOBODY, Refused("too many failures")
        if not is_possible_password(credentials.password):
            return _NOBODY, Refused("no password anybody could have")
        standing, is_remembered = await self._standing(credentials, claim)
        login = PasswordLogin(credentials, standing, claim.name, claim.address)
        for decide in self._deciders:
            verdict = await decide(login)
            if verdict is not None:
                if isinstance(verdict, Right) and not is_remembered and not verdict.is_remembered:
                    self._note(login, is_password=verdict.proof is None)
                return standing, verdict
        return standing, Refused("nobody decides about this password")

    def _note(self, login: PasswordLogin, *, is_password: bool) -> None:
        if login.address is not None and login.standing.user is not None:
            self._outage.note(login.address, login.standing.user, login.credentials, is_password=is_password)

    async def _standing(self, credentials: PasswordCredentials, claim: Claim) -> tuple[Standing, bool]:
        """And whether it is of before an outage."""
        try:
            standing = await self._rules.standing(self._directory, claim, credentials)
        except Unavailable:
            user = None if claim.address is None else self._outage.user(claim.address)
            if user is None:
                raise
            return await self._rules.standing(self._directory, claim, credentials, user=user), True
        if claim.address is not None and (standing.user is None or not standing.user.may_log_in):
            self._outage.forget(claim.address)
        return standing, False


def is_possible_password(password: str) -> bool:
    """Not empty (R-AUTH-1: an LDAP bind without a password succeeds), not huge, text without NUL."""
    try:
        size = len(password.encode("utf-8"))
    except UnicodeEncodeError:
        return False
    return 0 < size <= MAX_PASSWORD_OCTETS and "\0" not in password
