"""What is taken from a directory besides users: aliases of their own, groups, who may send to whom and as whom."""

from __future__ import annotations

import base64
import json
import smtplib
import ssl
from collections.abc import Iterator
from email.message import EmailMessage
from functools import partial
from typing import Any

import ldap3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from mailsrv.address import Address, AddressError
from mailsrv.directory.address_rights import AddressRights
from mailsrv.directory.domains import LocalDomains
from mailsrv.directory.ldap.build import LdapParts
from mailsrv.directory.ldap.connection import LdapConnection, LdapEntry
from mailsrv.directory.ldap.groups import Members
from mailsrv.directory.ldap.search import Search
from mailsrv.directory.posting import Poster, PostingPolicy
from mailsrv.directory.resolution import LocalAccounts
from mailsrv.directory.resolve import AddressResolver
from mailsrv.directory.send_as import SendAsPolicy
from mailsrv.directory.settings import DomainSettings
from mailsrv.errors import MailError
from mailsrv.interfaces.rights import MailboxRight, Posters
from tests.interop.slapd import ADMIN, ADMIN_PASSWORD, person
from tests.interop.test_ldap_directory import (
    GROUPS,
    NASTY,
    PEOPLE,
    Site,
    ctl,
    ex,
    group,
    ldap_table,
    log_in,
    make_site,
    result,
    write_config,
)
from tests.scenarios.server import PASSWORD, WholeServer

USERS = ("alice", "bob", "carol", "boss", "office")
NASTY_GROUPS = tuple(
    f"dn: cn=nasty{number},{GROUPS}\nobjectClass: posixGroup\nobjectClass: mailUser\ncn: nasty{number}\n"
    f"gidNumber: {2000 + number}\nmemberUid:: {base64.b64encode(value.encode()).decode()}\n"
    for number, value in enumerate(NASTY)
    if value.isascii()
)


def dn(uid: str) -> str:
    return f"uid={uid},{PEOPLE}"


ENTRIES = (
    *(person(uid, PASSWORD) for uid in USERS[:-1]),
    person("office", PASSWORD, extra=f"maySendAs: {dn('alice')}\nmaySendAs: cn=devs,{GROUPS}\n"),
    # Aliases that are entries of their own.
    f"dn: cn=info,{GROUPS}\nobjectClass: nisMailAlias\ncn: info\ncn: help@example.test\n"
    "rfc822MailMember: alice\nrfc822MailMember: bob@example.test\nrfc822MailMember: not an address\n",
    f"dn: cn=press,{GROUPS}\nobjectClass: nisMailAlias\ncn: press\nrfc822MailMember: friend@example.org\n",
    f"dn: cn=void,{GROUPS}\nobjectClass: nisMailAlias\ncn: void\nrfc822MailMember: |/bin/sh\n",
    f"dn: cn=route,{GROUPS}\nobjectClass: device\nobjectClass: inetLocalMailRecipient\ncn: route\n"
    "mailLocalAddress: sales@example.test\nmailRoutingAddress: bob@example.test\n",
    # Groups in groups, by name and by DN, one containing itself by way of another.
    f"dn: cn=devs,{GROUPS}\nobjectClass: posixGroup\ncn: devs\ngidNumber: 100\nmemberUid: bob\n",
    group("tech", f"cn=devs,{GROUPS}", f"cn=ops,{GROUPS}"),
    group("ops", f"cn=tech,{GROUPS}", dn("alice")),
    group("Mail Admins", f"cn=ops,{GROUPS}"),
    group(
        "staff",
        dn("alice"),
        dn("bob"),
        mail="staff@example.test",
        extra="accessPolicy: membersonly\nmailAlternateAddress: everybody@example.test\n",
    ),
    group(
        "board",
        dn("boss"),
        mail="board@example.test",
        extra=f"mgrpAllowedBroadcaster: mailto:boss@example.test\nmgrpAllowedBroadcaster: cn=tech,{GROUPS}\n"
        "mgrpAllowedBroadcaster: partner@example.org\n",
    ),
    group(
        "news",
        dn("carol"),
        mail="news@example.test",
        extra="accessPolicy: moderatorsonly\nlistModerator: info@example.test\n",
    ),
    group("open", dn("carol"), mail="open@example.test"),
    *NASTY_GROUPS,
)
ATTRIBUTES = {"send_as": ["maySendAs"], "shared_read": ["maySendAs"], "members_send_as": False}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = make_site(tmp_path_factory.mktemp("rights"), entries=ENTRIES)
    yield made
    made.servers[0].kill()


