"""Who may send to a list, who may send as whom, and whose mailboxes are shared, as entries say it. Runs in a thread.

Such attributes name users and groups by DN, or addresses (also as ``mailto:``); groups are expanded through all
levels. A value that names nobody gives nobody a right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import frozen

from mailsrv.address import Address
from mailsrv.directory.ldap.connection import LdapConnection, LdapEntry
from mailsrv.directory.ldap.entry import EntryReader
from mailsrv.directory.ldap.filters import Filter, all_of, any_of, equal
from mailsrv.directory.ldap.groups import EntriesByDn, GroupReader, batches
from mailsrv.directory.ldap.memberships import Memberships
from mailsrv.directory.ldap.search import Search
from mailsrv.directory.ldap.standing import matches
from mailsrv.directory.ldap.trouble import RequestTrouble
from mailsrv.directory.names import parse_account_name
from mailsrv.interfaces.rights import MailboxRight, Posters, PostingRule, SendRights, SharedMailbox

NAMES_LIMIT = 1000
"""Values of attributes of one meaning; and shared mailboxes of one user that are looked at."""
_DN = re.compile(r"\s*(?:[A-Za-z][A-Za-z0-9-]*|[0-9.]+)\s*=")

# Beside our own words: Netscape's mgrpBroadcasterPolicy has none for this; iRedMail's accessPolicy.
_WORDS = {
    "public": Posters.ANYBODY,
    "authenticated": Posters.USERS,
    "membersonly": Posters.MEMBERS,
    "membersandmoderatorsonly": Posters.MEMBERS,
    "moderatorsonly": Posters.NAMED,
    "allowedonly": Posters.NAMED,
    **{word.value: word for word in Posters},
}


@frozen
class EntryRights:
    """What an entry says about others."""

    dn: str
    is_list: bool
    posting: PostingRule | None
    sending: SendRights


@frozen
class _Named:
    """Those an attribute names: users, and addresses that may stand for several."""

    users: frozenset[Address] = frozenset()
    others: tuple[Address, ...] = ()

    @property
    def everybody(self) -> frozenset[Address]:
        """All of them."""
        return self.users | frozenset(self.others)


class RightsReader:
    """Reads rights by the mapping."""

    def __init__(self, reader: EntryReader, groups: GroupReader, *, base: str, default_domain: str) -> None:
        self._reader = reader
        self._groups = groups
        self._base = base
        self._by_dn = EntriesByDn(reader.mapping, base)
        self._default_domain = default_domain
        mapping = reader.mapping
        names = ("objectClass", *mapping.address, *mapping.alias, *mapping.login, *mapping.right_attributes())
        self.wanted = tuple(dict.fromkeys(names))

    def of(self, connection: LdapConnection, entry: LdapEntry, deadline: float) -> EntryRights:
        """The rights that stand in an entry, which has been read with ``wanted``."""
        mapping, is_list = self._reader.mapping, self._reader.is_group(entry)

        def named(attributes: Sequence[str]) -> _Named:
            return self._named(connection, entry, attributes, deadline)

        senders = named(mapping.send_as)
        sending = SendRights(
            members=mapping.members_send_as or not is_list,
            named=senders.everybody,
            named_lists=senders.others,
            on_behalf=named(mapping.send_on_behalf).everybody,
        )
        posting = None
        if is_list:
            posting = self._posting(
                entry, named(mapping.poster), named(mapping.moderator), named(mapping.refused_poster)
            )
        return EntryRights(entry.dn, is_list, posting, sending)

    def _posting(self, entry: LdapEntry, posters: _Named, moderators: _Named, refused: _Named) -> PostingRule:
        mapping = self._reader.mapping
        word = entry.first(mapping.posting_rule).strip().lower() if mapping.posting_rule else ""
        if matches(entry, mapping.moderated):
            return PostingRule(
                Posters.NAMED, moderators.everybody, moderators.others, refused.everybody, is_moderated=True
            )
        if word:
            # A word that nobody knows here was meant to keep somebody out.
            who = _WORDS.get(word, Posters.NOBODY)
            posters = _Named(posters.users | moderators.users, (*posters.others, *moderators.others))
        elif any(entry.texts(name) for name in mapping.poster):
            # Also where all who are named are gone.
            who = Posters.NAMED
        elif matches(entry, mapping.posting_login):
            who = Posters.USERS
        else:
            who = mapping.posting
        return PostingRule(who, posters.everybody, posters.others, refused.everybody, is_moderated="moderator" in word)

    def _named(
        self, connection: LdapConnection, entry: LdapEntry, attributes: Sequence[str], deadline: float
    ) -> _Named:
        values = [text for name in attributes for text in entry.texts(name)]
        if len(values) > NAMES_LIMIT:
            # A part of those who may not post would let in the others.
            raise RequestTrouble(f"{entry.dn}: more than {NAMES_LIMIT} are named in {', '.join(attributes)}")
        dns = [text for text in values if _DN.match(text)]
        plain: dict[Address, None] = {}
        for text in values:
            if not _DN.match(text):
                try:
                    plain[parse_account_name(text.removeprefix("mailto:"), self._default_domain)] = None
                except ValueError:
                    continue
        users: set[Address] = set()
        for one in self._by_dn.read(connection, dns, self._reader.mapping.wanted(), deadline):
            if self._reader.is_group(one):
                users.update(self._groups.expand(connection, one, deadline).addresses)
            else:
                users.update(self._reader.addresses(one)[:1])
        return _Named(frozenset(users), tuple(plain))

    # Mailboxes of others

    def shared_with(
        self, connection: LdapConnection, dn: str, addresses: Sequence[Address], groups: Memberships, deadline: float
    ) -> tuple[SharedMailbox, ...]:
        """The mailboxes that the user of an entry may open, or send as, themselves or by one of their groups."""
        mapping = self._reader.mapping
        ways = (
            (mapping.shared_read, frozenset({MailboxRight.READ})),
            (mapping.shared_write, frozenset({MailboxRight.READ, MailboxRight.WRITE})),
            (mapping.send_as, frozenset({MailboxRight.POST})),
        )
        attributes = tuple(dict.fromkeys(name for names, _ in ways for name in names))
        if not attributes:
            return ()
        values = [dn, *(group.dn for group in groups.groups), *map(str, addresses)]
        known = {value.lower() for value in values}
        found: dict[str, LdapEntry] = {}
        for batch in batches(values):
            tests = any_of(equal(name, value) for name in attributes for value in batch)
            what = self._mailboxes(tests)
            for entry in connection.search(Search(self._base, what, self.wanted, limit=NAMES_LIMIT), deadline):
                found.setdefault(entry.dn.lower(), entry)
        shared: dict[Address, frozenset[MailboxRight]] = {}
        for entry in found.values():
            own = self._reader.addresses(entry)
            if not own or own[0] in addresses:
                continue
            rights: frozenset[MailboxRight] = frozenset()
            for names, given in ways:
                if any(text.lower() in known for name in names for text in entry.texts(name)):
                    rights |= given
            if rights:
                shared[own[0]] = shared.get(own[0], frozenset()) | rights
        return tuple(SharedMailbox(address, shared[address]) for address in sorted(shared, key=str))

    def _mailboxes(self, tests: Filter) -> Filter:
        groups = self._reader.groups()
        kinds = self._reader.users() if groups is None else any_of([self._reader.users(), groups])
        return all_of([kinds, tests])
