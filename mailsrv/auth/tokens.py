"""Is this access token good, and whose is it? (R-AUTH-5)

A JWT names its issuer, and is judged by that issuer's tables alone. Any other token may be of every issuer that is
asked about tokens, and goes to them in order. The cause of a refusal is for the log; the client hears only that the
token is not good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IReactorTime

from mailsrv.auth.introspection import Introspection
from mailsrv.auth.issuer_metadata import IssuerPlaces
from mailsrv.auth.issuer_web import IssuerWeb
from mailsrv.auth.oauth_settings import OAuthSettings
from mailsrv.auth.signed_tokens import TOKEN_LIMIT_OCTETS, SignedTokens, parse_jwt
from mailsrv.auth.token_claims import GoodToken
from mailsrv.auth.token_errors import TokenRefused
from mailsrv.auth.token_keys import TokenKeys
from mailsrv.errors import Unavailable

_Way = SignedTokens | Introspection


class TokenJudge:
    """Knows the issuers. ``web_of``: how each is asked; ``seconds`` since the epoch."""

    def __init__(
        self,
        issuers: Sequence[OAuthSettings],
        web_of: Callable[[OAuthSettings], IssuerWeb],
        *,
        clock: IReactorTime,
        seconds: Callable[[], float],
    ) -> None:
        self.issuers = tuple(issuers)
        self._ways: list[tuple[OAuthSettings, _Way]] = []
        for one in issuers:
            web = web_of(one)
            places = IssuerPlaces(one, web, clock)
            way: _Way
            if one.client_id:
                way = Introspection(one, web, places, clock, seconds)
            else:
                way = SignedTokens(one, TokenKeys(one, web, places, clock), seconds)
            self._ways.append((one, way))

    def asks_about(self, token: str) -> bool:
        """Whether judging it costs somebody a request, which anything that anybody makes up may do."""
        return any(isinstance(way, Introspection) and not way.knows(token) for _, way in self._ways_for(token))

    def table_of(self, token: str) -> OAuthSettings:
        """Of the issuer that a client should go back to with a token that is not good."""
        ways = self._ways_for(token)
        return ways[0][0] if ways else self.issuers[0]

    async def judge(self, token: str) -> tuple[GoodToken, OAuthSettings]:
        """With the table by which it is good. Raises TokenRefused, and Unavailable where it cannot be known."""
        refusal: TokenRefused | Unavailable = TokenRefused("unknown issuer, or no JWT")
        for settings, way in self._ways_for(token):
            try:
                return await way.judge(token), settings
            except Unavailable as error:
                # That another one says no means little while this one cannot say.
                refusal = error
            except TokenRefused as error:
                refusal = refusal if isinstance(refusal, Unavailable) else error
        raise refusal

    def _ways_for(self, token: str) -> Sequence[tuple[OAuthSettings, _Way]]:
        if len(token) > TOKEN_LIMIT_OCTETS:
            return ()
        unverified = parse_jwt(token)
        if unverified is None or not unverified.issuer:
            return [(settings, way) for settings, way in self._ways if isinstance(way, Introspection)]
        # Nobody's token is shown to another issuer.
        return [(settings, way) for settings, way in self._ways if settings.issuer == unverified.issuer]
