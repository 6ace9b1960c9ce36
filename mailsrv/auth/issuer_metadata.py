"""Where an issuer has its keys and answers questions about tokens, as it says itself.

OpenID Connect Discovery 1.0, 4; RFC 8414, 3. What it says counts only where it names itself as we do, to the letter
(RFC 8414, 3.3), and only addresses with https.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from mailsrv.auth.issuer_web import IssuerFailed, IssuerWeb, read_object
from mailsrv.auth.kept_document import KeptDocument
from mailsrv.auth.oauth_settings import OAuthSettings, is_https

_URI_LIMIT = 2048


@frozen
class IssuerMetadata:
    """Empty: it has none."""

    jwks_uri: str = ""
    introspection_uri: str = ""


class IssuerPlaces:
    """The places of one issuer: those of the settings, or else those it tells."""

    def __init__(self, settings: OAuthSettings, web: IssuerWeb, clock: IReactorTime) -> None:
        self._settings = settings
        self._web = web
        self._metadata = KeptDocument(
            f"the metadata of {settings.issuer}",
            self._fetch,
            clock,
            seconds=settings.keys_seconds,
            stale_seconds=settings.keys_stale_seconds,
        )

    async def jwks_uri(self) -> str:
        """Raises Unavailable."""
        return self._settings.jwks_uri or (await self._metadata.current()).jwks_uri

    async def introspection_uri(self) -> str:
        """Raises Unavailable."""
        return self._settings.introspection_uri or (await self._metadata.current()).introspection_uri

    async def _fetch(self) -> IssuerMetadata:
        uri = self._settings.discovery_uri
        answer = await self._web.get(uri, seconds=self._settings.fetch_seconds)
        metadata = understand_metadata(read_object(answer), self._settings.issuer)
        if not (metadata.introspection_uri if self._settings.client_id else metadata.jwks_uri):
            raise IssuerFailed("metadata without the address that is needed")
        return metadata


def understand_metadata(members: Mapping[str, Any], issuer: str) -> IssuerMetadata:
    """Raises IssuerFailed."""
    if members.get("issuer") != issuer:
        raise IssuerFailed("the metadata of another issuer")
    return IssuerMetadata(_uri(members.get("jwks_uri")), _uri(members.get("introspection_endpoint")))


def _uri(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > _URI_LIMIT or not is_https(value):
        raise IssuerFailed("metadata with an address that cannot be used")
    return value
