"""Groups of users and rights of entries by the rules of Active Directory, which OpenLDAP does not know."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.address import Address
from mailsrv.directory.ldap.entry import EntryReader
from mailsrv.directory.ldap.groups import GroupReader
from mailsrv.directory.ldap.mapping import changed, load_preset
from mailsrv.directory.ldap.memberships import Group, MembershipReader, Memberships
from mailsrv.directory.ldap.rights import RightsReader
from mailsrv.directory.ldap.search import Search
from mailsrv.directory.ldap.trouble import RequestTrouble
from mailsrv.interfaces.rights import MailboxRight, Posters
from tests.directory.ldap.memory_ldap import MemoryLdap, sid

BASE = "dc=test"
ADA = "cn=Ada,dc=test"
END = 1e12


def ad(local_part: str) -> Address:
    return Address(local_part, "ad.test")


def user(server: MemoryLdap, cn: str, number: int, **more: Any) -> str:
    return server.add(
        f"cn={cn},dc=test",
        objectClass=("top", "user"),
        cn=cn,
        sAMAccountName=cn.lower(),
        mail=f"{cn.lower()}@ad.test",
        objectSid=sid(1, 2, 3, number),
        primaryGroupID="513",
        **more,
    )


def group(server: MemoryLdap, cn: str, number: int, *members: str, **more: Any) -> str:
    return server.add(
        f"cn={cn},dc=test", objectClass=("top", "group"), cn=cn, objectSid=sid(1, 2, 3, number), member=members, **more
    )


@pytest.fixture
def server() -> MemoryLdap:
    made = MemoryLdap()
    user(made, "Ada", 1001)
    user(made, "Bob", 1002)
    group(made, "Domain Users", 513)
    group(made, "Engineers", 2001, ADA, mail="engineers@ad.test")
    group(made, "Staff", 2002, "cn=Engineers,dc=test", "cn=Domain Users,dc=test", mail="staff@ad.test")
    # Two that contain each other.
    group(made, "Chicken", 2003, "cn=Egg,dc=test", "cn=Engineers,dc=test")
    group(made, "Egg", 2004, "cn=Chicken,dc=test")
    return made


def reader(**changes: Any) -> EntryReader:
    mapping = changed(load_preset("active-directory"), changes)
    return EntryReader(mapping, name="ldap", default_domain="ad.test", seconds=lambda: 1.8e9)


def groups_of(server: Any, dn: str, *, limit: int = 100, **changes: Any) -> Memberships:
    return MembershipReader(reader(**changes), base=BASE, limit=limit).of(server, dn, END)


def group_reader(one: EntryReader, limit: int = 100) -> GroupReader:
    return GroupReader(one, base=BASE, limit=limit, default_domain="ad.test")


def test_active_directory_finds_nested_groups_and_the_primary_one_with_those_it_is_in(server):
    found = groups_of(server, ADA)
    assert set(found.names) == {"Engineers", "Staff", "Chicken", "Egg", "Domain Users"}
    assert any("1.2.840.113556.1.4.1941:=" in asked for asked in server.asked)
    # Nobody names Bob as a member: Staff has his primary group.
    assert set(groups_of(server, "cn=Bob,dc=test").names) == {"Domain Users", "Staff"}
    assert groups_of(server, "cn=Nobody,dc=test") == Memberships(is_gone=True)


def test_token_groups_are_read_where_the_mapping_names_them(server):
    server.entries[ADA.lower()].values["tokengroups"] = (sid(1, 2, 3, 2001), sid(1, 2, 3, 2002))
    found = groups_of(server, ADA, token_groups="tokenGroups")
    assert set(found.names) == {"Engineers", "Staff", "Domain Users"}
    assert not any("1941" in asked for asked in server.asked)
    # A server that computes none is asked the other way.
    assert "Egg" in groups_of(server, "cn=Ada,dc=test", token_groups="msDS-tokenGroupNames").names


def test_without_the_rule_groups_are_climbed_level_by_level_and_loops_are_told(server):
    found = groups_of(server, ADA, in_chain=False)
    assert set(found.names) == {"Engineers", "Staff", "Chicken", "Egg"}
    assert found.names[0] == "Engineers"
    assert set(found.loops) == {"cn=Chicken,dc=test"}
    # Met by two ways is no loop.
    group(server, "Left", 3001, ADA)
    group(server, "Right", 3002, ADA, "cn=Left,dc=test")
    group(server, "Top", 3003, "cn=Left,dc=test", "cn=Right,dc=test")
    assert set(groups_of(server, ADA, in_chain=False).loops) == {"cn=Chicken,dc=test"}
    # One that is its own member.
    group(server, "Mirror", 3004, ADA, "cn=Mirror,dc=test")
    assert "cn=Mirror,dc=test" in groups_of(server, ADA, in_chain=False).loops


def test_r_lim_2_too_many_groups_are_trouble_and_not_a_part_of_them(server):
    assert len(groups_of(server, ADA, in_chain=False, limit=4).groups) == 4
    for changes in ({"in_chain": False}, {}):
        with pytest.raises(RequestTrouble, match="more than 3 groups"):
            groups_of(server, ADA, limit=3, **changes)
    for number in range(30):
        inner = ADA if not number else f"cn=Level{number - 1},dc=test"
        group(server, f"Level{number}", 4000 + number, inner)
    with pytest.raises(RequestTrouble, match="more than 20 levels"):
        groups_of(server, ADA, in_chain=False)


def test_a_group_of_active_directory_has_members_of_all_levels_and_by_primary_group(server):
    one = reader()
    entry = server.search(Search("cn=Staff,dc=test", one.users(), (), limit=1, whole_tree=False), END) or (
        server.entries["cn=staff,dc=test"],
    )
    found = group_reader(one).expand(server, entry[0], END)
    assert found.addresses == (ad("ada"),)
    primary = group_reader(one).expand(server, server.entries["cn=domain users,dc=test"], END)
    assert set(primary.addresses) == {ad("ada"), ad("bob")}


def rights(server: Any, dn: str, **changes: Any) -> Any:
    one = reader(**changes)
    made = RightsReader(one, group_reader(one), base=BASE, default_domain="ad.test")
    return made.of(server, server.entries[dn.lower()], END)


def test_who_may_send_to_a_list_of_exchange(server):
    assert rights(server, "cn=Staff,dc=test").posting.who is Posters.ANYBODY
    group(server, "Login", 5001, mail="login@ad.test", msExchRequireAuthToSendTo="TRUE")
    assert rights(server, "cn=Login,dc=test").posting.who is Posters.USERS
    group(
        server,
        "Named",
        5002,
        mail="named@ad.test",
        msExchRequireAuthToSendTo="TRUE",
        authOrig="cn=Bob,dc=test",
        dLMemSubmitPerms="cn=Engineers,dc=test",
        unauthOrig=("cn=Gone,dc=test", "cn=Bob,dc=test"),
    )
    rule = rights(server, "cn=Named,dc=test").posting
    assert (rule.who, rule.named, rule.refused) == (Posters.NAMED, {ad("ada"), ad("bob")}, {ad("bob")})
    group(
        server,
        "Held",
        5003,
        mail="held@ad.test",
        msExchEnableModeration="TRUE",
        msExchModeratedByLink="cn=Bob,dc=test",
        authOrig=ADA,
    )
    rule = rights(server, "cn=Held,dc=test").posting
    assert (rule.who, rule.named, rule.is_moderated) == (Posters.NAMED, {ad("bob")}, True)
    # Those who are named are gone: nobody is left who may, and not everybody.
    group(server, "Orphan", 5004, mail="orphan@ad.test", authOrig="cn=Gone,dc=test")
    rule = rights(server, "cn=Orphan,dc=test").posting
    assert (rule.who, rule.named) == (Posters.NAMED, frozenset())


@pytest.mark.parametrize(
    ("word", "who"),
    [
        ("public", Posters.ANYBODY),
        ("membersOnly", Posters.MEMBERS),
        ("allowedonly", Posters.NAMED),
        ("members", Posters.MEMBERS),
        ("users", Posters.USERS),
        ("whatever that is", Posters.NOBODY),
    ],
)
def test_words_of_other_systems_are_known_and_unknown_ones_keep_everybody_out(server, word, who):
    group(server, "Worded", 6001, mail="worded@ad.test", accessPolicy=word)
    assert rights(server, "cn=Worded,dc=test", posting_rule="accessPolicy").posting.who is who


def test_who_may_send_as_whom(server):
    user(server, "Boss", 1003, publicDelegates=ADA, mySendAs=("cn=Engineers,dc=test", "bob@ad.test"))
    sending = rights(server, "cn=Boss,dc=test", send_as=["mySendAs"]).sending
    assert sending.members
    assert sending.named == {ad("ada"), ad("bob")}
    assert sending.on_behalf == {ad("ada")}
    assert not rights(server, "cn=Staff,dc=test").sending.members
    assert rights(server, "cn=Staff,dc=test", members_send_as=True).sending.members


def test_shared_mailboxes_are_found_by_user_and_by_group(server):
    user(server, "Office", 1004, msExchDelegateListLink=ADA)
    user(server, "Shop", 1005, msExchDelegateListLink="cn=Staff,dc=test", readers="ada@ad.test")
    user(server, "Press", 1006, readers=ADA, senders="cn=Engineers,dc=test")
    one = reader(shared_read=["readers"], send_as=["senders"])
    made = RightsReader(one, group_reader(one), base=BASE, default_domain="ad.test")
    groups = MembershipReader(one, base=BASE, limit=100).of(server, ADA, END)
    found = made.shared_with(server, ADA, (ad("ada"),), groups, END)
    read_write = frozenset({MailboxRight.READ, MailboxRight.WRITE})
    assert [(each.address, each.rights) for each in found] == [
        (ad("office"), read_write),
        (ad("press"), frozenset({MailboxRight.READ, MailboxRight.POST})),
        (ad("shop"), read_write),
    ]
    assert str(found[1]) == "press@ad.test (read, post)"


def test_members_that_are_gone_are_left_out_where_entries_are_read_one_by_one(server):
    one = reader(in_chain=False, dn_attribute="")
    group(server, "Old", 7001, ADA, "cn=Gone,dc=test", "cn=Engineers,dc=test")
    found = group_reader(one).expand(server, server.entries["cn=old,dc=test"], END)
    assert found.addresses == (ad("ada"),)


@given(
    values=st.lists(
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
            st.sampled_from(
                ("*", "cn=*)(objectClass=*", "mailto:*@ad.test", "cn=\0", "=,=", "ada@ad.test", ADA, "\\2a")
            ),
        ),
        max_size=6,
    )
)
@settings(max_examples=150, deadline=None)
def test_r_inj_3_values_of_rights_name_whom_they_name_and_nobody_else(values):
    server: Any = MemoryLdap()
    user(server, "Ada", 1001)
    user(server, "Bob", 1002)
    group(server, "Listed", 2001, *values, mail="listed@ad.test", authOrig=tuple(values), unauthOrig=tuple(values))
    rule = rights(server, "cn=Listed,dc=test").posting
    named = {str(each) for each in rule.named}
    assert "bob@ad.test" not in named or any(value.strip().lower() in {"bob@ad.test", "bob"} for value in values)
    assert ("ada@ad.test" in named) >= (ADA in values)
    assert rule.who is (Posters.NAMED if values else Posters.ANYBODY)
    one = reader(in_chain=False)
    found = group_reader(one).expand(server, server.entries["cn=listed,dc=test"], END)
    assert set(found.addresses) == ({ad("ada")} if ADA in values else set())
    made = RightsReader(one, group_reader(one), base=BASE, default_domain="ad.test")
    name = values[0] if values and values[0] else "x"
    memberships = Memberships((Group(name, name),))
    assert made.shared_with(server, name, (ad("bob"),), memberships, END) == ()
