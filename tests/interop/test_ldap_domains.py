"""Domains that a real OpenLDAP server lists: in the shape of each preset, and with a whole server."""

from __future__ import annotations

import contextlib
import json
import queue
import smtplib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import ldap3
import pytest
from click.testing import CliRunner
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.cli.root import root
from mailsrv.directory.ldap.build import LdapParts, make_ldap_directory
from mailsrv.directory.ldap.changes_mode import ChangesMode
from mailsrv.directory.settings import DirectorySettings, DirectoryType
from mailsrv.errors import Unavailable
from mailsrv.tls.self_signed import write_self_signed
from tests.contracts.domain_source import DomainSourceContract
from tests.interop.slapd import ADMIN, ADMIN_PASSWORD, BASE, SERVICE, SERVICE_PASSWORD, Slapd, person
from tests.scenarios.server import WholeServer

WITHIN_SECONDS = 20
CONFIGURATION = f"cn=Configuration,{BASE}"
PARTITIONS = f"cn=Partitions,{CONFIGURATION}"
DOMAINS = f"ou=domains,{BASE}"


def container(dn: str) -> str:
    return f"dn: {dn}\nobjectClass: nsContainer\ncn: {dn.partition(',')[0].partition('=')[2]}\n"


def cross_ref(name: str, *lines: str) -> str:
    return "\n".join((f"dn: cn={name},{PARTITIONS}", "objectClass: crossRef", f"cn: {name}", *lines)) + "\n"


def domain(name: str, *lines: str) -> str:
    return (
        "\n".join((f"dn: domainName={name},{DOMAINS}", "objectClass: mailDomain", f"domainName: {name}", *lines)) + "\n"
    )


def related(*names: str) -> str:
    """As RFC 4524 has domains."""
    lines = "".join(f"associatedDomain: {name}\n" for name in names)
    first = names[0].partition(".")[0]
    return f"dn: dc={first},{DOMAINS}\nobjectClass: domain\nobjectClass: domainRelatedObject\ndc: {first}\n{lines}"


ENTRIES = (
    f"dn: {DOMAINS}\nobjectClass: organizationalUnit\nou: domains\n",
    related("one.test"),
    related("two.test", "zwei.test"),
    f"dn: dc=three.test,{DOMAINS}\nobjectClass: domain\ndc: three.test\n",
    domain("four.test", "domainAliasName: vier.test"),
    domain("quattro.test", "otherNameOf: four.test"),
    container(CONFIGURATION),
    f"dn: {PARTITIONS}\nobjectClass: crossRefContainer\ncn: Partitions\nuPNSuffixes: corp.example\n"
    "uPNSuffixes:: QsO8Y2hlci5leGFtcGxl\n",
    cross_ref("CORP", "dnsRoot: corp.test", "nETBIOSName: CORP"),
    cross_ref("Schema", "dnsRoot: corp.test"),
    cross_ref("DomainDnsZones", "dnsRoot: DomainDnsZones.corp.test"),
    container(f"cn=etc,{BASE}"),
    container(f"cn=ipa,cn=etc,{BASE}"),
    f"dn: cn=Realm Domains,cn=ipa,cn=etc,{BASE}\nobjectClass: nsContainer\nobjectClass: domainRelatedObject\n"
    "cn: Realm Domains\nassociatedDomain: ipa.test\nassociatedDomain: ipa.example\n",
)


