"""Of whom a directory demands a second factor, by each preset, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from mailsrv.directory.ldap.connection import LdapEntry
from mailsrv.directory.ldap.entry import EntryReader
from mailsrv.directory.ldap.mapping import changed, load_preset

STAFF = "cn=Strict,ou=groups,dc=example,dc=test"


def is_demanded(preset: str, values: dict[str, str | tuple[str, ...]], **changes: Any) -> bool:
    mapping = changed(load_preset(preset), changes)
    reader = EntryReader(mapping, name="ldap", default_domain="example.test", seconds=lambda: 0.0)
    texts = {"mail": "alice@example.test", **values}
    octets = {
        name.lower(): tuple(each.encode() for each in ((value,) if isinstance(value, str) else value))
        for name, value in texts.items()
    }
    found = reader.user(LdapEntry("uid=alice,dc=example,dc=test", octets))
    assert found is not None
    return found.user.needs_second_factor


@pytest.mark.parametrize(
    ("preset", "values", "demanded"),
    [
        ("openldap", {}, False),
        ("openldap", {"objectClass": ("inetOrgPerson", "oathTOTPUser")}, True),
        ("freeipa", {"ipaUserAuthType": ("password", "OTP")}, True),
        ("freeipa", {"ipaUserAuthType": "password"}, False),
        ("active-directory", {"userAccountControl": "512"}, False),
        ("active-directory", {"userAccountControl": str(0x40200)}, True),
        ("active-directory", {"userAccountControl": "a lot"}, True),
        ("samba-ad", {"userAccountControl": str(0x40200)}, True),
    ],
)
def test_presets(preset, values, demanded):
    assert is_demanded(preset, values) is demanded


def test_any_attribute_or_group_can_say_so():
    assert is_demanded("openldap", {"memberOf": STAFF.lower()}, second_factor=[f"memberOf={STAFF}"])
    assert not is_demanded("openldap", {"memberOf": "cn=other,dc=test"}, second_factor=[f"memberOf={STAFF}"])
    assert is_demanded("openldap", {"employeeType": "x"}, second_factor=["employeeType=*"])
    assert not is_demanded("freeipa", {"ipaUserAuthType": "otp"}, second_factor=[])


def test_what_is_looked_at_is_asked_for():
    mapping = changed(load_preset("openldap"), {"second_factor": ["employeeType=strict"]})
    assert "employeeType" in mapping.wanted()
    with pytest.raises(ValueError, match="second_factor"):
        changed(mapping, {"second_factor": ["employeeType"]})
