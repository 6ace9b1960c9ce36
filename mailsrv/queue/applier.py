"""What the journal has for the queue, put into it: onward deliveries and settlements, each once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import apsw
from twisted.logger import Logger
from zope.interface import implementer

from mailsrv.disk.failure import as_mail_error
from mailsrv.errors import MailError, Unavailable
from mailsrv.interfaces.content import Content, InlineContent
from mailsrv.interfaces.journal import (
    Applied,
    DeliveryKey,
    IApplier,
    NotApplied,
    PendingDelivery,
)
from mailsrv.interfaces.queue import OnwardDelivery
from mailsrv.journal.octets import FormatError
from mailsrv.queue.content import ContentFolder, return_path_octets
from mailsrv.queue.database import QueueDatabase
from mailsrv.queue.rows import pack_parameters, sender_of
from mailsrv.queue.schema import Place
from mailsrv.queue.settling import Settler

_KNOWN = "SELECT place, owed, size + skipped, skipped, checksum FROM message WHERE id=?"
_INSERT_MESSAGE = "INSERT INTO message VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)"
_ENDED_AHEAD = "SELECT number FROM recipient WHERE message=?"
_COMPLETE_ENDED = "UPDATE recipient SET address=?, destination=?, notify=?, original=? WHERE message=? AND number=?"
_INSERT_RECIPIENT = "INSERT INTO recipient VALUES(?, ?, ?, ?, ?, ?, 0, ?, ?, ?, 0, 0, 0, 0, NULL, '')"


@implementer(IApplier)
class QueueApplier:
    """Puts onward deliveries into the queue and carries out settlements, each once. In the journal's apply thread.

    Transactions are not synced: until its checkpoint the journal is what survives.
    """

    _log = Logger()

    def __init__(
        self,
        open_database: Callable[[], QueueDatabase],
        content: ContentFolder,
        directory: str,
        *,
        most_events: int,
        seconds: Callable[[], float],
    ) -> None:
        self._open_database = open_database
        self._content = content
        self._directory = directory
        self._most_events = most_events
        self._seconds = seconds
        self._db: QueueDatabase | None = None
        self._doubted: set[DeliveryKey] = set()
        self._wants_rewrite = False
        self._is_touched = False
        self._generation = 0
        self.on_enqueued: Callable[[int, int], object] = lambda messages, octets: None
        """Told, in this thread, of what was committed: messages and octets more."""

    def apply(self, deliveries: Sequence[PendingDelivery[Any]]) -> Sequence[Applied | NotApplied]:
        return self._apply(deliveries, is_unsure=False)

    def _apply(self, deliveries: Sequence[PendingDelivery[Any]], *, is_unsure: bool) -> list[Applied | NotApplied]:
        try:
            self._apply_together(self._database(), deliveries, is_unsure=is_unsure)
        except (apsw.Error, OSError, MailError, FormatError) as error:
            if _record_of(deliveries[0]) == _record_of(deliveries[-1]) and is_unsure:
                if isinstance(error, apsw.Error | OSError):
                    self._log.error("the queue takes nothing in: {error}", log_alarm="queue", error=repr(error))
                mail_error = as_mail_error(error)
                return [NotApplied(pending.key, mail_error) for pending in deliveries]
            self._log.warn("a batch for the queue failed and is taken apart: {error}", error=repr(error))
        else:
            return [Applied(pending.key, 0, 0, 0) for pending in deliveries]
        answers: list[Applied | NotApplied] = []
        for _, record in itertools.groupby(deliveries, _record_of):
            # Whether it was committed is not known: it is looked up.
            answers += self._apply(list(record), is_unsure=True)
        return answers

    def _database(self) -> QueueDatabase:
        if self._db is None:
            self._db = self._open_database()
            self._generation = self._db.generation
        if self._wants_rewrite:
            self._db.rewrite()
            self._wants_rewrite = False
        return self._db

    def _apply_together(
        self, db: QueueDatabase, deliveries: Sequence[PendingDelivery[Any]], *, is_unsure: bool
    ) -> None:
        onward = {
            at: db.message_id(pending.key.segment_id, pending.key.offset, pending.key.number)
            for at, pending in enumerate(deliveries)
            if type(pending.delivery) is OnwardDelivery
        }
        finished: list[int] = []
        kept: list[int] = []
        self._is_touched = True
        try:
            with db.transaction(is_durable=False):
                settler = Settler(db, 0, self._most_events)
                octets = 0
                for at, pending in enumerate(deliveries):
                    message = onward.get(at)
                    if message is not None:
                        octets += self._enqueue(db, pending, message, kept=kept, finished=finished, is_unsure=is_unsure)
                    elif settler.settle_journaled(pending.delivery, self._seconds()):
                        finished.append(pending.delivery.entry_id)
        except BaseException:
            for message in kept:
                self._content.forget(message)
            raise
        if self._doubted:
            self._doubted.difference_update(pending.key for pending in deliveries)
        for message in finished:
            # Not durable yet, but until then the record comes again.
            self._content.forget(message)
            self._content.remove(message)
        if onward:
            self.on_enqueued(len(onward), octets)

    def close(self) -> None:
        """When the journal has stopped."""
        if self._db is not None:
            self._db.close()
            self._db = None

    # -- one message ------------------------------------------------------------------

    def _enqueue(
        self,
        db: QueueDatabase,
        pending: PendingDelivery[Any],
        message: int,
        *,
        kept: list[int],
        finished: list[int],
        is_unsure: bool,
    ) -> int:
        """Octets more in the queue."""
        content = pending.message.content
        ended: Collection[int] = ()
        if is_unsure or pending.is_replay or pending.key in self._doubted:
            row = db.row(_KNOWN, (message,))
            if row is not None:
                self._restore(db, pending, message, row, kept)
                return 0
            if db.row("SELECT 1 FROM tombstone WHERE id=?", (message,)) is not None:
                return 0
            rows: list[Any] = db.connection.execute(_ENDED_AHEAD, (message,)).fetchall()
            ended = {row[0] for row in rows}
        skipped = return_path_octets(
            content.octets if isinstance(content, InlineContent) else self._content.head(content)
        )
        place, checksum = self._put(message, content, skipped, kept)
        self._insert(db, pending, (message, content.size - skipped, skipped, place, checksum), ended)
        if ended and self._complete_ended(db, pending.delivery, message, ended):
            finished.append(message)
        return content.size

    def _complete_ended(
        self, db: QueueDatabase, delivery: OnwardDelivery, message: int, ended: Collection[int]
    ) -> bool:
        """Of these recipients settlements were replayed before the message; whether nobody else is owed it."""
        rows = [
            (
                str(recipient.address),
                db.destination_id(str(recipient.destination)),
                int(recipient.notify),
                recipient.original_recipient,
                message,
                number,
            )
            for number, recipient in enumerate(delivery.recipients)
            if number in ended
        ]
        db.connection.executemany(_COMPLETE_ENDED, rows)
        return Settler(db, 0, self._most_events).less_owed(message, len(rows), self._seconds())

    def _put(self, message: int, content: Content, skipped: int, kept: list[int]) -> tuple[Place, bytes | None]:
        if isinstance(content, InlineContent):
            if self._content.keep(message, content.octets, skipped):
                kept.append(message)
                return Place.JOURNAL, None
            return Place.FILE, self._content.write(message, content.octets)
        self._content.link(message, content)
        return Place.FILE, content.checksum

    def _insert(
        self,
        db: QueueDatabase,
        pending: PendingDelivery[Any],
        where: tuple[int, int, int, Place, bytes | None],
        ended: Collection[int],
    ) -> None:
        message, size, skipped, place, checksum = where
        delivery: OnwardDelivery = pending.delivery
        parameters = delivery.parameters
        accepted_at = float(pending.message.internal_date)
        due = accepted_at if parameters.hold_until is None else max(accepted_at, float(parameters.hold_until))
        db.connection.execute(
            _INSERT_MESSAGE,
            (
                message,
                pending.key.number,
                pending.transaction_id,
                None if delivery.reverse_path is None else str(delivery.reverse_path),
                pack_parameters(parameters),
                delivery.account,
                accepted_at,
                size,
                skipped,
                place,
                checksum,
                len(delivery.recipients),
            ),
        )
        self._insert_recipients(db, delivery, message, due, ended)
        db.count_messages(1, size)

    def _insert_recipients(
        self, db: QueueDatabase, delivery: OnwardDelivery, message: int, due: float, known: Collection[int] = ()
    ) -> int:
        """Those that are not ``known``; how many."""
        sender = sender_of(delivery)
        rows = []
        for number, recipient in enumerate(delivery.recipients):
            if number in known:
                continue
            destination = db.destination_id(str(recipient.destination))
            db.count_waiting(destination, 1, is_news=True)
            rows.append(
                (
                    message,
                    number,
                    str(recipient.address),
                    destination,
                    int(recipient.notify),
                    recipient.original_recipient,
                    due,
                    -delivery.parameters.priority,
                    sender,
                )
            )
        if len(rows) == 1:
            db.connection.execute(_INSERT_RECIPIENT, rows[0])
        else:
            db.connection.executemany(_INSERT_RECIPIENT, rows)
        return len(rows)

    def _complete(self, db: QueueDatabase, delivery: OnwardDelivery, message: int, owed: int) -> int:
        """Recipients that were lost with a part of the database come back; how many are owed it now."""
        rows: list[Any] = db.connection.execute("SELECT number FROM recipient WHERE message=?", (message,)).fetchall()
        if len(rows) >= len(delivery.recipients):
            return owed
        added = self._insert_recipients(db, delivery, message, self._seconds(), {row[0] for row in rows})
        sql = "UPDATE message SET owed=owed+?, finished_at=NULL WHERE id=? RETURNING size"
        (size,) = db.row(sql, (added, message))
        if not owed:
            db.count_messages(1, size, -1)
        return owed + added

    def _restore(
        self,
        db: QueueDatabase,
        pending: PendingDelivery[Any],
        message: int,
        row: tuple[int, int, int, int, bytes | None],
        kept: list[int],
    ) -> None:
        """It is in the queue already: only its content may be missing, or doubtful, and after damage recipients."""
        place, owed, size, skipped, checksum = row
        content = pending.message.content
        owed = self._complete(db, pending.delivery, message, owed)
        if not owed or place == Place.CORRUPT:
            return
        if place == Place.JOURNAL:
            if isinstance(content, InlineContent) and self._content.keep(message, content.octets, skipped):
                kept.append(message)
                return
            # No room in memory: the journal forgets it at the next checkpoint.
        elif pending.key not in self._doubted and self._content.is_intact(message, size, checksum or b""):
            return
        if isinstance(content, InlineContent):
            checksum = self._content.write(message, content.octets)
        else:
            self._content.link(message, content, is_copy=True)
            checksum = content.checksum
        db.connection.execute("UPDATE message SET place=1, checksum=? WHERE id=?", (checksum, message))

    # -- checkpoints --------------------------------------------------------------------

    def take_touched(self) -> Collection[str]:
        """Also writes what is still owed and only in the journal to files: it may be gone from there afterwards."""
        self._check_replaced()
        if self._is_touched:
            try:
                self._write_files(self._database())
            except apsw.Error as error:
                raise as_mail_error(error) from error
            self._is_touched = False
            # What failed to be synced has been applied again since.
            self._doubted.clear()
            return {self._directory, *self._content.take_touched()}
        return self._content.take_touched()

    def _check_replaced(self) -> None:
        """Raises Unavailable once where another database has taken the place of ours: all is to be applied to it."""
        db = self._db
        if db is None:
            return
        try:
            db.follow()
        except (OSError, apsw.Error) as error:
            raise as_mail_error(error) from error
        if db.generation != self._generation:
            self._generation = db.generation
            raise Unavailable(cause="the queue was damaged and salvaged: what the journal holds is applied again")

    def _write_files(self, db: QueueDatabase) -> None:
        written: list[tuple[int, bytes]] = []
        for message in self._content.fresh_ids():
            fresh = self._content.fresh(message)
            row = db.row("SELECT place, owed FROM message WHERE id=?", (message,))
            if fresh is None or row is None or not row[1] or row[0] != Place.JOURNAL:
                self._content.forget(message)
                continue
            written.append((message, self._content.write(message, fresh.octets)))
        if not written:
            return
        finished = []
        with db.transaction(is_durable=False) as connection:
            for message, checksum in written:
                connection.execute(
                    "UPDATE message SET place=1, checksum=? WHERE id=? AND owed>0 AND place=0", (checksum, message)
                )
                if not connection.changes():
                    finished.append(message)
        for message, _ in written:
            self._content.forget(message)
        for message in finished:
            self._content.remove(message)

    def checkpoint_failed(self, keys: Collection[DeliveryKey]) -> None:
        self._doubted.update(keys)
        self._wants_rewrite = True
        self._is_touched = True


def _record_of(pending: PendingDelivery[Any]) -> tuple[bytes, int]:
    return pending.key.segment_id, pending.key.offset
