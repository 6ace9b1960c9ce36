"""Issuers over real HTTPS, well and badly behaved: what a judge of tokens makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from mailsrv.app.oauth import Issuers
from mailsrv.auth.oauth_settings import OAuthSettings
from mailsrv.auth.token_errors import TokenRefused
from mailsrv.auth.tokens import TokenJudge
from mailsrv.errors import Unavailable
from mailsrv.testing.resolver import MemoryResolver
from tests.interop.oidc_provider import CLIENT_ID, CONFIGURATION, INTROSPECTION, JWKS, Fault, OidcProvider
from tests.tls.issued import CA

reactor: Any = _reactor
ALICE = "alice@example.test"
BAD = [Fault.HUNG, Fault.ERROR, Fault.HUGE, Fault.WRONG_TYPE, Fault.NO_JSON, Fault.CUT_OFF, Fault.ELSEWHERE]


class IssuerTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.provider = OidcProvider(Path(self.mktemp()))
        self.provider.__enter__()
        self.addCleanup(self.provider.__exit__)
        self.resolver = MemoryResolver()
        self.resolver.add_addresses("localhost", "127.0.0.1")
        self.issuers = self.make_issuers(str(self.provider.ca_path))

    def make_issuers(self, ca_file: str) -> Issuers:
        return Issuers(reactor, lambda: self.resolver, ca_file, deferToThread)

    def judge(self, *, asks: bool = False, **changes: Any) -> TokenJudge:
        values: dict[str, Any] = {"audience": ("mail",), "scope": "mail", "algorithms": ("ES256",), "fetch_seconds": 5}
        if asks:
            values |= {"client_id": CLIENT_ID, "client_secret_file": str(self.provider.secret_path)}
        settings = OAuthSettings(issuer=self.provider.issuer, **{**values, **changes})
        judge = self.issuers.judge([settings])
        assert judge is not None
        return judge

    async def account(self, judge: TokenJudge, token: str) -> str:
        good, _ = await Deferred.fromCoroutine(judge.judge(token))
        return good.account

    async def refused(self, judge: TokenJudge, token: str) -> str:
        with pytest.raises(TokenRefused) as caught:
            await self.account(judge, token)
        return str(caught.value)

    async def unavailable(self, judge: TokenJudge, token: str) -> None:
        with pytest.raises(Unavailable):
            await self.account(judge, token)

    async def test_keys_by_discovery_and_their_rotation(self) -> None:
        judge = self.judge()
        old = self.provider.keys[-1]
        assert await self.account(judge, self.provider.mint(ALICE)) == ALICE
        assert self.provider.requests == [CONFIGURATION, JWKS]
        self.provider.rotate()
        # The keys were fetched a moment ago, and are not again so soon.
        assert await self.refused(judge, self.provider.mint(ALICE)) == "unknown key"
        judge = self.judge(clock_skew_seconds=1)
        assert await self.account(judge, self.provider.mint(ALICE)) == ALICE
        assert await self.account(judge, self.provider.mint(ALICE, key=old)) == ALICE
        self.provider.rotate(keep=0)
        judge = self.judge(clock_skew_seconds=2)
        assert await self.refused(judge, self.provider.mint(ALICE, key=old)) == "unknown key"

    async def test_questions_with_our_name_and_secret(self) -> None:
        judge = self.judge(asks=True)
        token = self.provider.give(ALICE)
        assert await self.account(judge, token) == ALICE
        assert await self.account(judge, token) == ALICE
        assert await self.refused(judge, "made-up") == "not active"
        assert self.provider.requests == [CONFIGURATION, INTROSPECTION, INTROSPECTION]
        self.provider.secret_path.write_text("another")
        await self.unavailable(judge, self.provider.give(ALICE))

    async def test_slow_is_not_down(self) -> None:
        self.provider.faults = dict.fromkeys([CONFIGURATION, JWKS, INTROSPECTION], Fault.SLOW)
        assert await self.account(self.judge(), self.provider.mint(ALICE)) == ALICE
        assert await self.account(self.judge(asks=True), self.provider.give(ALICE)) == ALICE

    async def test_r_auth_7_discovery_that_misbehaves(self) -> None:
        for number, fault in enumerate(BAD):
            self.provider.faults = {CONFIGURATION: fault}
            await self.unavailable(self.judge(fetch_seconds=0.5 + number / 100), self.provider.mint(ALICE))
        assert "/elsewhere" not in self.provider.requests

    async def test_r_auth_7_keys_that_misbehave(self) -> None:
        for number, fault in enumerate(BAD):
            if fault is Fault.WRONG_TYPE:
                continue
            self.provider.faults = {JWKS: fault}
            await self.unavailable(self.judge(fetch_seconds=0.5 + number / 100), self.provider.mint(ALICE))
        assert "/elsewhere" not in self.provider.requests

    async def test_r_auth_7_answers_that_misbehave(self) -> None:
        with capturedLogs() as events:
            for number, fault in enumerate(BAD):
                self.provider.faults = {INTROSPECTION: fault}
                judge = self.judge(asks=True, fetch_seconds=0.5 + number / 100)
                token = self.provider.give(ALICE)
                await self.unavailable(judge, token)
                assert token not in repr(events)
        assert len(events) >= len(BAD)
        assert "/elsewhere" not in self.provider.requests

    async def test_r_auth_7_a_certificate_of_nobody_we_know(self) -> None:
        self.issuers = self.make_issuers("")
        await self.unavailable(self.judge(), self.provider.mint(ALICE))
        await self.unavailable(self.judge(asks=True), self.provider.give(ALICE))
        assert not self.provider.requests

    async def test_an_issuer_may_have_an_authority_of_its_own(self) -> None:
        self.issuers = self.make_issuers("/nonexistent/ca.pem")
        judge = self.judge(ca_file=str(self.provider.ca_path))
        assert await self.account(judge, self.provider.mint(ALICE)) == ALICE

    async def test_authorities_are_read_again_after_a_reload(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(self.provider.ca_path.read_bytes())
        judge = self.judge(asks=True, ca_file=str(path), introspection_failures=9)
        assert await self.account(judge, self.provider.give(ALICE)) == ALICE
        path.write_bytes(CA.certificate.public_bytes(Encoding.PEM))
        assert await self.account(judge, self.provider.give(ALICE)) == ALICE
        assert self.judge(asks=True, ca_file=str(path), introspection_failures=9) is judge
        await self.unavailable(judge, self.provider.give(ALICE))

    async def test_r_auth_7_an_authority_file_that_is_missing(self) -> None:
        self.issuers = self.make_issuers("/nonexistent/ca.pem")
        await self.unavailable(self.judge(), self.provider.mint(ALICE))

    def test_the_same_tables_keep_their_judge(self) -> None:
        assert self.judge() is self.judge()
        assert self.judge() is not self.judge(asks=True)
        assert self.issuers.judge(()) is None
