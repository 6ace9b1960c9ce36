"""An open mailbox as a user with rights to others' sees it (IMailbox).

:class:`OwnMailbox` only sees to it that copies find mailboxes of others. :class:`SharedMailbox` is the one place
where a right decides what may be done with somebody else's.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.interfaces.content import IContent
from mailsrv.interfaces.mailbox import (
    CopiedMessages,
    FlagOperation,
    FlagSet,
    FlagsStored,
    IMailbox,
    InternalDates,
    MessageSummary,
    NoSuchSharedMailbox,
    NotPermitted,
    Uid,
)
from mailsrv.sharing.grants import Grants
from mailsrv.sharing.names import full_name


class Copier(Protocol):
    """Knows all accounts a copy may go to."""

    def copy(
        self, source: OwnMailbox, uids: Sequence[Uid], destination: str, *, is_move: bool
    ) -> Deferred[CopiedMessages]: ...


@implementer(IMailbox)
class OwnMailbox:
    """``inner`` is the store's, shared by all sessions; this is one session's."""

    def __init__(self, inner: IMailbox, copier: Copier) -> None:
        self.inner = inner
        self._copier = copier

    # What it is

    @property
    def account(self) -> Address:
        return self.inner.account

    @property
    def may_write(self) -> bool:
        return self.inner.may_write

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def mailbox_id(self) -> int:
        return self.inner.mailbox_id

    @property
    def uid_validity(self) -> int:
        return self.inner.uid_validity

    @property
    def uid_next(self) -> int:
        return self.inner.uid_next

    @property
    def highest_mod_seq(self) -> int:
        return self.inner.highest_mod_seq

    @property
    def uids(self) -> array[int]:
        return self.inner.uids

    @property
    def flag_set_numbers(self) -> array[int]:
        return self.inner.flag_set_numbers

    @property
    def mod_seqs(self) -> array[int]:
        return self.inner.mod_seqs

    @property
    def is_gone(self) -> bool:
        return self.inner.is_gone

    def flag_set(self, number: int) -> FlagSet:
        return self.inner.flag_set(number)

    def keywords(self) -> FlagSet:
        return self.inner.keywords()

    def changed_since(self, mod_seq: int) -> Sequence[Uid]:
        return self.inner.changed_since(mod_seq)

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        return self.inner.watch(watcher)

    def refresh(self) -> Deferred[None]:
        return self.inner.refresh()

    # Changing

    def claim_recent(self) -> Deferred[Uid]:
        return self.inner.claim_recent()

    def store_flags(
        self,
        uids: Sequence[Uid],
        operation: FlagOperation,
        flags: FlagSet,
        unchanged_since: int | None = None,
    ) -> Deferred[FlagsStored]:
        return self.inner.store_flags(uids, operation, flags, unchanged_since)

    def expunge(self, uids: Sequence[Uid] | None = None) -> Deferred[Sequence[Uid]]:
        return self.inner.expunge(uids)

    def delete_messages(self, uids: Sequence[Uid]) -> Deferred[Sequence[Uid]]:
        return self.inner.delete_messages(uids)

    def copy(self, uids: Sequence[Uid], destination: str) -> Deferred[CopiedMessages]:
        return self._copier.copy(self, uids, destination, is_move=False)

    def move(self, uids: Sequence[Uid], destination: str) -> Deferred[CopiedMessages]:
        return self._copier.copy(self, uids, destination, is_move=True)

    # Reading

    def summaries(self, uids: Sequence[Uid], *, with_structure: bool = True) -> Deferred[Sequence[MessageSummary]]:
        return self.inner.summaries(uids, with_structure=with_structure)

    def internal_dates(self, uids: Sequence[Uid]) -> Deferred[InternalDates]:
        return self.inner.internal_dates(uids)

    def contents(self, uids: Sequence[Uid]) -> Deferred[Sequence[IContent | None]]:
        return self.inner.contents(uids)

    def close(self) -> None:
        self.inner.close()


class SharedMailbox(OwnMailbox):
    """Somebody else's. ``owner`` is the name of the account's INBOX here, ``closed`` lets go of the account.

    Once the right is gone the mailbox is, with everything in it.
    """

    def __init__(
        self, inner: IMailbox, copier: Copier, grants: Grants, owner: str, *, closed: Callable[[], object]
    ) -> None:
        super().__init__(inner, copier)
        self.owner = owner
        self._grants = grants
        self._closed = closed

    # The right

    @property
    def _may_read(self) -> bool:
        return self.owner in self._grants.accounts

    @property
    def may_write(self) -> bool:
        granted = self._grants.accounts.get(self.owner)
        return granted is not None and granted.may_write

    @property
    def is_gone(self) -> bool:
        return self.inner.is_gone or not self._may_read

    def check_read(self) -> None:
        """Raises NoSuchSharedMailbox."""
        if not self._may_read:
            raise NoSuchSharedMailbox

    def check_write(self) -> None:
        """Raises NoSuchSharedMailbox, NotPermitted."""
        self.check_read()
        if not self.may_write:
            raise NotPermitted

    # What it is

    @property
    def name(self) -> str:
        return full_name(self.owner, self.inner.name)

    @property
    def uids(self) -> array[int]:
        return self.inner.uids if self._may_read else array("I")

    @property
    def flag_set_numbers(self) -> array[int]:
        return self.inner.flag_set_numbers if self._may_read else array("I")

    @property
    def mod_seqs(self) -> array[int]:
        return self.inner.mod_seqs if self._may_read else array("Q")

    def changed_since(self, mod_seq: int) -> Sequence[Uid]:
        return self.inner.changed_since(mod_seq) if self._may_read else ()

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        ends = (self.inner.watch(watcher), self._grants.watch(watcher))

        def end() -> None:
            for one in ends:
                one()

        return end

    def refresh(self) -> Deferred[None]:
        return self.inner.refresh() if self._may_read else succeed(None)

    # Changing

    def claim_recent(self) -> Deferred[Uid]:
        return self._refusal() or self.inner.claim_recent()

    def store_flags(
        self,
        uids: Sequence[Uid],
        operation: FlagOperation,
        flags: FlagSet,
        unchanged_since: int | None = None,
    ) -> Deferred[FlagsStored]:
        return self._refusal() or self.inner.store_flags(uids, operation, flags, unchanged_since)

    def expunge(self, uids: Sequence[Uid] | None = None) -> Deferred[Sequence[Uid]]:
        return self._refusal() or self.inner.expunge(uids)

    def delete_messages(self, uids: Sequence[Uid]) -> Deferred[Sequence[Uid]]:
        return self._refusal() or self.inner.delete_messages(uids)

    def _refusal(self) -> Deferred[Any] | None:
        try:
            self.check_write()
        except (NoSuchSharedMailbox, NotPermitted):
            return fail()
        return None

    # Reading

    def summaries(self, uids: Sequence[Uid], *, with_structure: bool = True) -> Deferred[Sequence[MessageSummary]]:
        return super().summaries(uids if self._may_read else (), with_structure=with_structure)

    def internal_dates(self, uids: Sequence[Uid]) -> Deferred[InternalDates]:
        return super().internal_dates(uids) if self._may_read else fail(NoSuchSharedMailbox())

    def contents(self, uids: Sequence[Uid]) -> Deferred[Sequence[IContent | None]]:
        return super().contents(uids) if self._may_read else fail(NoSuchSharedMailbox())

    def close(self) -> None:
        self.inner.close()
        self._closed()
