"""The members of a group as addresses: through nested groups, each once, however they are entangled.

Members are fetched many at a time: thousands of them must not be thousands of questions. Runs in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from attrs import define, field, frozen

from mailsrv.address import Address
from mailsrv.directory.ldap.connection import LdapConnection, LdapEntry
from mailsrv.directory.ldap.entry import EntryReader, LdapUser, relative_identifier
from mailsrv.directory.ldap.filters import Filter, all_of, any_of, equal
from mailsrv.directory.ldap.mapping import LdapMapping
from mailsrv.directory.ldap.search import Search, entry_at
from mailsrv.directory.ldap.trouble import NoSuchEntry, RequestTrouble
from mailsrv.directory.names import parse_account_name

GROUP_DEPTH = 20
_AT_A_TIME = 100


@frozen
class EntriesByDn:
    """Reads entries by their names, many at a time where the server compares names. Names of none are left out."""

    mapping: LdapMapping
    base: str

    def read(
        self,
        connection: LdapConnection,
        dns: Sequence[str],
        wanted: Sequence[str],
        deadline: float,
        *,
        among: Filter | None = None,
    ) -> Iterator[LdapEntry]:
        """In no order; ``among``: only those it matches."""
        attribute = self.mapping.dn_attribute
        if not attribute:
            for dn in dns:
                entry = read_entry(connection, dn, wanted, deadline, among)
                if entry is not None:
                    yield entry
            return
        for batch in batches(dns):
            what = any_of(equal(attribute, dn) for dn in batch)
            if among is not None:
                what = all_of([what, among])
            yield from connection.search(Search(self.base, what, wanted, limit=len(batch)), deadline)


@frozen
class Members:
    """Who is in a group."""

    addresses: tuple[Address, ...]
    users: tuple[LdapUser, ...] = ()
    """Those of them that were read anyway."""
    loops: tuple[str, ...] = ()
    """DNs of groups that contain themselves."""


@define(eq=False)
class _Walk:
    addresses: dict[Address, None] = field(factory=dict)
    users: dict[str, LdapUser] = field(factory=dict)
    met: set[str] = field(factory=set)
    loops: dict[str, None] = field(factory=dict)


class GroupReader:
    """Expands groups. More than ``limit`` members are a RequestTrouble: half a list is worse than one that waits."""

    def __init__(self, reader: EntryReader, *, base: str, limit: int, default_domain: str) -> None:
        self._reader = reader
        self._base = base
        self._by_dn = EntriesByDn(reader.mapping, base)
        self._limit = limit
        self._default_domain = default_domain

    def expand(self, connection: LdapConnection, group: LdapEntry, deadline: float) -> Members:
        """All members of all levels."""
        walk = _Walk()
        mapping = self._reader.mapping
        if mapping.in_chain and mapping.member_of:
            self._ask_for_members(connection, group, deadline, walk)
            self._add_plain(group, walk)
        else:
            self._walk(connection, group, deadline, walk, ())
        return Members(tuple(walk.addresses), tuple(walk.users.values()), tuple(walk.loops))

    def addresses_of(self, connection: LdapConnection, dns: Sequence[str], deadline: float) -> tuple[Address, ...]:
        """The canonical addresses of users and groups; of a group without one, those of its members."""
        found: dict[Address, None] = {}
        for entry in self._by_dn.read(connection, dns, self._reader.mapping.wanted(), deadline):
            own = self._reader.addresses(entry)[:1]
            if not own and self._reader.is_group(entry):
                own = self.expand(connection, entry, deadline).addresses
            found.update(dict.fromkeys(own))
        return tuple(found)

    def _ask_for_members(self, connection: LdapConnection, group: LdapEntry, deadline: float, walk: _Walk) -> None:
        sids = group.values.get("objectsid", ())
        primary = relative_identifier(sids[0]) if sids and self._reader.mapping.primary_group else ""
        what = self._reader.member_test(group.dn, primary)
        search = Search(self._base, what, self._reader.mapping.wanted(), limit=self._limit + 1)
        for entry in connection.search(search, deadline):
            self._add_user(entry, group, walk)

    def _walk(
        self, connection: LdapConnection, group: LdapEntry, deadline: float, walk: _Walk, path: tuple[str, ...]
    ) -> None:
        key = group.dn.lower()
        if key in path:
            walk.loops[group.dn] = None
            return
        if key in walk.met:
            return
        walk.met.add(key)
        if len(path) >= GROUP_DEPTH:
            raise RequestTrouble(f"group {path[0]}: more than {GROUP_DEPTH} levels")
        self._add_plain(group, walk)
        mapping = self._reader.mapping
        dns = [dn for name in mapping.member_dn for dn in group.texts(name) if dn]
        names = [one for name in mapping.member_name for one in group.texts(name) if one]
        if len(dns) + len(names) > self._limit:
            raise self._too_many(group)
        by_dn = self._by_dn.read(connection, dns, mapping.wanted(), deadline, among=self._reader.no_excluded_users())
        for entry in (*by_dn, *self._by_name(connection, names, deadline)):
            if self._reader.is_group(entry):
                self._walk(connection, entry, deadline, walk, (*path, key))
            else:
                self._add_user(entry, group, walk)

    def _by_name(self, connection: LdapConnection, names: Sequence[str], deadline: float) -> Iterable[LdapEntry]:
        mapping = self._reader.mapping
        for batch in batches(names):
            what = any_of(equal(mapping.member_name_of, name) for name in batch)
            known = {name.lower() for name in batch}
            among = all_of([self._reader.users(), what])
            search = Search(self._base, among, mapping.wanted(), limit=2 * len(batch))
            for entry in connection.search(search, deadline):
                if any(text.lower() in known for text in entry.texts(mapping.member_name_of)):
                    yield entry

    def _add_user(self, entry: LdapEntry, group: LdapEntry, walk: _Walk) -> None:
        user = self._reader.user(entry)
        if user is None:
            return
        if self._reader.has_user_class(entry):
            # Others are addresses and nothing more: whether they are anybody is to be asked.
            walk.users[entry.dn.lower()] = user
        self._add([user.user.address], group, walk)

    def _add_plain(self, group: LdapEntry, walk: _Walk) -> None:
        for name in self._reader.mapping.member_address:
            for text in group.texts(name):
                try:
                    self._add([parse_account_name(text, self._default_domain)], group, walk)
                except ValueError:
                    continue

    def _add(self, addresses: Iterable[Address], group: LdapEntry, walk: _Walk) -> None:
        walk.addresses.update(dict.fromkeys(addresses))
        if len(walk.addresses) > self._limit:
            raise self._too_many(group)

    def _too_many(self, group: LdapEntry) -> RequestTrouble:
        return RequestTrouble(f"group {group.dn} has more than {self._limit} members")


def read_entry(
    connection: LdapConnection, dn: str, wanted: Sequence[str], deadline: float, among: Filter | None = None
) -> LdapEntry | None:
    """One entry by its name; None where it is gone, or ``among`` does not match it."""
    try:
        found = connection.search(entry_at(dn, wanted, among), deadline)
    except NoSuchEntry:
        return None
    return found[0] if found else None


def batches(items: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many as one question may name."""
    for start in range(0, len(items), _AT_A_TIME):
        yield items[start : start + _AT_A_TIME]
