"""The public keys of an issuer (JWKS, RFC 7517): fetched when they are needed, kept for a while.

An unknown key id makes them be fetched again, at most once a minute, for issuers change their keys. An id is looked
up in a table and nowhere else (R-AUTH-5). Keys that cannot be fetched are used until they are stale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import Key, RSAKey, import_key
from twisted.internet.interfaces import IReactorTime

from mailsrv.auth.issuer_metadata import IssuerPlaces
from mailsrv.auth.issuer_web import IssuerFailed, IssuerWeb, parse_object, read_object
from mailsrv.auth.kept_document import KeptDocument
from mailsrv.auth.oauth_settings import OAuthSettings

_KEYS_LIMIT = 1000
_RSA_BITS = 2048
"""RFC 7518 3.3: a key of this size or larger MUST be used."""


class TokenKeys:
    """Of one issuer."""

    def __init__(self, settings: OAuthSettings, web: IssuerWeb, places: IssuerPlaces, clock: IReactorTime) -> None:
        self._settings = settings
        self._web = web
        self._places = places
        self._keys = KeptDocument(
            f"the keys of {settings.issuer}",
            self._fetch,
            clock,
            seconds=settings.keys_seconds,
            stale_seconds=settings.keys_stale_seconds,
        )

    async def find(self, key_id: str | None) -> Key | None:
        """The key of this id; without an id the only key there is. None for an unknown one. Raises Unavailable."""
        found = (await self._keys.current()).find(key_id)
        if found is None and key_id is not None:
            found = (await self._keys.renewed()).find(key_id)
        return found

    async def _fetch(self) -> KeyTable:
        if self._settings.jwks_file:
            return KeyTable(parse_object(await self._web.read_file(self._settings.jwks_file)))
        answer = await self._web.get(await self._places.jwks_uri(), seconds=self._settings.fetch_seconds)
        # Files behind simple web servers have all sorts of types, and what they hold is judged anyway.
        return KeyTable(read_object(answer, any_media_type=True))


class KeyTable:
    """The keys for signatures of a JWKS document, by their id; raises IssuerFailed for what is none.

    A key is made of what stands there when it is first looked up: of a hundred at once the reactor would notice.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        members = document.get("keys")
        if not isinstance(members, list):
            raise IssuerFailed("no JWKS document")
        self._members: dict[str, Mapping[str, Any]] = {}
        self._keys: dict[str, Key | None] = {}
        for number, member in enumerate(members[:_KEYS_LIMIT]):
            if _is_for_signatures(member):
                self._members.setdefault(str(member.get("kid", f"\0{number}")), member)

    def find(self, key_id: str | None) -> Key | None:
        """The key of this id; without an id the only key there is. None for an unknown or unusable one."""
        if key_id is None:
            if len(self._members) != 1:
                return None
            [key_id] = self._members
        if key_id not in self._keys and key_id in self._members:
            self._keys[key_id] = _import(self._members[key_id])
        return self._keys.get(key_id)


def _is_for_signatures(member: object) -> bool:
    # "oct" is a secret: nobody publishes it, and a signature by it would prove nothing.
    if not isinstance(member, dict) or member.get("kty") not in ("RSA", "EC", "OKP") or member.get("use") == "enc":
        return False
    operations = member.get("key_ops")
    return operations is None or (isinstance(operations, list) and "verify" in operations)


def _import(member: Mapping[str, Any]) -> Key | None:
    try:
        # Of a private key that somebody published only the public half is kept.
        key = import_key({name: value for name, value in member.items() if name not in {"key_ops", *_PRIVATE}})
        is_weak = isinstance(key, RSAKey) and key.public_key.key_size < _RSA_BITS
    except (JoseError, ValueError, TypeError, KeyError, OverflowError):
        return None
    return None if is_weak else key


_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})
"""RFC 7518 6.2.2, 6.3.2; RFC 8037 2."""
