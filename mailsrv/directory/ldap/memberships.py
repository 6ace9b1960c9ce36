"""The groups a user is in, through all levels. Runs in a thread.

Active Directory answers by its in-chain rule, and computes the objectSids of all security groups, where the mapping
wants those (``token_groups``); the primary group is found by its objectSid. Elsewhere one question a level asks
which groups have what was found so far as a member, by DN or by name; what ``member_of`` names besides (groups of an
overlay, which have no members to ask for) is read, too. A group that contains itself ends nothing and is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import define, field, frozen

from mailsrv.directory.ldap.connection import LdapConnection, LdapEntry
from mailsrv.directory.ldap.entry import EntryReader, relative_identifier
from mailsrv.directory.ldap.filters import Filter, all_of, any_of, equal, in_chain
from mailsrv.directory.ldap.groups import GROUP_DEPTH, EntriesByDn, batches, read_entry
from mailsrv.directory.ldap.search import Search
from mailsrv.directory.ldap.trouble import RequestTrouble

_LOOPS_TO_REPORT = 5


@frozen
class Group:
    """One group of somebody."""

    dn: str
    name: str


@frozen
class Memberships:
    """All groups of somebody, the nearest first."""

    groups: tuple[Group, ...] = ()
    loops: tuple[str, ...] = ()
    """DNs of groups that contain themselves."""
    is_gone: bool = False
    """There is no entry of that name (any more): of its groups nothing is known."""

    @property
    def names(self) -> tuple[str, ...]:
        """Each name once."""
        return tuple(dict.fromkeys(group.name for group in self.groups if group.name))


@define(eq=False)
class _Walk:
    """What one request has found."""

    connection: LdapConnection
    deadline: float
    user: LdapEntry
    met: dict[str, Group] = field(factory=dict)
    met_again: dict[str, str] = field(factory=dict)


class MembershipReader:
    """Asks for groups. More than ``limit`` are a RequestTrouble: rules on groups need all of them."""

    def __init__(self, reader: EntryReader, *, base: str, limit: int) -> None:
        self._reader = reader
        self._base = base
        self._limit = limit
        mapping = reader.mapping
        self._by_dn = EntriesByDn(mapping, base)
        self._group_attributes = ("objectClass", *mapping.group_name)
        own = [mapping.member_name_of, mapping.member_of, mapping.primary_group, mapping.token_groups]
        self._user_attributes = tuple(name for name in (*own, "objectSid") if name)

    def of(self, connection: LdapConnection, dn: str, deadline: float) -> Memberships:
        """All groups of the entry."""
        if self._reader.groups() is None:
            return Memberships()
        entry = read_entry(connection, dn, self._user_attributes, deadline)
        if entry is None:
            return Memberships(is_gone=True)
        mapping = self._reader.mapping
        walk = _Walk(connection, deadline, entry)
        if mapping.token_groups and entry.values.get(mapping.token_groups.lower()):
            self._by_sids(walk, entry.values[mapping.token_groups.lower()])
        elif mapping.in_chain:
            self._ask_server(walk)
        else:
            self._climb(walk)
        loops = [group for key, group in walk.met_again.items() if self._contains_itself(walk, key)]
        return Memberships(tuple(walk.met.values()), tuple(loops[:_LOOPS_TO_REPORT]))

    def _ask_server(self, walk: _Walk) -> None:
        """By the in-chain rule, and the same for the primary group, which no ``member`` names."""
        self._add(walk, self._search(walk, self._chain_tests(walk.user.dn)))
        primary = self._primary_sid(walk.user)
        if not primary:
            return
        for group in self._add(walk, self._search(walk, [equal("objectSid", primary)])):
            self._add(walk, self._search(walk, self._chain_tests(group.dn)))

    def _chain_tests(self, dn: str) -> list[Filter]:
        return [in_chain(name, dn) for name in self._reader.mapping.member_dn]

    def _primary_sid(self, user: LdapEntry) -> bytes:
        """The primary group's objectSid: the user's, with another last part (MS-DTYP 2.4.2)."""
        mapping = self._reader.mapping
        number = user.first(mapping.primary_group) if mapping.primary_group else ""
        sids = user.values.get("objectsid", ())
        if not sids or not number.isascii() or not number.isdigit() or int(number) >= 1 << 32:
            return b""
        return sids[0][:-4] + int(number).to_bytes(4, "little") if relative_identifier(sids[0]) else b""

    def _by_sids(self, walk: _Walk, sids: Sequence[bytes]) -> None:
        if len(sids) > self._limit:
            raise self._too_many(walk)
        primary = self._primary_sid(walk.user)
        wanted = tuple(dict.fromkeys(sid for sid in (*sids, primary) if sid))
        for start in range(0, len(wanted), 100):
            self._add(walk, self._search(walk, [equal("objectSid", sid) for sid in wanted[start : start + 100]]))

    def _climb(self, walk: _Walk) -> None:
        mapping = self._reader.mapping
        names = walk.user.texts(mapping.member_name_of) if mapping.member_name else ()
        tests = self._member_tests([walk.user.dn])
        tests += [equal(attribute, name) for attribute in mapping.member_name for name in names if name]
        level = self._add(walk, self._search(walk, tests)) if tests else []
        if mapping.member_of:
            known = {dn.lower() for dn in walk.user.texts(mapping.member_of)} - walk.met.keys()
            named = [dn for dn in walk.user.texts(mapping.member_of) if dn.lower() in known]
            read = self._by_dn.read(walk.connection, named, self._group_attributes, walk.deadline)
            level += self._add(walk, [entry for entry in read if self._reader.is_group(entry)])
        for _ in range(GROUP_DEPTH):
            if not level:
                return
            level = self._add(walk, self._groups_with(walk, [group.dn for group in level]))
        if level:
            raise RequestTrouble(f"the groups of {walk.user.dn}: more than {GROUP_DEPTH} levels")

    def _groups_with(self, walk: _Walk, dns: Sequence[str]) -> list[LdapEntry]:
        found: list[LdapEntry] = []
        for batch in batches(dns):
            tests = self._member_tests(batch)
            found += self._search(walk, tests) if tests else ()
        return found

    def _member_tests(self, dns: Sequence[str]) -> list[Filter]:
        return [equal(attribute, dn) for attribute in self._reader.mapping.member_dn for dn in dns]

    def _search(self, walk: _Walk, tests: Sequence[Filter]) -> Sequence[LdapEntry]:
        groups = self._reader.groups()
        what = any_of(tests) if groups is None else all_of([groups, any_of(tests)])
        search = Search(self._base, what, self._group_attributes, limit=self._limit + 1)
        found = walk.connection.search(search, walk.deadline)
        if len(found) > self._limit:
            raise self._too_many(walk)
        return found

    def _add(self, walk: _Walk, entries: Iterable[LdapEntry]) -> list[Group]:
        """Those of them that are new."""
        new = []
        for entry in entries:
            key = entry.dn.lower()
            if key in walk.met:
                walk.met_again.setdefault(key, entry.dn)
                continue
            walk.met[key] = group = Group(entry.dn, self._reader.group_name(entry))
            new.append(group)
            if len(walk.met) > self._limit:
                raise self._too_many(walk)
        return new

    def _contains_itself(self, walk: _Walk, key: str) -> bool:
        """Whether a group that was met twice is above itself, and not merely reached by two ways."""
        mapping = self._reader.mapping
        if mapping.in_chain or mapping.token_groups:
            return False
        level, seen = [walk.met[key].dn], set[str]()
        while level:
            above = self._groups_with(walk, level)
            if any(entry.dn.lower() == key for entry in above):
                return True
            level = [entry.dn for entry in above if entry.dn.lower() not in seen]
            seen.update(dn.lower() for dn in level)
        return False

    def _too_many(self, walk: _Walk) -> RequestTrouble:
        return RequestTrouble(f"{walk.user.dn} is in more than {self._limit} groups")
