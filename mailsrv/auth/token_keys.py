"""The public keys of an issuer (JWKS, RFC 7517): fetched when they are needed, kept for a while.

An unknown key id makes them be fetched again, at most once a minute, for issuers change their keys. An id is looked
up in a table and nowhere else (R-AUTH-5). Keys that cannot be fetched are used until they are stale; then, or where
there never were any, the answer is Unavailable.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import Key, import_key
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailsrv.auth.oauth_settings import OAuthSettings
from mailsrv.errors import Unavailable

Fetch = Callable[[OAuthSettings], Deferred[bytes]]
"""The JWKS document; may fail with anything."""

_AGAIN_SECONDS = 60.0
_KEYS_LIMIT = 100


class TokenKeys:
    """Of one issuer."""

    _log = Logger()

    def __init__(self, settings: OAuthSettings, fetch: Fetch, clock: IReactorTime) -> None:
        self._settings = settings
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str, Key] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._waiting: list[Deferred[None]] | None = None

    async def find(self, key_id: str | None) -> Key | None:
        """The key of this id; without an id the only key there is. None for an unknown one."""
        age = self._age(self._fetched_at)
        if age is None or age >= self._settings.keys_seconds:
            await self._refresh()
        found = self._look_up(key_id)
        if found is None and key_id is not None:
            await self._refresh()
            found = self._look_up(key_id)
        return found

    def _look_up(self, key_id: str | None) -> Key | None:
        if key_id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(key_id)

    def _age(self, then: float | None) -> float | None:
        return None if then is None else self._clock.seconds() - then

    async def _refresh(self) -> None:
        """Once at a time, and not more often than once a minute; raises Unavailable where no keys can be used."""
        if self._waiting is not None:
            waiter: Deferred[None] = Deferred()
            self._waiting.append(waiter)
            await waiter
        else:
            tried = self._age(self._tried_at)
            if tried is None or tried >= _AGAIN_SECONDS:
                self._waiting = []
                try:
                    await self._fetch_keys()
                finally:
                    waiting, self._waiting = self._waiting, None
                    for waiter in waiting:
                        waiter.callback(None)
        age = self._age(self._fetched_at)
        if age is None or age >= self._settings.keys_stale_seconds:
            raise Unavailable(cause=f"the keys of {self._settings.issuer} cannot be had")

    async def _fetch_keys(self) -> None:
        self._tried_at = self._clock.seconds()
        try:
            document = await self._fetch(self._settings)
            keys = parse_keys(document)
        except Exception as error:
            # Whatever a server far away does must not end log-ins that have nothing to do with it.
            self._log.error(
                "keys of {issuer} cannot be fetched: {error}", issuer=self._settings.issuer, error=repr(error)
            )
            return
        self._keys = keys
        self._fetched_at = self._clock.seconds()


def parse_keys(document: bytes) -> dict[str, Key]:
    """The keys for signatures by their id; what is no public key is left out. Raises ValueError."""
    found: dict[str, Key] = {}
    try:
        members = json.loads(document)["keys"]
    except (KeyError, TypeError, ValueError):
        raise ValueError("no JWKS document") from None
    if not isinstance(members, list):
        raise ValueError("no JWKS document")
    for number, member in enumerate(members[:_KEYS_LIMIT]):
        key = _import(member)
        if key is not None:
            found.setdefault(str(member.get("kid", f"\0{number}")), key)
    return found


def _import(member: Any) -> Key | None:
    # "oct" is a secret: nobody publishes it, and a signature by it would prove nothing.
    if not isinstance(member, dict) or member.get("kty") not in {"RSA", "EC", "OKP"} or member.get("use") == "enc":
        return None
    try:
        return import_key({name: value for name, value in member.items() if name != "key_ops"})
    except (JoseError, ValueError, TypeError, KeyError):
        return None
