"""What an entry says, by each preset, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from mailsrv.address import Address
from mailsrv.directory.ldap.connection import LdapEntry
from mailsrv.directory.ldap.entry import EntryReader, relative_identifier
from mailsrv.directory.ldap.mapping import LdapMapping, changed, load_preset, preset_names

NOW = 1_800_000_000.0


def reader(preset: str, **changes: Any) -> EntryReader:
    mapping = changed(load_preset(preset), changes)
    return EntryReader(mapping, name="ldap", default_domain="example.test", seconds=lambda: NOW)


def entry(**values: str | tuple[str, ...]) -> LdapEntry:
    return LdapEntry(
        "cn=x,dc=test",
        {
            name.lower(): tuple(each.encode() for each in ((value,) if isinstance(value, str) else value))
            for name, value in values.items()
        },
    )


def addresses(one: EntryReader, **values: str | tuple[str, ...]) -> list[str]:
    return [str(each) for each in one.addresses(entry(**values))]


def test_the_canonical_address_does_not_depend_on_the_order_of_values():
    one = reader("openldap")
    for mails in (("b@example.test", "a@example.test"), ("a@example.test", "b@example.test")):
        assert addresses(one, mail=mails) == ["a@example.test", "b@example.test"]
        assert addresses(one, mail=mails, uid="B") == ["b@example.test", "a@example.test"]
    assert addresses(one, mail=("not an address", "A@Example.TEST")) == ["a@example.test"]


def test_proxy_addresses_count_by_their_prefix():
    one = reader("active-directory")
    found = addresses(one, mail="a@x.test", proxyAddresses=("SMTP:a@x.test", "smtp:b@x.test", "x400:c=GB", "b2@x.test"))
    assert found == ["a@x.test", "b@x.test"]


@pytest.mark.parametrize(
    ("preset", "values", "may"),
    [
        ("openldap", {"shadowExpire": "1"}, False),
        ("openldap", {"shadowExpire": "99999"}, True),
        ("openldap", {"shadowExpire": "-1"}, True),
        ("openldap", {"shadowExpire": "soon"}, False),
        ("openldap", {"pwdAccountLockedTime": "000001010000Z"}, False),
        ("active-directory", {"userAccountControl": "512", "accountExpires": "0"}, True),
        ("active-directory", {"userAccountControl": "514"}, False),
        ("active-directory", {"accountExpires": "9223372036854775807"}, True),
        ("active-directory", {"accountExpires": "132000000000000000"}, False),
        ("active-directory", {"accountExpires": "150000000000000000"}, True),
        ("freeipa", {"nsAccountLock": "TRUE"}, False),
        ("freeipa", {"nsAccountLock": "false"}, True),
        ("freeipa", {"krbPrincipalExpiration": "20200101000000Z"}, False),
        ("freeipa", {"krbPrincipalExpiration": "20990101000000Z"}, True),
        ("freeipa", {"krbPrincipalExpiration": "209901010000+0130"}, True),
        ("freeipa", {"krbPrincipalExpiration": "2099"}, False),
    ],
)
def test_who_may_log_in(preset, values, may):
    user = reader(preset).user(entry(mail="a@example.test", **values))
    assert user is not None
    assert user.user.may_log_in is may


@pytest.mark.parametrize(
    ("text", "unit", "octets"),
    [("2G", 1, 2 << 30), ("1000", 1, 1000), ("100", 1 << 20, 100 << 20), ("0", 1, None), ("much", 1, None)],
)
def test_quotas_have_units(text, unit, octets):
    one = reader("openldap", quota_unit=unit)
    assert one.quota(entry(mailQuota=text)) == octets


def test_r_auth_2_what_makes_a_log_in_stale_changes_the_fingerprint():
    one = reader("openldap")
    seen = set()
    for values in ({}, {"modifyTimestamp": "1"}, {"pwdChangedTime": "1"}, {"pwdAccountLockedTime": "1"}):
        user = one.user(entry(mail="a@example.test", **values))
        assert user is not None
        seen.add(user.user.fingerprint)
    assert len(seen) == 4


def test_r_inj_3_names_that_only_look_alike_are_not_the_users():
    one = reader("openldap")
    alice = entry(uid="alice", mail="alice@example.test")
    assert one.has_login(alice, Address("alice", "example.test"))
    assert not one.has_login(alice, Address("alice\u200b", "example.test"))
    assert not one.has_login(alice, Address("alice", "example.org"))


def test_groups_are_told_from_users_by_class():
    one = reader("openldap")
    assert one.is_group(entry(objectClass=("top", "groupOfNames")))
    assert not one.is_group(entry(objectClass=("inetOrgPerson", "posixGroup")))


def test_the_last_part_of_a_sid():
    sid = bytes([1, 5]) + (5).to_bytes(6, "big") + b"".join(n.to_bytes(4, "little") for n in (21, 1, 2, 3, 513))
    assert relative_identifier(sid) == "513"
    assert relative_identifier(sid[:-1]) == ""
    assert relative_identifier(b"") == ""


def test_every_preset_can_be_used_and_changes_are_checked():
    for name in preset_names():
        one = reader(name)
        assert one.by_address(Address("a", "b.test")).text.startswith("(")
        assert one.by_login(Address("a", "b.test")).text.startswith("(")
    mistakes: list[dict[str, Any]] = [{"mial": []}, {"address": "mail"}, {"in_chain": "yes"}, {"quota": "a b"}]
    for mistake in (*mistakes, {"expires_format": "years"}):
        with pytest.raises(ValueError, match=next(iter(mistake))):
            changed(LdapMapping(), mistake)
    with pytest.raises(ValueError, match="there is no preset"):
        load_preset("novell")
