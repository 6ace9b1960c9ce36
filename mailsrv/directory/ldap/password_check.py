"""Is this the password of that entry: by a bind as the entry, or by comparing what the service account reads of it.

A bind lets the directory decide, with its own rules on locked and expired accounts, and shows us no hash: it is what
directories are made for. Comparing is for those whose entries nobody can bind as (hashes the server does not know, no
``auth`` right): the service account reads the stored values, and our verifiers compare.
"""

from __future__ import annotations

import re
from typing import Protocol

from twisted.logger import Logger

from mailsrv.directory.ldap.client import LdapClient
from mailsrv.directory.ldap.results import BindOutcome
from mailsrv.directory.ldap.search import entry_at
from mailsrv.directory.ldap.trouble import NoSuchEntry
from mailsrv.directory.passwords.hashing import HashingPool
from mailsrv.directory.passwords.verifiers import is_locked, is_supported

_CRYPT = re.compile(r"\$[0-9A-Za-z-]{1,16}\$")
"""How hashes of crypt(3) begin."""
VALUES = 5
"""Most stored values of an entry that are tried: each costs a hash."""


class IPasswordCheck(Protocol):
    """Raises LdapTrouble, or Unavailable where too many wait."""

    async def check(self, dn: str, password: str, *, seconds: float) -> BindOutcome:
        """Whether the password is the entry's. An entry that is not there does the same work (R-AUTH-4)."""
        ...


class BindCheck:
    """By a bind (RFC 4513 5.1.3)."""

    def __init__(self, client: LdapClient) -> None:
        self._client = client

    async def check(self, dn: str, password: str, *, seconds: float) -> BindOutcome:
        return await self._client.check_password(dn, password, seconds=seconds)


class CompareCheck:
    """By the values of ``attribute``: as in passwd-files, or the password itself (RFC 4519 2.41)."""

    _log = Logger()

    def __init__(self, client: LdapClient, hashing: HashingPool, *, attribute: str, name: str) -> None:
        self._client = client
        self._hashing = hashing
        self._attribute = attribute
        self._name = name
        # What an unknown user's password is compared with: it takes as long as those of users.
        self._typical = ""

    async def check(self, dn: str, password: str, *, seconds: float) -> BindOutcome:
        secrets = await self._read(dn, seconds)
        for secret in secrets:
            self._typical = secret
            if await self._hashing.verify(secret, password):
                return BindOutcome(True)
        if secrets:
            return BindOutcome(False, "wrong password")
        await self._hashing.spend(self._typical, password)
        return BindOutcome(False, f"no {self._attribute} to compare with")

    async def _read(self, dn: str, seconds: float) -> list[str]:
        try:
            entries = await self._client.search(entry_at(dn, (self._attribute,)), seconds=seconds)
        except NoSuchEntry:
            return []
        stored = [text for entry in entries for text in entry.texts(self._attribute) if text][:VALUES]
        secrets = [_secret(text) for text in stored if not is_locked(text)]
        usable = [secret for secret in secrets if is_supported(secret)]
        if len(usable) < len(secrets):
            self._log.warn("{directory}: {dn} has a password nobody here can check", directory=self._name, dn=dn)
        return usable


def _secret(text: str) -> str:
    """A hash is no password, whether a scheme stands before it or not: who stole it has not got in yet."""
    return text if text.startswith("{") or _CRYPT.match(text) else f"{{PLAIN}}{text}"
