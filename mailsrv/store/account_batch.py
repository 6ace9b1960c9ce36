"""Deliveries of one account, applied inside one transaction.

What a delivery finds and what becomes of it stands in :mod:`mailsrv.store.apply`. Each file is in its place before
the transaction commits; one that is rolled back takes its files away again.
"""

from __future__ import annotations

import errno
from collections.abc import Collection

from mailsrv.interfaces.journal import Applied, DeliveryKey, JournaledMessage, LocalDelivery, PendingDelivery
from mailsrv.interfaces.mailbox import NoSuchMailbox
from mailsrv.store.account import Account
from mailsrv.store.index import reservation
from mailsrv.store.index.rows import LAST_UID, UID_MASK, MailboxRow, MessageRow, SummaryRow
from mailsrv.store.index.transaction import Transaction
from mailsrv.store.mailbox_name import INBOX, canonical_name
from mailsrv.store.maildir import filename, keywords, layout
from mailsrv.store.source import Source
from mailsrv.store.view import stored_flags

_CANNOT_LINK = frozenset({errno.EMLINK, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOENT})
_KNOWN = "SELECT id, mod_seq, size, stored, file FROM message WHERE delivery_key = ?"
_TAKEN = "SELECT 1 FROM message WHERE id = ?1 UNION ALL SELECT 1 FROM tombstone WHERE id = ?1"
_EXPUNGED = "SELECT id, mod_seq FROM tombstone WHERE delivery_key = ?"


class NotReserved(Exception):
    """Another worker used up the range that this transaction counted on."""


class AccountBatch:
    """The deliveries of one account inside one transaction."""

    def __init__(
        self,
        account: Account,
        transaction: Transaction,
        *,
        sources: dict[int, Source],
        placed: dict[int, str],
        doubted: Collection[DeliveryKey],
        failed: Collection[DeliveryKey],
    ) -> None:
        self._account = account
        self._transaction = transaction
        self._sources = sources
        self._placed = placed
        self._doubted = doubted
        self._failed = failed
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
            raise NotReserved
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

    def _place(self, message: JournaledMessage, source: Source, row: MailboxRow, base: str, file: str) -> None:
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
        self._touch(path)
        if len(message.deliveries) > 1 and id(message) not in self._placed:
            self._placed[id(message)] = target
            self.placed_here.append(id(message))

    def _touch(self, path: str) -> None:
        """Both folders of the mailbox: before the checkpoint a reader may have the file go from one to the other."""
        parts = (f"{path}/{filename.NEW}", f"{path}/{filename.CUR}")
        self._transaction.touched.update((self._account.root, *parts))

    def _put(self, message: JournaledMessage, source: Source, path: str, base: str, target: str) -> None:
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
        source.write(disk, temporary)
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
        # It may be there and not on the disk yet: no checkpoint came after the one who wrote it (R-DUR-1).
        self._touch(path)
        # What can be read may be in the cache only, and never reach the disk, where a sync has failed (R-DUR-4).
        if pending.key not in self._failed and source.is_held_by(transaction.disk, f"{path}/{present}", stored):
            return
        transaction.will_write(row)
        if not layout.is_complete(transaction.disk, path):
            transaction.make_mailbox(row)
        temporary = f"{path}/{layout.TMP}/{filename.base_of(file)}"
        source.write(transaction.disk, temporary)
        transaction.disk.rename(temporary, f"{path}/{present}")

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