@attrs.frozen(eq=False)
class Site:
    """A server and what one needs to ask it."""

    slapd: Slapd
    folder: Path

    def settings(self, **changes: Any) -> DirectorySettings:
        values: dict[str, Any] = {
            "uri": (self.slapd.uri,),
            "base": BASE,
            "ca_file": str(self.slapd.certificate),
            "bind_dn": SERVICE,
            "bind_password_file": str(self.folder / "secret"),
            "attempt_seconds": 1.0,
            "domains": True,
        }
        return DirectorySettings(DirectoryType.LDAP, **{**values, **changes})

    def parts(self, **changes: Any) -> LdapParts:
        clock: Any = Clock()
        return make_ldap_directory(self.settings(**changes), clock=clock, default_domain="one.test")

    def found(self, **changes: Any) -> dict[str, str]:
        answers: list[Any] = []
        source = self.parts(**changes).domains
        assert source is not None
        source.find_domains().addBoth(answers.append)
        if hasattr(answers[0], "raiseException"):
            answers[0].raiseException()
        return {each.name: each.main for each in answers[0]}

    def writer(self) -> ldap3.Connection:
        return ldap3.Connection(ldap3.Server(self.slapd.uri), ADMIN, ADMIN_PASSWORD, auto_bind=True)

    def add(self, name: str, **values: str) -> None:
        assert self.writer().add(f"domainName={name},{DOMAINS}", "mailDomain", {"domainName": name, **values})

    def remove(self, name: str) -> None:
        assert self.writer().delete(f"domainName={name},{DOMAINS}")


def make_site(folder: Path, entries: tuple[str, ...], directives: str = "") -> Site:
    write_self_signed("localhost", str(folder / "ldap.pem"), str(folder / "ldap.key"))
    (folder / "secret").write_text(SERVICE_PASSWORD + "\n")
    slapd = Slapd(folder / "ldap", folder / "ldap.pem", folder / "ldap.key", entries, directives=directives)
    slapd.load()
    slapd.start()
    return Site(slapd, folder)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = make_site(tmp_path_factory.mktemp("shapes"), ENTRIES)
    yield made
    made.slapd.kill()


# Shapes


def test_openldap(site):
    four = {"vier.test": "four.test", "quattro.test": "four.test"}
    own = dict.fromkeys(("one.test", "two.test", "zwei.test", "three.test", "four.test"))
    found = site.found(attributes={"domain_base": "ou=domains,{base}", "domain_alias_of": ["otherNameOf"]})
    assert found == {name: name for name in own} | four
    # Below the base are also those of the realm.
    assert site.found().keys() > found.keys() - {"quattro.test"}


@pytest.mark.parametrize("preset", ["active-directory", "samba-ad"])
def test_active_directory(site, preset):
    found = site.found(preset=preset, base=f"ou=people,{BASE}")
    assert sorted(found) == ["corp.example", "corp.test", "xn--bcher-kva.example"]


def test_freeipa(site):
    assert sorted(site.found(preset="freeipa", base=f"ou=people,{BASE}")) == ["ipa.example", "ipa.test"]


def test_a_base_that_is_not_there_and_a_list_that_is_too_long_are_unavailable(site):
    with pytest.raises(Unavailable) as caught:
        site.found(attributes={"domain_base": "ou=nothing,{base}"})
    assert "there is no entry" in caught.value.cause
    with pytest.raises(Unavailable) as caught:
        site.found(domains_limit=2)
    assert "more than 2 domains" in caught.value.cause
    with pytest.raises(Unavailable) as caught:
        site.found(attributes={"domain_filter": "(objectClass=nothing)"})
    assert "shows no domains at all" in caught.value.cause


class SlapdSourceTests(DomainSourceContract, SynchronousTestCase):
    def make_source(self) -> Any:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        entries = (ENTRIES[0], domain("one.test", "domainAliasName: Other.test"), related("two.test"))
        self.site = make_site(folder.resolve(), entries)
        self.addCleanup(self.site.slapd.kill)
        return self.site.parts().domains

    def break_source(self) -> None:
        self.site.slapd.kill()

    def empty_source(self) -> None:
        self.site.remove("one.test")
        assert self.site.writer().delete(f"dc=two,{DOMAINS}")


# Changes

SYNCPROV = "moduleload syncprov\noverlay syncprov\nindex entryCSN,modifyTimestamp eq\n"