def parts_of(site: Site, **changes: Any) -> LdapParts:
    return site.parts(**{"attributes": ATTRIBUTES, **changes})


class House:
    """The directory of a site with the rules on its addresses."""

    def __init__(self, parts: LdapParts, *, believes_senders: bool = False) -> None:
        domains = LocalDomains((DomainSettings("example.test", aliases=("example.net",)),))
        self.directory = parts.directory
        self.resolver = AddressResolver(domains, parts.directory)
        rights = AddressRights(domains, parts.directory)
        self.senders = SendAsPolicy(self.resolver, rights)
        self.posting = PostingPolicy(self.resolver, rights, believes_senders=believes_senders)

    def resolve(self, local_part: str) -> LocalAccounts:
        found = result(Deferred.fromCoroutine(self.resolver.resolve(ex(local_part))))
        assert isinstance(found, LocalAccounts)
        return found

    def refusal(self, local_part: str, poster: Poster) -> str:
        """ "" where they may send."""
        try:
            result(Deferred.fromCoroutine(self.posting.check(self.resolve(local_part).passed, poster)))
        except MailError as error:
            return str(error)
        return ""

    def may_send_as(self, who: str, address: Address) -> bool:
        may: bool = result(self.senders.may_send_as(ex(who), address))
        return may


def test_aliases_may_be_entries_of_their_own(site):
    directory = parts_of(site).directory
    for name in ("info", "help"):
        assert result(directory.find_alias(ex(name))) == (ex("alice"), ex("bob")), name
    assert result(directory.find_alias(ex("sales"))) == (ex("bob"),)
    assert result(directory.find_alias(ex("press"))) == (ex("friend", "example.org"),)
    # What is no address is nobody's: no program is ever started, and the name is no user either.
    assert result(directory.find_alias(ex("void"))) in ((), (ex("|/bin/sh"),))
    assert result(directory.find_user(ex("info"))) is None
    assert result(directory.find_login(ex("info"))) is None
    # The names of nisMailAlias have no domain: they are of the default one.
    assert result(directory.find_alias(ex("info", "example.org"))) is None
    assert result(directory.find_alias(ex("route"))) is None


def test_the_forms_of_alias_entries_are_settings(site):
    form = {"object_class": "device", "address": ["cn"], "target_dn": ["seeAlso"], "target": ["mailRoutingAddress"]}
    directory = parts_of(site, attributes={"alias_entry": [form]}).directory
    assert result(directory.find_alias(ex("route"))) == (ex("bob"),)
    assert result(directory.find_alias(ex("info"))) is None


def test_groups_of_a_user_through_all_levels_by_name_and_dn_and_loops_are_told(site):
    parts = parts_of(site)
    bob = result(parts.directory.find_user(ex("bob")))
    # Asked only where somebody wants to know.
    assert bob.groups == ()
    assert result(parts.directory.find_groups(bob)) == ("devs", "staff", "tech", "ops", "Mail Admins")
    memberships = result(Deferred.fromCoroutine(parts.questions.groups_of(dn("bob"))))
    assert {loop.lower() for loop in memberships.loops} == {f"cn=tech,{GROUPS}"}
    assert result(parts.directory.find_groups(result(parts.directory.find_user(ex("boss"))))) == ("board",)


def test_who_logs_in_comes_with_groups_where_rules_ask_and_members_of_a_group_are_administrators(site):
    directory = parts_of(site, administrator_groups=("mail admins",)).directory
    for name, is_administrator in (("bob", True), ("alice", True), ("carol", False)):
        user = result(directory.find_login(ex(name)))
        assert user.is_administrator is is_administrator, name
        assert ("Mail Admins" in user.groups) is is_administrator
        # The second time it comes from what is remembered.
        assert result(directory.find_login(ex(name))) == user
    assert result(parts_of(site).directory.find_login(ex("bob"))).groups == ()


