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

import errno
import itertools
import threading
from collections.abc import Collection, Iterable, Sequence

import apsw
from attrs import frozen
from twisted.logger import Logger
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.disk import IDisk, IDiskFile, opened
from mailsrv.errors import MailError
from mailsrv.interfaces.changes import ChangeNotice
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.journal import (
    Applied,
    DeliveryKey,
    IApplier,
    JournaledMessage,
    LocalDelivery,
    NotApplied,
    PendingDelivery,
)
from mailsrv.interfaces.mailbox import NoSuchMailbox
from mailsrv.store.account import Account, AccountTable
from mailsrv.store.index import reservation
from mailsrv.store.index.connection import as_mail_error
from mailsrv.store.index.rows import LAST_UID, UID_MASK, MailboxRow, MessageRow, SummaryRow
from mailsrv.store.index.transaction import Transaction
from mailsrv.store.mailbox_name import INBOX, canonical_name
from mailsrv.store.maildir import filename, keywords, layout
from mailsrv.store.summary import StoredSummary, stored_summary
from mailsrv.store.view import stored_flags

_CANNOT_LINK = frozenset({errno.EMLINK, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOENT})
_CHUNK = 1 << 20
_MANY_DOUBTS = 1000
_KNOWN = "SELECT id, mod_seq, size, stored, file FROM message WHERE delivery_key = ?"
_TAKEN = "SELECT 1 FROM message WHERE id = ?1 UNION ALL SELECT 1 FROM tombstone WHERE id = ?1"
_EXPUNGED = "SELECT id, mod_seq FROM tombstone WHERE delivery_key = ?"


@frozen
class _Source:
    """A message of the batch: scanned once, written once, linked for its further recipients."""

    summary: StoredSummary
    octets: bytes | None
    """None where the content is a file."""
    path: str
    """The content's file, or "" """


@implementer(IApplier)
class StoreApplier:
    """Every method in the journal's apply thread."""

    _log = Logger()

    def __init__(self, accounts: AccountTable) -> None:
        self._table = accounts
        self._lock = threading.Lock()
        self._doubted: set[DeliveryKey] = set()

    def apply(self, deliveries: Sequence[PendingDelivery[LocalDelivery]]) -> Sequence[Applied | NotApplied]:
        by_account: dict[Address, list[int]] = {}
        for at, pending in enumerate(deliveries):
            by_account.setdefault(pending.delivery.account, []).append(at)
        answers: list[Applied | NotApplied | None] = [None] * len(deliveries)
        sources: dict[int, _Source] = {}
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

    # One account

    def _apply_group(
        self, group: list[PendingDelivery[LocalDelivery]], sources: dict[int, _Source], placed: dict[int, str]
    ) -> list[Applied | NotApplied]:
        try:
            try:
                return [*self._apply_together(group, sources, placed)]
            except _NotReserved:
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
        self, group: list[PendingDelivery[LocalDelivery]], sources: dict[int, _Source], placed: dict[int, str]
    ) -> list[Applied]:
        # Scanning costs the most: before the account is locked.
        for pending in group:
            message = pending.message
            if id(message) not in sources:
                sources[id(message)] = self._source(message)
        account = self._table.account(group[0].delivery.account)
        self._table.used(account)
        with account.lock:
            if not account.is_open:
                account.writer()
            transaction = account.begin(is_durable=not self._is_reserved(account, group))
            batch = _AccountBatch(account, transaction, sources=sources, placed=placed, doubted=self._doubted)
            try:
                answers = [batch.apply(pending) for pending in group]
                batch.finish()
                transaction.commit()
            except BaseException as error:
                # Links made from a file that is taken back would have nothing to link to.
                for number in batch.placed_here:
                    placed.pop(number, None)
                transaction.roll_back()
                if isinstance(error, apsw.CorruptError):
                    account.found_damaged()
                raise
            account.run_known.update(batch.left())
        if self._doubted:
            with self._lock:
                self._doubted.difference_update(pending.key for pending in group)
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

    def _source(self, message: JournaledMessage) -> _Source:
        content = message.content
        if isinstance(content, InlineContent):
            return _Source(stored_summary(content.octets), content.octets, "")
        with opened(self._table.disk.open(content.path)) as file:
            octets = file.read(0, content.size)
        return _Source(stored_summary(octets), None, content.path)


def _record_of(pending: PendingDelivery[LocalDelivery]) -> tuple[bytes, int]:
    return pending.key.segment_id, pending.key.offset


