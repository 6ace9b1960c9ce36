"""A real Samba domain controller: groups by its own rules, accounts it has locked, and who may send as whom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock

from mailsrv.address import Address
from mailsrv.directory.ldap.build import LdapParts, make_ldap_directory
from mailsrv.directory.ldap.observed import Asked
from mailsrv.directory.settings import DirectorySettings, DirectoryType
from tests.interop.samba import ADMIN, ADMIN_PASSWORD, BASE, Samba
from tests.interop.test_ldap_directory import result

PASSWORD = "Secret.w0rd"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def samba(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Samba]:
    with Samba(tmp_path_factory.mktemp("samba")) as server:
        ada = server.add_user("ada", PASSWORD, mail="ada@example.test")
        fresh = server.add_user("fresh", PASSWORD, mail="fresh@example.test")
        server.add_user("locked", PASSWORD, mail="locked@example.test")
        server.add_user("boss", PASSWORD, mail="boss@example.test", otherMailbox=["ada@example.test"])
        inner = server.add_group("inner", ada)
        outer = server.add_group("outer", inner, mail="outer@example.test")
        with server.administrator() as connection:
            # Groups that contain each other; three wrong passwords lock an account.
            assert connection.modify(inner, {"member": [("MODIFY_ADD", [outer])]})
            assert connection.modify(fresh, {"pwdLastSet": [("MODIFY_REPLACE", ["0"])]})
            assert connection.modify(BASE, {"lockoutThreshold": [("MODIFY_REPLACE", ["3"])]})
        (server.folder / "admin.secret").write_text(ADMIN_PASSWORD + "\n")
        yield server


def parts_of(samba: Samba, **attributes: Any) -> LdapParts:
    settings = DirectorySettings(
        DirectoryType.LDAP,
        uri=(samba.uri,),
        preset="samba-ad",
        base=BASE,
        ca_file=str(samba.certificate),
        bind_dn=ADMIN,
        bind_password_file=str(samba.folder / "admin.secret"),
        attributes=attributes,
    )
    return make_ldap_directory(settings, clock=Clock(), default_domain="example.test")


def user(parts: LdapParts, name: str) -> Any:
    return result(parts.directory.find_user(Address(name, "example.test")))


@pytest.mark.parametrize(
    ("attributes", "names"),
    [
        ({}, {"inner", "outer", "Domain Users", "Users"}),
        ({"token_groups": "tokenGroups"}, {"inner", "outer", "Domain Users", "Users"}),
        ({"in_chain": False}, {"inner", "outer"}),
    ],
)
def test_groups_by_the_in_chain_rule_by_token_groups_and_level_by_level(samba, attributes, names):
    parts = parts_of(samba, **attributes)
    ada = user(parts, "ada")
    asked: list[Asked] = []
    parts.client.observer = asked.append
    assert set(result(parts.directory.find_groups(ada))) == names
    by_rule = any("1.2.840.113556.1.4.1941" in each.what for each in asked)
    assert by_rule is (not attributes)
    assert result(parts.directory.find_alias(Address("outer", "example.test"))) == (ada.address,)


def test_accounts_the_controller_has_locked_and_passwords_that_must_be_changed(samba):
    parts = parts_of(samba)
    assert not user(parts, "fresh").may_log_in
    locked = user(parts, "locked")
    assert locked.may_log_in
    for _ in range(3):
        assert result(parts.directory.check_password(locked, "Wrong.w0rd")) is False
    # The right one does not help, and no other proof does: the entry says it.
    assert result(parts.directory.check_password(locked, PASSWORD)) is False
    assert not user(parts_of(samba), "locked").may_log_in


def test_who_may_send_as_whom_by_an_attribute_of_the_site(samba):
    parts = parts_of(samba, send_as=["otherMailbox"])
    ada = user(parts, "ada")
    rights = result(parts.directory.find_send_rights(Address("boss", "example.test")))
    assert rights.named == {ada.address}
    assert [str(each) for each in result(parts.directory.find_shared_mailboxes(ada))] == ["boss@example.test (post)"]
    # Exchange's attributes are none of this forest's: they are asked for, and nothing follows.
    assert rights.on_behalf == frozenset()
