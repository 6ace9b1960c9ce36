"""``mailsrvctl tls-policy`` with a small DNS server and a small mail server on loopback."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import field, frozen
from OpenSSL import SSL
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import DatagramProtocol, Factory, connectionDone
from twisted.names import dns
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mailsrv.cli import main
from mailsrv.cli.tls_policy import describe, find_out
from mailsrv.dns.settings import DnsSettings
from mailsrv.interfaces.tls_policy import TlsLevel
from mailsrv.tls.client_settings import MtaStsSettings, TlsClientSettings
from mailsrv.tls.policy_settings import TlsPolicySettings
from tests.dns.name_server import Told, make_reply, question_of, record, soa
from tests.tls.issued import HOST, SELF, server_context, tlsa

reactor: Any = _reactor


@implementer(IOpenSSLServerConnectionCreator)
class ServerContext:
    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return SSL.Connection(server_context(SELF), None)


class MailHost(LineOnlyReceiver):
    """Knows EHLO, STARTTLS and QUIT, and what ``factory.behaviour`` says."""

    factory: Any
    transport: Any

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.open.remove(self)
        if not self.factory.open and self.factory.all_gone is not None:
            self.factory.all_gone.callback(None)

    def connectionMade(self) -> None:
        self.factory.open.append(self)
        if self.factory.behaviour == "flood":
            self.transport.write(b"220-x\r\n" * 10_000)
        self.sendLine(b"554 no" if self.factory.behaviour == "refuse" else b"220 mx.example.test")

    def lineReceived(self, line: bytes) -> None:
        if line.startswith(b"EHLO"):
            tls = b"" if self.factory.behaviour == "no tls" else b"250-STARTTLS\r\n"
            self.transport.write(b"250-mx.example.test\r\n" + tls + b"250 SIZE\r\n")
        elif line == b"STARTTLS":
            injected = b"250 injected\r\n" if self.factory.behaviour == "inject" else b""
            self.transport.write(b"220 go\r\n" + injected)
            if self.factory.behaviour == "broken tls":
                self.transport.loseConnection()
            elif not injected:
                self.transport.startTLS(ServerContext())
        else:
            self.transport.loseConnection()


class MailHosts(Factory):
    behaviour = ""
    all_gone: Deferred[None] | None = None

    def __init__(self) -> None:
        self.open: list[MailHost] = []

    def stop(self) -> Deferred[None]:
        """Once all connections are gone."""
        if not self.open:
            return succeed(None)
        self.all_gone = Deferred()
        return self.all_gone


class NameServer(DatagramProtocol):
    """Claims that everything is signed."""

    transport: Any

    def __init__(self) -> None:
        self.zone: dict[tuple[str, int], list[Any]] = {}

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        name, kind = question_of(datagram)
        told = Told(is_authentic=True, authority=[soa("test")])
        told.answers = [record(name, payload, kind=kind) for payload in self.zone.get((name, kind), ())]
        if name == "broken.test":
            told = Told(rcode=2)
        self.transport.write(make_reply(datagram, told), addr)


@frozen
class Options:
    dns: DnsSettings
    state_dir: str
    tls_policy: tuple[TlsPolicySettings, ...] = ()
    hostname: str = "mail.sender.test"
    tls_client: TlsClientSettings = field(factory=TlsClientSettings)
    mta_sts: MtaStsSettings = field(factory=MtaStsSettings)


class TlsPolicyTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.names = NameServer()
        names_port = reactor.listenUDP(0, self.names, interface="127.0.0.1")
        self.addCleanup(names_port.stopListening)
        self.mail = MailHosts()
        self.mail.protocol = MailHost
        mail_port = reactor.listenTCP(0, self.mail, interface="127.0.0.1")
        self.addCleanup(mail_port.stopListening)
        self.addCleanup(self.mail.stop)
        self.port: int = mail_port.getHost().port
        self.names.zone = {
            ("example.test", dns.MX): [dns.Record_MX(10, HOST.encode())],
            (HOST, dns.A): [dns.Record_A("127.0.0.1")],
        }
        self.dns = DnsSettings(
            servers=(f"127.0.0.1:{names_port.getHost().port}",),
            self_test_signed="example.test",
            self_test_broken="broken.test",
        )

    def put_tlsa(self) -> None:
        one = tlsa(3, SELF.certificate)
        self.names.zone[f"_{self.port}._tcp.{HOST}", 52] = [bytes((3, 1, 1)) + one.data]

    async def ask(
        self, *rules: TlsPolicySettings, domain: str = "example.test", connects: bool = True
    ) -> tuple[dict[str, Any], bool]:
        options = Options(self.dns, self.mktemp(), rules)
        table, is_good = await find_out(options, domain, self.port, reactor, connects=connects)
        assert json.loads(json.dumps(table)) == table
        return table, is_good

    async def test_dane_that_is_fulfilled(self) -> None:
        self.put_tlsa()
        table, is_good = await self.ask()
        assert is_good
        (host,) = table["hosts"]
        assert (host["level"], host["source"], host["connect"][0]["ok"]) == ("dane", "dane", True)
        text = "\n".join(describe(table))
        assert f"MX: 10 {HOST} (secure)" in text
        assert f"TLSA _{self.port}._tcp.{HOST}: 3 1 1 " in text
        assert "127.0.0.1: fulfilled, TLSv1.3" in text
        assert "proved: example.test is signed, broken.test is refused" in text

    async def test_what_is_not_fulfilled(self) -> None:
        table, is_good = await self.ask(TlsPolicySettings("example.test", TlsLevel.VERIFY))
        assert not is_good
        assert table["hosts"][0]["connect"][0]["result_type"] == "certificate-not-trusted"
        assert "127.0.0.1: NOT fulfilled" in "\n".join(describe(table))

    async def test_hosts_that_behave_badly(self) -> None:
        for behaviour, detail in (
            ("refuse", "'554 no' to the"),
            ("no tls", "the host does not offer STARTTLS"),
            ("inject", "octets after the answer to STARTTLS"),
            ("broken tls", "the TLS handshake failed"),
            ("flood", "the host says too much"),
        ):
            self.mail.behaviour = behaviour
            table, is_good = await self.ask(TlsPolicySettings("*", TlsLevel.ENCRYPT))
            assert not is_good
            assert table["hosts"][0]["connect"][0]["detail"] == detail, behaviour

    async def test_without_connecting(self) -> None:
        table, is_good = await self.ask(connects=False)
        assert is_good
        assert "connect" not in table["hosts"][0]
        assert (table["policy"], table["mta_sts"]["id"]) == ({"level": "opportunistic", "source": "default"}, None)

    async def test_domains_without_an_answer_or_without_mx(self) -> None:
        table, is_good = await self.ask(domain="broken.test", connects=False)
        assert not is_good
        assert "SERVFAIL" in table["mx"]["error"]
        assert "no answer" in "\n".join(describe(table))
        table, _ = await self.ask(domain=HOST, connects=False)
        assert table["mx"]["implicit"]
        self.names.zone["null.test", dns.MX] = [dns.Record_MX(0, b"")]
        table, is_good = await self.ask(domain="null.test", connects=False)
        assert not is_good
        assert "(no mail)" in "\n".join(describe(table))


@pytest.mark.parametrize(("word", "why"), [("[192.0.2.1]", "an address has no policy"), ("a b", "not a domain")])
def test_what_is_no_domain(capsys: pytest.CaptureFixture[str], word: str, why: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tls-policy", word])
    assert ended.value.code == 2
    assert why in capsys.readouterr().err
