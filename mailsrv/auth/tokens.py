"""Is this access token good, and whose is it? (RFC 7519, RFC 9068, RFC 8725; R-AUTH-5)

Signature by a key and an algorithm that are ours to choose from, issuer, audience, time and scope: all have to be
right. The cause of a refusal is for the log; the client hears only that the token is not good.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from twisted.internet.interfaces import IReactorTime

from mailsrv.auth.oauth_settings import OAuthSettings
from mailsrv.auth.token_errors import TokenRefused
from mailsrv.auth.token_keys import Fetch, TokenKeys


class TokenJudge:
    """Knows the issuers. ``seconds`` since the epoch."""

    def __init__(
        self,
        issuers: Sequence[OAuthSettings],
        fetch: Fetch,
        *,
        clock: IReactorTime,
        seconds: Callable[[], float],
    ) -> None:
        self.issuers = tuple(issuers)
        self._seconds = seconds
        self._keys: dict[str, list[tuple[OAuthSettings, TokenKeys]]] = {}
        for one in issuers:
            self._keys.setdefault(one.issuer, []).append((one, TokenKeys(one, fetch, clock)))

    async def account_of(self, token: str) -> str:
        """The value of the account's claim. Raises TokenRefused, and Unavailable where keys cannot be had."""
        header, *rest = token.split(".")
        if len(rest) != 2:
            raise TokenRefused("no signed JWT")
        # Not believed yet: it tells whose keys to look among.
        issuer = _decode(rest[0]).get("iss")
        refusal = TokenRefused("unknown issuer")
        for settings, keys in self._keys.get(issuer, ()) if isinstance(issuer, str) else ():
            try:
                return await self._judge(token, _decode(header), settings, keys)
            except TokenRefused as error:
                refusal = error
        raise refusal

    async def _judge(self, token: str, header: Mapping[str, Any], settings: OAuthSettings, keys: TokenKeys) -> str:
        """By one table of the issuer's."""
        key_id = header.get("kid")
        if key_id is not None and not isinstance(key_id, str):
            raise TokenRefused("a key id that is no text")
        key = await keys.find(key_id)
        if key is None:
            raise TokenRefused("unknown key")
        try:
            claims = jwt.decode(token, key, algorithms=list(settings.algorithms)).claims
        except (JoseError, ValueError, TypeError) as error:
            raise TokenRefused(f"signature: {type(error).__name__}") from None
        check_claims(claims, settings, self._seconds())
        return _account(claims, settings)


def check_claims(claims: Mapping[str, Any], settings: OAuthSettings, now: float) -> None:
    """Everything but the signature; raises TokenRefused."""
    skew = settings.clock_skew_seconds
    if claims.get("iss") != settings.issuer:
        raise TokenRefused("issuer")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if not any(one in settings.audience for one in audiences if isinstance(one, str)):
        raise TokenRefused("audience")
    expires = _time(claims, "exp")
    if expires is None or now >= expires + skew:
        raise TokenRefused("expired" if expires is not None else "no expiry")
    for name in ("nbf", "iat"):
        begins = _time(claims, name)
        if begins is not None and now < begins - skew:
            raise TokenRefused("not valid yet")
    scope = claims.get("scope", claims.get("scp", ""))
    words = scope.split() if isinstance(scope, str) else scope if isinstance(scope, list) else []
    if not all(word in words for word in settings.scope.split()):
        raise TokenRefused("scope")


def _account(claims: Mapping[str, Any], settings: OAuthSettings) -> str:
    account = claims.get(settings.account_claim)
    if not isinstance(account, str) or not account:
        raise TokenRefused(f"no claim {settings.account_claim}")
    if settings.account_claim == "email" and claims.get("email_verified", True) is not True:
        raise TokenRefused("the address is not verified")
    return account


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenRefused(f"{name} is no time")
    return float(value)


def _decode(segment: str) -> Mapping[str, Any]:
    try:
        found = json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        raise TokenRefused("no signed JWT") from None
    if not isinstance(found, dict):
        raise TokenRefused("no signed JWT")
    return found
