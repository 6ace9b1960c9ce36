"""What an issuer said of tokens a moment ago. Tokens are kept only as digests under a key of this process.

Good and bad ones are kept apart: whoever tries tokens at random displaces other bad ones and nothing else.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from typing import Any

from mailsrv.auth.token_claims import GoodToken

REFUSED_SECONDS = 10.0
"""Of a token that is no good: a new one may be unknown for a moment where an issuer has several servers."""

Verdict = GoodToken | str
"""Or the reason against it."""


class AnswerCache:
    """Each kind bounded, the least recently used goes first. ``now``: seconds since the epoch."""

    def __init__(self, *, seconds: float, entries: int) -> None:
        self._seconds = seconds
        self._limit = entries
        self._secret = secrets.token_bytes(32)
        self._good: OrderedDict[bytes, tuple[GoodToken, float]] = OrderedDict()
        self._bad: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._good) + len(self._bad)

    def key(self, token: str) -> bytes:
        return hashlib.blake2b(token.encode("utf-8", "surrogatepass"), key=self._secret, digest_size=32).digest()

    def find(self, key: bytes, now: float) -> Verdict | None:
        good = self._good.get(key)
        if good is not None:
            if now < good[1]:
                self._good.move_to_end(key)
                return good[0]
            del self._good[key]
        bad = self._bad.get(key)
        if bad is not None:
            if now < bad[1]:
                return bad[0]
            del self._bad[key]
        return None

    def add(self, key: bytes, verdict: Verdict, now: float) -> None:
        """A good one is kept no longer than it is good, by the issuer's word and without any allowance."""
        if isinstance(verdict, GoodToken):
            until = now + self._seconds if verdict.expires is None else min(now + self._seconds, verdict.expires)
            if until > now:
                self._good[key] = verdict, until
                self._trim(self._good)
        elif self._seconds > 0:
            self._bad[key] = verdict, now + min(self._seconds, REFUSED_SECONDS)
            self._trim(self._bad)

    def _trim(self, table: OrderedDict[bytes, Any]) -> None:
        while len(table) > self._limit:
            table.popitem(last=False)
