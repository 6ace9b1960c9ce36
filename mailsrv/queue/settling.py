"""How recipients of the queue come to their end, or back to waiting. All inside a transaction.

What is said twice does nothing the second time: a recipient that has ended stays as it is. A delivery
counts whoever says so, even when the lease is over or an administrator has dropped the recipient
meanwhile; a postponement counts only from the worker that holds the lease.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from mailsrv.interfaces.queue import (
    LOCAL,
    Consignment,
    Delivered,
    Ending,
    Finished,
    Postponed,
    QueueSettlement,
    Settlement,
)
from mailsrv.queue.database import QueueDatabase
from mailsrv.queue.schema import ENDINGS, OFFSET_BITS, RecipientState

_FIND = "SELECT state, destination, owner FROM recipient WHERE message=? AND number=?"
_END = (
    "UPDATE recipient SET state=3, ending=?, due=?, reply=?, owner=0, attempts=attempts+? WHERE message=? AND number=?"
)
_LESS_OWED = (
    "UPDATE message SET owed=owed-?1, finished_at=CASE WHEN owed<=?1 THEN ?2 END WHERE id=?3 RETURNING owed, size"
)
_POSTPONE = (
    "UPDATE recipient SET state=?, due=?, destination=?, attempts=attempts+?, is_delay_told=max(is_delay_told, ?), "
    "reply=CASE WHEN ?6='' THEN reply ELSE ?6 END, owner=0 WHERE message=?7 AND number=?8"
)
_EVENT = (
    "INSERT INTO event SELECT ?1, coalesce(max(number), 0)+1, ?2, ?3, ?4 FROM event WHERE message=?1 RETURNING number"
)
_IS_KNOWN = "SELECT 1 FROM message WHERE id=?1 UNION ALL SELECT 1 FROM tombstone WHERE id=?1"
_IS_REPLAYED = "SELECT 1 FROM segment WHERE number=?"
_END_AHEAD = "INSERT OR IGNORE INTO recipient VALUES(?, ?, '', ?, 0, '', 3, ?, 0, 0, ?, 0, 0, 0, ?, ?)"
_HOLD = "UPDATE recipient SET state=CASE WHEN state IN (1, 4) THEN 4 ELSE 2 END WHERE message=? AND state<>3"
_LEASED = (RecipientState.LEASED, RecipientState.LEASED_THEN_HELD)


def add_event(db: QueueDatabase, message: int, recipient: int | None, *, at: float, text: str, most: int) -> None:
    """A line for the history; the oldest ones go."""
    ((number,),) = db.connection.execute(_EVENT, (message, at, recipient, text))
    if number > most:
        db.connection.execute("DELETE FROM event WHERE message=? AND number<=?", (message, number - most))


def _is_attempt(ending: Ending) -> bool:
    return ending in (Ending.DELIVERED, Ending.BOUNCED)


def hold_damaged(db: QueueDatabase, message: int) -> None:
    """All recipients of a message whose content is lost: nothing goes on, nothing is deleted."""
    rows: list[Any] = db.connection.execute(
        "SELECT destination, count(*) FROM recipient WHERE message=? AND state=0 GROUP BY destination", (message,)
    ).fetchall()
    for destination, waiting in rows:
        db.count_waiting(destination, -waiting, is_news=False)
    db.connection.execute(_HOLD, (message,))
    db.connection.execute("UPDATE message SET place=2 WHERE id=? AND owed>0", (message,))


@frozen
class Settler:
    """Settles for one worker."""

    db: QueueDatabase
    owner: int
    """Of the leases that are meant."""
    most_events: int

    def settle(self, entry_id: int, settlements: Sequence[Settlement], now: float) -> bool:
        """Whether nobody is owed the message any more."""
        ended = 0
        for each in settlements:
            if isinstance(each, Postponed):
                self._postpone(entry_id, each, now)
            elif isinstance(each, Delivered):
                ended += self._end(entry_id, each.recipient_id, Ending.DELIVERED, text=each.text, now=now)
            elif isinstance(each, Finished):
                ended += self._end(entry_id, each.recipient_id, each.ending, text=each.text, now=now)
        return bool(ended) and self.less_owed(entry_id, ended, now)

    def settle_journaled(self, settlement: QueueSettlement, now: float) -> bool:
        """The same for what a journal record says."""
        entry_id = settlement.entry_id
        if self.db.row(_IS_KNOWN, (entry_id,)) is None:
            if self.db.row(_IS_REPLAYED, (entry_id >> OFFSET_BITS,)) is not None:
                self._end_ahead(settlement, now)
            return False
        ended = 0
        for number in settlement.recipient_ids:
            ended += self._end(entry_id, number, settlement.ending, text=settlement.text, now=now)
        return bool(ended) and self.less_owed(entry_id, ended, now)

    def _end_ahead(self, settlement: QueueSettlement, now: float) -> None:
        """A power cut took the message, and the journal of another worker that brings it back is yet to be replayed.

        Rows of its recipients wait for it, ended; they go with its segment where it does not come.
        """
        destination = self.db.destination_id(str(LOCAL))
        ending = settlement.ending
        self.db.connection.executemany(
            _END_AHEAD,
            [
                (
                    settlement.entry_id,
                    number,
                    destination,
                    now,
                    _is_attempt(ending),
                    ENDINGS.index(ending),
                    settlement.text,
                )
                for number in settlement.recipient_ids
            ],
        )

    def _end(self, entry_id: int, number: int, ending: Ending, *, text: str, now: float) -> int:
        connection = self.db.connection
        row = self.db.row(_FIND, (entry_id, number))
        if row is None:
            return 0
        state, destination, _ = row
        if state == RecipientState.ENDED:
            if ending is Ending.DELIVERED:
                # Delivered twice, or after it was dropped: nobody can change that, but it is told.
                self._event(entry_id, number, now, f"delivered after its end: {text}")
            return 0
        if state == RecipientState.WAITING:
            self.db.count_waiting(destination, -1, is_news=False)
        connection.execute(_END, (ENDINGS.index(ending), now, text, _is_attempt(ending), entry_id, number))
        return 1

    def less_owed(self, entry_id: int, ended: int, now: float) -> bool:
        """So many recipients fewer; whether it is the end of the message."""
        row = self.db.row(_LESS_OWED, (ended, now, entry_id))
        if row is None or row[0] > 0:
            return False
        self.db.count_messages(-1, -row[1], 1)
        return True

    def _postpone(self, entry_id: int, postponed: Postponed, now: float) -> None:
        db = self.db
        number = postponed.recipient_id
        row = db.row(_FIND, (entry_id, number))
        if row is None or row[0] == RecipientState.ENDED:
            return
        state, destination, owner = row
        if state not in _LEASED or owner != self.owner:
            if postponed.is_delay_told:
                db.connection.execute(
                    "UPDATE recipient SET is_delay_told=1 WHERE message=? AND number=?", (entry_id, number)
                )
            return
        if postponed.destination is not None:
            destination = db.destination_id(str(postponed.destination))
        state = RecipientState.WAITING if state == RecipientState.LEASED else RecipientState.HELD
        db.connection.execute(
            _POSTPONE,
            (
                state,
                postponed.until,
                destination,
                postponed.is_attempt,
                postponed.is_delay_told,
                postponed.text,
                entry_id,
                number,
            ),
        )
        if state == RecipientState.WAITING:
            db.count_waiting(destination, 1, is_news=True)
        if postponed.is_attempt and postponed.text:
            self._event(entry_id, number, now, postponed.text)

    def _event(self, entry_id: int, number: int, now: float, text: str) -> None:
        add_event(self.db, entry_id, number, at=now, text=text, most=self.most_events)

    def give_back(self, consignment: Consignment) -> None:
        """Untried: due as before."""
        entry_id = consignment.entry.id
        for recipient in consignment.recipients:
            self.free(entry_id, recipient.id)

    def free(self, entry_id: int, number: int) -> None:
        """End one lease of this worker."""
        row = self.db.row(_FIND, (entry_id, number))
        if row is None or row[0] not in _LEASED or row[2] != self.owner:
            return
        state = RecipientState.WAITING if row[0] == RecipientState.LEASED else RecipientState.HELD
        self.db.connection.execute(
            "UPDATE recipient SET state=?, owner=0 WHERE message=? AND number=?", (state, entry_id, number)
        )
        if state == RecipientState.WAITING:
            self.db.count_waiting(row[1], 1, is_news=True)
