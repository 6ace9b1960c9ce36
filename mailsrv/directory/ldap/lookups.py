"""What an address or a log-in name is, asked of the servers.

An answer often tells of others, too: who is in a list came with it. Those are remembered as members: nobody has asked
whether another entry has the same address, so mail for the list goes by it, and nothing else does.

Coroutines raise LdapTrouble, and :class:`Ambiguous` where an address is the name of several entries. A directory that
shows no user at all (its tree is being filled anew, the service account has lost its rights) does not say that somebody
is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import sleep

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailsrv.address import Address
from mailsrv.directory.ldap.answers import NOBODY, Answer, AnswerCache
from mailsrv.directory.ldap.client import LdapClient
from mailsrv.directory.ldap.connection import LdapConnection, LdapEntry
from mailsrv.directory.ldap.entry import EntryReader, LdapUser
from mailsrv.directory.ldap.filters import Filter
from mailsrv.directory.ldap.groups import GroupReader
from mailsrv.directory.ldap.mapping import AliasEntry
from mailsrv.directory.ldap.search import Search
from mailsrv.directory.ldap.trouble import NoSuchEntry, RequestTrouble
from mailsrv.errors import Unavailable
from mailsrv.interfaces.directory import DirectoryUser

LIST_LIMIT = 100_000
MANY_SECONDS = 30.0
"""What has thousands of entries (a large group, the list of all users) may take longer than one question."""
MANY_PATIENCE_SECONDS = 10.0
"""How long each answer of such a kind may take."""
SOMEBODY_SECONDS = 1.0
"""For so long a directory that has shown a user is not asked again whether it has any."""
_KEPT_IN_ONE_GO = 128
_IN_ONE_GO, _PAUSE_SECONDS = 16, 0.0001
_ENTRIES_OF_A_NAME = 5
"""More than one is a mistake already; a few are read to tell which."""


class Ambiguous(Unavailable):
    """The name of several entries. That is no outage: what was known before may be of either."""


class LookUps:
    """``seconds``: how long one question may take."""

    _log = Logger()

    def __init__(
        self,
        name: str,
        client: LdapClient,
        reader: EntryReader,
        groups: GroupReader,
        cache: AnswerCache,
        *,
        base: str,
        seconds: float,
        clock: Callable[[], float],
        take_turns: Callable[[], Deferred[None]] | None = None,
    ) -> None:
        """``take_turns`` lets others have the reactor for a moment: a list may have thousands of members."""
        self._name = name
        self._client = client
        self._reader = reader
        self._groups = groups
        self._cache = cache
        self._base = base
        self._seconds = seconds
        self._clock = clock
        self._take_turns = take_turns
        self._somebody_until: float | None = None

    async def login(self, address: Address) -> LdapUser | None:
        """Who logs in by this name."""
        found = await self._search(self._reader.by_login(address))
        mine = [entry for entry in found if self._reader.has_login(entry, address)]
        users = [user for entry in mine if (user := self._reader.user(entry)) is not None]
        self._check_alone(address, found, len(users))
        if users:
            return users[0]
        await self.check_somebody_is_there()
        return None

    async def address(self, address: Address) -> Answer:
        """What a canonical address is."""
        found = await self._search(self._reader.by_address(address))
        entries = [entry for entry in found if address in self._reader.addresses(entry)]
        self._check_alone(address, found, len(entries))
        answer = await self._read(entries[0], address) if entries else NOBODY
        if not answer.is_known:
            await self.check_somebody_is_there()
        return answer

    async def _read(self, entry: LdapEntry, address: Address) -> Answer:
        form = self._reader.alias_form(entry)
        if form is not None:
            return await self._of_alias_entry(entry, form)
        if self._reader.is_group(entry):
            return await self._expand(entry)
        user = self._reader.user(entry)
        if user is None:
            return NOBODY
        if user.forward_dns:
            user = evolve(user, forwards=(*user.forwards, *await self._addresses_of(user.forward_dns)))
        return self._of_user(user, address)

    async def _of_alias_entry(self, entry: LdapEntry, form: AliasEntry) -> Answer:
        targets = self._reader.targets(entry, form)
        dns = tuple(dn for name in form.target_dn for dn in entry.texts(name) if dn)
        if dns:
            targets = (*targets, *await self._addresses_of(dns))
        if not targets:
            self._log.warn("{directory}: alias {dn} stands for nobody", directory=self._name, dn=entry.dn)
        return Answer(dn=entry.dn, targets=tuple(dict.fromkeys(targets)))

    async def _addresses_of(self, dns: Sequence[str]) -> tuple[Address, ...]:
        return await self._client.with_connection(
            lambda connection, deadline: self._groups.addresses_of(connection, dns, deadline), seconds=self._seconds
        )

    async def _expand(self, group: LdapEntry) -> Answer:
        members = await self._client.with_connection(
            lambda connection, deadline: self._groups.expand(connection, group, deadline),
            seconds=max(self._seconds, MANY_SECONDS),
            patience=MANY_PATIENCE_SECONDS,
        )
        for dn in members.loops:
            self._log.warn("{directory}: group {dn} contains itself", directory=self._name, dn=dn)
        for number, member in enumerate(members.users, 1):
            if self._take_turns is not None and number % _KEPT_IN_ONE_GO == 0:
                await self._take_turns()
            self._keep(member, is_alone=False)
        return Answer(dn=group.dn, targets=members.addresses, is_list=True)

    def _of_user(self, user: LdapUser, address: Address) -> Answer:
        if address != user.user.address:
            return Answer(dn=user.dn, targets=(user.user.address,))
        if not user.forwards:
            return Answer(user.user, user.dn)
        kept = (user.user.address,) if user.keeps_copy else ()
        return Answer(user.user, user.dn, (*kept, *user.forwards))

    def keep(self, user: LdapUser) -> None:
        """Remember what a search for something else found of a user whose address is nobody else's."""
        self._keep(user, is_alone=True)

    def _keep(self, user: LdapUser, *, is_alone: bool) -> None:
        # Where it goes on to other entries, it is asked about apart.
        if not user.forward_dns:
            answer = self._of_user(user, user.user.address)
            self._cache.add(user.user.address, answer if is_alone else evolve(answer, is_member=True))

    def read_all(self, connection: LdapConnection, deadline: float) -> Sequence[DirectoryUser]:
        """All users. In a thread: there may be many."""
        reader = self._reader
        search = Search(self._base, reader.users(), reader.mapping.wanted(), limit=LIST_LIMIT)
        entries = connection.search(search, deadline)
        users = {found.user.address: found.user for entry in entries if (found := reader.user(entry)) is not None}
        return tuple(users[address] for address in sorted(users, key=str))

    def read_these(
        self, addresses: Sequence[Address], connection: LdapConnection, deadline: float
    ) -> Mapping[Address, Sequence[LdapUser]]:
        """Users by canonical address. In a thread: a hundred entries are too much for the reactor's at once."""
        users: dict[Address, list[LdapUser]] = {}
        what, limit = self._reader.by_addresses(addresses), _ENTRIES_OF_A_NAME * len(addresses)
        entries = connection.search(Search(self._base, what, self._reader.mapping.wanted(), limit=limit), deadline)
        for number, entry in enumerate(entries):
            user = self._reader.user(entry)
            if user is not None:
                users.setdefault(user.user.address, []).append(user)
            if number % _IN_ONE_GO == 0:
                # Else this thread keeps the interpreter for a switch interval each time the reactor wants it.
                sleep(_PAUSE_SECONDS)
        return users

    async def check_somebody_is_there(self) -> None:
        """Raise LdapTrouble where the directory shows no user at all."""
        if self._somebody_until is not None and self._clock() < self._somebody_until:
            return
        if not await self._client.with_connection(self._find_somebody, seconds=self._seconds):
            raise RequestTrouble("it shows no users at all: is it empty, or has the service account lost its rights?")
        self._somebody_until = self._clock() + SOMEBODY_SECONDS

    def _find_somebody(self, connection: LdapConnection, deadline: float) -> Sequence[LdapEntry]:
        """In a thread: any user."""
        search = Search(self._base, self._reader.users(), ("1.1",), limit=1)
        try:
            return connection.search(evolve(search, is_paged=True), deadline)
        except NoSuchEntry:
            raise
        except RequestTrouble:
            # Not every server knows pages.
            return connection.search(search, deadline)

    async def _search(self, what: Filter) -> Sequence[LdapEntry]:
        return await self._client.search(
            Search(self._base, what, self._reader.mapping.wanted(), limit=_ENTRIES_OF_A_NAME), seconds=self._seconds
        )

    def _check_alone(self, address: Address, found: Sequence[LdapEntry], matching: int) -> None:
        # Of many that are only spelled alike to the server some may be cut off: the right one, or its double.
        if matching > 1 or len(found) >= _ENTRIES_OF_A_NAME:
            raise self.ambiguous(address, [entry.dn for entry in found])

    def ambiguous(self, address: Address, dns: Sequence[str]) -> Ambiguous:
        """What to raise for an address of several entries; the log says which."""
        self._log.error(
            "{directory}: {address} is the name of several entries: {dns}",
            directory=self._name,
            address=address,
            dns=dns,
        )
        return Ambiguous(cause=f"{self._name}: {address} is the name of several entries")