def test_an_entry_that_was_moved_still_comes_with_its_groups_and_one_that_is_gone_does_not_log_in(site):
    admin = ldap3.Connection(ldap3.Server(site.servers[0].uri), ADMIN, ADMIN_PASSWORD, auto_bind=True)
    eve = {"uid": "eve", "cn": "Eve", "sn": "Eve", "mail": "eve@example.test"}
    kiosk = {"cn": "kiosk", "gidNumber": "900", "memberUid": "eve"}
    assert admin.add(dn("eve"), ["inetOrgPerson", "mailUser"], eve), admin.result
    assert admin.add(f"cn=kiosk,{GROUPS}", "posixGroup", kiosk), admin.result
    directory = parts_of(site, administrator_groups=("mail admins",)).directory
    # Remembered, and asked for its groups only later.
    assert result(directory.find_user(ex("eve"))).groups == ()
    assert admin.modify_dn(dn("eve"), "uid=eve", new_superior=GROUPS), admin.result
    assert result(directory.find_login(ex("eve"))).groups == ("kiosk",)
    other = parts_of(site, administrator_groups=("mail admins",)).directory
    assert result(other.find_user(ex("eve"))) is not None
    assert admin.delete(f"uid=eve,{GROUPS}"), admin.result
    assert result(other.find_login(ex("eve"))) is None
    assert admin.delete(f"cn=kiosk,{GROUPS}"), admin.result


def test_who_may_send_to_a_list_needs_a_proof(site):
    house = House(parts_of(site))
    alice, carol = Poster(ex("alice"), ex("alice"), True), Poster(ex("carol"), ex("carol"), True)
    assert house.refusal("staff", alice) == ""
    assert "5.7.2 Only its members may send to staff@example.test" in house.refusal("staff", carol)
    # The group's other address has the same rule; the sender of a stranger proves nothing.
    assert "5.7.2" in house.refusal("everybody", carol)
    forged = house.refusal("staff", Poster(None, ex("alice")))
    assert "5.7.2" in forged
    assert "log-in" in forged
    assert "5.7.2" in house.refusal("staff", Poster(None, None))
    # A client that may write any name is believed; the address may be one of an alias domain, or an alias.
    assert house.refusal("staff", Poster(None, ex("alice", "example.net"), True)) == ""
    assert house.refusal("staff", Poster(None, ex("carol"), True)) != ""
    assert house.refusal("open", Poster(None, ex("anybody", "example.org"))) == ""
    # Users and aliases of theirs have no rules.
    assert house.refusal("info", Poster(None, None)) == ""


def test_those_a_list_names_are_users_groups_and_lists(site):
    house = House(parts_of(site))
    for name, may in (("boss", True), ("alice", True), ("bob", True), ("carol", False)):
        assert (house.refusal("board", Poster(ex(name), ex(name), True)) == "") is may, name
    # Moderators: whoever is behind info@.
    for name, may in (("alice", True), ("carol", False)):
        assert (house.refusal("news", Poster(ex(name), ex(name), True)) == "") is may, name
    assert "its moderators" in house.refusal("news", Poster(None, None))
    # Somebody elsewhere cannot log in here: believing them is the administrator's decision.
    partner = Poster(None, ex("Partner", "example.org"))
    assert house.refusal("board", partner) != ""
    believing = House(parts_of(site), believes_senders=True)
    assert believing.refusal("board", partner) == ""
    assert believing.refusal("board", Poster(None, ex("boss"))) != ""


def test_who_may_send_as_whom(site):
    house = House(parts_of(site))
    assert house.may_send_as("alice", ex("alice"))
    assert house.may_send_as("alice", ex("alice+x", "example.net"))
    assert house.may_send_as("alice", ex("info"))
    assert house.may_send_as("alice", ex("office"))
    assert house.may_send_as("bob", ex("office+x"))
    assert not house.may_send_as("carol", ex("office"))
    assert not house.may_send_as("alice", ex("bob"))
    assert not house.may_send_as("alice", ex("staff"))
    assert not house.may_send_as("alice", ex("alice", "example.org"))
    assert House(parts_of(site, attributes={})).may_send_as("alice", ex("staff"))


def test_shared_mailboxes_as_the_directory_says(site):
    directory = parts_of(site).directory
    for name, expected in (("alice", ["office"]), ("bob", ["office"]), ("carol", [])):
        user = result(directory.find_user(ex(name)))
        found = result(directory.find_shared_mailboxes(user))
        assert [each.address.local_part for each in found] == expected, name
        assert all(each.rights == {MailboxRight.READ, MailboxRight.POST} for each in found)


