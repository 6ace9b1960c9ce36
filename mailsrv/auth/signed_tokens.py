"""Tokens that are JWTs, believed for their signature (RFC 7515, RFC 7519, RFC 8725).

By a key and an algorithm that are ours to choose from. What a header offers beyond the key's id (a key, a certificate,
an address to fetch one from) is not looked at; what it declares critical nobody here understands.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from mailsrv.auth.issuer_web import IssuerFailed, parse_object
from mailsrv.auth.oauth_settings import OAuthSettings
from mailsrv.auth.token_claims import GoodToken, check_claims
from mailsrv.auth.token_errors import TokenRefused
from mailsrv.auth.token_keys import TokenKeys

TOKEN_LIMIT_OCTETS = 9216
"""What fits into one line of SASL (RFC 4954 4), three quarters of its base64."""

# RFC 7515 3.1, 7.1: three segments in base64url without padding. No signature: "none".
_COMPACT = re.compile(r"(?P<header>[A-Za-z0-9_-]+)\.(?P<payload>[A-Za-z0-9_-]+)\.[A-Za-z0-9_-]*")
# RFC 8725 3.11: identity tokens are JWTs, too; notices of log-outs and of security events name their kind.
_TYPES = ("jwt", "at+jwt", "application/at+jwt")


@frozen
class UnverifiedJwt:
    """What stands in a token that looks like a signed JWT. None of it is believed yet."""

    header: Mapping[str, Any]
    issuer: str


def parse_jwt(token: str) -> UnverifiedJwt | None:
    """None: it is something else, and means something to its issuer alone."""
    found = _COMPACT.fullmatch(token)
    if found is None:
        return None
    try:
        header, issuer = _decode(found["header"]), _decode(found["payload"]).get("iss")
    except (IssuerFailed, ValueError):
        return None
    return UnverifiedJwt(header, issuer if isinstance(issuer, str) else "")


def _decode(segment: str) -> Mapping[str, Any]:
    return parse_object(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))


class _Registry(JWSRegistry):
    """The library's own bound is less than one certificate (x5c) in a header takes."""

    max_header_length = TOKEN_LIMIT_OCTETS


class SignedTokens:
    """Of one issuer. ``seconds`` since the epoch."""

    def __init__(self, settings: OAuthSettings, keys: TokenKeys, seconds: Callable[[], float]) -> None:
        self._settings = settings
        self._keys = keys
        self._seconds = seconds
        # RFC 7515 4: parameters that nobody knows are ignored, unless they are critical.
        self._registry = _Registry(algorithms=settings.algorithms, strict_check_header=False)

    async def judge(self, token: str) -> GoodToken:
        """Raises TokenRefused, and Unavailable where keys cannot be had."""
        unverified = parse_jwt(token)
        if unverified is None:
            raise TokenRefused("no signed JWT")
        _check_header(unverified.header, self._settings.algorithms)
        key_id = unverified.header.get("kid")
        key = await self._keys.find(key_id)
        if key is None:
            raise TokenRefused("unknown key")
        try:
            claims = jwt.decode(token, key, registry=self._registry).claims
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            raise TokenRefused(f"signature: {type(error).__name__}") from None
        return check_claims(claims, self._settings, self._seconds())


def _check_header(header: Mapping[str, Any], algorithms: tuple[str, ...]) -> None:
    """Before any key is looked for: so nobody has keys fetched by a token that could not be good with any."""
    if header.get("alg") not in algorithms:
        raise TokenRefused("algorithm")
    if "crit" in header or "b64" in header:
        # RFC 7515 4.1.11, RFC 7797 3.
        raise TokenRefused("critical header parameters")
    kind = header.get("typ")
    if kind is not None and (not isinstance(kind, str) or kind.lower() not in _TYPES):
        raise TokenRefused("another type of token")
    key_id = header.get("kid")
    if key_id is not None and not isinstance(key_id, str):
        raise TokenRefused("a key id that is no text")
