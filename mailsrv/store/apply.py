"""Deliveries from the journal into accounts, each exactly once (DESIGN 5.2, 5.3).

For each account of a batch there is one transaction. Inside it, and only there, keys are looked
up, files put into place and rows written, so that nobody ever sees one without the other::

    key known, message there     the file is checked and restored where it should be
    key known, message expunged  nothing
    key unknown                  UID, file, row; where a UID was told of it before, that one again

The transaction commits with ``synchronous=NORMAL`` and files stay unsynced: until a checkpoint the
journal is what survives. Only where the range of reserved UIDs must grow the commit is a durable
one (:mod:`mailsrv.store.index.reservation`).

An account's trouble is its own: its deliveries are answered with :class:`NotApplied` and the
journal tries them again; other accounts go on.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Collection, Iterable, Sequence

import apsw
from twisted.logger import Logger
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.disk.failure import as_mail_error
from mailsrv.errors import MailError
from mailsrv.interfaces.changes import ChangeNotice
from mailsrv.interfaces.journal import Applied, DeliveryKey, IApplier, LocalDelivery, NotApplied, PendingDelivery
from mailsrv.interfaces.mailbox import NoSuchMailbox
from mailsrv.store.account import Account
from mailsrv.store.account_batch import AccountBatch, NotReserved
from mailsrv.store.account_table import AccountTable
from mailsrv.store.mailbox_name import canonical_name
from mailsrv.store.source import Source, read_source

_MANY_DOUBTS = 1000


@implementer(IApplier)
class StoreApplier:
    """Every method in the journal's apply thread."""

    _log = Logger()

    def __init__(self, accounts: AccountTable) -> None:
        self._table = accounts
        self._lock = threading.Lock()
        self._doubted: set[DeliveryKey] = set()
        """To be looked up: nobody knows whether they were committed."""
        self._failed: set[DeliveryKey] = set()
        """And, of these, to be written anew: their checkpoint failed."""

    def apply(self, deliveries: Sequence[PendingDelivery[LocalDelivery]]) -> Sequence[Applied | NotApplied]:
        by_account: dict[Address, list[int]] = {}
        for at, pending in enumerate(deliveries):
            by_account.setdefault(pending.delivery.account, []).append(at)
        answers: list[Applied | NotApplied | None] = [None] * len(deliveries)
        sources: dict[int, Source] = {}
        placed: dict[int, str] = {}
        for places in by_account.values():
            group = [deliveries[at] for at in places]
            for at, answer in zip(places, self._apply_group(group, sources, placed), strict=True):
                answers[at] = answer
        return [answer for answer in answers if answer is not None]

    def take_touched(self) -> Collection[str]:
        if len(self._doubted) > _MANY_DOUBTS:
            self._forget_history()
        return self._table.take_touched()

    def checkpoint_failed(self, keys: Collection[DeliveryKey]) -> None:
        with self._lock:
            self._doubted.update(keys)
            self._failed.update(keys)

    def _forget_history(self) -> None:
        """What failed and was withdrawn never comes again, and nobody says so: its segment is gone one day."""
        live_segments = self._table.live_segments
        if live_segments is None:
            return
        try:
            live = live_segments()
        except MailError:
            return
        with self._lock:
            self._doubted = {key for key in self._doubted if key.segment_id in live}
            self._failed &= self._doubted

    # One account

    def _apply_group(
        self, group: list[PendingDelivery[LocalDelivery]], sources: dict[int, Source], placed: dict[int, str]
    ) -> list[Applied | NotApplied]:
        try:
            try:
                return [*self._apply_together(group, sources, placed)]
            except NotReserved:
                self._table.account(group[0].delivery.account).run_known = {}
                return [*self._apply_together(group, sources, placed)]
        except Exception as error:
            # Nobody knows now whether these were committed: from here on their keys are looked up.
            if not isinstance(error, NoSuchMailbox):
                with self._lock:
                    self._doubted.update(pending.key for pending in group)
            if isinstance(error, apsw.ConstraintError):
                self._log.warn("a delivery was given twice: {error}", error=str(error))
            elif _record_of(group[0]) == _record_of(group[-1]):
                return [self._refusal(pending, error) for pending in group]
            self._log.warn(
                "a batch for {account} failed and is taken apart: {error}",
                account=str(group[0].delivery.account),
                error=repr(error),
            )
        # One bad record must not hold up the others. Those after it that went through stay in
        # order among themselves; the journal brings the failed one again, whole.
        answers: list[Applied | NotApplied] = []
        for _, of_record in itertools.groupby(group, _record_of):
            record = list(of_record)
            try:
                answers += self._apply_together(record, sources, placed)
            except Exception as error:
                answers += [self._refusal(pending, error) for pending in record]
        return answers

    def _refusal(self, pending: PendingDelivery[LocalDelivery], error: Exception) -> NotApplied:
        if not isinstance(error, MailError | OSError | apsw.Error):
            self._log.failure("a delivery could not be applied")
        return NotApplied(pending.key, as_mail_error(error))

    def _apply_together(
        self, group: list[PendingDelivery[LocalDelivery]], sources: dict[int, Source], placed: dict[int, str]
    ) -> list[Applied]:
        # Scanning costs the most: before the account is locked.
        for pending in group:
            message = pending.message
            if id(message) not in sources:
                sources[id(message)] = read_source(self._table.disk, message)
        account = self._table.account(group[0].delivery.account)
        self._table.used(account)
        with account.lock:
            if not account.is_open:
                account.writer()
            if self._failed and any(pending.key in self._failed for pending in group):
                account.is_log_doubtful = True
            transaction = account.begin(is_durable=not self._is_reserved(account, group))
            batch = AccountBatch(
                account, transaction, sources=sources, placed=placed, doubted=self._doubted, failed=self._failed
            )
            try:
                answers = [batch.apply(pending) for pending in group]
                batch.finish()
                transaction.commit()
            except BaseException as error:
                # Links made from a file that is taken back would have nothing to link to.
                for number in batch.placed_here:
                    placed.pop(number, None)
                transaction.roll_back()
                account.commit_failed(error)
                raise
            account.run_known.update(batch.left())
        if self._doubted:
            with self._lock:
                applied = {pending.key for pending in group}
                self._doubted -= applied
                self._failed -= applied
        self._table.touch(transaction.touched)
        if transaction.changed:
            self._table.announce(
                ChangeNotice(account.name, mailbox_id, mod_seq) for mailbox_id, mod_seq in transaction.changed.items()
            )
        return answers

    @staticmethod
    def _is_reserved(account: Account, group: Iterable[PendingDelivery[LocalDelivery]]) -> bool:
        """Whether the ranges last seen have room; verified inside the transaction."""
        needed: dict[str, int] = {}
        for pending in group:
            if pending.noted is not None:
                # A number that was told may lie beyond what an older index has reserved.
                return False
            name = pending.delivery.mailbox
            needed[name] = needed.get(name, 0) + 1
        return all(account.room(canonical_name(name)) > count for name, count in needed.items())


def _record_of(pending: PendingDelivery[LocalDelivery]) -> tuple[bytes, int]:
    return pending.key.segment_id, pending.key.offset
