"""The DNS in memory tells apart what the real one tells apart."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.interfaces.resolver import DnsFailure, MailExchange
from mailsrv.testing.resolver import MemoryResolver


class MemoryResolverTests(SynchronousTestCase):
    def test_sorts_and_follows_aliases(self) -> None:
        resolver = MemoryResolver(canonical={"www.example.test": "example.test"}, secure={"www.example.test"})
        resolver.add_mx("example.test", "b.example.test", preference=20)
        resolver.add_mx("example.test", "a.example.test")
        answer = self.successResultOf(resolver.mail_exchanges("www.example.test"))
        assert answer.records == (MailExchange(10, "a.example.test"), MailExchange(20, "b.example.test"))
        assert answer.canonical_name == "example.test"
        assert not answer.is_secure

    def test_no_name_no_type_and_failure_are_three_things(self) -> None:
        resolver = MemoryResolver(failures={"MX broken.test"})
        resolver.add_addresses("host.example.test", "192.0.2.1", "2001:db8::1")
        assert not self.successResultOf(resolver.mail_exchanges("nowhere.test")).name_exists
        assert self.successResultOf(resolver.mail_exchanges("host.example.test")).name_exists
        assert self.successResultOf(resolver.mail_exchanges("example.test")).name_exists
        self.failureResultOf(resolver.mail_exchanges("broken.test"), DnsFailure)
        assert self.successResultOf(resolver.addresses("host.example.test")).records == ("2001:db8::1", "192.0.2.1")

    def test_waits_as_told(self) -> None:
        clock = Clock()
        resolver = MemoryResolver(clock=clock, delay_seconds=2)
        waiting = resolver.texts("example.test")
        self.assertNoResult(waiting)
        clock.advance(2)
        self.successResultOf(waiting)
        resolver.holds = True
        held = resolver.texts("example.test")
        self.assertNoResult(held)
        resolver.release()
        self.successResultOf(held)
