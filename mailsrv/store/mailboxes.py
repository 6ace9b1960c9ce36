"""All mailboxes of an account, as the sessions of a process see them (IAccountMailboxes).

Writes of an account go in batches (:mod:`mailsrv.store.write_queue`), what is appended goes through the
journal (:mod:`mailsrv.store.append`). Reads go by :mod:`mailsrv.store.index_access`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import apsw
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.interfaces.changes import ChangeNotice
from mailsrv.interfaces.journal import IJournal
from mailsrv.interfaces.mailbox import (
    AppendedMessages,
    CopiedMessages,
    IAccountMailboxes,
    IMailbox,
    MailboxInfo,
    MailboxStatus,
    NewMessage,
    NoSuchMailbox,
    QuotaUsage,
    SpecialUse,
    Uid,
)
from mailsrv.store.account import Account
from mailsrv.store.account_table import AccountTable
from mailsrv.store.allowance import Allowance
from mailsrv.store.append import append
from mailsrv.store.copies import copy_between
from mailsrv.store.index.delta import Delta
from mailsrv.store.index.rows import MailboxRow, mailbox_by_id, mailbox_by_name
from mailsrv.store.index.transaction import Transaction
from mailsrv.store.index_access import IndexAccess
from mailsrv.store.late_names import LateNames
from mailsrv.store.listeners import Listeners
from mailsrv.store.loading import load_view
from mailsrv.store.mailbox import StoredMailbox
from mailsrv.store.mailbox_name import canonical_name
from mailsrv.store.maildir import layout
from mailsrv.store.maildrop_lock import lock_maildrop
from mailsrv.store.operation import mailboxes as mailbox_operation
from mailsrv.store.operation.copying import check_quota, usage
from mailsrv.store.operation.removal import count_tombstones, purge_tombstones
from mailsrv.store.rebuild import discover, has_undiscovered
from mailsrv.store.recent import count_recent
from mailsrv.store.scan import is_scan_due, scan
from mailsrv.store.summary_cache import SummaryCache
from mailsrv.store.threads import IThreads
from mailsrv.store.view import MailboxView
from mailsrv.store.write_queue import WriteQueue

T = TypeVar("T")
_FEW_ROWS = 256
"""Messages of a mailbox that is opened in the reactor thread, a quarter of a millisecond at most."""


@implementer(IAccountMailboxes)
class AccountMailboxes:
    """One for all sessions of a process. Reactor thread only."""

    def __init__(
        self,
        table: AccountTable,
        account: Address,
        journal: IJournal,
        *,
        threads: IThreads,
        cache: SummaryCache,
        released: Callable[[AccountMailboxes], None],
    ) -> None:
        self.account = account
        self.others_prefix = ""
        self.files: Account = table.account(account)
        self.settings = table.settings
        self.threads = threads
        self.cache = cache
        self.references = 0
        self.allowance = Allowance(table.settings.quota_octets, table.settings.quota_messages)
        self.settle_ns = int(table.settings.settle_seconds * 1e9)
        self.on_open: Callable[[StoredMailbox], None] = lambda mailbox: None
        self.on_close: Callable[[StoredMailbox], None] = lambda mailbox: None
        self._table = table
        self._journal = journal
        self._released = released
        self._mailboxes: dict[int, StoredMailbox] = {}
        self._listeners = Listeners()
        self.index = IndexAccess(table, self.files, threads)
        self._writes = WriteQueue(table, self.files, self.index.in_thread, known=self._known, take=self._take)
        self.late_names = LateNames(table.reactor, partial(self._writes.add, is_durable=False))  # type: ignore[arg-type]
        self._has_expunged = False
        self._end_listening = table.bus.listen(self.files.name, self._hear)

    @property
    def open_mailboxes(self) -> Sequence[StoredMailbox]:
        """Those some session has open."""
        return list(self._mailboxes.values())

    def call_soon(self, function: Callable[[], None]) -> None:
        """After what is being done now."""
        self._table.reactor.callLater(0, function)  # type: ignore[attr-defined]

    # Writes

    def write(self, operation: Callable[[Transaction], T], *, is_durable: bool = True) -> Deferred[T]:
        """Do this in a write transaction; fires when committed, the views having taken the news in."""
        return self._writes.add(operation, is_durable=is_durable)

    def _known(self) -> dict[int, int]:
        """The mod-sequences of open mailboxes."""
        return {mailbox.mailbox_id: mailbox.highest_mod_seq for mailbox in self._mailboxes.values()}

    def _take(self, delta: Delta) -> None:
        self._has_expunged = self._has_expunged or bool(delta.vanished)
        mailbox = self._mailboxes.get(delta.mailbox_id)
        if mailbox is not None:
            mailbox.take(delta)
            if mailbox.is_gone:
                self._forget(mailbox)

    # News

    def _hear(self, notice: ChangeNotice) -> None:
        if notice.mailbox_id:
            mailbox = self._mailboxes.get(notice.mailbox_id)
            if mailbox is not None and notice.mod_seq > mailbox.highest_mod_seq:
                mailbox.hint()
            return
        for mailbox in self._mailboxes.values():
            mailbox.hint()
        self._listeners.call()

    def is_scan_due(self, connection: apsw.Connection, mailbox_id: int, *, thorough: bool) -> bool:
        """Whether another program may have changed the mailbox's folder."""
        row = mailbox_by_id(connection, mailbox_id)
        return row is not None and self._is_due(row, thorough=thorough)

    def _is_due(self, row: MailboxRow, *, thorough: bool) -> bool:
        times = layout.modified_times(self.files.disk, layout.join(self.files.root, row.directory))
        return is_scan_due(row, times, time.time_ns(), self.settle_ns, thorough=thorough)

    def scan(self, mailbox_id: int) -> Deferred[Any]:
        """Take in what other programs did."""
        live = self._table.live_segments

        def operation(transaction: Transaction) -> None:
            row = transaction.mailbox_by_id(mailbox_id)
            if self._is_due(row, thorough=True):
                scan(transaction, row, time.time_ns(), live() if live is not None else None)

        return self.write(operation)

    # Mailboxes

    def list_mailboxes(self, prefix: str = "") -> Deferred[Sequence[MailboxInfo]]:
        return Deferred.fromCoroutine(self._list_mailboxes())

    async def _list_mailboxes(self) -> Sequence[MailboxInfo]:
        listed, is_new = await self.index.read(self._read_list)
        if is_new:
            await self.write(discover)
            listed, _ = await self.index.read(self._read_list)
        return listed

    def _read_list(self, connection: apsw.Connection) -> tuple[list[MailboxInfo], bool]:
        """The list, and whether there are folders that are not on it."""
        listed = mailbox_operation.read_list(connection)
        return listed, has_undiscovered(connection, self.files.disk, self.files.root)

    def create(self, name: str, special_use: SpecialUse | None = None) -> Deferred[None]:
        return self.write(lambda transaction: mailbox_operation.create(transaction, name, special_use))

    def delete(self, name: str) -> Deferred[None]:
        return self.write(lambda transaction: mailbox_operation.delete(transaction, canonical_name(name)))

    def rename(self, old: str, new: str) -> Deferred[None]:
        return self.write(lambda transaction: mailbox_operation.rename(transaction, canonical_name(old), new))

    def subscribe(self, name: str, *, subscribed: bool) -> Deferred[None]:
        wanted = canonical_name(name)
        return self.write(lambda transaction: mailbox_operation.subscribe(transaction, wanted, subscribed=subscribed))

    def status(self, name: str) -> Deferred[MailboxStatus]:
        return Deferred.fromCoroutine(self._status(canonical_name(name)))

    async def _status(self, name: str) -> MailboxStatus:
        def find(connection: apsw.Connection) -> tuple[MailboxRow, bool]:
            row = mailbox_by_name(connection, name)
            if row is None:
                raise NoSuchMailbox
            return row, self._is_due(row, thorough=True)

        row, is_due = await self.index.read_in_place(find)
        if is_due:
            await self.scan(row.id)
            row, _ = await self.index.read_in_place(find)
        recent = 0
        if row.recent_uid < row.uid_next and row.messages:
            recent = await self.index.read_in_place(partial(count_recent, row=row))
        return MailboxStatus(
            messages=row.messages,
            recent=recent,
            unseen=row.unseen,
            deleted=row.deleted,
            size_octets=row.octets,
            uid_next=row.uid_next,
            uid_validity=row.uid_validity,
            highest_mod_seq=row.mod_seq,
        )

    def open_mailbox(self, name: str) -> Deferred[IMailbox]:
        return Deferred.fromCoroutine(self._open_mailbox(canonical_name(name)))

    async def _open_mailbox(self, name: str) -> IMailbox:
        known = frozenset(self._mailboxes)

        def find(connection: apsw.Connection) -> tuple[MailboxRow, MailboxView | None, bool]:
            row = mailbox_by_name(connection, name)
            if row is None:
                raise NoSuchMailbox
            is_due = self._is_due(row, thorough=True)
            view = None
            if not is_due and row.id not in known:
                view = load_view(connection, row, self.settings.change_log_entries)
            return row, view, is_due

        def find_small(connection: apsw.Connection) -> tuple[MailboxRow, MailboxView | None, bool] | None:
            row = mailbox_by_name(connection, name)
            return None if row is None or (row.messages > _FEW_ROWS and row.id not in known) else find(connection)

        found = await self.index.read_in_place(find_small)
        row, view, is_due = await self.index.read(find) if found is None else found
        if is_due:
            await self.scan(row.id)
        mailbox = self._mailboxes.get(row.id)
        if mailbox is not None and mailbox.uid_validity != row.uid_validity:
            mailbox.end()
            self._forget(mailbox)
            mailbox = None
        if mailbox is None and view is None:
            row, view = await self.index.read(partial(self._load, mailbox_id=row.id))
            mailbox = self._mailboxes.get(row.id)
        if mailbox is None and view is not None:
            mailbox = self._mailboxes[row.id] = StoredMailbox(self, row, view)
            self.on_open(mailbox)
        if mailbox is None:
            raise NoSuchMailbox
        mailbox.references += 1
        try:
            await mailbox.refresh()
        except BaseException:
            mailbox.close()
            raise
        return mailbox

    def _load(self, connection: apsw.Connection, *, mailbox_id: int) -> tuple[MailboxRow, MailboxView]:
        row = mailbox_by_id(connection, mailbox_id)
        if row is None:
            raise NoSuchMailbox
        return row, load_view(connection, row, self.settings.change_log_entries)

    def close_mailbox(self, mailbox: StoredMailbox) -> None:
        """A session is done with it; the last one takes the view along."""
        mailbox.references -= 1
        if mailbox.references <= 0:
            self._forget(mailbox)

    def _forget(self, mailbox: StoredMailbox) -> None:
        if self._mailboxes.get(mailbox.mailbox_id) is mailbox:
            del self._mailboxes[mailbox.mailbox_id]
            self.cache.drop(mailbox)
            self.on_close(mailbox)

    # APPEND, copies and quota

    def append(self, name: str, messages: Sequence[NewMessage]) -> Deferred[AppendedMessages]:
        return Deferred.fromCoroutine(append(self, self._journal, canonical_name(name), list(messages)))

    def copy_from(self, source: IMailbox, uids: Sequence[Uid], destination: str) -> Deferred[CopiedMessages]:
        if not isinstance(source, StoredMailbox):
            raise TypeError("only mailboxes of the same store can be copied from")
        return copy_between(self, source, uids, destination)

    def quota_root(self, name: str) -> str:
        return ""

    def quota(self, root: str = "") -> Deferred[QuotaUsage]:
        if root:
            return fail(NoSuchMailbox())

        def answer(used: tuple[int, int]) -> QuotaUsage:
            return QuotaUsage(used[0], self.allowance.octets, used[1], self.allowance.messages)

        return self.index.read_in_place(usage).addCallback(answer)

    def reserve(self, octets: int) -> Deferred[Callable[[], None]]:
        """Set room aside; fails with OverQuota."""
        if not self.allowance.is_limited:
            return succeed(_nothing)
        # Promised at once: two reservations that wait for the same read must know of each other.
        octet_limit, message_limit = self.allowance.room()
        give_back = self.allowance.promise(octets)

        def refused(failure: Failure) -> Failure:
            give_back()
            return failure

        return self.index.read_in_place(
            lambda connection: check_quota(connection, octets, 1, octet_limit, message_limit)
        ).addCallbacks(lambda _: give_back, refused)

    def lock_maildrop(self) -> Deferred[Callable[[], None]]:
        return self.index.in_thread(partial(lock_maildrop, self.files))

    # Lives

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        return self._listeners.add(listener)

    @property
    def live_segments(self) -> Callable[[], frozenset[bytes]] | None:
        """What the journal may still replay; None before it is there. The call is for threads."""
        return self._table.live_segments

    def purge(self) -> Deferred[int]:
        """Forget expunged messages for good, if they have become many."""
        live = self._table.live_segments

        def operation(transaction: Transaction) -> int:
            if live is None or count_tombstones(transaction.connection) <= self.settings.tombstones:
                return 0
            # Asked only here: what came and was expunged while this waited may be replayed, too.
            return purge_tombstones(transaction, live())

        return self.write(operation)

    def release(self) -> None:
        self.references -= 1
        if self.references <= 0:
            self.late_names.catch_up()
            if self._has_expunged:
                self._has_expunged = False
                # What is not forgotten now is after another session.
                self.purge().addErrback(lambda failure: None)
            self._released(self)

    def end(self) -> None:
        """Nobody uses the account in this process any more."""
        self.late_names.stop()
        self._writes.end()
        self._end_listening()


def _nothing() -> None:
    """No limit, nothing set aside."""