class _NotReserved(Exception):
    """Another worker used up the range that this transaction counted on."""


class _AccountBatch:
    """The deliveries of one account inside one transaction."""

    def __init__(
        self,
        account: Account,
        transaction: Transaction,
        *,
        sources: dict[int, _Source],
        placed: dict[int, str],
        doubted: Collection[DeliveryKey],
    ) -> None:
        self._account = account
        self._transaction = transaction
        self._sources = sources
        self._placed = placed
        self._doubted = doubted
        self._rows: dict[str, MailboxRow] = {}
        self._new: dict[bytes, Applied] = {}
        self.placed_here: list[int] = []

    def apply(self, pending: PendingDelivery[LocalDelivery]) -> Applied:
        """Raises what keeps it from being applied; then the whole transaction is to be rolled back."""
        key = pending.key.to_octets()
        answer = self._find(pending, key) if pending.is_replay or pending.key in self._doubted else self._new.get(key)
        if answer is None:
            answer = self._new[key] = self._deliver(pending, key, self._mailbox(pending))
        return answer

    def _find(self, pending: PendingDelivery[LocalDelivery], key: bytes) -> Applied | None:
        """The delivery, where this account had it before."""
        known = self._new.get(key)
        if known is not None:
            return known
        connection = self._transaction.connection
        found = connection.execute(_KNOWN, (key,)).fetchone()
        if found is not None:
            message_id, mod_seq, size, stored, file = found
            row = self._transaction.mailbox_by_id(message_id >> 32)
            self._check_file(pending, row, file, size, stored)
            return Applied(pending.key, row.uid_validity, message_id & UID_MASK, mod_seq)
        found = connection.execute(_EXPUNGED, (key,)).fetchone()
        if found is not None:
            message_id, mod_seq = found
            try:
                validity = self._transaction.mailbox_by_id(message_id >> 32).uid_validity
            except NoSuchMailbox:
                validity = 0
            return Applied(pending.key, validity, message_id & UID_MASK, mod_seq)
        return None

    def _mailbox(self, pending: PendingDelivery[LocalDelivery]) -> MailboxRow:
        name = pending.delivery.mailbox
        row = self._rows.get(name)
        if row is not None:
            return row
        found = self._transaction.find_mailbox(canonical_name(name))
        if found is None:
            if not pending.delivery.recipient:
                raise NoSuchMailbox
            # Mail that was accepted goes to INBOX if its mailbox was deleted meanwhile.
            found = self._transaction.mailbox(INBOX)
        self._rows[name] = found
        self._transaction.will_write(found)
        return found

    def _deliver(self, pending: PendingDelivery[LocalDelivery], key: bytes, row: MailboxRow) -> Applied:
        transaction = self._transaction
        message = pending.message
        source = self._sources[id(message)]
        summary = source.summary
        mod_seq = transaction.mod_seq(row)
        uid = self._told_uid(pending, row) if pending.noted is not None else 0
        uid = uid or transaction.take_uid(row)
        if not transaction.is_durable and (row.uid_next > row.uid_reserved or mod_seq >= row.mod_seq_reserved):
            raise _NotReserved
        flags = pending.delivery.flags
        bits, words = stored_flags(flags) if flags else (0, "")
        if words:
            transaction.learn_keywords(row, words)
        size = summary.size_octets
        base = filename.format_base(message.internal_date, filename.token_of("K", key), size, size, uid)
        file = filename.format_file(base, bits, keywords.letters_of(words, row.known_keywords()) if words else "")
        self._place(message, source, row, base, file)
        message_id = row.first_id | uid
        transaction.add_message(
            row,
            MessageRow(message_id, mod_seq, bits, words, size, size, file, key, pending.delivery.recipient),
            SummaryRow(
                message_id,
                size,
                message.internal_date,
                message.date_offset_minutes,
                summary.header_octets,
                summary.imap_envelope,
                summary.body_structure,
                summary.body,
                summary.cached_fields,
                summary.sent_day,
                filename.token_of("M", key[:24]),
            ),
        )
        return Applied(pending.key, row.uid_validity, uid, mod_seq)

    def _told_uid(self, pending: PendingDelivery[LocalDelivery], row: MailboxRow) -> int:
        """The UID that was told of this delivery before the index lost it; 0 where it cannot be given again.

        The mod-sequence is a new one: who came after the loss may have been told a later one than it had.
        """
        noted = pending.noted
        if noted is None or noted.uid_validity != row.uid_validity or not 0 < noted.uid <= LAST_UID:
            return 0
        transaction = self._transaction
        transaction.flush_messages()
        if transaction.connection.execute(_TAKEN, (row.first_id | noted.uid,)).fetchone() is not None:
            return 0
        row.uid_next = max(row.uid_next, noted.uid + 1)
        return noted.uid

    # Files

    def _place(self, message: JournaledMessage, source: _Source, row: MailboxRow, base: str, file: str) -> None:
        transaction = self._transaction
        path = transaction.path(row)
        target = f"{path}/{file}"
        transaction.undo(target)
        try:
            self._put(message, source, path, base, target)
        except FileNotFoundError:
            if layout.is_complete(transaction.disk, path):
                raise
            transaction.make_mailbox(row)
            self._put(message, source, path, base, target)
        transaction.touched.update((self._account.root, f"{path}/{file[:3]}"))
        if len(message.deliveries) > 1 and id(message) not in self._placed:
            self._placed[id(message)] = target
            self.placed_here.append(id(message))

    def _put(self, message: JournaledMessage, source: _Source, path: str, base: str, target: str) -> None:
        disk = self._transaction.disk
        other = self._placed.get(id(message)) or source.path
        if other:
            try:
                disk.link(other, target)
            except FileExistsError:
                # Left by a transaction that was lost: its octets are not to be trusted.
                pass
            except OSError as error:
                if error.errno not in _CANNOT_LINK:
                    raise
            else:
                return
        temporary = f"{path}/{layout.TMP}/{base}"
        _write(disk, temporary, source)
        disk.rename(temporary, target)

    def _check_file(
        self, pending: PendingDelivery[LocalDelivery], row: MailboxRow, file: str, size: int, stored: int
    ) -> None:
        """A message applied before: its file is what was journaled, or is put back."""
        if not pending.is_replay and pending.key not in self._doubted:
            return
        transaction = self._transaction
        path = transaction.path(row)
        source = self._sources[id(pending.message)]
        # Flags may have been shown in the name since; the recorded name may lag.
        present = file
        if transaction.disk.status(f"{path}/{file}") is None:
            present = layout.find_file(transaction.disk, path, file) or file
        if _holds(transaction.disk, f"{path}/{present}", source, stored):
            return
        transaction.will_write(row)
        if not layout.is_complete(transaction.disk, path):
            transaction.make_mailbox(row)
        temporary = f"{path}/{layout.TMP}/{filename.base_of(file)}"
        _write(transaction.disk, temporary, source)
        transaction.disk.rename(temporary, f"{path}/{present}")
        transaction.touched.update((self._account.root, f"{path}/{present[:3]}"))

    # Its end

    def finish(self) -> None:
        """Reserve ahead, now that the commit is durable anyway."""
        transaction = self._transaction
        if transaction.is_durable:
            for row in self._rows.values():
                reservation.reserve(row, transaction.settings.reservation)
                transaction.save(row)

    def left(self) -> dict[str, int]:
        """By the names used: how many messages still fit into the range reserved."""
        return {row.name: reservation.room(row, self._transaction.run_id) for row in self._rows.values()}


def _write(disk: IDisk, path: str, source: _Source) -> None:
    """A complete file; one left by an attempt before is replaced."""
    try:
        file = disk.create(path)
    except FileExistsError:
        disk.unlink(path)
        file = disk.create(path)
    try:
        if source.octets is not None:
            file.write(0, (source.octets,))
        else:
            _copy(disk, source.path, file)
    finally:
        file.close()


def _copy(disk: IDisk, source: str, target: IDiskFile) -> None:
    with opened(disk.open(source)) as file:
        offset = 0
        while chunk := file.read(offset, _CHUNK):
            target.write(offset, [chunk])
            offset += len(chunk)


def _holds(disk: IDisk, path: str, source: _Source, stored: int) -> bool:
    """Whether the file has exactly these octets: a crash can leave a name with nothing, or zeros, behind it."""
    try:
        with opened(disk.open(path)) as file:
            if file.size() != stored:
                return False
            if source.octets is not None:
                return file.read(0, stored) == source.octets
            with opened(disk.open(source.path)) as original:
                offset = 0
                while chunk := original.read(offset, _CHUNK):
                    if file.read(offset, len(chunk)) != chunk:
                        return False
                    offset += len(chunk)
                return True
    except OSError:
        return False
