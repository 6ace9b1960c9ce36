"""Asking the issuer about a token (RFC 7662): for tokens that are no JWTs, and for those that may be taken back.

Each token is asked about once at a time, so many at a time, so many waiting, and what came is remembered for a
while. An issuer that fails is left alone for a while: then, and whenever it cannot say, the answer is Unavailable
(R-AUTH-7). A log-in waits no longer than one request may take; a request is nobody's log-in and goes on without it.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote_plus, urlencode

from attrs import define, field
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.auth.answer_cache import AnswerCache, Verdict
from mailsrv.auth.circuit_breaker import CircuitBreaker, Permission
from mailsrv.auth.issuer_metadata import IssuerPlaces
from mailsrv.auth.issuer_web import IssuerFailed, IssuerWeb, read_object
from mailsrv.auth.oauth_settings import OAuthSettings
from mailsrv.auth.token_claims import GoodToken, check_claims
from mailsrv.auth.token_errors import TokenRefused
from mailsrv.errors import Unavailable

_SECRET_LIMIT = 4096


@define(eq=False)
class _Question:
    """About one token; who waits for the answer."""

    token: str = field(repr=False)
    waiting: list[Deferred[Verdict]] = field(factory=list)


class Introspection:
    """Of one issuer's tokens. ``seconds`` since the epoch."""

    _log = Logger()

    def __init__(
        self,
        settings: OAuthSettings,
        web: IssuerWeb,
        places: IssuerPlaces,
        clock: IReactorTime,
        seconds: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._web = web
        self._places = places
        self._clock = clock
        self._seconds = seconds
        self._cache = AnswerCache(
            seconds=settings.introspection_cache_seconds, entries=settings.introspection_cache_entries
        )
        self._breaker = CircuitBreaker(
            clock, failures=settings.introspection_failures, pause_seconds=settings.introspection_pause_seconds
        )
        self._asked: dict[bytes, _Question] = {}
        self._queue: OrderedDict[bytes, _Question] = OrderedDict()

    def knows(self, token: str) -> bool:
        """Whether it would be judged without a request."""
        return self._cache.find(self._cache.key(token), self._seconds()) is not None

    async def judge(self, token: str) -> GoodToken:
        """Raises TokenRefused and Unavailable."""
        key = self._cache.key(token)
        verdict = self._cache.find(key, self._seconds())
        if verdict is None:
            verdict = await self._ask(key, token)
        if isinstance(verdict, str):
            raise TokenRefused(verdict)
        return verdict

    async def _ask(self, key: bytes, token: str) -> Verdict:
        question = self._asked.get(key) or self._queue.get(key)
        waiter: Deferred[Verdict] = Deferred()
        if question is not None:
            question.waiting.append(waiter)
        elif len(self._asked) < self._settings.introspection_requests:
            permission = self._breaker.permission()
            if permission is Permission.WAIT:
                raise self._unavailable("has failed a moment ago")
            self._begin(key, _Question(token, [waiter]), permission)
        elif self._breaker.is_open or len(self._queue) >= self._settings.introspection_queue:
            raise self._unavailable("has too many questions to answer")
        else:
            self._queue[key] = _Question(token, [waiter])
        try:
            return await waiter.addTimeout(self._settings.fetch_seconds, self._clock)
        except defer.TimeoutError:
            self._forget(key, waiter)
            raise self._unavailable("is slow") from None

    def _begin(self, key: bytes, question: _Question, permission: Permission) -> None:
        self._asked[key] = question
        Deferred.fromCoroutine(self._find_out(key, question, permission))

    def _forget(self, key: bytes, waiter: Deferred[Verdict]) -> None:
        """Nobody waits there any more: what has not been asked yet need not be."""
        question = self._asked.get(key) or self._queue.get(key)
        if question is not None and waiter in question.waiting:
            question.waiting.remove(waiter)
            if not question.waiting:
                self._queue.pop(key, None)

    async def _find_out(self, key: bytes, question: _Question, permission: Permission) -> None:
        answer: Verdict | Failure
        try:
            answer = self._verdict(await self._request(question.token))
        except Exception as error:
            answer = Failure(self._unavailable("cannot be asked"))
            if self._breaker.failed(permission):
                self._log.error(
                    "{issuer} is not asked about tokens for {seconds:g} seconds: {error}",
                    issuer=self._settings.issuer,
                    seconds=self._settings.introspection_pause_seconds,
                    error=repr(error),
                )
            else:
                self._log.warn(
                    "{issuer} cannot be asked about a token: {error}", issuer=self._settings.issuer, error=repr(error)
                )
        else:
            if self._breaker.succeeded():
                self._log.info("{issuer} can be asked about tokens again", issuer=self._settings.issuer)
            self._cache.add(key, answer, self._seconds())
        del self._asked[key]
        self._tell(question, answer)
        self._go_on()

    def _tell(self, question: _Question, answer: Verdict | Failure) -> None:
        waiting, question.waiting = question.waiting, []
        for waiter in waiting:
            # A failure may be told to several.
            if isinstance(answer, Failure):
                waiter.errback(Failure(self._unavailable("cannot be asked")))
            else:
                waiter.callback(answer)

    def _go_on(self) -> None:
        """The next in the queue; all of them at once where there is no use in waiting."""
        while self._queue and (self._breaker.is_open or len(self._asked) < self._settings.introspection_requests):
            key, question = self._queue.popitem(last=False)
            if self._breaker.is_open:
                self._tell(question, Failure(self._unavailable("has failed a moment ago")))
            else:
                self._begin(key, question, Permission.ASK)

    def _verdict(self, claims: Mapping[str, Any]) -> Verdict:
        if claims["active"] is not True:
            return "not active"
        try:
            return check_claims(claims, self._settings, self._seconds(), untold=self._settings.introspection_untold)
        except TokenRefused as error:
            return str(error)

    async def _request(self, token: str) -> Mapping[str, Any]:
        """RFC 7662 2.1. Fails with whatever asking fails with."""
        secret = _read_secret(await self._web.read_file(self._settings.client_secret_file))
        answer = await self._web.post_form(
            await self._places.introspection_uri(),
            urlencode({"token": token, "token_type_hint": "access_token"}),
            authorization=basic_authorization(self._settings.client_id, secret),
            seconds=self._settings.fetch_seconds,
        )
        claims = read_object(answer)
        # RFC 7662 2.2: "active" is REQUIRED, and a boolean.
        if not isinstance(claims.get("active"), bool):
            raise IssuerFailed("an answer that says neither yes nor no")
        return claims

    def _unavailable(self, what: str) -> Unavailable:
        return Unavailable(cause=f"{self._settings.issuer} {what}")


def basic_authorization(client_id: str, secret: str) -> str:
    """The field body: both are form-urlencoded before they are joined (RFC 6749 2.3.1)."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return f"Basic {base64.b64encode(pair.encode('ascii')).decode('ascii')}"


def _read_secret(octets: bytes) -> str:
    try:
        secret = octets.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        secret = ""
    if not secret or len(secret) > _SECRET_LIMIT or not secret.isprintable():
        raise IssuerFailed("client_secret_file holds no secret") from None
    return secret
