"""Decides about OAUTHBEARER (RFC 7628) and XOAUTH2: a token is the proof.

A token that is good is never refused, for nobody can guess one; but where an issuer has to be asked about it, the
throttle is asked first, or whoever makes tokens up could keep the issuer busy. The session lasts no longer than the
token, if its table does not say otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from mailsrv.auth.impersonation import Claim
from mailsrv.auth.oauth_settings import OAuthSettings
from mailsrv.auth.rules import LoginRules, Standing, find_login
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.auth.token_errors import TokenRefused
from mailsrv.interfaces.account import InvalidCredentials, SaslCredentials
from mailsrv.interfaces.directory import DirectoryUser, IDirectory
from mailsrv.interfaces.sessions import LastingProof, Login
from mailsrv.sasl.bearer import TokenGiven, parse_bearer, refusal

if TYPE_CHECKING:
    # It needs a library that not everybody installs.
    from mailsrv.auth.tokens import TokenJudge


class BearerChecker:
    """A :data:`~mailsrv.auth.sasl_checker.SaslDecider`. ``seconds`` since the epoch."""

    def __init__(
        self,
        directory: IDirectory,
        rules: LoginRules,
        tokens: TokenJudge,
        *,
        clock: IReactorTime,
        throttle: LoginThrottle,
        seconds: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._rules = rules
        self._tokens = tokens
        self._clock = clock
        self._throttle = throttle
        self._seconds = seconds

    async def __call__(self, credentials: SaslCredentials) -> DirectoryUser | Login:
        """The log-in, or InvalidCredentials, Unavailable, SaslError or SaslCancelled."""
        given = parse_bearer(credentials.mechanism, credentials.response)
        name = self._rules.claim(given.name).name if given.name else _unnamed(given.token)
        expires: float | None = None
        if self._is_past_limit(name, credentials, given):
            standing = Standing(None, "too many failures")
        else:
            try:
                good, table = await self._tokens.judge(given.token)
            except TokenRefused as error:
                standing = Standing(None, f"token: {error}")
            else:
                claim = await self._claim(good.account, given)
                name = claim.name
                standing = await self._rules.standing(self._directory, claim, credentials)
                expires = _end(table, good.expires)
        started = self._clock.seconds()
        if not standing.objection:
            self._throttle.proven(name, credentials.client_address, given.token)
            return self._rules.admit(standing, credentials, LastingProof(self._seconds, expires))
        # The client has to answer once more (RFC 7628 3.2.3); what it says then means nothing.
        issuer = self._tokens.table_of(given.token)
        await credentials.converse(
            refusal(credentials.mechanism, scope=issuer.scope, openid_configuration=issuer.told_configuration)
        )
        attempt = self._throttle.begin(name, credentials.client_address, given.token)
        await self._rules.refuse(attempt, credentials, name=name, reason=standing.objection, started=started)
        raise InvalidCredentials(cause=standing.objection)

    def _is_past_limit(self, name: str, credentials: SaslCredentials, given: TokenGiven) -> bool:
        """Whether this is one guess too many at an issuer that would have to be asked."""
        if not self._tokens.asks_about(given.token):
            return False
        attempt = self._throttle.begin(name, credentials.client_address, given.token)
        attempt.abandoned()
        return attempt.is_refused

    async def _claim(self, account: str, given: TokenGiven) -> Claim:
        """Whose token it is, and whom the client asks for: by another of the user's names it is still the user."""
        # An issuer names users, and not whom they act for: a name with the separator is none of ours.
        owner = self._rules.claim("", account)
        claim = Claim(owner.acting_for, ascii(account[:320]) if owner.acting_for is None else str(owner.acting_for))
        if not given.name or claim.address is None:
            return claim
        asked = self._rules.claim("", given.name)
        if asked.acting_for is not None and asked.acting_for != claim.address:
            user = await find_login(self._directory, claim.address)
            named = await find_login(self._directory, asked.acting_for)
            if user is not None and named is not None and user.address == named.address:
                return claim
        return Claim(claim.address, claim.name, asked.acting_for, asked.is_contradictory)


def _unnamed(token: str) -> str:
    """Under which failures are counted that name nobody: of each token by itself, for an office has many (R-NAT-1)."""
    return f"whoever token {hashlib.sha256(token.encode('ascii')).hexdigest()[:12]} is for"


def _end(table: OAuthSettings, expires: float | None) -> float | None:
    if expires is None or not table.end_sessions:
        return None
    return expires + table.clock_skew_seconds
