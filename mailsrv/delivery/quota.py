"""Room set aside for a message in each account it goes to, before it is journaled (never after the 250)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mailsrv.address import Address
from mailsrv.delivery.recipients import Recipient
from mailsrv.directory.resolve import LocalRecipient
from mailsrv.errors import MailError
from mailsrv.interfaces.mailbox import IMailStore


async def check_room(store: IMailStore, target: LocalRecipient, octets: int) -> None:
    """Raise OverQuota where a message of so many octets would not fit now. Nothing stays reserved."""
    (await store.reserve_quota(target.account, octets, target.user.quota_octets))()


class Reservations:
    """The reservations of one message. ``release`` must be called whatever comes of it."""

    def __init__(self, store: IMailStore) -> None:
        self._store = store
        self._held: dict[Address, Callable[[], None]] = {}
        self._refused: dict[Address, MailError] = {}

    async def reserve(self, targets: Iterable[LocalRecipient], octets: int) -> None:
        """Try every account once; what does not fit is remembered, not raised."""
        for target in targets:
            if target.account in self._held or target.account in self._refused:
                continue
            try:
                self._held[target.account] = await self._store.reserve_quota(
                    target.account, octets, target.user.quota_octets
                )
            except MailError as error:
                self._refused[target.account] = error

    def error_for(self, recipient: Recipient) -> MailError | None:
        """Why this recipient cannot have the message.

        A group gets it whole or not at all, so that a second attempt does not double it for some.
        """
        for target in recipient.targets:
            if target.account in self._refused:
                return self._refused[target.account]
        return None

    def release(self) -> None:
        """Give everything back. Safe to call twice."""
        held, self._held = self._held, {}
        for give_back in held.values():
            give_back()
