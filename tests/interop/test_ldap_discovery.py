"""Servers of a directory by SRV records of real DNS servers, and passwords compared with those of a real OpenLDAP."""

from __future__ import annotations

import base64
import hashlib
import imaplib
import shutil
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner
from twisted.internet.defer import execute
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.address import Address
from mailsrv.cli.root import root
from mailsrv.directory.ldap.build import LdapParts, make_ldap_directory
from mailsrv.directory.ldap.login_check import LoginCheck
from mailsrv.directory.ldap.service_records import SrvTrust
from mailsrv.directory.passwords.hashing import HashingPool
from mailsrv.directory.settings import DirectorySettings, DirectoryType, PasswordSettings
from mailsrv.dns.blocking import make_blocking_resolver
from mailsrv.dns.settings import DnsSettings
from mailsrv.errors import Unavailable
from mailsrv.tls.self_signed import write_self_signed
from tests.contracts.directory import DirectoryContract
from tests.interop.dns_server import DnsServers
from tests.interop.slapd import BASE, SERVICE, SERVICE_PASSWORD, Slapd, person
from tests.ports import lasting_port
from tests.scenarios.server import WholeServer

ALICE = Address("alice", "example.test")
HOST = "ldap.signed.test"
RECORDS = """
ldap 300 IN A 127.0.0.1
dead 300 IN A 127.0.0.1
_ldap._tcp 300 IN SRV 0 0 {dead} dead.{zone}.
_ldap._tcp 300 IN SRV 10 0 {port} ldap.signed.test.
_ldaps._tcp 300 IN SRV 0 0 {tls_port} ldap.signed.test.
_ldap._tcp.nothing 300 IN SRV 0 0 0 .
"""


def result(deferred: Any) -> Any:
    found: list[Any] = []
    deferred.addBoth(found.append)
    if hasattr(found[0], "raiseException"):
        found[0].raiseException()
    return found[0]


