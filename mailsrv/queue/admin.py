"""The queue for its administrator: looked at and changed from another process, the server running or not.

Every command chooses recipients (:class:`Selection`) and changes them in one transaction. Workers notice
within a second. What is being delivered at the moment is not torn from the connection: it is held, or goes
to its new destination, when the attempt is over and has failed.
"""

from __future__ import annotations

import enum
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import apsw
from attrs import evolve

from mailsrv.disk import IDisk
from mailsrv.disk.failure import as_mail_error
from mailsrv.errors import Unavailable
from mailsrv.interfaces.queue import Destination, Ending
from mailsrv.queue.content import ContentFolder
from mailsrv.queue.database import QueueDatabase
from mailsrv.queue.listing import LIST, DestinationStatistics, Event, ListedMessage, ListedRecipient, Statistics, listed
from mailsrv.queue.schema import ENDINGS, FILE, Place, RecipientState
from mailsrv.queue.selection import Selection, ShownState, shown_state

_CHUNK = 20_000
_ROWS_AT_ONCE = 1000

Progress = Callable[[int, int], object]
"""Told how many of how many recipients are done."""


class Command(enum.Enum):
    """What can be done to recipients."""

    HOLD = "hold"
    RELEASE = "release"
    FLUSH = "flush"
    DROP = "drop"
    REQUEUE = "requeue"
    REROUTE = "reroute"


_CHOOSE = (
    "CREATE TEMP TABLE chosen AS SELECT r.message AS message, r.number AS number, r.destination AS destination, "
    "r.state AS state FROM recipient r JOIN message m ON m.id=r.message "
    "LEFT JOIN destination d ON d.id=r.destination WHERE {condition} AND {also}"
)
_EVENTS = (
    "INSERT INTO event SELECT c.message, coalesce((SELECT max(number) FROM event e WHERE e.message=c.message), 0)+1, "
    "?, NULL, ? FROM (SELECT DISTINCT message FROM temp.chosen) c"
)
_THOSE = (
    "FROM temp.chosen c WHERE c.rowid BETWEEN :first AND :last "
    "AND recipient.message=c.message AND recipient.number=c.number"
)
# A message whose content is damaged (place 2) can be dropped, and never goes on.
# Which of the selected a command means, what it makes of them, and whether they wait afterwards (None: as before).
_COMMANDS: dict[Command, tuple[str, str, bool | None]] = {
    Command.HOLD: ("r.state IN (0, 1)", "state=CASE recipient.state WHEN 0 THEN 2 ELSE 4 END", False),
    Command.RELEASE: ("r.state IN (2, 4) AND m.place<>2", "state=CASE recipient.state WHEN 2 THEN 0 ELSE 1 END", True),
    # AT_ONCE: also where the destination is known to be down.
    Command.FLUSH: ("r.state=0", "due=0", None),
    Command.DROP: ("r.state<>3", "state=3, ending=:dropped, due=:now, owner=0, reply=:text", False),
    Command.REQUEUE: (
        "r.state IN (0, 2) AND m.place<>2",
        "state=0, attempts=0, is_delay_told=0, due=:now",
        True,
    ),
    Command.REROUTE: ("r.state<>3", "destination=:destination, due=min(recipient.due, :now)", None),
}


