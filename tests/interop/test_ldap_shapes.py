"""Entries in the shapes of Active Directory and FreeIPA, with their attributes and values, from a real server."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from mailsrv.address import Address
from mailsrv.directory.ldap.build import LdapParts
from mailsrv.interfaces.rights import Posters
from tests.directory.ldap.memory_ldap import sid
from tests.interop.test_ldap_directory import GROUPS, PEOPLE, Site, make_site, result

NEVER = "9223372036854775807"
LONG_AGO = "132000000000000000"
JUST_NOW = str(int((1_800_000_000 + 11_644_473_600) * 1e7))
"""The time of day that the tests give to the directory."""


def ad(cn: str, number: int, *lines: str, kind: str = "user") -> str:
    """A user of Active Directory; the primary group is Domain Users."""
    object_sid = base64.b64encode(sid(1, 2, 3, number)).decode()
    given = {line.partition(":")[0] for line in lines}
    values = {
        "mail": f"{cn.lower()}@ad.test",
        "sAMAccountName": cn.lower(),
        "userPrincipalName": f"{cn.lower()}@corp.example",
        "userAccountControl": "512",
        "pwdLastSet": "133000000000000000",
        "accountExpires": NEVER,
        "primaryGroupID": "513",
    }
    own = "".join(f"{name}: {value}\n" for name, value in values.items() if name not in given)
    return (
        f"dn: cn={cn},{PEOPLE}\nobjectClass: {kind}\ncn: {cn}\nsn: {cn}\nuserPassword: engine\n"
        f"objectSid:: {object_sid}\n{own}" + "".join(f"{line}\n" for line in lines if not line.endswith(": "))
    )


def ad_group(cn: str, number: int, *lines: str) -> str:
    object_sid = base64.b64encode(sid(1, 2, 3, number)).decode()
    return f"dn: cn={cn},{GROUPS}\nobjectClass: group\ncn: {cn}\nobjectSid:: {object_sid}\n" + "".join(
        f"{line}\n" for line in lines
    )


def ipa(uid: str, *lines: str) -> str:
    return (
        f"dn: uid={uid},{PEOPLE}\nobjectClass: inetOrgPerson\nobjectClass: ipaPerson\nobjectClass: mailUser\n"
        f"uid: {uid}\ncn: {uid.title()}\nsn: X\nmail: {uid}@ipa.test\n"
        f"krbPrincipalName: {uid}@IPA.TEST\nuserPassword: pale\n" + "".join(f"{line}\n" for line in lines)
    )


def ipa_group(cn: str, *members: str) -> str:
    lines = "".join(f"member: {member}\n" for member in members)
    return f"dn: cn={cn},{GROUPS}\nobjectClass: groupOfNames\nobjectClass: ipaUserGroup\ncn: {cn}\n{lines}"


TOKENS = [base64.b64encode(sid(1, 2, 3, number)).decode() for number in (2001, 513)]
ENTRIES = (
    ad(
        "Ada",
        1001,
        "displayName: Ada, Countess of Lovelace",
        "proxyAddresses: SMTP:ada@ad.test",
        "proxyAddresses: smtp:countess@ad.test",
        "proxyAddresses: X400:c=GB",
        "mDBOverHardQuotaLimit: 2048",
        *(f"tokenGroups:: {token}" for token in TOKENS),
    ),
    ad("Primary", 1002, "mail: ", "proxyAddresses: smtp:a@ad.test", "proxyAddresses: SMTP:z@ad.test"),
    ad("Disabled", 1003, "userAccountControl: 514"),
    ad("Over", 1004, f"accountExpires: {LONG_AGO}"),
    ad("Locked", 1005, "lockoutTime: " + JUST_NOW),
    ad("Unlocked", 1006, f"lockoutTime: {LONG_AGO}"),
    ad("Held", 1007, f"lockoutTime: {LONG_AGO}", "msDS-User-Account-Control-Computed: 16"),
    ad("Freed", 1008, "lockoutTime: " + JUST_NOW, "msDS-User-Account-Control-Computed: 0"),
    ad("Stale", 1009, "msDS-User-Account-Control-Computed: 8388608"),
    ad("Fresh", 1010, "pwdLastSet: 0"),
    # A signed number of 32 bits, as attributes of this syntax are.
    ad("Signed", 1011, "userAccountControl: -2147483134"),
    ad(
        "Away",
        1012,
        f"altRecipient: cn=Ada,{PEOPLE}",
        "targetAddress: SMTP:away@example.org",
        "deliverAndRedirect: TRUE",
    ),
    ad("Gone", 1013, f"altRecipient: cn=Ada,{PEOPLE}"),
    ad("Loner", 1014, f"altRecipient: cn=Nobody,{PEOPLE}"),
    ad("Partner", 1015, "mail: partner@example.org", "targetAddress: SMTP:partner@example.org"),
    ad("Boss", 1016, f"publicDelegates: cn=Ada,{PEOPLE}", f"msExchDelegateListLink: cn=Engineers,{GROUPS}"),
    ad_group("Domain Users", 513),
    ad_group(
        "Engineers",
        2001,
        "mail: engineers@ad.test",
        "msExchRequireAuthToSendTo: TRUE",
        f"member: cn=Ada,{PEOPLE}",
        f"member: cn=Partner,{PEOPLE}",
    ),
    ad_group(
        "All",
        2002,
        "mail: all@ad.test",
        f"member: cn=Engineers,{GROUPS}",
        f"authOrig: cn=Boss,{PEOPLE}",
        f"dLMemSubmitPerms: cn=Engineers,{GROUPS}",
        f"unauthOrig: cn=Ada,{PEOPLE}",
    ),
    ipa("kim", "mailAlternateAddress: k@ipa.test", "mailQuota: 1G", "krbPrincipalExpiration: 20990101000000Z"),
    ipa("lee", "nsAccountLock: TRUE"),
    ipa("max", "nsAccountLock: false", "mailForwardingAddress: max@example.org"),
    ipa("ned", "krbPrincipalExpiration: 20200101000000Z"),
    ipa_group("inner", f"uid=kim,{PEOPLE}"),
    ipa_group("outer", f"cn=inner,{GROUPS}"),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = make_site(tmp_path_factory.mktemp("shapes"), entries=ENTRIES)
    yield made
    made.servers[0].kill()


def active_directory(site: Site, **attributes: Any) -> LdapParts:
    # OpenLDAP has neither the in-chain rule nor this attribute to compare DNs by, and calls computers by no such class.
    changes = {"in_chain": False, "dn_attribute": "entryDN", "user_filter": "", **attributes}
    return site.parts(preset="active-directory", domain="ad.test", attributes=changes)


def free_ipa(site: Site) -> LdapParts:
    return site.parts(preset="freeipa", domain="ipa.test", attributes={})


def at(domain: str, local_part: str) -> Address:
    return Address(local_part, domain)


def user(parts: LdapParts, domain: str, name: str) -> Any:
    return result(parts.directory.find_user(at(domain, name)))


def test_names_addresses_and_quota_of_active_directory(site):
    directory = active_directory(site).directory
    ada = result(directory.find_user(at("ad.test", "ada")))
    assert (ada.display_name, ada.quota_octets) == ("Ada, Countess of Lovelace", 2048 * 1024)
    assert result(directory.find_alias(at("ad.test", "countess"))) == (ada.address,)
    for name in ("ada", "ADA"):
        assert result(directory.find_login(at("ad.test", name))) == ada
    assert result(directory.find_login(at("corp.example", "ada"))) == ada
    assert result(directory.check_password(ada, "engine")) is True
    # Without mail the primary proxy address is the account's.
    assert result(directory.find_alias(at("ad.test", "a"))) == (at("ad.test", "z"),)


@pytest.mark.parametrize(
    ("name", "objection"),
    [
        ("ada", ""),
        ("disabled", "disabled"),
        ("over", "expired"),
        ("locked", "locked"),
        ("unlocked", ""),
        ("held", "locked"),
        ("freed", ""),
        ("stale", "password has expired"),
        ("fresh", "pwdLastSet is 0"),
        ("signed", "disabled"),
    ],
)
def test_every_way_active_directory_shuts_an_account(site, monkeypatch, name, objection):
    parts = active_directory(site)
    monkeypatch.setattr(parts.reader, "_seconds", lambda: 1_800_000_000.0)
    found = user(parts, "ad.test", name)
    assert found.may_log_in is not bool(objection)
    known = parts.directory.known_entry(found.address)
    asked: list[Any] = []
    parts.client.observer = asked.append
    result(parts.directory.find_login(at("corp.example", name)))
    (entry,) = (entry for each in asked for entry in each.entries if entry.dn == known)
    assert objection in parts.reader.objection(entry)
    assert bool(parts.reader.objection(entry)) is bool(objection)


def test_a_lock_may_last_until_it_is_lifted(site):
    assert not user(active_directory(site, locked_seconds=0), "ad.test", "unlocked").may_log_in


def test_forwarding_of_exchange_with_and_without_a_copy(site):
    directory = active_directory(site).directory
    away = result(directory.find_alias(at("ad.test", "away")))
    assert set(away) == {at("ad.test", "away"), at("example.org", "away"), at("ad.test", "ada")}
    assert result(directory.find_alias(at("ad.test", "gone"))) == (at("ad.test", "ada"),)
    # Whom it went to is no more: it stays, rather than being lost.
    assert result(directory.find_alias(at("ad.test", "loner"))) is None
    assert result(directory.find_user(at("ad.test", "loner"))) is not None
    # A contact is reached where its own address is.
    assert result(directory.find_alias(at("example.org", "partner"))) is None


def test_groups_of_active_directory_by_members_and_by_the_sids_the_server_computed(site):
    parts = active_directory(site)
    ada = user(parts, "ad.test", "ada")
    assert set(result(parts.directory.find_groups(ada))) == {"Engineers", "All"}
    by_sid = active_directory(site, token_groups="tokenGroups")
    assert set(result(by_sid.directory.find_groups(ada))) == {"Engineers", "Domain Users"}
    members = {at("ad.test", "ada"), at("example.org", "partner")}
    assert set(result(parts.directory.find_alias(at("ad.test", "all")))) == members


def test_rules_of_exchange_on_lists_and_senders(site):
    directory = active_directory(site).directory
    assert result(directory.find_posting_rule(at("ad.test", "engineers"))).who is Posters.USERS
    rule = result(directory.find_posting_rule(at("ad.test", "all")))
    assert rule.who is Posters.NAMED
    assert rule.named == {at("ad.test", "boss"), at("ad.test", "ada"), at("example.org", "partner")}
    assert rule.refused == {at("ad.test", "ada")}
    sending = result(directory.find_send_rights(at("ad.test", "boss")))
    assert (sending.named, sending.on_behalf) == (frozenset(), {at("ad.test", "ada")})
    ada = result(directory.find_user(at("ad.test", "ada")))
    assert [str(each) for each in result(directory.find_shared_mailboxes(ada))] == ["boss@ad.test (read, write)"]


def test_freeipas_locks_groups_quota_and_forwarding(site):
    parts = free_ipa(site)
    for name, may in (("kim", True), ("lee", False), ("max", True), ("ned", False)):
        assert user(parts, "ipa.test", name).may_log_in is may, name
    kim = user(parts, "ipa.test", "kim")
    assert kim.quota_octets == 1 << 30
    assert result(parts.directory.find_groups(kim)) == ("inner", "outer")
    assert result(parts.directory.find_alias(at("ipa.test", "k"))) == (kim.address,)
    assert result(parts.directory.find_alias(at("ipa.test", "max"))) == (at("example.org", "max"),)
