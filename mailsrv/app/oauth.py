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
    """:class:`~mailsrv.auth.issuer_web.IssuerWeb`, and the judge of tokens that asks by it.

    ``ca_file`` as in ``tls_client.ca_file``; it is read when the first question is asked.
    """

    def __init__(self, reactor: Any, resolver: Callable[[], IResolver], ca_file: str, run_in_thread: Any) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._ca_file = ca_file
        self._run_in_thread = run_in_thread
        self._https: HttpsClient | None = None
        self._judge: TokenJudge | None = None

    def judge(self, settings: Sequence[OAuthSettings]) -> TokenJudge | None:
        """The same one as long as the settings are: a reload does not forget keys while an issuer is down."""
        if not settings:
            return None
        # It needs a library that not everybody installs; the settings have seen to it that it is there.
        from mailsrv.auth.tokens import TokenJudge

        if self._judge is None or self._judge.issuers != tuple(settings):
            self._judge = TokenJudge(settings, self, clock=self._reactor, seconds=time.time)
        return self._judge

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
        if self._https is None:
            self._https = await self._run_in_thread(HttpsClient, self._reactor, self._resolver(), self._ca_file)
        answer = await self._https.request(method, uri, **more)
        return WebAnswer(answer.status, answer.media_type, answer.body)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(DOCUMENT_OCTETS)