def test_r_auth_7_in_an_outage_rules_on_lists_are_remembered_and_nobody_sends_as_somebody_else(tmp_path):
    made = make_site(tmp_path, entries=ENTRIES)
    try:
        house = House(parts_of(made, cache_seconds=0.0))
        alice = Poster(ex("alice"), ex("alice"), True)
        assert house.refusal("staff", alice) == ""
        assert house.may_send_as("alice", ex("office"))
        assert house.may_send_as("alice", ex("info"))
        made.servers[0].kill()
        assert house.refusal("staff", alice) == ""
        assert house.refusal("staff", Poster(None, None)) != ""
        # Their own addresses are theirs all the same.
        assert house.may_send_as("alice", ex("alice"))
        assert house.may_send_as("alice", ex("info"))
        with pytest.raises(MailError) as raised:
            house.may_send_as("alice", ex("office"))
        assert raised.value.is_temporary
    finally:
        made.servers[0].kill()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
)
def test_r_inj_3_no_name_reaches_more_than_its_own_entry(site, name):
    """As an address, a poster, a sender: the answers are those for a stranger."""
    try:
        address = Address(name, "example.test")
    except AddressError:
        return
    house = HOUSES.setdefault(str(site.folder), House(parts_of(site)))
    known = {*USERS, "info", "help", "press", "void", "sales", "staff", "everybody", "board", "news", "open"}
    base = name.lower().partition("+")[0]
    if base in known or any(local in known for local in (name.lower(), name.casefold())):
        return
    assert not isinstance(result(Deferred.fromCoroutine(house.resolver.resolve(address))), LocalAccounts)
    assert not house.may_send_as("alice", address)
    assert house.refusal("staff", Poster(None, address, True)) != ""


HOUSES: dict[str, House] = {}


def expand_group(parts: LdapParts, entry: LdapEntry, connection: LdapConnection, deadline: float) -> Members:
    return parts.groups.expand(connection, entry, deadline)


def test_r_inj_3_names_of_members_are_values_and_no_filters(site):
    parts = parts_of(site)
    for number, value in enumerate(NASTY):
        if not value.isascii():
            continue
        entry = parts.reader.groups()
        assert entry is not None
        found = result(
            Deferred.fromCoroutine(
                parts.client.search(
                    Search(f"cn=nasty{number},{GROUPS}", entry, parts.mapping.wanted(), limit=5), seconds=5.0
                )
            )
        )
        assert found[0].texts("memberUid") == (value,)
        expand = partial(expand_group, parts, found[0])
        members = result(Deferred.fromCoroutine(parts.client.with_connection(expand, seconds=5.0)))
        assert members.addresses == ()


# Whole servers and commands