@pytest.mark.parametrize("changes", [ChangesMode.SYNC, ChangesMode.POLL])
def test_who_follows_the_directory_hears_of_domains(tmp_path: Path, changes: ChangesMode) -> None:
    site = make_site(tmp_path, (ENTRIES[0], domain("one.test")), SYNCPROV)
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    parts = site.parts(
        changes=changes, changes_seconds=1.0, attributes={"domain_base": "ou=domains,{base}"}, preset="openldap"
    )
    assert parts.domains is not None
    parts.domains.follow_domains(lambda: told.put("changed"))
    parts.domains.find_domains()
    end = parts.directory.follow_changes(lambda _: None)
    try:
        # What happens before it is followed is not told; so there are several.
        for number in range(WITHIN_SECONDS):
            site.add(f"new{number}.test")
            with contextlib.suppress(queue.Empty):
                told.get(timeout=1)
                break
        else:
            raise AssertionError("no change was told")
        if changes is ChangesMode.SYNC:
            time.sleep(0.2)
            while not told.empty():
                told.get()
            site.remove("one.test")
            told.get(timeout=WITHIN_SECONDS)
    finally:
        end()
        site.slapd.kill()


# A whole server

USERS = (
    person("alice", "sesame", mail="alice@one.test"),
    person("bob", "mellon", mail="bob@new.test"),
    ENTRIES[0],
    domain("one.test", "domainAliasName: uno.test"),
)
LETTER = b"From: x@elsewhere.test\r\nSubject: Hello\r\n\r\nHello\r\n"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[tuple[Site, WholeServer]]:
    """Two workers without any domain in the settings."""
    made = make_site(tmp_path, USERS)
    table = (
        f'[[directory]]\ntype = "ldap"\nuri = ["{made.slapd.uri}"]\nbase = "{BASE}"\n'
        f'ca_file = "{made.slapd.certificate}"\nbind_dn = "{SERVICE}"\n'
        f'bind_password_file = "{tmp_path / "secret"}"\nattempt_seconds = 1.0\n'
        "domains = true\ndomains_seconds = 1.0\ncache_seconds = 1.0\nretry_seconds = 1.0\n"
        '[directory.attributes]\ndomain_base = "ou=domains,{base}"\n'
    )
    sections = {"server": "status_seconds = 0.2", "smtp": "greeting_delay_seconds = 0.0"}
    server = WholeServer(tmp_path / "mail", users=(), workers=2, extra=table, sections=sections)
    text = server.config_path.read_text()
    static = '[[domain]]\nname = "example.test"\n'
    assert static in text
    text = text.replace(static, "").replace('default_domain = "example.test"', 'default_domain = "one.test"')
    server.config_path.write_text(text.replace('[[directory]]\ntype = "passwd-file"\npath = "passwd"\n', ""))
    yield made, server
    made.slapd.kill()


def rcpt(server: WholeServer, *recipients: str) -> list[str]:
    """What each of them is answered with at the MX."""
    with smtplib.SMTP("localhost", server.ports["mx"], timeout=30) as client:
        client.ehlo("elsewhere.test")
        client.mail("x@elsewhere.test")
        answers = [client.rcpt(recipient) for recipient in recipients]
    return [f"{code} {text.decode()}" for code, text in answers]


def until(server: WholeServer, recipient: str, begins: str) -> None:
    """Every worker says so: several connections in a row."""
    deadline = time.monotonic() + WITHIN_SECONDS
    row = 0
    while row < 6:
        [answer] = rcpt(server, recipient)
        row = row + 1 if answer.startswith(begins) else 0
        assert time.monotonic() < deadline, (answer, server.log_text()[-4000:])
        if not row:
            time.sleep(0.1)


def control(server: WholeServer, *arguments: str, stderr: str = "") -> Any:
    """A command of mailsrvctl: its exit status and what it says; on standard error ``stderr`` among other things."""
    done = CliRunner().invoke(root, ["--config", str(server.config_path), *arguments])
    assert stderr in done.stderr if stderr else not done.stderr, done.stderr
    return done.exit_code, done.stdout


