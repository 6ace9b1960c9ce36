"""What a token has to say of itself to be taken, whoever vouches for it: a signature, or its issuer when asked.

RFC 7519, 4.1; RFC 7662, 2.2; RFC 9068, 2.2; R-AUTH-5: issuer, audience, expiry and scope, all of them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from attrs import frozen

from mailsrv.address import Address
from mailsrv.auth.names import parse_user_name
from mailsrv.auth.oauth_settings import OAuthSettings, UntoldClaim
from mailsrv.auth.token_errors import TokenRefused

ACCOUNT_LIMIT = 1024
"""Characters of a claim that names an account."""

_KINDS = {
    # RFC 7662 2.2; the others are told by issuers whose refresh and identity tokens look much like access tokens.
    "token_type": ("bearer", "access_token"),
    "token_use": ("access", "access_token"),
    "typ": ("bearer", "jwt", "at+jwt"),
}
"""What a token may be, where it is told."""


@frozen
class GoodToken:
    """Whose it is, and how long, in seconds since the epoch: None where the issuer does not say."""

    account: str
    expires: float | None


def check_claims(
    claims: Mapping[str, Any], settings: OAuthSettings, now: float, *, untold: Collection[UntoldClaim] = ()
) -> GoodToken:
    """Raises TokenRefused. ``untold``: what may be missing; what is there has to be right all the same."""
    missing = [one.value for one in untold if claims.get(one.value) is None]
    if "iss" not in missing and claims.get("iss") != settings.issuer:
        raise TokenRefused("issuer")
    if "aud" not in missing and not _has_audience(claims.get("aud"), settings.audience):
        raise TokenRefused("audience")
    expires = _time(claims, "exp")
    if expires is None and "exp" not in missing:
        raise TokenRefused("no expiry")
    if expires is not None and now >= expires + settings.clock_skew_seconds:
        raise TokenRefused("expired")
    for name in ("nbf", "iat"):
        begins = _time(claims, name)
        if begins is not None and now < begins - settings.clock_skew_seconds:
            raise TokenRefused("not valid yet")
    words = _scope_words(claims)
    if ("scope" not in missing or words) and not all(word in words for word in settings.scope.split()):
        raise TokenRefused("scope")
    _check_kind(claims)
    return GoodToken(_account(claims, settings), expires)


def _check_kind(claims: Mapping[str, Any]) -> None:
    if claims.get("cnf") is not None:
        # RFC 9449 7.2, RFC 8705 3: it is good only with proof of a key, which these mechanisms do not carry.
        raise TokenRefused("bound to a key")
    for name, kinds in _KINDS.items():
        kind = claims.get(name)
        if kind is not None and (not isinstance(kind, str) or kind.lower() not in kinds):
            raise TokenRefused(f"{name} is another")
    subject = claims.get("sub")
    if subject is not None and (not isinstance(subject, str) or not subject):
        raise TokenRefused("sub is no name")


def _has_audience(audience: object, wanted: Collection[str]) -> bool:
    """RFC 7519 4.1.3: one name, or a list of them."""
    names = audience if isinstance(audience, list) else [audience]
    return any(one in wanted for one in names if isinstance(one, str))


def _scope_words(claims: Mapping[str, Any]) -> list[object]:
    """RFC 8693 4.2: words with spaces between; some issuers have a list, or call it scp."""
    scope = claims.get("scope", claims.get("scp"))
    if isinstance(scope, str):
        return [*scope.split(" ")]
    return scope if isinstance(scope, list) else []


def _account(claims: Mapping[str, Any], settings: OAuthSettings) -> str:
    account = claims.get(settings.account_claim)
    if not isinstance(account, str) or not 0 < len(account) <= ACCOUNT_LIMIT:
        raise TokenRefused(f"no claim {settings.account_claim}")
    if settings.account_claim == "email" and claims.get("email_verified", True) is not True:
        raise TokenRefused("the address is not verified")
    if settings.domains and not _is_of(account, settings.domains):
        raise TokenRefused("an account of another domain")
    return account


def _is_of(account: str, domains: Collection[str]) -> bool:
    address = parse_user_name(account)
    return address is not None and any(address.domain == Address("x", name).domain for name in domains)


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenRefused(f"{name} is no time")
    try:
        seconds = float(value)
    except OverflowError:
        raise TokenRefused(f"{name} is no time") from None
    # With infinity, or what is no number, every comparison would come out in the token's favour.
    if not math.isfinite(seconds):
        raise TokenRefused(f"{name} is no time")
    return seconds
