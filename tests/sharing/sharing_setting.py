"""What the tests of this folder stand on: rights that can be given and taken, over any store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.errors import MailError
from mailsrv.interfaces.content import Content
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.interfaces.mailbox import IAccountMailboxes, IMailStore
from mailsrv.interfaces.rights import SharedAccount
from mailsrv.sharing.rights_watch import FindShared, RightsWatch
from mailsrv.sharing.settings import SharingSettings

ALICE, BOB, SUPPORT = (Address(name, "example.test") for name in ("alice", "bob", "support"))


@implementer(IMailStore)
class SharingStore:
    """A store whose accounts come with those that are shared with their users."""

    def __init__(self, store: Any, *, settings: SharingSettings | None = None, clock: Clock | None = None) -> None:
        self.store = store
        self.clock = clock or Clock()
        self.granted: dict[Address, list[SharedAccount]] = {}
        self.has_rules = True
        self.trouble: MailError | None = None
        self.held: list[Deferred[None]] | None = None
        """Where it is a list, answers wait there."""
        self.asked: list[Address] = []
        self.discarded: list[Content] = []
        self.watch = RightsWatch(
            settings or SharingSettings(), store, self._find, self.clock, discard=self.discarded.append
        )

    def _find(self) -> FindShared | None:
        return self._find_shared if self.has_rules else None

    def _find_shared(self, user: DirectoryUser) -> Deferred[Sequence[SharedAccount]]:
        self.asked.append(user.address)
        if self.held is not None:
            waiting: Deferred[None] = Deferred()
            self.held.append(waiting)
            return waiting.addCallback(lambda _: tuple(self.granted.get(user.address, ())))
        if self.trouble is not None:
            return fail(self.trouble)
        return succeed(tuple(self.granted.get(user.address, ())))

    def grant(self, user: Address, account: Address, *, may_write: bool, quota_octets: int | None = None) -> None:
        self.granted.setdefault(user, []).append(SharedAccount(account, may_write, quota_octets))

    def open_account(self, account: Address, quota_octets: int | None = None) -> Deferred[IAccountMailboxes]:
        return self.watch.open(DirectoryUser(account, quota_octets=quota_octets))

    def has_quota(self, account: Address) -> bool:
        return False

    def reserve_quota(self, account: Address, octets: int, limit_octets: int | None) -> Deferred[Callable[[], None]]:
        answer: Deferred[Callable[[], None]] = self.store.reserve_quota(account, octets, limit_octets)
        return answer

    def next_round(self) -> None:
        """The rights are asked for again, twice where one is gone."""
        self.clock.advance(20)
        if any(grants.is_doubted for grants in self.watch._live.values()):
            self.clock.advance(5)
