"""Domains as entries say them, whatever stands there."""

from __future__ import annotations

from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.address import AddressError, parse_domain
from mailsrv.directory.domains import DomainTable
from mailsrv.directory.ldap.build import make_ldap_directory
from mailsrv.directory.ldap.changes import Change
from mailsrv.directory.ldap.changes_build import concern_of
from mailsrv.directory.ldap.connection import LdapEntry
from mailsrv.directory.ldap.domains import DomainReader, parse_value, suffix_of
from mailsrv.directory.ldap.mapping import LdapMapping, changed, load_preset, preset_names
from mailsrv.directory.ldap.trouble import RequestTrouble, ServerTrouble
from mailsrv.directory.memory import MemoryDomains
from mailsrv.directory.settings import DirectorySettings, DirectoryType
from mailsrv.errors import Unavailable
from tests.contracts.domain_source import DomainSourceContract
from tests.directory.ldap.memory_ldap import MemoryLdap


def reader(preset: str = "openldap", base: str = "dc=test", limit: int = 100, **changes: Any) -> DomainReader:
    return DomainReader(changed(load_preset(preset), changes), base, limit)


def read(server: MemoryLdap, which: DomainReader | None = None) -> Any:
    return (which or reader()).read(server, 1.0)  # type: ignore[arg-type]


def names(found: Any) -> dict[str, str]:
    return {each.name: each.main for each in found.domains}


# Values


@pytest.mark.parametrize(
    ("value", "domain"),
    [
        ("Example.TEST", "example.test"),
        ("example.test.", "example.test"),
        (" example.test ", "example.test"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("smtp:alice@example.test", "example.test"),
        ("SMTP:@example.test", "example.test"),
        ("alice@example.test", "example.test"),
        ("@example.test", "example.test"),
        ("mailto:a@b@example.test", "example.test"),
        ("X400:c=US;a= ;p=Example", None),
        ("X500:/o=Example/cn=alice", None),
        ("sip:alice@example.test", None),
    ],
)
def test_what_a_value_names(value, domain):
    assert parse_value(value) == domain


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "example",
        "localhost",
        "exam ple.test",
        "example..test",
        "[192.0.2.1]",
        "192.0.2.1",
        "alice@[192.0.2.1]",
        "a.test\r\nb.test",
        "a.test\x00",
        "*.example.test",
        "-a.test",
        "xn--a.test",
        "x" * 64 + ".test",
        "a." * 130 + "test",
        "smtp:",
        "example.test/..",
        "exam\u200bple test",
        "a_b.test",
    ],
)
def test_r_inj_3_what_is_no_domain_of_mail_is_refused(value):
    with pytest.raises(AddressError):
        parse_value(value)


@given(st.text(max_size=80) | st.from_regex(r"(smtp:)?[a-zA-Zü@.\-: ]{1,60}"))
def test_r_inj_3_a_value_is_a_canonical_domain_or_refused(value):
    try:
        domain = parse_value(value)
    except AddressError:
        return
    if domain is not None:
        assert domain == parse_domain(domain)
        assert "." in domain
        assert domain.isascii()
        assert domain.isprintable()
        assert not set(domain) & set(" @[]:\r\n\0")


@given(
    st.lists(
        st.tuples(st.sampled_from(["a.test", "b.test", "c.test", "?"]), st.sampled_from(["a.test", "d.test", ""])),
        max_size=12,
    )
)
def test_whatever_means_whatever_every_name_is_there_once_and_the_order_of_entries_does_not_matter(pairs):
    entries = [
        LdapEntry(f"cn={number}", {"associateddomain": (name.encode(),), "aliasof": (main.encode(),) if main else ()})
        for number, (name, main) in enumerate(pairs)
    ]
    which = reader(domain_alias_of=["aliasOf"])
    found = which.collect(entries)
    told = [each.name for each in found.domains]
    assert told == sorted(set(told))
    assert names(which.collect(entries[::-1])) == names(found)
    assert DomainTable((), [found.domains]).found.keys() <= set(told)


# Entries


def test_openldap_by_domain_related_objects_by_domains_and_as_iredmail_has_them():
    server = MemoryLdap()
    server.add("cn=a,dc=test", objectClass="domainRelatedObject", associatedDomain=("a.test", "b.test"))
    server.add("dc=c.test,dc=test", objectClass="domain", dc="c.test")
    server.add("domainName=d.test,dc=test", objectClass="mailDomain", domainName="d.test", domainAliasName="e.test")
    found = read(server)
    assert names(found) == {each: each for each in ("a.test", "b.test", "c.test", "d.test")} | {"e.test": "d.test"}
    assert not found.complaints
    assert found.domains[0].origin == "associatedDomain of cn=a,dc=test"