@attrs.frozen(eq=False)
class Site:
    """slapd with a certificate for HOST, and the DNS that leads to it."""

    folder: Path
    slapd: Slapd
    dns: DnsServers

    def parts(self, uri: str, **changes: Any) -> LdapParts:
        settings = DirectorySettings(
            DirectoryType.LDAP,
            **{
                "uri": (uri,),
                "base": BASE,
                "ca_file": str(self.folder / "cert.pem"),
                "bind_dn": SERVICE,
                "bind_password_file": str(self.folder / "secret"),
                **changes,
            },
        )
        dns = DnsSettings(
            servers=(f"127.0.0.1:{self.dns.resolver_port}",),
            self_test_signed="signed.test",
            self_test_broken="bogus.test",
        )
        return make_ldap_directory(
            settings, clock=Clock(), default_domain="example.test", resolver=make_blocking_resolver(dns)
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("discovery")
    write_self_signed(HOST, str(folder / "cert.pem"), str(folder / "key.pem"))
    (folder / "secret").write_text(SERVICE_PASSWORD)
    slapd = Slapd(folder / "slapd", folder / "cert.pem", folder / "key.pem", (person("alice", "sesame"),))
    (folder / "dns").mkdir()
    ports = {"port": slapd.port, "tls_port": slapd.tls_port, "dead": lasting_port()}
    more = {zone: RECORDS.format(zone=zone, **ports) for zone in ("signed.test", "bogus.test", "plain.test")}
    with slapd, DnsServers(folder / "dns", f"3 1 1 {'00' * 32}", more=more) as dns:
        yield Site(folder, slapd, dns)


def ldap_table(site: Site) -> str:
    return textwrap.dedent(f"""
        [[directory]]
        type = "ldap"
        uri = ["srv:signed.test"]
        base = "{BASE}"
        ca_file = "{site.folder}/cert.pem"
        bind_dn = "{SERVICE}"
        bind_password_file = "{site.folder}/secret"

        [dns]
        servers = ["127.0.0.1:{site.dns.resolver_port}"]
        self_test_signed = "signed.test"
        self_test_broken = "bogus.test"
        """)


def test_signed_records_lead_to_the_server_past_one_that_is_dead(site):
    parts = site.parts("srv:signed.test")
    alice = result(parts.directory.find_user(ALICE))
    assert alice.address == ALICE
    assert result(parts.directory.check_password(alice, "sesame")) is True
    first, second = parts.servers.all
    assert (first.host, first.is_up) == ("dead.signed.test", False)
    # These names exist in this DNS alone: addresses come from it, too.
    assert (second.host, second.tls_name, second.addresses) == (HOST, HOST, ("127.0.0.1",))
    parts = site.parts("srv:_ldaps._tcp.signed.test")
    assert result(parts.directory.find_user(ALICE)).address == ALICE


def test_unsigned_records_lead_to_no_server_whose_certificate_is_not_the_domains(site):
    for trust in SrvTrust:
        # Even where hosts of the domain are trusted: this one is of another.
        parts = site.parts("srv:_ldaps._tcp.plain.test", srv_trust=trust)
        with pytest.raises(Unavailable):
            result(parts.directory.find_user(ALICE))
        assert "certificate is refused" in parts.servers.all[0].cause
        assert parts.servers.all[0].tls_name == "plain.test"


@pytest.mark.parametrize("uri", ["srv:bogus.test", "srv:_ldap._tcp.nothing.signed.test", "srv:nowhere.signed.test"])
def test_r_auth_7_forged_records_and_none_are_an_outage(site, uri):
    parts = site.parts(uri)
    with pytest.raises(Unavailable):
        result(parts.directory.find_user(ALICE))
    with pytest.raises(Unavailable):
        result(parts.directory.check_password(None, "sesame"))


def test_the_configuration_is_tried_on_every_server_that_was_found(site, tmp_path):
    config = tmp_path / "mailsrv.toml"
    config.write_text(
        'hostname = "mail.example.test"\nstate_dir = "state"\n'
        '[[listen]]\nservice = "lmtp"\nendpoint = "unix:lmtp.sock"\n[[domain]]\nname = "example.test"\n'
        '[auth]\ndefault_domain = "example.test"\n[store]\npath = "mail/{domain}/{local}"\n' + ldap_table(site)
    )
    done = CliRunner().invoke(root, ["--config", str(config), "ldap", "test"])
    assert f"ldap://ldap.signed.test:{site.slapd.port}: connected as {SERVICE}, TLS: TLSv1." in done.output
    # One of the two is dead.
    assert "FAIL  ldap://dead.signed.test" in done.output
    assert "(certificate for ldap.signed.test)" in done.output
    assert done.exit_code == 1
    done = CliRunner().invoke(root, ["--config", str(config), "ldap", "check", "alice"])
    assert done.exit_code == 0, done.output


@pytest.mark.slow
def test_a_whole_server_finds_its_directory_by_the_dns(site, tmp_path):
    server = WholeServer(tmp_path / "mail", users=(), extra=ldap_table(site))
    server.passwd_path.touch()
    with server:
        with imaplib.IMAP4("localhost", server.ports["imap"]) as client:
            assert client.login("alice", "sesame")[0] == "OK"
        with (
            imaplib.IMAP4("localhost", server.ports["imap"]) as client,
            pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"),
        ):
            client.login("alice", "wrong")
        server.deliver("alice@example.test", b"Subject: hello\r\n\r\nhello\r\n")
        server.wait_for_event("the servers are")
    server.check_log()


def ssha(password: str) -> str:
    return "{SSHA}" + base64.b64encode(hashlib.sha1(password.encode() + b"salt").digest() + b"salt").decode()


def pbkdf2(password: str) -> str:
    def text(octets: bytes) -> str:
        return base64.b64encode(octets).decode().rstrip("=").replace("+", ".")

    digest = hashlib.pbkdf2_hmac("sha256", password.encode(), b"some salt", 1000)
    return f"{{PBKDF2-SHA256}}1000${text(b'some salt')}${text(digest)}"


HASHES = {
    "alice": ("sesame", ssha("sesame")),
    "bob": ("mellon", "mellon"),
    "carol": ("xyzzy", pbkdf2("xyzzy")),
    "dave": ("secret", "{X-UNHEARD-OF}secret"),
}
AWAY = {"disabled": ["employeeType=away"]}
TEMPLATE = f"uid={{local}},ou=people,{BASE}"
READABLE = f'access to attrs=userPassword by dn.exact="{SERVICE}" read by anonymous auth by * none\n'


class ComparingSite:
    """slapd that lets the service account read passwords."""

    def __init__(self, *people: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="compare"))
        write_self_signed("ldap.example.test", str(self.folder / "cert.pem"), str(self.folder / "key.pem"))
        (self.folder / "secret").write_text(SERVICE_PASSWORD)
        entries = [*people]
        entries.append(
            f"dn: cn=staff,ou=groups,{BASE}\nobjectClass: groupOfNames\nobjectClass: mailUser\ncn: staff\n"
            f"mail: staff@example.test\nmember: uid=alice,ou=people,{BASE}\nmember: uid=bob,ou=people,{BASE}\n"
        )
        self.slapd = Slapd(
            self.folder / "slapd", self.folder / "cert.pem", self.folder / "key.pem", tuple(entries), readable=READABLE
        )
        self.slapd.load()
        self.slapd.start()

    def close(self) -> None:
        self.slapd.kill()
        shutil.rmtree(self.folder)

    def parts(self, **changes: Any) -> LdapParts:
        clock: Any = Clock()
        settings = DirectorySettings(
            DirectoryType.LDAP,
            **{
                "uri": (self.slapd.uri,),
                "base": BASE,
                "ca_file": str(self.folder / "cert.pem"),
                "bind_dn": SERVICE,
                "bind_password_file": str(self.folder / "secret"),
                "login": LoginCheck.COMPARE,
                **changes,
            },
        )
        hashing = HashingPool(PasswordSettings(), reactor=clock, run_in_thread=execute)
        return make_ldap_directory(settings, clock=clock, default_domain="example.test", hashing=hashing)


