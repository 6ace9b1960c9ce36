"""Resolvers prove that they validate, before their AD bit counts and from time to time."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.dns.resolver import Resolver
from mailsrv.dns.settings import DnsSettings, TrustedServers
from tests.dns.name_server import FakeExchange, Told, record, soa

LOCAL, OTHER, FAR = "127.0.0.1", "127.0.0.2", "192.0.2.1"
SETTINGS = DnsSettings(servers=(LOCAL,), self_test_interval=600)
MX = [record("example.test", dns.Record_MX(1, b"mx.test"))]


def validating(name: str, kind: int) -> Told:
    """Everything is signed, except what is broken."""
    if name == "dnssec-failed.org":
        return Told(rcode=2)
    if (name, kind) == ("example.test", dns.MX):
        return Told(list(MX), is_authentic=True)
    return Told(authority=[soa("test")], is_authentic=True)


def believing(name: str, kind: int) -> Told:
    """Passes AD on, and validates nothing."""
    return Told(list(MX), is_authentic=True) if name == "example.test" else Told(is_authentic=True)


def ignorant(name: str, kind: int) -> Told:
    """Knows nothing of DNSSEC."""
    return evolve(believing(name, kind), is_authentic=False)


def silent(name: str, kind: int) -> None:
    return None


class ValidationTests(SynchronousTestCase):
    def make(self, settings: DnsSettings = SETTINGS, **servers: Callable[[str, int], Told | bytes | None]) -> Resolver:
        self.clock = Clock()
        self.exchange = FakeExchange(self.clock)
        addresses = {"local": LOCAL, "other": OTHER, "far": FAR}
        self.exchange.servers = {addresses[key]: server for key, server in servers.items()}
        return Resolver(settings, self.clock, exchange=self.exchange)

    def is_secure(self, resolver: Resolver) -> bool:
        return self.successResultOf(resolver.mail_exchanges("example.test")).is_secure

    def test_proved_before_the_first_answer(self) -> None:
        resolver = self.make(local=validating)
        assert self.is_secure(resolver)
        assert [name for _, name, _ in self.exchange.asked] == [".", "dnssec-failed.org", "example.test"]
        assert resolver.validation_states() == {LOCAL: "proved: . is signed, dnssec-failed.org is refused"}

    def test_questions_ask_for_dnssec_where_it_counts(self) -> None:
        self.is_secure(self.make(local=validating))
        query = self.exchange.queries[-1]
        assert query[2:4] == b"\x01\x20"
        assert query.endswith(b"\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00")

    def test_one_who_answers_for_the_broken_domain(self) -> None:
        with capturedLogs() as events:
            resolver = self.make(local=believing)
            assert not self.is_secure(resolver)
            assert not self.is_secure(resolver)
        warnings = [event for event in events if event["log_level"] is LogLevel.warn]
        assert len(warnings) == 1
        assert "whose signatures are wrong" in warnings[0]["why"]

    def test_one_who_knows_nothing_of_dnssec(self) -> None:
        resolver = self.make(local=ignorant)
        assert not self.is_secure(resolver)
        assert "does not say that . is signed" in resolver.validation_states()[LOCAL]

    def test_who_is_far_is_not_trusted_and_that_is_told_once(self) -> None:
        with capturedLogs() as events:
            resolver = self.make(evolve(SETTINGS, servers=(FAR,)), far=validating)
            assert not self.is_secure(resolver)
            self.successResultOf(resolver.texts("example.test"))
        assert [event["log_format"] for event in events if event["log_level"] is LogLevel.warn] == [
            "No resolver may be trusted to validate (dns.trust_ad): DANE is off"
        ]
        assert "dnssec-failed.org" not in [name for _, name, _ in self.exchange.asked]

    def test_who_is_far_may_be_marked(self) -> None:
        settings = evolve(SETTINGS, servers=(FAR,), trust_ad=TrustedServers.ALL)
        assert self.is_secure(self.make(settings, far=validating))
        settings = evolve(SETTINGS, trust_ad=TrustedServers.NONE)
        assert not self.is_secure(self.make(settings, local=validating))

    def test_without_a_broken_domain_half_a_proof_is_enough(self) -> None:
        assert self.is_secure(self.make(evolve(SETTINGS, self_test_broken=""), local=believing))

    def test_where_one_validates_no_other_is_asked(self) -> None:
        def fails_for_example(name: str, kind: int) -> Told:
            return Told(rcode=2) if name == "example.test" else validating(name, kind)

        settings = evolve(SETTINGS, servers=(FAR, LOCAL, OTHER))
        resolver = self.make(settings, far=ignorant, local=fails_for_example, other=ignorant)
        self.failureResultOf(resolver.mail_exchanges("example.test"))
        assert [address for address, name, _ in self.exchange.asked if name == "example.test"] == [LOCAL]

    def test_a_test_that_could_not_be_made_is_made_again(self) -> None:
        resolver = self.make(evolve(SETTINGS, servers=(LOCAL, FAR), min_ttl=0), local=silent, far=ignorant)
        answer = resolver.mail_exchanges("example.test")
        self.assertNoResult(answer)
        self.clock.advance(6)
        assert "unknown: . could not be asked for" in resolver.validation_states()[LOCAL]
        self.clock.advance(3)
        assert not self.successResultOf(answer).is_secure
        self.exchange.servers[LOCAL] = validating
        self.clock.advance(61)
        # The test goes on beside a question that is answered as before; what was remembered is forgotten then.
        self.successResultOf(resolver.texts("example.test"))
        assert self.is_secure(resolver)

    def test_who_proved_it_stays_proved_when_nobody_answers_but_not_when_refuted(self) -> None:
        resolver = self.make(local=validating)
        assert self.is_secure(resolver)
        self.exchange.servers[LOCAL] = silent
        self.clock.advance(601)
        resolver.texts("other.test").addErrback(lambda _: None)
        self.clock.advance(10)
        assert resolver.validation_states()[LOCAL].startswith("proved")
        self.exchange.servers[LOCAL] = ignorant
        self.clock.advance(61)
        self.successResultOf(resolver.texts("third.test"))
        assert resolver.validation_states()[LOCAL].startswith("refuted")
        assert not self.is_secure(resolver)
