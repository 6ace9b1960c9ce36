"""The resolver over servers in memory: what it asks, remembers, follows and refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.dns.resolver import Resolver
from mailsrv.dns.settings import DnsSettings, TrustedServers
from mailsrv.dns.wire import TLSA
from mailsrv.interfaces.resolver import DnsFailure, MailExchange, ServiceRecord, TlsaRecord
from tests.dns.name_server import FakeExchange, Told, claimed_answers, make_reply, record, soa

FIRST, SECOND = "192.0.2.1", "192.0.2.2"


class ResolverTestCase(SynchronousTestCase):
    """A resolver with two servers that do not validate."""

    settings = DnsSettings(servers=(FIRST, SECOND), trust_ad=TrustedServers.NONE)

    def setUp(self) -> None:
        self.clock = Clock()
        self.exchange = FakeExchange(self.clock)
        self.zone: dict[tuple[str, int], Told] = {}
        self.exchange.servers = {FIRST: self.tell, SECOND: self.tell}
        self.resolver = Resolver(self.settings, self.clock, exchange=self.exchange)

    def tell(self, name: str, kind: int) -> Told:
        return self.zone.get((name, kind), Told(rcode=3, authority=[soa("test")]))

    def put(self, name: str, kind: int, *payloads: object, **said: object) -> None:
        told = Told(**said)  # type: ignore[arg-type]
        told.answers = [record(name, payload, kind=kind) for payload in payloads]
        self.zone[name, kind] = told

    def cause_of(self, answer: Deferred[Any]) -> str:
        failure = self.failureResultOf(answer, DnsFailure)
        error = failure.value
        assert isinstance(error, DnsFailure)
        assert error.is_temporary
        return error.cause


class AnswerTests(ResolverTestCase):
    def test_mail_exchanges_are_sorted(self) -> None:
        self.put("example.test", dns.MX, dns.Record_MX(20, b"B.Example.TEST"), dns.Record_MX(10, b"a.example.test"))
        answer = self.successResultOf(self.resolver.mail_exchanges("Example.Test"))
        assert answer.records == (MailExchange(10, "a.example.test"), MailExchange(20, "b.example.test"))
        assert answer.canonical_name == "example.test"
        assert answer.name_exists
        assert not answer.is_secure

    def test_a_null_mx(self) -> None:
        self.put("example.test", dns.MX, dns.Record_MX(0, b""))
        assert self.successResultOf(self.resolver.mail_exchanges("example.test")).records == (MailExchange(0, ""),)

    def test_a_null_mx_among_others_says_nothing(self) -> None:
        self.put("example.test", dns.MX, dns.Record_MX(0, b""), dns.Record_MX(5, b"mx.test"))
        answer = self.successResultOf(self.resolver.mail_exchanges("example.test"))
        assert answer.records == (MailExchange(5, "mx.test"),)

    def test_both_families_the_new_one_first(self) -> None:
        self.put("mx.test", dns.A, dns.Record_A("192.0.2.7"))
        self.put("mx.test", dns.AAAA, dns.Record_AAAA("2001:db8::7"))
        assert self.successResultOf(self.resolver.addresses("mx.test")).records == ("2001:db8::7", "192.0.2.7")

    def test_this_machine_is_known_without_asking(self) -> None:
        for name in ("localhost", "mail.localhost"):
            assert self.successResultOf(self.resolver.addresses(name)).records == ("::1", "127.0.0.1")
        assert self.exchange.asked == []

    def test_one_family_is_enough(self) -> None:
        self.put("mx.test", dns.A, dns.Record_A("192.0.2.7"))
        self.zone["mx.test", dns.AAAA] = Told(rcode=2)
        assert self.successResultOf(self.resolver.addresses("mx.test")).records == ("192.0.2.7",)
        self.zone["other.test", dns.AAAA] = Told(rcode=2)
        assert "SERVFAIL" in self.cause_of(self.resolver.addresses("other.test"))

    def test_the_other_types(self) -> None:
        self.put("example.test", dns.TXT, dns.Record_TXT(b"v=spf1 ", b"-all"))
        self.put("_25._tcp.mx.test", TLSA, bytes((3, 1, 1)) + b"d" * 32)
        self.put("_imaps._tcp.example.test", dns.SRV, dns.Record_SRV(1, 2, 993, b"imap.test"))
        self.put("1.2.0.192.in-addr.arpa", dns.PTR, dns.Record_PTR(b"mx.test"))
        self.put("example.test", dns.NS, dns.Record_NS(b"ns.test"))
        self.put("www.test", dns.CNAME, dns.Record_CNAME(b"web.test"))
        resolver = self.resolver
        assert self.successResultOf(resolver.texts("example.test")).records == (b"v=spf1 -all",)
        tlsa = self.successResultOf(resolver.tlsa("_25._tcp.mx.test"))
        assert tlsa.records == (TlsaRecord(3, 1, 1, b"d" * 32),)
        services = self.successResultOf(resolver.services("_imaps._tcp.example.test"))
        assert services.records == (ServiceRecord(1, 2, 993, "imap.test"),)
        assert self.successResultOf(resolver.pointers("192.0.2.1")).records == ("mx.test",)
        assert self.successResultOf(resolver.name_servers("example.test")).records == ("ns.test",)
        assert self.successResultOf(resolver.aliases("www.test")).records == ("web.test",)

    def test_no_name_no_type_and_no_answer_are_three_things(self) -> None:
        self.zone["host.test", dns.MX] = Told(authority=[soa("test")])
        self.zone["broken.test", dns.MX] = Told(rcode=2)
        assert not self.successResultOf(self.resolver.mail_exchanges("nowhere.test")).name_exists
        assert self.successResultOf(self.resolver.mail_exchanges("host.test")).name_exists
        assert self.cause_of(self.resolver.mail_exchanges("broken.test")) == f"{FIRST}: SERVFAIL; {SECOND}: SERVFAIL"

    def test_what_is_no_name_is_not_asked_for(self) -> None:
        for text in ("a b.test", "x" * 64 + ".test", "a..test", "", "mx.test\r\n", "-.test", "é.test", "1.2.3.4\0"):
            assert not self.successResultOf(self.resolver.mail_exchanges(text)).name_exists
        assert not self.successResultOf(self.resolver.pointers("no address")).name_exists
        assert self.exchange.asked == []

    def test_malformed_hosts_are_left_out_and_only_such_fail(self) -> None:
        self.put("example.test", dns.MX, dns.Record_MX(1, b"bad name.test"), dns.Record_MX(2, b"good.test"))
        self.put("bad.test", dns.MX, dns.Record_MX(1, b"bad\rname.test"))
        answer = self.successResultOf(self.resolver.mail_exchanges("example.test"))
        assert answer.records == (MailExchange(2, "good.test"),)
        assert "malformed" in self.cause_of(self.resolver.mail_exchanges("bad.test"))


class BoundTests(ResolverTestCase):
    def test_r_dns_1_a_hundred_records_and_no_more(self) -> None:
        for count, name in ((100, "hundred.test"), (101, "more.test"), (400, "many.test")):
            self.put(name, dns.MX, *(dns.Record_MX(i, b"mx%d.test" % i) for i in range(count)))
        assert len(self.successResultOf(self.resolver.mail_exchanges("hundred.test")).records) == 100
        assert "more than 100 records" in self.cause_of(self.resolver.mail_exchanges("more.test"))
        assert "more than 100 records" in self.cause_of(self.resolver.mail_exchanges("many.test"))

    def test_aliases_within_an_answer(self) -> None:
        self.zone["a.test", dns.MX] = Told(
            [
                record("a.test", dns.Record_CNAME(b"b.test"), ttl=30),
                record("b.test", dns.Record_CNAME(b"c.test")),
                record("c.test", dns.Record_MX(1, b"mx.test")),
                record("z.test", dns.Record_MX(1, b"evil.test")),
            ]
        )
        answer = self.successResultOf(self.resolver.mail_exchanges("a.test"))
        assert answer.records == (MailExchange(1, "mx.test"),)
        assert answer.canonical_name == "c.test"

    def test_aliases_over_several_answers(self) -> None:
        self.zone["a.test", dns.MX] = Told([record("a.test", dns.Record_CNAME(b"b.test"))])
        self.put("b.test", dns.MX, dns.Record_MX(1, b"mx.test"))
        answer = self.successResultOf(self.resolver.mail_exchanges("a.test"))
        assert (answer.canonical_name, len(answer.records)) == ("b.test", 1)

    def test_alias_to_nothing(self) -> None:
        self.zone["a.test", dns.MX] = Told([record("a.test", dns.Record_CNAME(b"b.test"))], [soa("test")], 3)
        answer = self.successResultOf(self.resolver.mail_exchanges("a.test"))
        assert (answer.canonical_name, answer.name_exists) == ("b.test", False)

    def test_aliases_in_a_circle(self) -> None:
        self.zone["a.test", dns.MX] = Told([record("a.test", dns.Record_CNAME(b"b.test"))])
        self.zone["b.test", dns.MX] = Told([record("b.test", dns.Record_CNAME(b"a.test"))])
        assert "more than 8 aliases" in self.cause_of(self.resolver.mail_exchanges("a.test"))

    def test_waiting_questions_are_bounded(self) -> None:
        settings = DnsSettings(servers=(FIRST,), concurrent_queries=1, waiting_queries=1)
        resolver = Resolver(settings, self.clock, exchange=self.exchange)
        self.exchange.held = []
        answers = [resolver.mail_exchanges(f"d{number}.test") for number in range(4)]
        assert "too many" in self.cause_of(answers[3])
        while self.exchange.held:
            held, octets = self.exchange.held.pop()
            held.callback(octets)
        for answer in answers[:3]:
            self.successResultOf(answer)


class MemoryTests(ResolverTestCase):
    def test_remembered_for_the_smallest_time_to_live(self) -> None:
        self.zone["a.test", dns.MX] = Told(
            [
                record("a.test", dns.Record_CNAME(b"b.test"), ttl=30),
                record("b.test", dns.Record_MX(1, b"mx.test"), ttl=300),
            ]
        )
        self.ask_at((0, 1), (29, 1), (30, 2))

    def ask_at(self, *steps: tuple[float, int], name: str = "a.test") -> None:
        """Ask at a time; so many questions went out by then."""
        for at, count in steps:
            self.clock.advance(at - self.clock.seconds())
            self.resolver.mail_exchanges(name).addErrback(lambda _: None)
            assert len(self.exchange.asked) == count, at

    def test_bounds_of_the_time_to_live(self) -> None:
        self.zone["a.test", dns.MX] = Told([record("a.test", dns.Record_MX(1, b"mx.test"), ttl=0)])
        self.ask_at((0, 1), (4, 1), (5, 2))
        self.zone["b.test", dns.MX] = Told([record("b.test", dns.Record_MX(1, b"mx.test"), ttl=10**8)])
        self.ask_at((10, 3), (86_400, 3), (86_411, 4), name="b.test")

    def test_nothing_is_remembered_by_the_soa(self) -> None:
        self.zone["a.test", dns.MX] = Told(rcode=3, authority=[soa("test", minimum=60, ttl=50)])
        self.ask_at((0, 1), (49, 1), (50, 2))
        self.zone["b.test", dns.MX] = Told(rcode=3, authority=[soa("test", minimum=10**6, ttl=10**6)])
        self.ask_at((60, 3), (950, 3), (960, 4), name="b.test")
        self.zone["c.test", dns.MX] = Told()
        self.ask_at((1000, 5), (1006, 6), name="c.test")

    def test_failures_are_remembered_for_seconds(self) -> None:
        self.zone["a.test", dns.MX] = Told(rcode=2)
        self.ask_at((0, 2), (4, 2), (5, 4))

    def test_bounded_in_number(self) -> None:
        resolver = Resolver(DnsSettings(servers=(FIRST,), cache_entries=2), self.clock, exchange=self.exchange)
        for name in ("a.test", "b.test", "a.test", "c.test", "a.test", "b.test"):
            self.successResultOf(resolver.mail_exchanges(name))
        assert [name for _, name, _ in self.exchange.asked] == ["a.test", "b.test", "c.test", "b.test"]

    def test_asked_once_for_all_who_wait(self) -> None:
        self.put("a.test", dns.MX, dns.Record_MX(1, b"mx.test"))
        self.exchange.held = []
        first, second, third = (self.resolver.mail_exchanges("a.test") for _ in range(3))
        second.cancel()
        self.failureResultOf(second)
        assert len(self.exchange.held) == 1
        held, octets = self.exchange.held[0]
        held.callback(octets)
        for answer in (first, third):
            assert self.successResultOf(answer).records == (MailExchange(1, "mx.test"),)


class ServerTests(ResolverTestCase):
    def test_the_next_server_after_a_timeout_and_the_slow_one_last(self) -> None:
        self.put("a.test", dns.MX, dns.Record_MX(1, b"mx.test"))
        self.exchange.servers[FIRST] = lambda name, kind: None
        answer = self.resolver.mail_exchanges("a.test")
        self.assertNoResult(answer)
        self.clock.advance(3)
        self.successResultOf(answer)
        self.successResultOf(self.resolver.mail_exchanges("b.test"))
        assert [address for address, _, _ in self.exchange.asked] == [FIRST, SECOND, SECOND]
        self.clock.advance(31)
        self.exchange.servers[FIRST] = self.tell
        self.successResultOf(self.resolver.mail_exchanges("c.test"))
        assert self.exchange.asked[-1][0] == FIRST

    def test_nobody_answers(self) -> None:
        self.exchange.servers = {FIRST: lambda name, kind: None}
        answer = self.resolver.mail_exchanges("a.test")
        self.clock.advance(3)
        self.assertNoResult(answer)
        self.clock.advance(6)
        cause = self.cause_of(answer)
        assert f"{FIRST}: no answer in time" in cause
        assert f"{SECOND}: cannot be asked (ConnectionRefusedError)" in cause

    def test_truncated_answers_come_by_tcp(self) -> None:
        self.put("a.test", dns.MX, dns.Record_MX(1, b"mx.test"))
        self.exchange.servers[FIRST] = lambda name, kind: Told(is_truncated=True)
        self.exchange.tcp_servers = {FIRST: self.tell}
        assert len(self.successResultOf(self.resolver.mail_exchanges("a.test")).records) == 1
        assert self.exchange.asked_by_tcp == [FIRST]

    def test_truncated_even_by_tcp(self) -> None:
        self.exchange.servers = {FIRST: lambda name, kind: Told(is_truncated=True)}
        assert "truncated even by TCP" in self.cause_of(self.resolver.mail_exchanges("a.test"))

    def test_questions_for_servers_that_do_not_validate_are_plain(self) -> None:
        self.successResultOf(self.resolver.mail_exchanges("a.test"))
        query = self.exchange.queries[0]
        assert query[2:4] == b"\x01\x00"
        assert query.endswith(b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00")


WRONG: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda reply: b"",
    "a header cut short": lambda reply: reply[:11],
    "cut short": lambda reply: reply[:-3],
    "more announced than there is": lambda reply: claimed_answers(reply, 3),
    "a question": lambda reply: reply[:2] + b"\x01\x00" + reply[4:],
    "another question": lambda reply: reply.replace(b"\x01a\x04test", b"\x01b\x04test"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_malformed_answers_are_failures_and_the_next_server_is_asked(kind: str) -> None:
    clock = Clock()
    told = Told([record("a.test", dns.Record_MX(1, b"mx.test"))])
    exchange = FakeExchange(clock)
    resolver = Resolver(DnsSettings(servers=(FIRST, SECOND)), clock, exchange=exchange)

    def tell_wrong(name: str, kind_asked: int) -> bytes:
        return b"??" + WRONG[kind](make_reply(exchange.queries[-1], told))[2:]

    exchange.servers = {FIRST: tell_wrong, SECOND: lambda name, kind: told}
    found: list[object] = []
    resolver.mail_exchanges("a.test").addBoth(found.append)
    assert [address for address, _, _ in exchange.asked] == [FIRST, SECOND]
    assert getattr(found[0], "records", None) == (MailExchange(1, "mx.test"),)
