"""The part of a directory over LDAP that tells groups and rights.

:class:`~mailsrv.directory.ldap.directory.LdapDirectory` is the rest, and knows which entry has which address.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Collection, Sequence
from typing import TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.coroutines import run_coroutine
from mailsrv.directory.ldap.answers import Answer
from mailsrv.directory.ldap.mapping import LdapMapping
from mailsrv.directory.ldap.memberships import Memberships
from mailsrv.directory.ldap.rights_questions import RightsQuestions
from mailsrv.directory.names import canonical_address
from mailsrv.errors import Unavailable
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.interfaces.rights import IRightsDirectory, PostingRule, SendRights, SharedMailbox

T = TypeVar("T")


@implementer(IRightsDirectory)
class RightsInLdap(ABC):
    """See :class:`~mailsrv.interfaces.rights.IRightsDirectory`."""

    def __init__(
        self,
        rights: RightsQuestions,
        mapping: LdapMapping,
        administrator_groups: Collection[str],
        *,
        tells_groups: bool,
    ) -> None:
        self.has_rights = mapping.has_rights
        self.has_shared_mailboxes = bool(mapping.shared_read or mapping.shared_write)
        self._members_send_as = mapping.members_send_as
        self.administrator_groups = tuple(administrator_groups)
        self._rights = rights
        self._administrator_groups = frozenset(name.strip().casefold() for name in administrator_groups)
        self._tells_groups = tells_groups or bool(self._administrator_groups)

    @abstractmethod
    async def _answer(self, address: Address, *, may_be_old: bool) -> Answer:
        """What a canonical address is."""

    @abstractmethod
    async def _ask(self, question: Awaitable[T]) -> T:
        """The answer; any trouble with the directory is Unavailable."""

    @abstractmethod
    def _drop(self, address: Address) -> None:
        """What is remembered of the address is not so any more."""

    def _moved(self, address: Address) -> Unavailable:
        """What to raise where an entry is gone that had this address a moment ago: its rules are not known."""
        self._drop(address)
        return Unavailable(cause=f"the entry of {address} was moved or removed")

    async def _with_groups(self, user: DirectoryUser, dn: str) -> DirectoryUser | None:
        """With what rules on log-ins ask for, where there are such rules.

        None where the entry is not there any more: without its groups the user would pass by the rules on them.
        """
        if not self._tells_groups:
            return user
        memberships = await self._ask(self._rights.groups_of(dn))
        if memberships.is_gone:
            return None
        names = memberships.names
        is_administrator = not self._administrator_groups.isdisjoint(name.strip().casefold() for name in names)
        return evolve(user, groups=names, is_administrator=is_administrator)

    def find_groups(self, user: DirectoryUser) -> Deferred[tuple[str, ...]]:
        return run_coroutine(self._find_groups(user))

    async def _find_groups(self, user: DirectoryUser) -> tuple[str, ...]:
        return (await self._memberships(user)).names

    async def _memberships(self, user: DirectoryUser) -> Memberships:
        answer = await self._answer(user.address, may_be_old=False)
        if answer.user is None:
            return Memberships()
        memberships = await self._ask(self._rights.groups_of(answer.dn))
        if memberships.is_gone:
            raise self._moved(user.address)
        return memberships

    def find_posting_rule(self, address: Address) -> Deferred[PostingRule | None]:
        return run_coroutine(self._find_posting_rule(canonical_address(address)))

    async def _find_posting_rule(self, address: Address) -> PostingRule | None:
        answer = await self._answer(address, may_be_old=True)
        if not answer.is_list:
            return None
        rights = await self._ask(self._rights.rights_of(answer.dn, may_be_old=True))
        if rights is None:
            raise self._moved(address)
        return rights.posting

    def find_send_rights(self, address: Address) -> Deferred[SendRights | None]:
        return run_coroutine(self._find_send_rights(canonical_address(address)))

    async def _find_send_rights(self, address: Address) -> SendRights | None:
        answer = await self._answer(address, may_be_old=True)
        if not answer.is_known:
            return None
        try:
            rights = await self._ask(self._rights.rights_of(answer.dn, may_be_old=False))
        except Unavailable:
            # Aliases are their users' own, whoever else may send as them.
            return SendRights(members=self._members_send_as or not answer.is_list, is_whole=False)
        if rights is None:
            raise self._moved(address)
        return rights.sending

    def find_shared_mailboxes(self, user: DirectoryUser) -> Deferred[Sequence[SharedMailbox]]:
        return run_coroutine(self._find_shared_mailboxes(user))

    async def _find_shared_mailboxes(self, user: DirectoryUser) -> Sequence[SharedMailbox]:
        answer = await self._answer(user.address, may_be_old=False)
        if answer.user is None:
            # Nothing is known of the rights of who was there a moment ago: the tree may be filled anew.
            raise self._moved(user.address)
        return await self._ask(self._rights.shared_with(answer.dn, (user.address,)))
