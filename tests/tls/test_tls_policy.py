"""Which source decides about TLS to a host (RFC 7672, RFC 8461), over a DNS in memory."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.interfaces.resolver import DnsAnswer, DnsFailure, MailExchange, TlsaRecord
from mailsrv.interfaces.tls_policy import DomainTlsPolicy, HostTlsPolicy, TlsLevel, TlsResult
from mailsrv.testing.resolver import MemoryResolver
from mailsrv.tls.mta_sts import StsMode, StsPolicy
from mailsrv.tls.mta_sts_files import StoredPolicy
from mailsrv.tls.mta_sts_policies import StsFinding
from mailsrv.tls.policy import TlsPolicies
from mailsrv.tls.policy_settings import TlsPolicySettings

DOMAIN, HOST = "example.test", "mx.example.net"
USABLE = TlsaRecord(3, 1, 1, bytes(32))
UNUSABLE = TlsaRecord(1, 1, 1, bytes(32))


class KnownSts:
    """MTA-STS policies that are simply known."""

    def __init__(self, **found: StsFinding) -> None:
        self.found = found

    async def find(self, domain: str) -> StsFinding:
        return self.found.get(domain.replace(".", "_"), StsFinding())


def sts(mode: StsMode, *patterns: str) -> Any:
    return KnownSts(example_test=StsFinding(StoredPolicy(StsPolicy(mode, 86400, patterns), "20260101", 0.0)))


class PolicyTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.resolver = MemoryResolver(secure={DOMAIN, HOST, f"_25._tcp.{HOST}"})
        self.resolver.add_mx(DOMAIN, HOST)
        self.resolver.add_addresses(HOST, "192.0.2.1")
        self.counted: list[TlsResult] = []

    def make(self, *rules: TlsPolicySettings, sts: Any = None) -> TlsPolicies:
        return TlsPolicies(rules, self.resolver, sts, self.counted.append)

    def domain_policy(self, policies: TlsPolicies, domain: str = DOMAIN) -> DomainTlsPolicy:
        return self.successResultOf(policies.for_domain(domain))

    def look(self, policies: TlsPolicies, host: str = HOST, port: int = 25) -> Deferred[HostTlsPolicy]:
        exchanges = self.successResultOf(self.resolver.mail_exchanges(DOMAIN))
        return policies.for_host(self.domain_policy(policies), MailExchange(10, host), exchanges, port)

    def host_policy(self, policies: TlsPolicies, host: str = HOST, port: int = 25) -> HostTlsPolicy:
        return self.successResultOf(self.look(policies, host, port))


class ConfiguredTests(PolicyTestCase):
    def test_the_first_rule_wins_over_everything(self) -> None:
        self.resolver.add_tlsa(f"_25._tcp.{HOST}", USABLE)
        policies = self.make(
            TlsPolicySettings("*.example.test", TlsLevel.NONE),
            TlsPolicySettings(DOMAIN, TlsLevel.VERIFY, ("mail.example.org",)),
            TlsPolicySettings("*", TlsLevel.ENCRYPT),
            sts=sts(StsMode.ENFORCE, "nobody.example.net"),
        )
        found = self.host_policy(policies)
        assert (found.level, found.source, found.names) == (TlsLevel.VERIFY, "configured", ("mail.example.org",))
        assert self.domain_policy(policies, "a.b.example.test").level is TlsLevel.NONE
        assert self.domain_policy(policies, "other.test").level is TlsLevel.ENCRYPT
        assert not any(question.startswith("TLSA") for question in self.resolver.questions)

    def test_other_rules_take_the_place_of_these(self) -> None:
        policies = self.make(TlsPolicySettings(DOMAIN, TlsLevel.VERIFY))
        assert self.domain_policy(policies).level is TlsLevel.VERIFY
        policies.replace_rules((TlsPolicySettings(DOMAIN, TlsLevel.ENCRYPT),))
        assert self.domain_policy(policies).level is TlsLevel.ENCRYPT

    def test_dane_can_be_demanded(self) -> None:
        policies = self.make(TlsPolicySettings(DOMAIN, TlsLevel.DANE))
        without = self.host_policy(policies)
        assert (without.level, without.tlsa) == (TlsLevel.DANE, ())
        assert "no secure TLSA records" in without.why
        self.resolver.add_tlsa(f"_25._tcp.{HOST}", USABLE)
        assert self.host_policy(policies).tlsa == (USABLE,)

    def test_domains_as_people_write_them(self) -> None:
        assert TlsPolicySettings("*.BÜCHER.example").domain == "*.xn--bcher-kva.example"
        for text in ("", "a b", "**", "*.", "x@example.test"):
            with pytest.raises(ValueError, match="expected a domain"):
                TlsPolicySettings(text)


class DaneTests(PolicyTestCase):
    def test_secure_all_the_way(self) -> None:
        self.resolver.add_tlsa(f"_25._tcp.{HOST}", USABLE, UNUSABLE)
        found = self.host_policy(self.make(sts=sts(StsMode.ENFORCE, "nobody.example.net")))
        assert (found.level, found.source, found.tlsa) == (TlsLevel.DANE, "dane", (USABLE,))
        assert found.names == (HOST, DOMAIN)
        assert found.is_verified
        assert found.is_allowed

    def test_nothing_secure_may_be_missing(self) -> None:
        self.resolver.add_tlsa(f"_25._tcp.{HOST}", USABLE)
        for name in (DOMAIN, HOST, f"_25._tcp.{HOST}"):
            self.resolver.secure.remove(name)
            assert self.host_policy(self.make()).level is TlsLevel.OPPORTUNISTIC, name
            self.resolver.secure.add(name)
        assert self.host_policy(self.make()).level is TlsLevel.DANE

    def test_records_that_cannot_be_used_demand_encryption(self) -> None:
        self.resolver.add_tlsa(f"_25._tcp.{HOST}", UNUSABLE)
        found = self.host_policy(self.make())
        assert (found.level, found.source) == (TlsLevel.ENCRYPT, "dane")
        found = self.host_policy(self.make(sts=sts(StsMode.ENFORCE, HOST)))
        assert (found.level, found.source) == (TlsLevel.VERIFY, "mta-sts")

    def test_a_lookup_that_fails_makes_the_host_unusable(self) -> None:
        self.resolver.failures.add(f"TLSA _25._tcp.{HOST}")
        self.failureResultOf(self.look(self.make()), DnsFailure)
        assert [one.result_type for one in self.counted] == ["dnssec-invalid"]

    def test_but_it_is_not_made_where_addresses_are_insecure(self) -> None:
        self.resolver.failures.add(f"TLSA _25._tcp.{HOST}")
        self.resolver.secure.remove(HOST)
        assert self.host_policy(self.make()).level is TlsLevel.OPPORTUNISTIC

    def test_an_alias_that_is_secure_to_its_end(self) -> None:
        self.resolver.canonical[HOST] = "real.example.org"
        self.resolver.add_addresses("real.example.org", "192.0.2.2")
        self.resolver.secure |= {"real.example.org", "_25._tcp.real.example.org"}
        self.resolver.add_tlsa(f"_25._tcp.{HOST}", USABLE)
        assert self.host_policy(self.make()).names[0] == HOST
        other = TlsaRecord(3, 1, 1, bytes([1] * 32))
        self.resolver.add_tlsa("_25._tcp.real.example.org", other)
        found = self.host_policy(self.make())
        assert (found.names[0], found.tlsa, found.host) == ("real.example.org", (other,), HOST)

    def test_an_alias_that_leads_into_the_insecure(self) -> None:
        self.resolver.canonical[HOST] = "real.example.org"
        self.resolver.add_addresses("real.example.org", "192.0.2.2")
        self.resolver.add_tlsa("_25._tcp.real.example.org", USABLE)
        assert self.host_policy(self.make()).level is TlsLevel.OPPORTUNISTIC
        self.resolver.add_tlsa(f"_25._tcp.{HOST}", USABLE)
        found = self.host_policy(self.make())
        assert (found.level, found.names[0]) == (TlsLevel.DANE, HOST)

    def test_another_port(self) -> None:
        self.resolver.secure.add(f"_587._tcp.{HOST}")
        self.resolver.add_tlsa(f"_587._tcp.{HOST}", USABLE)
        policies = self.make()
        assert self.host_policy(policies).level is TlsLevel.OPPORTUNISTIC
        exchange = MailExchange(0, HOST)
        found = self.successResultOf(
            policies.for_host(self.domain_policy(policies, HOST), exchange, DnsAnswer((exchange,), is_secure=True), 587)
        )
        assert (found.level, found.names) == (TlsLevel.DANE, (HOST,))


class MtaStsTests(PolicyTestCase):
    def test_enforced(self) -> None:
        policies = self.make(sts=sts(StsMode.ENFORCE, "*.example.net"))
        found = self.host_policy(policies)
        assert (found.level, found.source, found.is_allowed) == (TlsLevel.VERIFY, "mta-sts", True)
        assert found.names == (HOST,)
        assert not self.host_policy(policies, "mx.example.org").is_allowed
        assert not self.host_policy(policies, "a.b.example.net").is_allowed

    def test_tested(self) -> None:
        policies = self.make(sts=sts(StsMode.TESTING, "*.example.net"))
        found = self.host_policy(policies)
        assert (found.source, found.is_testing, found.is_verified) == ("mta-sts testing", True, False)
        assert self.counted == []
        assert self.host_policy(policies, "mx.example.org").is_allowed
        assert [(one.result_type, one.host) for one in self.counted] == [("validation-failure", "mx.example.org")]

    def test_none_is_none(self) -> None:
        assert self.host_policy(self.make(sts=sts(StsMode.NONE))).level is TlsLevel.OPPORTUNISTIC

    def test_what_could_not_be_fetched_is_counted(self) -> None:
        finding = StsFinding(None, "sts-policy-fetch-error", "no answer")
        unknown: Any = KnownSts(example_test=finding)
        assert self.domain_policy(self.make(sts=unknown)).level is TlsLevel.OPPORTUNISTIC
        assert [one.result_type for one in self.counted] == ["sts-policy-fetch-error"]

    def test_an_address_has_no_policy(self) -> None:
        for address in ("[192.0.2.1]", "192.0.2.1", "[ipv6:2001:db8::1]", "2001:db8::1"):
            policies = self.make(sts=sts(StsMode.ENFORCE, HOST))
            policy = self.domain_policy(policies, address)
            exchange = MailExchange(0, address)
            found = policies.for_host(policy, exchange, DnsAnswer((exchange,), is_secure=True), 587)
            assert self.successResultOf(found).source == "default"
        assert self.resolver.questions == []

    def test_never_fails(self) -> None:
        class Broken:
            async def find(self, domain: str) -> StsFinding:
                raise RuntimeError("broken")

        assert self.domain_policy(self.make(sts=Broken())).source == "default"
        assert len(self.flushLoggedErrors(RuntimeError)) == 1


class RecordTests(PolicyTestCase):
    def test_never_raises(self) -> None:
        def fail(result: TlsResult) -> None:
            raise ValueError("broken")

        policies = TlsPolicies((), self.resolver, None, fail)
        policies.record(TlsResult(DOMAIN, HOST, "192.0.2.1", HostTlsPolicy(HOST, TlsLevel.NONE, "default")))
        assert len(self.flushLoggedErrors(ValueError)) == 1


@given(st.builds(TlsaRecord, st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.binary(max_size=70)))
def test_any_secure_record_demands_tls(record: TlsaRecord) -> None:
    resolver = MemoryResolver(secure={DOMAIN, HOST, f"_25._tcp.{HOST}"})
    resolver.add_addresses(HOST, "192.0.2.1")
    resolver.add_tlsa(f"_25._tcp.{HOST}", record)
    policy = DomainTlsPolicy(DOMAIN, TlsLevel.OPPORTUNISTIC, "default")
    found: list[HostTlsPolicy] = []
    exchanges = DnsAnswer((MailExchange(1, HOST),), is_secure=True)
    TlsPolicies((), resolver).for_host(policy, exchanges.records[0], exchanges).addCallback(found.append)
    assert found[0].level in {TlsLevel.ENCRYPT, TlsLevel.DANE}