def until_status(server: WholeServer, status: int, says: str) -> None:
    """Each worker writes now and then how it is: what it knows is told a moment later."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while True:
        found, told = control(server, "status")
        if found == status and says in told:
            return
        assert time.monotonic() < deadline, told
        time.sleep(0.1)


@pytest.mark.slow
def test_domains_come_go_and_outlast_an_outage(house: tuple[Site, WholeServer]) -> None:
    site, server = house
    with server:
        until(server, "alice@one.test", "250")
        assert rcpt(server, "alice@uno.test", "nobody@one.test", "bob@new.test", "postmaster") == [
            "250 2.1.5 Ok",
            "550 5.1.1 No such user here",
            "550 5.7.1 Relaying denied",
            "250 2.1.5 Ok",
        ]
        site.add("new.test")
        until(server, "bob@new.test", "250")
        server.wait_for_event("new.test is delivered here from now on (domainName of", count=2)
        server.deliver("bob@new.test", LETTER)

        until_status(server, 0, ": 3 listed, as of ")
        [domains] = json.loads(control(server, "status", "--json")[1])["domains"]
        assert domains["knowledge"] == "all"
        status, told = control(server, "route", "bob@new.test")
        assert status == 0
        assert f"(domainName of domainName=new.test,{DOMAINS})" in told
        status, told = control(server, "ldap", "check", "alice@uno.test")
        assert f"uno.test is delivered here (domainAliasName of domainName=one.test,{DOMAINS}), as another name" in told
        status, told = control(server, "ldap", "test")
        assert (status, "domains: 3: new.test, one.test, uno.test" in told) == (0, True)
        status, told = control(server, "dns", "show", "new.test")
        assert (status, "new.test." in told) == (0, True)
        status, _ = control(server, "dkim", "new", "elsewhere.test", stderr="and the directory")
        assert status == 1
        status, _ = control(server, "dkim", "new", "new.test", stderr="Publish")
        assert status == 0

        site.remove("new.test")
        until(server, "bob@new.test", "550 5.7.1 Relaying denied")
        server.wait_for_event("new.test is no longer delivered here")

        # While the directory is down, its domains are served, and others are not refused.
        site.slapd.kill()
        until(server, "bob@new.test", "451")
        # Each worker remembers the recipients it was asked for; the other one may not have been asked for this one.
        answers = {rcpt(server, "alice@one.test")[0][:3] for _ in range(20)}
        assert "250" in answers
        assert answers <= {"250", "451"}
        until_status(server, 1, "does not tell its domains, the last list is used")
        status, told = control(server, "route", "postmaster@new.test", stderr="the last list is used")
        assert (status, "mail of others waits (451)" in told) == (0, True)
        server.reload()
        assert rcpt(server, "x@new.test")[0].startswith("451")
        site.slapd.start()
        until(server, "bob@new.test", "550")
        server.check_log()


@pytest.mark.slow
def test_a_start_while_the_directory_is_down(house: tuple[Site, WholeServer]) -> None:
    site, server = house
    site.slapd.kill()
    with server:
        # It has never told: nothing is known, nothing is refused.
        answers = rcpt(server, "alice@one.test", "x@elsewhere.test")
        assert [each[:3] for each in answers] == ["451", "451"]
        until_status(server, 1, "has never told its domains")
        site.slapd.start()
        until(server, "alice@one.test", "250")
        until(server, "x@elsewhere.test", "550")
        site.slapd.kill()
        server.restart()
        # The kept list: the domain is ours, though the user is not known now (RELIABILITY 7.2).
        assert rcpt(server, "alice@uno.test")[0].startswith("451")
        server.wait_for_event("2 names of domains are delivered here", count=2)
        assert rcpt(server, "x@elsewhere.test")[0].startswith("451")
        status, _ = control(server, "dns", "show", "uno.test", stderr="the last list is used")
        assert status == 0
        site.slapd.start()
        until(server, "x@elsewhere.test", "550")
        until(server, "alice@uno.test", "250")
        server.check_log()