def test_active_directory_by_suffixes_and_the_domains_of_the_forest():
    server = MemoryLdap()
    forest = "CN=Partitions,CN=Configuration,DC=corp,DC=test"
    server.add("", objectClass="top", configurationNamingContext="CN=Configuration,DC=corp,DC=test")
    server.add(forest, objectClass="crossRefContainer", uPNSuffixes=("corp.example", "Shop.Example"))
    server.add(f"CN=CORP,{forest}", objectClass="crossRef", nETBIOSName="CORP", dnsRoot="corp.test")
    server.add(f"CN=Schema,{forest}", objectClass="crossRef", dnsRoot="corp.test")
    server.add(f"CN=DomainDnsZones,{forest}", objectClass="crossRef", dnsRoot="DomainDnsZones.corp.test")
    for preset in ("active-directory", "samba-ad"):
        found = read(server, reader(preset, "ou=people,dc=child,dc=corp,dc=test"))
        assert sorted(names(found)) == ["corp.example", "corp.test", "shop.example"]


def test_addresses_of_users_may_say_which_domains_there_are():
    server = MemoryLdap()
    server.add(
        "cn=a,dc=test",
        objectClass="user",
        proxyAddresses=("SMTP:a@a.test", "smtp:b@b.test", "x400:c=x", "sip:x@c.test"),
    )
    server.add("cn=b,dc=test", objectClass="contact", proxyAddresses="SMTP:friend@elsewhere.test")
    which = reader(
        "active-directory", domain_base="{base}", domain_filter="(objectClass=user)", domain=["proxyAddresses"]
    )
    assert sorted(names(read(server, which))) == ["a.test", "b.test"]


def test_freeipa_by_the_domains_of_the_realm():
    server = MemoryLdap()
    server.add(
        "cn=Realm Domains,cn=ipa,cn=etc,dc=example,dc=test",
        objectClass="domainRelatedObject",
        associatedDomain=("example.test", "other.test"),
    )
    found = read(server, reader("freeipa", "cn=accounts,dc=example,dc=test"))
    assert sorted(names(found)) == ["example.test", "other.test"]


def test_an_entry_may_be_another_name_of_a_domain():
    server = MemoryLdap()
    server.add("cn=a,dc=test", objectClass="domainRelatedObject", associatedDomain="a.test")
    server.add("cn=b,dc=test", objectClass="domainRelatedObject", associatedDomain="b.test", seeAlsoDomain="A.test")
    assert names(read(server, reader(domain_alias_of=["seeAlsoDomain"]))) == {"a.test": "a.test", "b.test": "a.test"}


def test_what_is_of_no_use_is_told_and_the_rest_is_used():
    server = MemoryLdap()
    server.add("cn=a,dc=test", objectClass="domainRelatedObject", associatedDomain=("a.test", "no domain", b"\xff\xfe"))
    server.add("cn=b,dc=test", objectClass="mailDomain", domainAliasName="b.test")
    server.add("cn=c,dc=test", objectClass="mailDomain", domainName="c.test", domainAliasName=("a.test", "x.test"))
    server.add("cn=d,dc=test", objectClass="mailDomain", domainName="d.test", domainAliasName="x.test")
    found = read(server)
    assert names(found) == {"a.test": "a.test", "c.test": "c.test", "d.test": "d.test", "x.test": "c.test"}
    assert found.complaints == (
        "'no domain' is no domain (associatedDomain of cn=a,dc=test)",
        "cn=b,dc=test has other names of a domain, and no domain",
        "a.test is a domain of its own, and another name of c.test",
        "x.test is another name of several domains: c.test, d.test",
    )


def test_a_list_that_is_too_long_is_none():
    server = MemoryLdap()
    for number in range(101):
        server.add(f"cn={number},dc=test", objectClass="domainRelatedObject", associatedDomain=f"d{number}.test")
    with pytest.raises(RequestTrouble, match="more than 100 domains"):
        read(server)


def test_an_entry_with_very_many_names_costs_little_and_is_not_read_to_its_end():
    server = MemoryLdap()
    main = tuple(f"d{number:06}.test" for number in range(100_000))
    other = tuple(f"a{number:06}.test" for number in range(100_000))
    server.add("cn=a,dc=test", objectClass="mailDomain", domainName=main, domainAliasName=other)
    began = process_time()
    with pytest.raises(RequestTrouble, match="more than 10000 domains"):
        read(server, reader(limit=10_000))
    assert process_time() - began < 5


def test_each_other_name_of_an_entry_with_many_domains_means_the_first_of_them():
    server = MemoryLdap()
    main = tuple(f"d{number:04}.test" for number in range(4000))
    other = tuple(f"a{number:04}.test" for number in range(4000))
    server.add("cn=a,dc=test", objectClass="mailDomain", domainName=main, domainAliasName=other)
    found = names(read(server, reader(limit=10_000)))
    assert {found[name] for name in other} == {"d0000.test"}
    assert found["d3999.test"] == "d3999.test"