class QueueAdministration:
    """The commands. Blocking; every method raises MailError where the queue cannot be read or written."""

    def __init__(
        self, directory: str, disk: IDisk, *, busy_seconds: float = 30.0, clock: Callable[[], float] = time.time
    ) -> None:
        if not os.path.exists(os.path.join(directory, FILE)):
            raise Unavailable(f"There is no queue in {directory}")
        try:
            self.db = QueueDatabase(directory, threading.Lock(), busy_seconds)
        except (OSError, apsw.Error) as error:
            raise as_mail_error(error) from error
        self.content = ContentFolder(disk, directory, 0)
        self._clock = clock

    def close(self) -> None:
        """Let go of the database."""
        self.db.close()

    # -- looking --------------------------------------------------------------------

    def messages(self, selection: Selection, limit: int | None = None) -> Iterator[ListedMessage]:
        """Oldest segment first; read as it is asked for."""
        current: ListedMessage | None = None
        recipients: list[ListedRecipient] = []
        count = 0
        for row in self._rows(selection):
            message, recipient = listed(row)
            if current is not None and message.id != current.id:
                yield evolve(current, recipients=tuple(recipients))
                count += 1
                recipients = []
                if count == limit:
                    return
            current = message
            recipients.append(recipient)
        if current is not None:
            yield evolve(current, recipients=tuple(recipients))

    def _rows(self, selection: Selection) -> Iterator[Any]:
        """Some at a time: who reads for long, behind a pager, must not keep the log from being written back."""
        condition, values = selection.condition(self._clock())
        sql = LIST.format(condition=f"({condition}) AND (r.message, r.number) > (?, ?)") + " LIMIT ?"
        last = (-1, -1)
        while True:
            try:
                rows: list[Any] = self.db.connection.execute(sql, (*values, *last, _ROWS_AT_ONCE)).fetchall()
            except apsw.Error as error:
                raise as_mail_error(error) from error
            yield from rows
            if len(rows) < _ROWS_AT_ONCE:
                return
            last = (rows[-1][0], rows[-1][8])

    def find(self, name: str) -> list[int]:
        """Messages of this id or transaction id."""
        rows: list[Any] = self.db.connection.execute(
            "SELECT id FROM message WHERE id=? OR transaction_id=?", (int(name) if name.isdecimal() else -1, name)
        ).fetchall()
        return [row[0] for row in rows]

    def show(self, message: int) -> tuple[ListedMessage, list[Event]] | None:
        """With all recipients, also those that ended, and its history; None where it is not (any more) known."""
        try:
            rows: list[Any] = self.db.connection.execute(LIST.format(condition="r.message=?"), (message,)).fetchall()
            events: list[Any] = self.db.connection.execute(
                "SELECT e.at, coalesce(r.address, ''), e.text FROM event e "
                "LEFT JOIN recipient r ON r.message=e.message AND r.number=e.recipient "
                "WHERE e.message=? ORDER BY e.number",
                (message,),
            ).fetchall()
        except apsw.Error as error:
            raise as_mail_error(error) from error
        if not rows:
            return None
        found = [listed(row) for row in rows]
        return evolve(found[0][0], recipients=tuple(each[1] for each in found)), [Event(*event) for event in events]

    def statistics(self, most_destinations: int) -> Statistics:
        """Of this moment."""
        connection = self.db.connection
        try:
            messages, octets, remembered = self.db.row("SELECT messages, octets, finished FROM queue")
            states: list[Any] = connection.execute(
                "SELECT state, count(*) FROM recipient WHERE state<>3 GROUP BY state"
            ).fetchall()
            rows: list[Any] = connection.execute(
                "SELECT name, waiting, (SELECT min(due) FROM recipient WHERE state=0 AND destination=d.id) "
                "FROM destination d WHERE waiting>0 ORDER BY waiting DESC, name LIMIT ?",
                (most_destinations,),
            ).fetchall()
        except apsw.Error as error:
            raise as_mail_error(error) from error
        counts = {state.value: 0 for state in (ShownState.WAITING, ShownState.ACTIVE, ShownState.HELD)}
        for state, count in states:
            counts[shown_state(state)] += count
        return Statistics(messages, octets, remembered, counts, tuple(DestinationStatistics(*row) for row in rows))

    # -- changing -------------------------------------------------------------------

    def change(
        self,
        command: Command,
        selection: Selection,
        *,
        destination: Destination | None = None,
        progress: Progress | None = None,
    ) -> int:
        """How many recipients it was done to. ``destination``: for REROUTE."""
        if (destination is None) is (command is Command.REROUTE):
            raise ValueError("a new destination belongs to reroute and to nothing else")
        removed: list[int] = []
        try:
            with self.db.transaction(is_durable=True):
                count = self._change(command, selection, destination, progress, removed)
        except apsw.Error as error:
            raise as_mail_error(error) from error
        finally:
            self.db.connection.execute("DROP TABLE IF EXISTS temp.chosen")
        for message in removed:
            self.content.remove(message)
        return count

    def _change(
        self,
        command: Command,
        selection: Selection,
        destination: Destination | None,
        progress: Progress | None,
        removed: list[int],
    ) -> int:
        db, connection = self.db, self.db.connection
        now = self._clock()
        means, sets, waits = _COMMANDS[command]
        condition, values = selection.condition(now)
        connection.execute(_CHOOSE.format(condition=condition, also=means), values)
        (total,) = db.row("SELECT count(*) FROM temp.chosen")
        if not total:
            return 0
        self._count(waits, None if destination is None else db.destination_id(str(destination)))
        named: dict[str, float | str | None] = {
            "now": now,
            "dropped": ENDINGS.index(Ending.DROPPED),
            "text": "dropped by the administrator",
            "destination": None if destination is None else db.destination_id(str(destination)),
        }
        sql = f"UPDATE recipient SET {sets} {_THOSE}"  # noqa: S608 - ours
        for first in range(1, total + 1, _CHUNK):
            last = min(total, first + _CHUNK - 1)
            connection.execute(sql, {**named, "first": first, "last": last})
            if progress is not None:
                progress(last, total)
        if command is Command.DROP:
            removed += self._end_messages(now)
        elif command is Command.REQUEUE:
            connection.execute("UPDATE message SET accepted_at=? WHERE id IN (SELECT message FROM temp.chosen)", (now,))
        text = command.value if destination is None else f"{command.value} to {destination}"
        self._add_events(f"{text} by the administrator", now)
        return int(total)

    def _count(self, waits: bool | None, destination: int | None) -> None:
        """Who waits for what, after the change."""
        rows: list[Any] = self.db.connection.execute(
            "SELECT destination, state, count(*) FROM temp.chosen GROUP BY destination, state"
        ).fetchall()
        for number, state, count in rows:
            self.db.destination_name(number)
            waited = state == RecipientState.WAITING
            if destination is not None:
                if waited:
                    self.db.count_waiting(number, -count, is_news=False)
                    self.db.count_waiting(destination, count, is_news=True)
            elif waits is None:
                self.db.count_waiting(number, 0, is_news=True)
            elif waits and not waited and state == RecipientState.HELD:
                self.db.count_waiting(number, count, is_news=True)
            elif waits and waited:
                self.db.count_waiting(number, 0, is_news=True)
            elif not waits and waited:
                self.db.count_waiting(number, -count, is_news=False)

    def _end_messages(self, now: float) -> list[int]:
        """Those whose recipients have all ended now; the ones with a file."""
        rows: list[Any] = self.db.connection.execute(
            "UPDATE message SET owed=owed-c.ended, finished_at=CASE WHEN owed<=c.ended THEN ? END "
            "FROM (SELECT message, count(*) AS ended FROM temp.chosen GROUP BY message) c WHERE message.id=c.message "
            "RETURNING message.id, owed, size, place",
            (now,),
        ).fetchall()
        finished = [row for row in rows if row[1] <= 0]
        self.db.count_messages(-len(finished), -sum(row[2] for row in finished), len(finished))
        return [row[0] for row in finished if row[3] == Place.FILE]

    def _add_events(self, text: str, now: float) -> None:
        self.db.connection.execute(_EVENTS, (now, text))
