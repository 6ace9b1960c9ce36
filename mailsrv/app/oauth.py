"""Issuers of tokens as this process asks them: over HTTPS, and from files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from mailsrv.auth.issuer_web import WebAnswer
from mailsrv.auth.oauth_settings import OAuthSettings
from mailsrv.interfaces.resolver import IResolver
from mailsrv.tls.https import HttpsClient

if TYPE_CHECKING:
    from mailsrv.auth.tokens import TokenJudge

DOCUMENT_OCTETS = 262_144
"""Of the public keys and the metadata of an issuer; what it says of one token is shorter."""
_ANSWER_OCTETS = 65_536


class Issuers:
    """The judge of tokens of this process, with whom to ask.

    ``ca_file`` as in ``tls_client.ca_file``: for issuers that have none of their own.
    """

    def __init__(self, reactor: Any, resolver: Callable[[], IResolver], ca_file: str, run_in_thread: Any) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._ca_file = ca_file
        self._run_in_thread = run_in_thread
        self._judge: TokenJudge | None = None
        self._webs: list[IssuerHttps] = []

    def judge(self, settings: Sequence[OAuthSettings]) -> TokenJudge | None:
        """The same one as long as the settings are: a reload does not forget keys while an issuer is down."""
        if not settings:
            self._judge, self._webs = None, []
            return None
        # It needs a library that not everybody installs; the settings have seen to it that it is there.
        from mailsrv.auth.tokens import TokenJudge

        if self._judge is None or self._judge.issuers != tuple(settings):
            self._webs = []
            self._judge = TokenJudge(settings, self._web_of, clock=self._reactor, seconds=time.time)
        for web in self._webs:
            web.read_authorities_again()
        return self._judge

    def _web_of(self, settings: OAuthSettings) -> IssuerHttps:
        ca_file = settings.ca_file or self._ca_file
        web = IssuerHttps(lambda: HttpsClient(self._reactor, self._resolver(), ca_file), self._run_in_thread)
        self._webs.append(web)
        return web


class IssuerHttps:
    """An :class:`~mailsrv.auth.issuer_web.IssuerWeb`. ``make_client`` waits for the disk."""

    def __init__(self, make_client: Callable[[], HttpsClient], run_in_thread: Any) -> None:
        self._make_client = make_client
        self._run_in_thread = run_in_thread
        self._client: HttpsClient | None = None

    def read_authorities_again(self) -> None:
        """With the next question."""
        self._client = None

    def read_file(self, path: str) -> Deferred[bytes]:
        answer: Deferred[bytes] = self._run_in_thread(_read, path)
        return answer

    def get(self, uri: str, *, seconds: float) -> Deferred[WebAnswer]:
        return Deferred.fromCoroutine(
            self._ask("GET", uri, timeout=seconds, max_octets=DOCUMENT_OCTETS, accept="application/json, */*;q=0.5")
        )

    def post_form(self, uri: str, form: str, *, authorization: str, seconds: float) -> Deferred[WebAnswer]:
        return Deferred.fromCoroutine(
            self._ask(
                "POST",
                uri,
                timeout=seconds,
                max_octets=_ANSWER_OCTETS,
                accept="application/json",
                content_type="application/x-www-form-urlencoded",
                authorization=authorization,
                body=form.encode("ascii"),
            )
        )

    async def _ask(self, method: str, uri: str, **more: Any) -> WebAnswer:
        client = self._client
        if client is None:
            client = self._client = await self._run_in_thread(self._make_client)
        answer = await client.request(method, uri, **more)
        return WebAnswer(answer.status, answer.media_type, answer.body)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(DOCUMENT_OCTETS)