class ComparingContract(DirectoryContract):
    """A directory like any other; ``changes`` are of the settings."""

    has_aliases = True
    changes: dict[str, Any]
    site: ComparingSite

    @classmethod
    def setUpClass(cls) -> None:
        cls.site = ComparingSite(
            person("alice", ssha("sesame"), extra="mailQuota: 1G\nmailAlternateAddress: al@example.test\n"),
            person("bob", "mellon", extra="employeeType: away\n"),
        )

    @classmethod
    def tearDownClass(cls) -> None:
        cls.site.close()

    def make_directory(self) -> Any:
        if not self.site.slapd.is_running:
            self.site.slapd.start()
        return self.site.parts(cache_seconds=0.0, outage_seconds=0.0, **self.changes).directory

    def break_directory(self) -> None:
        self.site.slapd.kill()


class CompareTests(ComparingContract, SynchronousTestCase):
    """Found by a search."""

    changes = {"attributes": AWAY}


class CompareByTemplateTests(ComparingContract, SynchronousTestCase):
    """Named by a template."""

    changes = {"attributes": {**AWAY, "dn_template": TEMPLATE}}


class BindByTemplateTests(ComparingContract, SynchronousTestCase):
    """The same contract where the server compares."""

    changes = {"login": LoginCheck.BIND, "attributes": {**AWAY, "dn_template": TEMPLATE}}


def test_all_stored_forms_are_compared_and_unheard_ones_let_nobody_in():
    comparing = ComparingSite(*(person(name, stored) for name, (_, stored) in HASHES.items()))
    try:
        directory = comparing.parts().directory
        for name, (password, stored) in HASHES.items():
            user = result(directory.find_login(Address(name, "example.test")))
            assert result(directory.check_password(user, password)) is ("UNHEARD" not in stored), name
            assert result(directory.check_password(user, password + "x")) is False
            # The stored form itself is no password (but where it is one).
            assert result(directory.check_password(user, stored)) is (stored == password)
        assert result(directory.check_password(None, "sesame")) is False
    finally:
        comparing.close()


def test_r_auth_7_an_entry_that_may_not_be_read_lets_nobody_in(site):
    # The service account of this server may not read passwords: there is none to compare with.
    clock: Any = Clock()
    parts = make_ldap_directory(
        DirectorySettings(
            DirectoryType.LDAP,
            uri=(site.slapd.tls_uri,),
            base=BASE,
            ca_file=str(site.folder / "cert.pem"),
            bind_dn=SERVICE,
            bind_password_file=str(site.folder / "secret"),
            login=LoginCheck.COMPARE,
        ),
        clock=clock,
        default_domain="example.test",
        hashing=HashingPool(PasswordSettings(), reactor=clock, run_in_thread=execute),
    )
    alice = result(parts.directory.find_user(ALICE))
    assert result(parts.directory.check_password(alice, "sesame")) is False