def letter(sender: str, to: str, **fields: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, to, "hello"
    for name, value in fields.items():
        message[name] = value
    message.set_content("hello")
    return message


def table(site: Site, **more: object) -> str:
    lines = "send_as = ['maySendAs']\nsend_on_behalf = ['mgrpModerator']\nmembers_send_as = false\n"
    return ldap_table(site, *site.servers, **more) + "[directory.attributes]\n" + lines


def submit(server: WholeServer, user: str, message: EmailMessage, envelope: str = "") -> str:
    """ "" where it was taken, else the reply."""
    with smtplib.SMTP("localhost", server.ports["submission"], timeout=30) as client:
        client.starttls(context=ssl.create_default_context(cafile=str(server.certificate)))
        client.login(user, PASSWORD)
        try:
            client.send_message(message, from_addr=envelope or f"{user}@example.test")
        except smtplib.SMTPRecipientsRefused as error:
            ((code, text),) = error.recipients.values()
            return f"{code} {text.decode()}"
        except smtplib.SMTPResponseException as error:
            return f"{error.smtp_code} {error.smtp_error!r}"
        return ""


@pytest.mark.slow
def test_a_whole_server_applies_the_directorys_rules(tmp_path):
    (tmp_path / "slapd").mkdir()
    entries = (*ENTRIES, person("chief", PASSWORD, extra=f"mgrpModerator: {dn('alice')}\n"))
    made = make_site(tmp_path / "slapd", entries=entries)
    extra = table(made, cache_seconds=1.0)
    extra += (
        '\n[[list]]\naddress = "open@example.test"\npost = "users"\n'
        '\n[[access]]\naction = "deny"\nservices = ["imap"]\ngroups = ["devs"]\n'
    )
    server = WholeServer(tmp_path / "mail", users=(), extra=extra)
    server.passwd_path.touch()
    try:
        with server:
            assert submit(server, "alice", letter("alice@example.test", "staff@example.test")) == ""
            refused = submit(server, "carol", letter("carol@example.test", "staff@example.test"))
            assert refused.startswith("550 5.7.2 Only its members may send to staff@example.test")
            with smtplib.SMTP("localhost", server.ports["mx"], timeout=30) as stranger:
                stranger.ehlo()
                stranger.mail("alice@example.test")
                for address in ("staff", "everybody", "board", "open"):
                    code, text = stranger.rcpt(f"{address}@example.test")
                    assert (code, text[:5]) == (550, b"5.7.2"), address
                assert stranger.rcpt("info@example.test")[0] == 250
            assert submit(server, "carol", letter("carol@example.test", "open@example.test")) == ""
            # Under an address that was given to them; and not under one that was not.
            assert submit(server, "alice", letter("office@example.test", "bob@example.test")) == ""
            office = "office@example.test"
            assert submit(server, "alice", letter(office, "bob@example.test"), office) == ""
            assert "5.7.1" in submit(server, "carol", letter(office, "bob@example.test"))
            assert "5.7.1" in submit(server, "carol", letter("carol@example.test", "bob@example.test"), office)
            assert "5.7.1" in submit(server, "alice", letter("staff@example.test", "bob@example.test"))
            # On behalf: the Sender field says who, and is added where it is missing.
            chief = "chief@example.test"
            assert submit(server, "alice", letter(chief, "carol@example.test")) == ""
            assert submit(server, "alice", letter(chief, "carol@example.test", Sender="alice@example.test")) == ""
            assert "5.7.1" in submit(server, "alice", letter(chief, "carol@example.test", Sender=chief))
            assert "5.7.1" in submit(server, "carol", letter(chief, "alice@example.test"))
            assert "5.7.1" in submit(server, "alice", letter(chief, "carol@example.test"), chief)
            told = [text.decode().split("\n\n")[0].replace("\r\n", "\n") for text in server.messages("carol")]
            assert sum("\nSender: alice@example.test\n" in text + "\n" for text in told) == 2
            # Rules on log-ins by a group that a user is in by their name.
            assert log_in(server, "alice", PASSWORD) == "OK"
            assert "AUTHENTICATIONFAILED" in log_in(server, "bob", PASSWORD)
        server.check_log()
    finally:
        made.servers[0].kill()


def test_route_tells_who_may_send_to_a_list(site, tmp_path):
    config = write_config(site, tmp_path)
    status, text = ctl("--config", config, "route", "staff@example.test", "--from", "alice@example.test")
    assert status == 1, text
    assert "its members may send to it" in text
    assert "5.7.2" in text
    status, text = ctl("--config", config, "route", "staff@example.test", "--login", "alice@example.test")
    assert status == 0, text
    assert "mailbox of bob@example.test" in text
    status, text = ctl("--config", config, "route", "staff@example.test", "--login", "carol@example.test", "--json")
    assert status == 1
    assert json.loads(text)["refusal"]["status"] == "5.7.2"
    status, text = ctl(
        "--config", config, "route", "bob@example.test", "--login", "carol@example.test", "--from", "bob@example.test"
    )
    assert status == 1
    assert "not yours" in text


def test_a_list_in_the_settings_has_its_rule(site, tmp_path):
    config = write_config(site, tmp_path)
    config.write_text(
        config.read_text()
        + '\n[[list]]\naddress = "open@example.test"\npost = "named"\nposters = ["info@example.test"]\n'
    )
    assert ctl("--config", config, "route", "open@example.test", "--login", "bob@example.test")[0] == 0
    status, text = ctl("--config", config, "route", "open@example.test", "--login", "carol@example.test")
    assert status == 1
    assert "Only those it names may send" in text
    assert Posters.NAMED.value in config.read_text()
