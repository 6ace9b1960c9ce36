"""The resolver, and DANE on top of it, with real DNS servers: Knot has the zones, Unbound validates."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from mailsrv.dns.resolver import Resolver
from mailsrv.dns.settings import DnsSettings
from mailsrv.interfaces.resolver import DnsFailure, MailExchange
from mailsrv.interfaces.tls_policy import HostTlsPolicy, TlsLevel
from mailsrv.tls.client import ClientTls
from mailsrv.tls.policy import TlsPolicies
from tests.interop.dns_server import DnsServers
from tests.interop.running import run
from tests.tls.issued import LEAF, MIDDLE, SELF, Handshake, server_context, tlsa

reactor: Any = _reactor
SETTINGS = DnsSettings(self_test_signed="signed.test", self_test_broken="bogus.test")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DnsServers]:
    record = tlsa(3, LEAF.certificate)
    text = f"{record.usage} {record.selector} {record.matching_type} {record.data.hex()}"
    with DnsServers(tmp_path_factory.mktemp("dns"), text) as both:
        yield both


class DnsServerTestCase(TestCase):
    timeout = 60

    @pytest.fixture(autouse=True)
    def _with_servers(self, servers: DnsServers) -> None:
        self.servers = servers
        self.resolver = self.make(servers.resolver_port)

    def make(self, port: int) -> Resolver:
        return Resolver(evolve(SETTINGS, servers=(f"127.0.0.1:{port}",)), reactor)

    async def policy_of(self, domain: str) -> HostTlsPolicy:
        """What is demanded of the first host of a domain."""
        policies = TlsPolicies((), self.resolver)
        exchanges = await self.resolver.mail_exchanges(domain)
        return await policies.for_host(await policies.for_domain(domain), exchanges.records[0], exchanges)


class ResolverTests(DnsServerTestCase):
    async def test_the_self_test_proves_unbound(self) -> None:
        answer = await self.resolver.mail_exchanges("signed.test")
        assert (answer.records, answer.is_secure) == ((MailExchange(10, "mx.signed.test"),), True)
        (state,) = self.resolver.validation_states().values()
        assert state == "proved: signed.test is signed, bogus.test is refused"

    async def test_the_self_test_refutes_a_server_that_does_not_validate(self) -> None:
        resolver = self.make(self.servers.authority_port)
        answer = await resolver.mail_exchanges("signed.test")
        assert (len(answer.records), answer.is_secure) == (1, False)
        (state,) = resolver.validation_states().values()
        assert "does not say that signed.test is signed" in state

    async def test_no_name_no_type_and_no_answer(self) -> None:
        nowhere = await self.resolver.mail_exchanges("nowhere.signed.test")
        assert (nowhere.records, nowhere.name_exists, nowhere.is_secure) == ((), False, True)
        without = await self.resolver.mail_exchanges("mx.signed.test")
        assert (without.records, without.name_exists, without.is_secure) == ((), True, True)
        with pytest.raises(DnsFailure) as raised:
            await self.resolver.mail_exchanges("bogus.test")
        assert "SERVFAIL" in raised.value.cause

    async def test_what_is_too_long_for_a_datagram_comes_by_tcp(self) -> None:
        answer = await self.resolver.texts("signed.test")
        assert answer.records == (b"x" * 3000,)
        assert answer.is_secure

    async def test_r_dns_1_a_hundred_records_and_no_more(self) -> None:
        assert len((await self.resolver.mail_exchanges("hundred.signed.test")).records) == 100
        with pytest.raises(DnsFailure) as raised:
            await self.resolver.mail_exchanges("many.signed.test")
        assert "more than 100 records" in raised.value.cause

    async def test_addresses_aliases_and_null_mx(self) -> None:
        assert (await self.resolver.addresses("mx.signed.test")).records == ("::1", "127.0.0.1")
        alias = await self.resolver.mail_exchanges("alias.signed.test")
        assert (alias.canonical_name, alias.is_secure, len(alias.records)) == ("signed.test", True, 1)
        away = await self.resolver.mail_exchanges("away.signed.test")
        assert (away.canonical_name, away.is_secure, len(away.records)) == ("plain.test", False, 1)
        first_step = await self.resolver.aliases("away.signed.test")
        assert (first_step.records, first_step.is_secure) == (("plain.test",), True)
        assert (await self.resolver.mail_exchanges("null.signed.test")).records == (MailExchange(0, ""),)

    async def test_a_server_that_is_not_there(self) -> None:
        resolver = self.make(1)
        with pytest.raises(DnsFailure) as raised:
            await resolver.mail_exchanges("signed.test")
        assert "127.0.0.1:1: cannot be asked" in raised.value.cause

    async def test_many_at_once(self) -> None:
        names = [f"n{number}.signed.test" for number in range(300)]
        waiting: list[Deferred[Any]] = [self.resolver.mail_exchanges(name) for name in names]
        for one in waiting:
            assert not (await one).name_exists


class DaneTests(DnsServerTestCase):
    async def test_verified_by_a_secure_record(self) -> None:
        policy = await self.policy_of("signed.test")
        assert (policy.level, policy.source, policy.names) == (
            TlsLevel.DANE,
            "dane",
            ("mx.signed.test", "signed.test"),
        )
        tls = ClientTls()
        right = Handshake(tls, policy, server_context(LEAF, MIDDLE))
        assert tls.check(policy, right).is_ok
        wrong = tls.check(policy, Handshake(tls, policy, server_context(SELF)))
        assert (wrong.is_ok, wrong.result_type) == (False, "certificate-not-trusted")

    async def test_unusable_records_demand_encryption(self) -> None:
        assert (await self.policy_of("unusable.signed.test")).level is TlsLevel.ENCRYPT

    async def test_no_dane_without_dnssec(self) -> None:
        assert (await self.policy_of("plain.test")).level is TlsLevel.OPPORTUNISTIC
        assert (await self.policy_of("outside.signed.test")).level is TlsLevel.OPPORTUNISTIC

    async def test_a_bogus_host_is_not_used(self) -> None:
        policies = TlsPolicies((), self.resolver)
        exchanges = await self.resolver.mail_exchanges("signed.test")
        domain = await policies.for_domain("signed.test")
        with pytest.raises(DnsFailure):
            await policies.for_host(domain, MailExchange(10, "mx.bogus.test"), exchanges)


def test_the_command_explains_it(servers: DnsServers, tmp_path: Path) -> None:
    (tmp_path / "mailsrv.toml").write_text(
        f'hostname = "mail.sender.test"\nstate_dir = "{tmp_path}/state"\n'
        f'[dns]\nservers = ["127.0.0.1:{servers.resolver_port}"]\n'
        'self_test_signed = "signed.test"\nself_test_broken = "bogus.test"\n'
        '[[listen]]\nservice = "mx"\nendpoint = "tcp:2525:interface=127.0.0.1"\ntls = "none"\n'
        '[[domain]]\nname = "sender.test"\n[[directory]]\ntype = "passwd-file"\npath = "users"\n'
        f'[store]\npath = "{tmp_path}/mail/{{domain}}/{{local}}"\n'
    )
    command = (Path(sys.executable).with_name("mailsrvctl"), "--config", tmp_path / "mailsrv.toml", "tls-policy")
    table = json.loads(run(*command, "signed.test", "--json"))
    assert (table["mx"]["secure"], table["hosts"][0]["level"]) == (True, "dane")
    assert "plain.test: opportunistic (default)" in run(*command, "plain.test")
    assert "SERVFAIL" in run(*command, "bogus.test", expect=1)
    assert not (tmp_path / "state").exists()
