"""Who may send as whom: under an address of their own, of a list, of somebody else who lets them.

An address is a user's own where mail for it reaches them: the canonical one, subaddresses, aliases. Rules may take that
away from a list's members, and give an address to others: as it, so that nobody sees who wrote, or on its behalf, so
that a Sender field says it. What counts are the rules of the address itself, not of lists it leads to.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed

from mailsrv.address import Address
from mailsrv.coroutines import run_coroutine
from mailsrv.directory.address_rights import AddressRights
from mailsrv.directory.resolution import LocalAccounts, check_is_foreign
from mailsrv.directory.resolve import AddressResolver
from mailsrv.errors import Unavailable
from mailsrv.interfaces.rights import SendRights


class SendAsPolicy:
    """Both questions fail with Unavailable where the answer is not known."""

    def __init__(self, resolver: AddressResolver, rights: AddressRights) -> None:
        self._resolver = resolver
        self._rights = rights

    def may_send_as(self, account: Address, address: Address) -> Deferred[bool]:
        """Whether the account may use the address as reverse-path and in From."""
        known = self._resolver.find_at_hand(address)
        if known is not None and known.accounts[0].account == account:
            return succeed(True)
        if not self._rights.has_rules:
            return self._resolver.may_send_as(account, address)
        return run_coroutine(self._may_send_as(account, address))

    async def _may_send_as(self, account: Address, address: Address) -> bool:
        resolution = await self._resolver.resolve(address)
        check_is_foreign(resolution)
        if not isinstance(resolution, LocalAccounts):
            return False
        reaches = any(recipient.account == account for recipient in resolution.accounts)
        if reaches and not resolution.passed:
            return True
        rights = await self._rights_of(address)
        if rights is None:
            return reaches
        if (rights.members and reaches) or await self._is_among(account, rights):
            return True
        return self._no(address, rights)

    def may_send_on_behalf(self, account: Address, address: Address) -> Deferred[bool]:
        """Whether the account may write From the address where a Sender field names the account."""
        if not self._rights.has_rules:
            return succeed(False)
        return run_coroutine(self._may_send_on_behalf(account, address))

    async def _may_send_on_behalf(self, account: Address, address: Address) -> bool:
        rights = await self._rights_of(address)
        if rights is None or account in rights.on_behalf:
            return rights is not None
        return self._no(address, rights)

    def _no(self, address: Address, rights: SendRights) -> bool:
        """Not, as far as it could be asked."""
        if not rights.is_whole:
            raise Unavailable(cause=f"who may send as {address} cannot be asked now")
        return False

    async def _rights_of(self, address: Address) -> SendRights | None:
        """Those of the address, or without its detail."""
        ours = self._resolver.canonical(address)
        if ours is None:
            return None
        rights = await self._rights.send_rights(ours)
        if rights is None:
            base = self._resolver.without_detail(ours)
            rights = None if base == ours else await self._rights.send_rights(base)
        return rights

    async def _is_among(self, account: Address, rights: SendRights) -> bool:
        if account in rights.named:
            return True
        for each in rights.named_lists:
            if await self._resolver.may_send_as(account, each):
                return True
        return False
