"""Groups and rights of entries, asked for when somebody wants to know and kept as long as answers about addresses are.

The coroutines raise LdapTrouble. Rules on lists may be old in an outage, as who is in a list may be; groups and who
may send as whom may not: they are for people who are here now.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from mailsrv.address import Address
from mailsrv.directory.ldap.client import LdapClient
from mailsrv.directory.ldap.connection import LdapConnection
from mailsrv.directory.ldap.groups import read_entry
from mailsrv.directory.ldap.kept import KeepingTimes, Kept
from mailsrv.directory.ldap.memberships import MembershipReader, Memberships
from mailsrv.directory.ldap.rights import EntryRights, RightsReader
from mailsrv.directory.ldap.trouble import LdapTrouble
from mailsrv.interfaces.rights import SharedMailbox

_LOOPS_REMEMBERED = 1000


class RightsQuestions:
    """``seconds``: how long one of them may take, ``many_seconds``: one that may read large groups, and
    ``many_patience`` each answer for it.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        client: LdapClient,
        memberships: MembershipReader,
        rights: RightsReader,
        times: KeepingTimes,
        *,
        seconds: float,
        many_seconds: float,
        many_patience: float = 0.0,
    ) -> None:
        self._name = name
        self._client = client
        self._memberships = memberships
        self._rights = rights
        self._seconds = seconds
        self._many_seconds = many_seconds
        self._many_patience = many_patience
        self._groups: Kept[str, Memberships] = Kept(times)
        self._entry_rights: Kept[str, EntryRights] = Kept(times)
        self._told_loops: set[str] = set()

    async def groups_of(self, dn: str) -> Memberships:
        """The groups of an entry."""
        known = self._groups.fresh(dn)
        return known if known is not None else await self._ask_groups(dn)

    async def _ask_groups(self, dn: str) -> Memberships:
        found = await self._client.with_connection(
            lambda connection, deadline: self._memberships.of(connection, dn, deadline), seconds=self._seconds
        )
        for loop in found.loops:
            self._tell_loop(loop)
        if not found.is_gone:
            self._groups.add(dn, found)
        return found

    def _tell_loop(self, dn: str) -> None:
        if dn not in self._told_loops and len(self._told_loops) < _LOOPS_REMEMBERED:
            self._told_loops.add(dn)
            self._log.warn("{directory}: group {dn} contains itself", directory=self._name, dn=dn)

    async def rights_of(self, dn: str, *, may_be_old: bool) -> EntryRights | None:
        """What an entry says about others; None where it is gone."""
        known = self._entry_rights.fresh(dn)
        if known is not None:
            return known
        try:
            found = await self._client.with_connection(
                lambda connection, deadline: self._read(connection, dn, deadline),
                seconds=self._many_seconds,
                patience=self._many_patience,
            )
        except LdapTrouble:
            old = self._entry_rights.stale(dn) if may_be_old else None
            if old is None:
                raise
            return old
        if found is not None:
            self._entry_rights.add(dn, found)
        return found

    def _read(self, connection: LdapConnection, dn: str, deadline: float) -> EntryRights | None:
        entry = read_entry(connection, dn, self._rights.wanted, deadline)
        return None if entry is None else self._rights.of(connection, entry, deadline)

    async def shared_with(self, dn: str, addresses: Sequence[Address]) -> tuple[SharedMailbox, ...]:
        """The mailboxes of others that the user of this entry, with these addresses, may open.

        Past what is remembered of their groups: who is asked about has sessions whose rights may have ended.
        """
        groups = await self._ask_groups(dn)
        return await self._client.with_connection(
            lambda connection, deadline: self._rights.shared_with(connection, dn, addresses, groups, deadline),
            seconds=self._seconds,
        )

    def forget(self) -> None:
        """The directory has changed."""
        self._groups.age_all()
        self._entry_rights.age_all()