def test_r_inj_3_what_is_told_of_hostile_entries_is_short_and_printable():
    server = MemoryLdap()
    many = tuple(f"no domain {number}" for number in range(5000))
    server.add("cn=\x1b]0;x\r\nERROR,dc=test", objectClass="domainRelatedObject", associatedDomain=(*many, "a.test"))
    server.add("cn=" + "x" * 5000 + ",dc=test", objectClass="domainRelatedObject", associatedDomain="b.test")
    found = read(server)
    assert len(found.complaints) == 1000
    assert all(text.isprintable() for text in (*found.complaints, *(each.origin for each in found.domains)))
    assert max(len(each.origin) for each in found.domains) < 300


def test_the_end_of_a_name_is_the_tree():
    assert suffix_of("cn=accounts,dc=example,dc=test") == "dc=example,dc=test"
    assert suffix_of("ou=people, DC=example, DC=test") == "DC=example, DC=test"
    assert suffix_of("o=example") == "o=example"


@pytest.mark.parametrize("place", ["{nobody}", "cn=x,{}", "cn=\0"])
def test_a_base_with_other_words_in_it_is_a_mistake(place):
    with pytest.raises(ValueError, match="domain_base"):
        changed(LdapMapping(), {"domain_base": place})


# The source


class LdapDomainsCase:
    def __init__(self, **settings: Any) -> None:
        self.server = MemoryLdap()
        self.is_down = False
        made = DirectorySettings(
            DirectoryType.LDAP, uri=("ldap://127.0.0.1",), base="dc=test", domains=True, **settings
        )
        clock: Any = Clock()
        self.parts = make_ldap_directory(made, clock=clock, default_domain="one.test")
        attempts: Any = self.parts.attempts
        attempts.run = self._run
        self.source: Any = self.parts.domains

    def _run(self, lane: object, deadline: float, work: Any, **more: object) -> Any:
        if self.is_down:
            raise ServerTrouble("down")
        return work(self.server, deadline)


class LdapSourceTests(DomainSourceContract, SynchronousTestCase):
    def make_source(self) -> Any:
        self.case = LdapDomainsCase(attributes={"domain_alias": ["otherDomain"]})
        add = self.case.server.add
        add("cn=1,dc=test", objectClass="domainRelatedObject", associatedDomain="One.test", otherDomain="other.test")
        add("cn=2,dc=test", objectClass="domainRelatedObject", associatedDomain="two.test")
        return self.case.source

    def break_source(self) -> None:
        self.case.is_down = True

    def empty_source(self) -> None:
        self.case.server.entries.clear()

    def test_the_directory_has_the_source_and_others_have_none(self) -> None:
        assert tuple(self.case.parts.directory.domain_sources()) == (self.source,)
        made = DirectorySettings(DirectoryType.LDAP, uri=("ldap://127.0.0.1",), base="dc=test")
        clock: Any = Clock()
        without = make_ldap_directory(made, clock=clock, default_domain="")
        assert tuple(without.directory.domain_sources()) == ()

    def test_lists_of_other_places_do_not_stand_for_it(self) -> None:
        keys = {self.source.key, LdapDomainsCase().source.key}
        keys |= {LdapDomainsCase(attributes={"domain_base": "ou=x,{base}"}).source.key}
        assert len(keys) == 3

    def test_changes_of_domains_are_told_and_others_are_not(self) -> None:
        told: list[None] = []
        self.source.follow_domains(lambda: told.append(None))
        self.found()
        self.source.heard([Change("uid=alice,dc=test", LdapEntry("uid=alice,dc=test", {"uid": (b"alice",)}))])
        assert len(told) == 0
        self.source.heard([Change("cn=new,dc=test", LdapEntry("cn=new,dc=test", {"associateddomain": (b"x.test",)}))])
        same = {"associateddomain": (b"One.test",), "otherdomain": (b"other.test",)}
        self.source.heard([Change("cn=1,dc=test", LdapEntry("cn=1,dc=test", {**same, "description": (b"new",)}))])
        assert len(told) == 1
        self.source.heard([Change("cn=1,dc=test", LdapEntry("cn=1,dc=test", {"associateddomain": (b"one.test",)}))])
        self.source.heard([Change("CN=1,dc=test")])
        self.source.heard(None)
        assert len(told) == 4


class MemorySourceTests(DomainSourceContract, SynchronousTestCase):
    def make_source(self) -> Any:
        self.made = MemoryDomains("two.test", "one.test")
        self.made.add("other.test", "one.test")
        return self.made

    def break_source(self) -> None:
        self.made.is_down = True

    def empty_source(self) -> None:
        self.made.domains.clear()


def test_none_that_is_shown_names_what_to_look_at():
    case = LdapDomainsCase()
    failures: list[Any] = []
    case.source.find_domains().addErrback(failures.append)
    assert failures[0].check(Unavailable)
    assert "domain_base" in failures[0].value.cause


@pytest.mark.parametrize("preset", preset_names())
def test_followers_hear_of_domains_only_where_they_stand_among_users(preset):
    mapping = load_preset(preset)
    without, concern = concern_of(mapping, "dc=test", 5.0), concern_of(mapping, "dc=test", 5.0, domains=True)
    assert (without.what != concern.what) == (preset == "openldap")
    assert ("associatedDomain" in concern.attributes) == (preset == "openldap")
