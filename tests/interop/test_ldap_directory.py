"""LDAP directories against real OpenLDAP servers: what they say, how they fail, and what nobody may slip in."""

from __future__ import annotations

import base64
import imaplib
import json
import re
import smtplib
import socket
import textwrap
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.address import Address
from mailsrv.cli.root import root
from mailsrv.directory.ldap.build import LdapParts, make_ldap_directory
from mailsrv.directory.ldap.connection import LdapConnection
from mailsrv.directory.ldap.filters import dn_from_template, equal
from mailsrv.directory.ldap.search import Search
from mailsrv.directory.ldap.trouble import OutOfTime
from mailsrv.directory.settings import DirectorySettings, DirectoryType
from mailsrv.errors import Unavailable
from mailsrv.tls.self_signed import write_self_signed
from tests.contracts.directory import DirectoryContract
from tests.interop.slapd import ADMIN, ADMIN_PASSWORD, BASE, SERVICE, SERVICE_PASSWORD, Slapd, person
from tests.scenarios.server import PASSWORD, WholeServer

PEOPLE = f"ou=people,{BASE}"
GROUPS = f"ou=groups,{BASE}"
NASTY = (
    "*",
    "a*",
    "a)(uid=*",
    "a)(|(uid=*",
    "\\2a",
    "a\\",
    "(",
    ")",
    "a,ou=x",
    "a+b=c",
    "#a",
    " a",
    'a"b',
    "ä",
    "a;b",
)


def group(cn: str, *members: str, extra: str = "", mail: str = "") -> str:
    lines = "".join(f"member: {member}\n" for member in members)
    return f"dn: cn={cn},{GROUPS}\nobjectClass: groupOfNames\nobjectClass: mailUser\ncn: {cn}\n{lines}{extra}" + (
        f"mail: {mail}\n" if mail else ""
    )


def in_base64(name: str, value: str) -> str:
    return f"{name}:: {base64.b64encode(value.encode()).decode()}\n"


ENTRIES = (
    person(
        "alice",
        "sesame",
        extra="mailQuota: 1G\nmailAlternateAddress: al@example.test\nmailAlternateAddress: A.Example@example.test\n",
    ),
    person("bob", "mellon", extra="employeeType: away\n"),
    person("carol", PASSWORD, mail="carol.example@example.test"),
    person("dave", PASSWORD, extra="mailForwardingAddress: dave@example.org\n"),
    # Two entries for one address.
    person("twin1", PASSWORD, mail="twin@example.test"),
    person("twin2", PASSWORD, mail="twin@example.test"),
    person("nomail", PASSWORD, mail=""),
    *(
        f"dn: cn=nasty{number},{PEOPLE}\nobjectClass: inetOrgPerson\ncn: nasty{number}\nsn: Nasty\n"
        + in_base64("uid", value)
        for number, value in enumerate(NASTY)
    ),
    group("staff", f"uid=alice,{PEOPLE}", f"uid=bob,{PEOPLE}", mail="staff@example.test"),
    group("inner", f"uid=carol,{PEOPLE}", f"cn=outer,{GROUPS}"),
    group("outer", f"cn=inner,{GROUPS}", f"uid=alice,{PEOPLE}", f"uid=alice,{PEOPLE},dc=gone", mail="all@example.test"),
    f"dn: cn=unix,{GROUPS}\nobjectClass: posixGroup\nobjectClass: mailUser\ncn: unix\ngidNumber: 100\n"
    "memberUid: alice\nmemberUid: carol\nmemberUid: nobody\nmail: unix@example.test\n",
    # Active Directory's shape.
    f"dn: cn=Ada Lovelace,{PEOPLE}\nobjectClass: user\ncn: Ada Lovelace\nsn: Lovelace\nsAMAccountName: ada\n"
    "userPrincipalName: ada@corp.example\nmail: ada@ad.test\nproxyAddresses: SMTP:ada@ad.test\n"
    "proxyAddresses: smtp:countess@ad.test\nproxyAddresses: x400:c=GB\nuserAccountControl: 512\n"
    "accountExpires: 9223372036854775807\nuserPassword: engine\n",
    f"dn: cn=Old Timer,{PEOPLE}\nobjectClass: user\ncn: Old Timer\nsn: Timer\nsAMAccountName: old\nmail: old@ad.test\n"
    "userAccountControl: 512\naccountExpires: 132000000000000000\n",
    f"dn: cn=Off,{PEOPLE}\nobjectClass: user\ncn: Off\nsn: Off\nsAMAccountName: off\nmail: off@ad.test\n"
    "userAccountControl: 514\naccountExpires: 0\nuserPassword: engine\n",
    f"dn: cn=Engineers,{GROUPS}\nobjectClass: group\ncn: Engineers\nproxyAddresses: SMTP:engineers@ad.test\n"
    f"mail: engineers@ad.test\nmember: cn=Ada Lovelace,{PEOPLE}\nmember: cn=Off,{PEOPLE}\n",
    # FreeIPA's.
    f"dn: uid=ipa,{PEOPLE}\nobjectClass: inetOrgPerson\nobjectClass: ipaPerson\nuid: ipa\ncn: Ipa\nsn: Ipa\n"
    "mail: ipa@ipa.test\nkrbPrincipalName: ipa@IPA.TEST\nkrbPrincipalExpiration: 20990101000000Z\nuserPassword: pale\n",
    f"dn: uid=locked,{PEOPLE}\nobjectClass: inetOrgPerson\nobjectClass: ipaPerson\nuid: locked\ncn: Locked\nsn: L\n"
    "mail: locked@ipa.test\nnsAccountLock: TRUE\nuserPassword: pale\n",
)


