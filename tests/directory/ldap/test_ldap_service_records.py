"""Servers by SRV records, without a DNS: which come first, whose certificate counts, and what happens when it fails."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from mailsrv.config.load import parse
from mailsrv.config.problems import ConfigurationError
from mailsrv.directory.ldap.servers import LdapServer, Servers, parse_server
from mailsrv.directory.ldap.service_records import (
    LOOK_SECONDS,
    MOST_SERVERS,
    RETRY_SECONDS,
    ServerFinder,
    ServiceName,
    SrvTrust,
    in_order,
    parse_service,
)
from mailsrv.directory.ldap.trouble import NoServer
from mailsrv.interfaces.resolver import DnsAnswer, DnsFailure, ServiceRecord


def test_names():
    name = parse_service("srv:Example.Test.")
    assert (name.names, name.domain, name.is_ldaps) == (("_ldap._tcp.example.test",), "example.test", False)
    name = parse_service("srv:corp.example", has_controllers=True)
    assert name.names == ("_ldap._tcp.dc._msdcs.corp.example", "_ldap._tcp.corp.example")
    name = parse_service("srv:_ldap._tcp.berlin._sites.dc._msdcs.corp.example", has_controllers=True)
    assert (name.names, name.domain) == (("_ldap._tcp.berlin._sites.dc._msdcs.corp.example",), "corp.example")
    name = parse_service("srv:_ldaps._tcp.example.test")
    assert (name.domain, name.is_ldaps) == ("example.test", True)
    for wrong in ("srv:", "srv:_ldap._tcp", "srv:_imap._tcp.example.test", "srv:_ldap._udp.example.test", "srv:a b"):
        with pytest.raises(ValueError, match=r"."):
            parse_service(wrong)


RECORDS = st.lists(
    st.builds(
        ServiceRecord,
        st.integers(0, 3),
        st.integers(0, 65535),
        st.just(389),
        st.sampled_from(["a.test", "b.test", "c.test"]),
    ),
    unique=True,
    max_size=12,
)


@given(records=RECORDS, data=st.data())
def test_the_order_is_by_priority_and_loses_nobody(records, data):
    ordered = in_order(records, lambda most: data.draw(st.integers(0, most)))
    assert sorted(ordered, key=repr) == sorted(records, key=repr)
    assert [each.priority for each in ordered] == sorted(each.priority for each in records)


def test_among_equals_weight_is_the_chance_to_be_first():
    heavy, light = ServiceRecord(0, 75, 389, "heavy.test"), ServiceRecord(0, 25, 389, "light.test")
    none = ServiceRecord(0, 0, 389, "none.test")
    first: Counter[str] = Counter()
    for drawn in range(101):

        def draw(most: int, drawn: int = drawn) -> int:
            return drawn

        first[in_order((light, heavy, none), draw)[0].host] += 1
    assert first == {"none.test": 1, "light.test": 25, "heavy.test": 75}


class FakeResolver:
    """Answers from a dictionary; what is not there does not exist."""

    def __init__(self) -> None:
        self.answers: dict[str, DnsAnswer[ServiceRecord] | DnsFailure | Deferred[Any]] = {}
        self.asked: list[str] = []

    def services(self, name: str) -> Deferred[DnsAnswer[ServiceRecord]]:
        self.asked.append(name)
        answer = self.answers.get(name, DnsAnswer((), name_exists=False))
        if isinstance(answer, Deferred):
            return answer
        return fail(answer) if isinstance(answer, DnsFailure) else succeed(answer)

    def addresses(self, host: str) -> Deferred[DnsAnswer[str]]:
        return (
            fail(DnsFailure(host)) if host.startswith("unknown") else succeed(DnsAnswer(("192.0.2.1", "2001:db8::1")))
        )


@attrs.define(eq=False, slots=False)
class Site:
    """A finder with its surroundings."""

    places: tuple[LdapServer | ServiceName, ...] = (parse_service("srv:example.test"),)
    trust: SrvTrust = SrvTrust.DNSSEC
    clock: Clock = attrs.field(factory=Clock)
    dns: FakeResolver = attrs.field(factory=FakeResolver)

    def __attrs_post_init__(self) -> None:
        self.servers = Servers(
            "x", [each for each in self.places if isinstance(each, LdapServer)], seconds=self.clock.seconds
        )
        resolver: Any = self.dns
        self.finder = ServerFinder(
            self.places, lambda: resolver, self.servers, self.clock, trust=self.trust, draw=lambda most: most
        )

    def tell(self, *records: ServiceRecord, is_secure: bool = False, name: str = "_ldap._tcp.example.test") -> None:
        self.dns.answers[name] = DnsAnswer(records, is_secure=is_secure)

    def find(self) -> list[Any]:
        told: list[Any] = []
        Deferred.fromCoroutine(self.finder.find(5.0)).addBoth(told.append)
        return told

    def uris(self) -> list[str]:
        return [server.uri for server in self.servers.all]


ONE, TWO = ServiceRecord(0, 0, 389, "one.example.test"), ServiceRecord(10, 0, 1389, "two.example.test")


def test_servers_come_in_order_with_their_addresses_and_as_the_records_change():
    site = Site()
    site.tell(TWO, ONE)
    assert site.find() == [None]
    assert site.uris() == ["ldap://one.example.test:389", "ldap://two.example.test:1389"]
    assert site.servers.all[0].addresses == ("192.0.2.1", "2001:db8::1")
    assert site.servers.all[0].starttls
    first = site.servers.all[0]
    site.servers.mark_down(first, "dead")
    site.tell(ONE)
    site.find()
    assert len(site.uris()) == 2, "not asked again so soon"
    site.clock.advance(LOOK_SECONDS)
    site.find()
    # What is known of a server that stays is kept.
    assert list(site.servers.all) == [first]
    assert not first.is_up


@pytest.mark.parametrize(
    ("host", "is_secure", "trust", "name"),
    [
        ("one.example.test", True, SrvTrust.DNSSEC, "one.example.test"),
        ("elsewhere.test", True, SrvTrust.DNSSEC, "elsewhere.test"),
        ("one.example.test", False, SrvTrust.DNSSEC, "example.test"),
        ("elsewhere.test", False, SrvTrust.DNSSEC, "example.test"),
        ("one.example.test", False, SrvTrust.SUBDOMAINS, "one.example.test"),
        ("elsewhere.test", False, SrvTrust.SUBDOMAINS, "example.test"),
        ("evilexample.test", False, SrvTrust.SUBDOMAINS, "example.test"),
    ],
)
def test_whose_certificate_counts_where_the_dns_may_be_forged(host, is_secure, trust, name):
    site = Site(trust=trust)
    site.tell(ServiceRecord(0, 0, 389, host), is_secure=is_secure)
    site.find()
    assert site.servers.all[0].tls_name == name


def test_a_dns_that_fails_leaves_what_is_known():
    site = Site()
    site.tell(ONE)
    site.find()
    site.dns.answers["_ldap._tcp.example.test"] = DnsFailure("example.test", cause="no answer in time")
    site.clock.advance(LOOK_SECONDS)
    assert site.find() == [None]
    assert site.uris() == ["ldap://one.example.test:389"]
    site.tell(TWO)
    site.clock.advance(RETRY_SECONDS)
    site.find()
    assert site.uris() == ["ldap://two.example.test:1389"]


def test_r_auth_7_without_a_server_the_request_waits_for_the_dns_and_no_longer_than_it_may():
    site = Site()
    slow: Deferred[Any] = Deferred()
    site.dns.answers["_ldap._tcp.example.test"] = slow
    first, second = site.find(), site.find()
    assert first == second == []
    assert len(site.dns.asked) == 1
    site.clock.advance(5.0)
    assert first[0].check(NoServer)
    third = site.find()
    slow.callback(DnsAnswer((ONE,)))
    assert third == [None]
    assert len(site.servers.usable()) == 1


def test_no_records_and_the_record_that_says_no_are_no_server():
    for records in ((), (ServiceRecord(0, 0, 0, ""),), (ServiceRecord(0, 0, 389, ""),)):
        site = Site()
        site.tell(*records)
        assert site.find()[0].check(NoServer)
        asked: list[None] = []
        site.servers.on_empty = partial(asked.append, None)
        with pytest.raises(NoServer):
            site.servers.usable()
        assert asked == [None]


def test_configured_servers_keep_their_place_and_do_not_wait_for_the_dns():
    site = Site(places=(parse_server("ldaps://first", starttls=True), parse_service("srv:_ldaps._tcp.example.test")))
    slow: Deferred[Any] = Deferred()
    site.dns.answers["_ldaps._tcp.example.test"] = slow
    assert site.find() == [None]
    slow.callback(DnsAnswer((ServiceRecord(0, 0, 636, "unknown.example.test"),)))
    assert site.uris() == ["ldaps://first", "ldaps://unknown.example.test:636"]
    assert site.servers.all[1].addresses == ()
    assert site.servers.all[1].is_ldaps
    assert not site.servers.all[1].starttls


def test_domain_controllers_are_asked_for_first():
    site = Site(places=(parse_service("srv:corp.example", has_controllers=True),))
    site.tell(ServiceRecord(0, 100, 389, "gc.corp.example"), name="_ldap._tcp.corp.example")
    site.find()
    assert site.uris() == ["ldap://gc.corp.example:389"]
    site.tell(ServiceRecord(0, 100, 389, "dc.corp.example"), name="_ldap._tcp.dc._msdcs.corp.example")
    site.clock.advance(LOOK_SECONDS)
    site.find()
    assert site.uris() == ["ldap://dc.corp.example:389"]


def test_r_lim_2_servers_at_their_limit_and_past_it():
    for count in (MOST_SERVERS, MOST_SERVERS + 1):
        site = Site()
        site.tell(*(ServiceRecord(number, 0, 389, f"h{number}.example.test") for number in range(count)))
        site.find()
        assert site.uris()[0] == "ldap://h0.example.test:389"
        assert len(site.servers.all) == MOST_SERVERS


def test_settings_of_services_are_checked():
    text = (
        'hostname = "m.test"\nstate_dir = "s"\n[[listen]]\nservice = "lmtp"\nendpoint = "unix:l"\n'
        '[[domain]]\nname = "example.test"\n[store]\npath = "m/{local}"\n[[directory]]\ntype = "ldap"\nbase = "dc=x"\n'
    )
    for more in ('uri = ["srv:example.test"]\nstarttls = false', 'uri = ["srv:_imap._tcp.example.test"]'):
        with pytest.raises(ConfigurationError) as raised:
            parse(text + more, "/etc/m.toml")
        assert any(problem.key.startswith("directory[0].uri") for problem in raised.value.problems), more
    settings = parse(text + 'uri = ["srv:example.test"]\nsrv_trust = "subdomains"', "/etc/m.toml")
    assert settings.directory[0].srv_trust is SrvTrust.SUBDOMAINS
