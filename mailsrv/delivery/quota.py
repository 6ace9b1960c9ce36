"""Room set aside for a message in each account it goes to, before it is journaled (never after the 250)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IReactorTime

from mailsrv.address import Address
from mailsrv.coroutines import next_turn
from mailsrv.directory.resolution import LocalRecipient
from mailsrv.errors import MailError
from mailsrv.interfaces.mailbox import IMailStore

TARGETS_IN_ONE_GO = 256
"""After so many of a long list, others have their turn."""


async def check_room(store: IMailStore, target: LocalRecipient, octets: int) -> None:
    """Raise OverQuota where a message of so many octets would not fit now. Nothing stays reserved."""
    (await store.reserve_quota(target.account, octets, target.user.quota_octets))()


class Reservations:
    """The reservations of one message. ``release`` must be called whatever comes of it."""

    def __init__(self, store: IMailStore, clock: IReactorTime) -> None:
        self._store = store
        self._clock = clock
        self._held: list[Callable[[], None]] = []
        self.refused: dict[Address, MailError] = {}
        """Accounts that cannot have the message, with the reason."""

    async def reserve(self, targets: Iterable[LocalRecipient], octets: int) -> None:
        """Try every target (each account once); what does not fit is remembered, not raised."""
        for number, target in enumerate(targets, 1):
            if number % TARGETS_IN_ONE_GO == 0:
                await next_turn(self._clock)
            try:
                self._held.append(await self._store.reserve_quota(target.account, octets, target.user.quota_octets))
            except MailError as error:
                self.refused[target.account] = error

    def error_for(self, targets: Iterable[LocalRecipient]) -> MailError | None:
        """Why a recipient that stands for these cannot have the message.

        A group gets it whole or not at all, so that a second attempt does not double it for some.
        """
        for target in targets:
            if target.account in self.refused:
                return self.refused[target.account]
        return None

    def release(self) -> None:
        """Give everything back, a long list not all at once. Safe to call twice."""
        held, self._held = self._held, []
        self._give_back(held)

    def _give_back(self, held: list[Callable[[], None]]) -> None:
        for give_back in held[:TARGETS_IN_ONE_GO]:
            give_back()
        if rest := held[TARGETS_IN_ONE_GO:]:
            self._clock.callLater(0, self._give_back, rest)