@attrs.frozen(eq=False)
class Site:
    """A folder with a certificate and the service account's password, and servers in it."""

    folder: Path
    servers: tuple[Slapd, ...]

    @property
    def certificate(self) -> str:
        return str(self.folder / "cert.pem")

    @property
    def secret(self) -> str:
        return str(self.folder / "secret")

    def settings(self, *servers: Slapd, **changes: Any) -> DirectorySettings:
        values: dict[str, Any] = {
            "uri": tuple(server.uri for server in servers or self.servers[:1]),
            "base": BASE,
            "ca_file": self.certificate,
            "bind_dn": SERVICE,
            "bind_password_file": self.secret,
            "attempt_seconds": 1.0,
            "attributes": {"disabled": ["employeeType=away"]},
        }
        return DirectorySettings(DirectoryType.LDAP, **{**values, **changes})

    def parts(
        self, *servers: Slapd, clock: Clock | None = None, domain: str = "example.test", **changes: Any
    ) -> LdapParts:
        return make_ldap_directory(self.settings(*servers, **changes), clock=clock or Clock(), default_domain=domain)


def make_site(folder: Path, count: int = 1, entries: tuple[str, ...] = ENTRIES, *, directives: str = "") -> Site:
    folder.mkdir(exist_ok=True)
    write_self_signed("ldap.example.test", str(folder / "cert.pem"), str(folder / "key.pem"))
    (folder / "secret").write_text(SERVICE_PASSWORD + "\n")
    servers = [
        Slapd(folder / f"server{number}", folder / "cert.pem", folder / "key.pem", entries, directives=directives)
        for number in range(count)
    ]
    for server in servers:
        server.load()
        server.start()
    return Site(folder, tuple(servers))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server nobody disturbs."""
    made = make_site(tmp_path_factory.mktemp("slapd"))
    yield made
    made.servers[0].kill()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Site]:
    """Two servers to ill-treat."""
    made = make_site(tmp_path, 2)
    yield made
    for server in made.servers:
        server.kill()


def ex(local_part: str, domain: str = "example.test") -> Address:
    return Address(local_part, domain)


def result(deferred: Any) -> Any:
    """What it fired with; its error is raised."""
    found: list[Any] = []
    deferred.addBoth(found.append)
    value = found[0]
    if hasattr(value, "raiseException"):
        value.raiseException()
    return value


def is_unavailable(deferred: Any) -> bool:
    try:
        result(deferred)
    except Unavailable:
        return True
    return False


class SlapdContractTests(DirectoryContract, SynchronousTestCase):
    """A directory like any other."""

    has_aliases = True
    site: Site

    @classmethod
    def setUpClass(cls) -> None:
        import tempfile

        folder = Path(tempfile.mkdtemp(prefix="slapd"))
        cls.site = make_site(folder, entries=(*ENTRIES[:2], ENTRIES[7 + len(NASTY)]))

    @classmethod
    def tearDownClass(cls) -> None:
        import shutil

        cls.site.servers[0].kill()
        shutil.rmtree(cls.site.folder)

    def make_directory(self) -> Any:
        if self.site.servers[0].is_running is False:
            self.site.servers[0].start()
        return self.site.parts(cache_seconds=0.0, outage_seconds=0.0).directory

    def break_directory(self) -> None:
        self.site.servers[0].kill()


@pytest.mark.parametrize("how", ["starttls", "ldaps"])
def test_tls_is_used_and_certificate_and_name_are_checked(site, tmp_path, how):
    server = site.servers[0]
    uri = server.uri if how == "starttls" else server.tls_uri
    parts = site.parts(uri=(uri,))
    assert result(parts.directory.find_user(ex("alice"))).address == ex("alice")
    assert parts.client.searches._lane.connection.tls_version.startswith("TLSv1.")
    # An authority that has not signed it.
    write_self_signed("other.example.test", str(tmp_path / "c.pem"), str(tmp_path / "k.pem"))
    stranger = site.parts(uri=(uri,), ca_file=str(tmp_path / "c.pem"))
    assert is_unavailable(stranger.directory.find_user(ex("alice")))
    assert "certificate" in stranger.servers.all[0].cause
    # A name that the certificate does not have, for the same address.
    misnamed = site.parts(uri=(uri.replace("localhost", "127.1"),))
    assert is_unavailable(misnamed.directory.find_user(ex("alice")))
    assert "127.1" in misnamed.servers.all[0].cause


def test_without_starttls_the_connection_is_plain_only_where_the_settings_say_so(site):
    parts = site.parts(starttls=False)
    assert result(parts.directory.find_user(ex("alice"))) is not None
    assert parts.client.searches._lane.connection.tls_version == ""


def test_the_client_certificate_can_be_the_service_account(site):
    parts = site.parts(
        bind_dn="",
        bind_password_file="",
        bind_external=True,
        client_certificate_file=site.certificate,
        client_key_file=str(site.folder / "key.pem"),
    )
    assert result(parts.directory.find_user(ex("alice"))).address == ex("alice")
    # Without it there is nothing to see for us.
    anonymous = site.parts(bind_dn="", bind_password_file="")
    assert is_unavailable(anonymous.directory.find_user(ex("alice")))


def test_a_refused_service_account_is_an_outage_and_not_an_empty_directory(site, tmp_path):
    (tmp_path / "wrong").write_text("wrong")
    parts = site.parts(bind_password_file=str(tmp_path / "wrong"))
    assert is_unavailable(parts.directory.find_user(ex("alice")))
    assert "service account" in parts.servers.all[0].cause
    missing = site.parts(bind_password_file=str(tmp_path / "missing"))
    assert is_unavailable(missing.directory.find_user(ex("alice")))
    assert is_unavailable(site.parts(base="dc=other,dc=test").directory.find_user(ex("alice")))


def test_r_auth_1_an_empty_password_never_reaches_a_server_that_would_take_it(site):
    dn = f"uid=alice,{PEOPLE}".encode()
    bind = b"\x02\x01\x03\x04" + bytes([len(dn)]) + dn + b"\x80\x00"
    message = b"\x02\x01\x01\x60" + bytes([len(bind)]) + bind
    with socket.create_connection(("127.0.0.1", site.servers[0].port), 5) as plain:
        plain.sendall(b"\x30" + bytes([len(message)]) + message)
        # resultCode success: this server lets anybody in as Alice.
        assert b"\x0a\x01\x00" in plain.recv(1000)
    parts = site.parts()
    alice = result(parts.directory.find_user(ex("alice")))
    assert result(parts.directory.check_password(alice, "")) is False
    assert result(parts.directory.check_password(alice, "\0")) is False
    assert parts.client.binds._lane.connection is None
    assert result(parts.directory.check_password(alice, "sesame")) is True


def test_users_log_in_by_address_alias_and_uid_and_by_nothing_else(site):
    directory = site.parts().directory
    for name in ("alice", "al", "a.example"):
        assert result(directory.find_login(ex(name))).address == ex("alice"), name
    assert result(directory.find_login(ex("carol"))).address == ex("carol.example")
    assert result(directory.find_user(ex("carol"))) is None
    assert result(directory.find_login(ex("carol", "example.org"))) is None
    assert result(directory.find_login(ex("nomail"))) is None
    # Matching rules of servers ignore and fold characters (RFC 4518 2.2): such a name is another name here.
    for spelling in ("ａlice", "al\u00adice", "alice\u200b", "cаrol"):
        assert result(directory.find_login(ex(spelling))) is None, spelling
        assert result(directory.find_user(ex(spelling))) is None, spelling


def test_aliases_lead_to_the_canonical_address_and_forwards_elsewhere(site):
    directory = site.parts().directory
    assert result(directory.find_alias(ex("al"))) == (ex("alice"),)
    assert result(directory.find_user(ex("al"))) is None
    assert result(directory.find_alias(ex("dave"))) == (ex("dave", "example.org"),)


def test_two_entries_of_one_name_are_refused_for_now_and_told(site):
    directory = site.parts().directory
    assert is_unavailable(directory.find_user(ex("twin")))
    assert is_unavailable(directory.find_login(ex("twin")))
    # The account is neither's, by whatever name they come.
    assert is_unavailable(directory.find_login(ex("twin1")))


def test_groups_are_lists_through_all_levels_and_loops_end(site):
    parts = site.parts()
    assert result(parts.directory.find_alias(ex("staff"))) == (ex("alice"), ex("bob"))
    assert set(result(parts.directory.find_alias(ex("all")))) == {ex("alice"), ex("carol.example")}
    assert set(result(parts.directory.find_alias(ex("unix")))) == {ex("alice"), ex("carol.example")}
    # Their members were read with them: nobody has to be asked again.
    assert parts.directory.peek(ex("carol.example"), is_target=True) is not None


def test_a_group_with_too_many_members_waits(site):
    directory = site.parts(group_members=1).directory
    assert is_unavailable(directory.find_alias(ex("staff")))


def test_active_directorys_shape(site):
    parts = site.parts(
        preset="active-directory",
        domain="ad.test",
        attributes={"in_chain": False, "dn_attribute": "entryDN", "user_filter": ""},
    )
    directory = parts.directory
    ada = ex("ada", "ad.test")
    user = result(directory.find_user(ada))
    assert user.may_log_in
    assert result(directory.find_alias(ex("countess", "ad.test"))) == (ada,)
    for name in (ada, ex("ada", "corp.example"), ex("countess", "ad.test")):
        assert result(directory.find_login(name)).address == ada
    assert result(directory.check_password(user, "engine")) is True
    assert not result(directory.find_user(ex("old", "ad.test"))).may_log_in
    assert not result(directory.find_user(ex("off", "ad.test"))).may_log_in
    assert set(result(directory.find_alias(ex("engineers", "ad.test")))) == {ada, ex("off", "ad.test")}


def test_freeipas_shape(site):
    directory = site.parts(preset="freeipa", domain="ipa.test", attributes={}).directory
    user = result(directory.find_user(ex("ipa", "ipa.test")))
    assert user.may_log_in
    assert result(directory.find_login(ex("ipa", "ipa.test"))).address == user.address
    assert result(directory.check_password(user, "pale")) is True
    assert not result(directory.find_user(ex("locked", "ipa.test"))).may_log_in


def test_a_dn_template_spares_the_search(site):
    parts = site.parts(attributes={"dn_template": f"uid={{local}},{PEOPLE}"})
    alice = result(parts.directory.find_user(ex("alice")))
    assert result(parts.directory.check_password(alice, "sesame")) is True
    assert result(parts.directory.check_password(alice, "mellon")) is False


def test_a_changed_password_ends_verified_log_ins_with_the_cache(site):
    clock = Clock()
    parts = site.parts(clock=clock)
    before = result(parts.directory.find_login(ex("dave")))
    import ldap3

    admin = ldap3.Connection(ldap3.Server(site.servers[0].uri), ADMIN, ADMIN_PASSWORD, auto_bind=True)
    time.sleep(1.1)  # modifyTimestamp counts whole seconds
    admin.modify(f"uid=dave,{PEOPLE}", {"userPassword": [(ldap3.MODIFY_REPLACE, ["new"])]})
    admin.unbind()
    clock.advance(31)
    after = result(parts.directory.find_login(ex("dave")))
    assert before.fingerprint != after.fingerprint
    assert result(parts.directory.check_password(after, "new")) is True


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
)
def test_r_inj_3_no_value_is_more_than_a_value(site, value):
    parts = NASTY_PARTS.setdefault(site.folder, site.parts())
    entries = result(
        parts.client.searches.run(
            lambda lane, deadline: parts.attempts.run(
                lane,
                deadline,
                lambda connection, end: connection.search(Search(BASE, equal("uid", value), ("uid",), limit=50), end),
                as_service=True,
            ),
            5.0,
        )
    )
    # Servers compare without case, and fold space and form: at most one of ours is meant.
    assert len(entries) <= 1
    if value in NASTY:
        assert [entry.texts("uid") for entry in entries] == [(value,)]
    dn = dn_from_template(f"uid={{local}},{PEOPLE}", local=value)
    tried = Deferred.fromCoroutine(parts.client.check_password(dn, "x", seconds=5.0))
    assert not result(tried).is_right


NASTY_PARTS: dict[Path, LdapParts] = {}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(password=st.text(max_size=60))
def test_r_inj_3_no_password_but_the_right_one(site, password):
    parts = NASTY_PARTS.setdefault(site.folder, site.parts())
    alice = result(parts.directory.find_user(ex("alice")))
    assert result(parts.directory.check_password(alice, password)) is (password == "sesame")


def test_a_kept_connection_that_the_server_closed_is_made_anew(pair):
    first = pair.servers[0]
    parts = pair.parts(first, cache_seconds=0.0)
    assert result(parts.directory.find_user(ex("alice"))) is not None
    first.kill()
    first.start()
    assert result(parts.directory.find_user(ex("alice"))) is not None
    assert parts.servers.all[0].is_up


def test_the_next_server_answers_within_the_request_and_the_first_is_preferred_again(pair):
    clock = Clock()
    first, second = pair.servers
    parts = pair.parts(first, second, clock=clock, cache_seconds=0.0)
    alice = result(parts.directory.find_user(ex("alice")))
    first.kill()
    # Loaded one after the other, they may say different times of change.
    assert result(parts.directory.find_user(ex("alice"))).address == alice.address
    assert result(parts.directory.check_password(alice, "sesame")) is True
    assert parts.client.searches._lane.connection.server.uri == second.uri
    clock.advance(1)
    assert not parts.servers.all[0].is_up
    first.start()
    clock.advance(2)
    assert parts.servers.all[0].is_up
    result(parts.directory.find_user(ex("alice")))
    assert parts.client.searches._lane.connection.server.uri == first.uri


def test_a_server_that_hangs_costs_one_attempt_once(pair):
    first, second = pair.servers
    parts = pair.parts(first, second, cache_seconds=0.0)
    result(parts.directory.find_user(ex("alice")))
    first.freeze()
    started = time.monotonic()
    assert result(parts.directory.find_user(ex("alice"))) is not None
    assert 0.9 < time.monotonic() - started < 5
    started = time.monotonic()
    assert result(parts.directory.find_user(ex("bob"))) is not None
    assert time.monotonic() - started < 0.9
    first.thaw()


def test_r_auth_7_an_outage_takes_mail_for_known_recipients_and_refuses_nobody(pair):
    clock = Clock()
    first, second = pair.servers
    parts = pair.parts(first, second, clock=clock)
    directory = parts.directory
    alice = result(directory.find_user(ex("alice")))
    assert result(directory.find_user(ex("nobody"))) is None
    result(directory.find_alias(ex("staff")))
    first.kill()
    second.freeze()
    clock.advance(40)
    assert result(directory.find_user(ex("alice"))) == alice
    assert result(directory.find_alias(ex("staff"))) == (ex("alice"), ex("bob"))
    # Neither unknown ones, nor who was nobody before, nor log-ins.
    started = time.monotonic()
    for name in ("nobody", "dave", "x"):
        assert is_unavailable(directory.find_user(ex(name))), name
    assert is_unavailable(directory.find_login(ex("alice")))
    assert is_unavailable(directory.check_password(alice, "sesame"))
    assert is_unavailable(directory.check_password(alice, "wrong"))
    assert is_unavailable(directory.check_password(None, "wrong"))
    # The circuit is open: nobody was waited for.
    assert time.monotonic() - started < 0.9
    clock.advance(3600)
    assert is_unavailable(directory.find_user(ex("alice")))
    second.thaw()
    clock.advance(15)
    clock.advance(15)
    assert result(directory.find_user(ex("dave"))) is not None


def ldap_table(site: Site, *servers: Slapd, **changes: Any) -> str:
    uris = ", ".join(f'"{server.uri}"' for server in servers)
    more = "".join(f"{key} = {value}\n" for key, value in changes.items())
    return (
        f'[[directory]]\ntype = "ldap"\nuri = [{uris}]\nbase = "{BASE}"\nca_file = "{site.certificate}"\n'
        f'bind_dn = "{SERVICE}"\nbind_password_file = "{site.secret}"\nattempt_seconds = 0.5\n{more}'
    )


def log_in(server: WholeServer, name: str, password: str) -> str:
    """ "OK", or what the server said."""
    client = imaplib.IMAP4_SSL("localhost", server.ports["imaps"], ssl_context=server.client_context(), timeout=30)
    try:
        client.login(name, password)
    except imaplib.IMAP4.error as error:
        return str(error)
    finally:
        client.shutdown()
    return "OK"


def test_a_whole_server_on_ldap_through_dead_and_hanging_servers(pair, tmp_path):
    first, second = pair.servers
    server = WholeServer(
        tmp_path / "mail",
        users=(),
        extra=ldap_table(pair, first, second, cache_seconds=0.5),
        sections={"auth": "cache_seconds = 0.0"},
    )
    server.passwd_path.touch()
    with server:
        message = b"Subject: hello\r\n\r\nhello\r\n"
        for recipient in ("alice@example.test", "al@example.test", "staff@example.test"):
            server.deliver(recipient, message)
        assert log_in(server, "alice", "sesame") == "OK"
        with imaplib.IMAP4_SSL("localhost", server.ports["imaps"], ssl_context=server.client_context()) as client:
            client.login("ALICE@example.test", "sesame")
            assert client.select("INBOX")[1] == [b"3"]
        assert "AUTHENTICATIONFAILED" in log_in(server, "alice", "wrong")
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            server.deliver("nobody@example.test", message)
        assert refused.value.recipients["nobody@example.test"][0] == 550

        # One dies while many log in: nobody notices.
        answers: list[str] = []
        threads = [
            threading.Thread(target=lambda: answers.extend(log_in(server, "alice", "sesame") for _ in range(6)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        first.kill()
        for thread in threads:
            thread.join(60)
        assert answers == ["OK"] * 24

        # The other hangs: nobody is refused for good.
        second.freeze()
        time.sleep(0.6)
        assert "UNAVAILABLE" in log_in(server, "alice", "sesame")
        assert "UNAVAILABLE" in log_in(server, "nobody", "sesame")
        server.deliver("alice@example.test", message)
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            server.deliver("dave@example.test", message)
        assert refused.value.recipients["dave@example.test"][0] == 451
        second.thaw()
        deadline = time.monotonic() + 20
        while log_in(server, "alice", "sesame") != "OK":
            assert time.monotonic() < deadline
            time.sleep(0.2)
        server.wait_for_event("is up again")
    server.check_log()
    assert "sesame" not in server.log_text()


def write_config(site: Site, folder: Path, **changes: Any) -> Path:
    path = folder / "mailsrv.toml"
    path.write_text(
        'hostname = "mail.example.test"\nstate_dir = "state"\n'
        '[[listen]]\nservice = "lmtp"\nendpoint = "unix:lmtp.sock"\n[[domain]]\nname = "example.test"\n'
        '[auth]\ndefault_domain = "example.test"\n[store]\npath = "mail/{domain}/{local}"\n'
        + ldap_table(site, *site.servers, **changes)
    )
    return path


def ctl(*words: object, stdin: str = "") -> tuple[int, str]:
    done = CliRunner().invoke(root, [str(word) for word in words], input=stdin)
    return done.exit_code, done.output


def test_the_doctor_tells_every_query_and_what_becomes_of_mail(site, tmp_path):
    config = write_config(site, tmp_path)
    status, text = ctl("--config", config, "ldap", "check", "al@example.test", "--password-stdin", stdin="sesame\n")
    assert status == 0, text
    assert "mailAlternateAddress=al@example.test" in text
    assert f"uid=alice,{PEOPLE}" in text
    assert "mail for it goes to alice@example.test" in text
    assert "password: right" in text
    assert "sesame" not in text
    status, text = ctl("--config", config, "ldap", "check", "alice", "--password-stdin", stdin="wrong\n")
    assert status == 1
    assert "FAIL  password" in text
    status, text = ctl("--config", config, "ldap", "check", "nobody")
    assert status == 1
    assert "5.1.1" in text
    status, text = ctl("--config", config, "ldap", "check", "twin")
    assert status == 1
    assert "several entries" in text
    status, text = ctl("--config", config, "ldap", "check", "staff", "--json")
    assert status == 0, text
    assert any("bob@example.test" in check["result"] for check in json.loads(text))


def test_the_configuration_is_tried_server_by_server(site, tmp_path):
    config = write_config(site, tmp_path)
    status, text = ctl("--config", config, "ldap", "test")
    assert status == 0, text
    assert f"connected as {SERVICE}, TLS: TLSv1." in text
    config.write_text(config.read_text().replace(BASE, "dc=other,dc=test", 1))
    status, text = ctl("--config", config, "ldap", "test")
    assert status == 1
    assert "FAIL" in text


def test_a_server_is_discovered_and_the_table_is_one_to_go_on_with(site, tmp_path):
    status, text = ctl("ldap", "discover", site.servers[0].uri, "--ca-file", site.certificate)
    assert status == 0, text
    assert "TLSv1." in text
    table = tomllib.loads(text)["directory"][0]
    assert (table["preset"], table["base"]) == ("openldap", BASE)
    status, text = ctl("ldap", "discover", site.servers[0].uri)
    assert status == 0
    assert "certificate is refused" in text
    assert ctl("ldap", "discover", "http://localhost")[0] == 2
    assert ctl("ldap", "discover", "ldap://127.0.0.1:1")[0] == 1


def test_presets_are_shown():
    assert set(ctl("ldap", "preset")[1].split()) == {"openldap", "active-directory", "freeipa", "samba-ad"}
    assert tomllib.loads(ctl("ldap", "preset", "freeipa")[1])["disabled"] == ["nsAccountLock=TRUE"]
    assert ctl("ldap", "preset", "novell")[0] == 2


def test_where_mail_goes_is_explained_with_ldap_too(site, tmp_path):
    status, text = ctl("--config", write_config(site, tmp_path), "route", "staff@example.test")
    assert status == 0, text
    assert "bob@example.test" in text


def test_the_recipe_for_openldap_leads_to_a_working_directory(tmp_path):
    page = (Path(__file__).resolve().parents[2] / "docs" / "ldap.rst").read_text()
    steps = page[page.index("step by step") :]
    ldif = re.search(r"::\n\n((?:      .*\n|\n)+)", steps)
    assert ldif is not None
    entries = textwrap.dedent(ldif[1])
    table = re.search(r"::\n\n((?:   .*\n)+)", page)
    assert table is not None
    account, _, others = entries.partition("\n\n")
    assert SERVICE in account
    assert SERVICE_PASSWORD in account
    made = make_site(tmp_path, entries=(others,))
    try:
        text = textwrap.dedent(table[1])
        text = text.replace("/etc/mailsrv/ldap-ca.pem", made.certificate).replace(
            "/etc/mailsrv/ldap.secret", made.secret
        )
        text = text.replace('"ldap://ldap1.example.test", "ldap://ldap2.example.test"', f'"{made.servers[0].uri}"')
        config = write_config(made, tmp_path)
        config.write_text(config.read_text().replace(ldap_table(made, *made.servers), text))
        status, told = ctl("--config", config, "ldap", "test")
        assert status == 0, told
        status, told = ctl("--config", config, "ldap", "check", "navy@example.test")
        assert status == 0, told
        assert "grace@example.test" in told
        status, told = ctl("--config", config, "ldap", "check", "amazing", "--password-stdin", stdin="nanosecond\n")
        assert status == 0, told
    finally:
        made.servers[0].kill()


def test_a_request_of_many_answers_does_not_count_against_the_server(site):
    parts = site.parts()

    def ask_thrice(connection: LdapConnection, deadline: float) -> int:
        # Each answer comes in time; all of them together take longer than an attempt may.
        found = 0
        for _ in range(3):
            time.sleep(0.25)
            found += len(connection.search(Search(BASE, equal("uid", "alice"), ("uid",), limit=5), deadline))
        return found

    assert result(Deferred.fromCoroutine(parts.client.with_connection(ask_thrice, seconds=10.0))) == 3
    assert parts.servers.all[0].is_up
    # A request whose own time is over says nothing about the server, either.
    with pytest.raises(OutOfTime):
        result(Deferred.fromCoroutine(parts.client.with_connection(ask_thrice, seconds=0.3)))
    assert parts.servers.all[0].is_up
