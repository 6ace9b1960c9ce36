"""All accounts, in memory, and room set aside in them."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.interfaces.changes import IChangeBus
from mailsrv.interfaces.mailbox import IAccountMailboxes, IMailStore
from mailsrv.store.bus import LocalChangeBus
from mailsrv.store.memory.account import MemoryAccount
from mailsrv.store.settings import StoreSettings


@define
class _Reservation:
    account: MemoryAccount
    octets: int = field(default=0)

    def give_back(self) -> None:
        self.account.reserved_octets -= self.octets
        self.octets = 0


@implementer(IMailStore)
class MemoryMailStore:
    """All accounts, each made when first asked for."""

    def __init__(self, settings: StoreSettings | None = None, bus: IChangeBus | None = None) -> None:
        self.settings = settings if settings is not None else StoreSettings()
        self._bus = bus if bus is not None else LocalChangeBus()
        self._accounts: dict[Address, MemoryAccount] = {}

    def account(self, account: Address) -> MemoryAccount:
        """The account, at once."""
        found = self._accounts.get(account)
        if found is None:
            found = self._accounts[account] = MemoryAccount(account, self.settings, self._bus)
        return found

    def open_account(self, account: Address, quota_octets: int | None = None) -> Deferred[IAccountMailboxes]:
        found = self.account(account)
        if quota_octets is not None:
            found.quota_octets = quota_octets
        return succeed(found)

    def has_quota(self, account: Address) -> bool:
        return self.account(account).quota_octets is not None or self.settings.quota_messages is not None

    def reserve_quota(self, account: Address, octets: int, limit_octets: int | None) -> Deferred[Callable[[], None]]:
        def reserve() -> Callable[[], None]:
            found = self.account(account)
            if limit_octets is not None:
                found.quota_octets = limit_octets
            found.check_quota(octets, 1)
            found.reserved_octets += octets
            return _Reservation(found, octets).give_back

        return maybeDeferred(reserve)

    def start(self) -> Deferred[None]:
        """Nothing to begin."""
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Nothing to end."""
        return succeed(None)
