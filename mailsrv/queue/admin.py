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
from attrs import field, frozen

from mailsrv.disk import IDisk
from mailsrv.errors import Unavailable
from mailsrv.interfaces.queue import Destination, Ending
from mailsrv.queue.content import ContentFolder
from mailsrv.queue.database import QueueDatabase, as_mail_error
from mailsrv.queue.schema import ENDINGS, FILE, Place, RecipientState

_CHUNK = 20_000
_OPEN_STATES = "r.state<>3"

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


class ShownState(enum.Enum):
    """How states are called in filters and lists."""

    WAITING = "waiting"
    ACTIVE = "active"
    """Being delivered."""
    HELD = "held"
    ENDED = "ended"


_STATES = {
    ShownState.WAITING: (RecipientState.WAITING,),
    ShownState.ACTIVE: (RecipientState.LEASED, RecipientState.LEASED_THEN_HELD),
    ShownState.HELD: (RecipientState.HELD, RecipientState.LEASED_THEN_HELD),
    ShownState.ENDED: (RecipientState.ENDED,),
}


@frozen
class Selection:
    """Which recipients; all conditions have to hold. Without any: all that are owed a message.

    Patterns may have ``*`` and ``?``; letter case does not matter.
    """

    ids: tuple[int, ...] = ()
    sender: str | None = None
    """"" is the null reverse-path."""
    recipient: str | None = None
    destination: str | None = None
    state: ShownState | None = None
    older_than: float | None = None
    """Seconds since it was accepted."""
    younger_than: float | None = None

    @property
    def is_everything(self) -> bool:
        """Whether nothing narrows it down."""
        return self == Selection()

    def condition(self, now: float) -> tuple[str, tuple[Any, ...]]:
        """For WHERE, over ``recipient r``, ``message m``, ``destination d``."""
        parts: list[str] = []
        values: list[Any] = []
        if self.ids:
            parts.append(f"r.message IN ({', '.join('?' * len(self.ids))})")
            values += self.ids
        for column, pattern in (
            ("coalesce(m.reverse_path, '')", self.sender),
            ("r.address", self.recipient),
            ("d.name", self.destination),
        ):
            if pattern is not None:
                parts.append(f"lower({column}) GLOB ?")
                values.append(pattern.lower().replace("[", "[[]"))
        if self.state is None:
            parts.append(_OPEN_STATES)
        else:
            parts.append(f"r.state IN ({', '.join(str(int(state)) for state in _STATES[self.state])})")
        if self.older_than is not None:
            parts.append("m.accepted_at<=?")
            values.append(now - self.older_than)
        if self.younger_than is not None:
            parts.append("m.accepted_at>=?")
            values.append(now - self.younger_than)
        return " AND ".join(parts), tuple(values)


@frozen
class ListedRecipient:
    """One of a message."""

    number: int
    address: str
    destination: str
    state: str
    attempts: int
    due: float
    """When it is tried next; of an ended one, when it ended."""
    ending: str
    last_reply: str


@frozen
class ListedMessage:
    """A message with those of its recipients that were asked for."""

    id: int
    transaction_id: str
    sender: str
    account: str
    accepted_at: float
    size: int
    priority: int
    is_damaged: bool
    recipients: tuple[ListedRecipient, ...] = field(factory=tuple)


@frozen
class Event:
    """A line of a message's history."""

    at: float
    recipient: str
    text: str


@frozen
class DestinationStatistics:
    """What waits for a destination."""

    destination: str
    waiting: int
    next_due: float | None


@frozen
class Statistics:
    """The queue in numbers."""

    messages: int
    octets: int
    remembered: int
    """Messages that left and are still known."""
    recipients: dict[str, int]
    """By state."""
    destinations: tuple[DestinationStatistics, ...]
    """Those with the most waiting recipients first."""


_LIST = (
    "SELECT m.id, m.transaction_id, m.reverse_path, m.account, m.accepted_at, m.size, r.rank, m.place, "
    "r.number, r.address, d.name, r.state, r.attempts, r.due, r.ending, r.reply "
    "FROM recipient r JOIN message m ON m.id=r.message LEFT JOIN destination d ON d.id=r.destination "
    "WHERE {condition} ORDER BY r.message, r.number"
)
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
    "FROM temp.chosen c WHERE c.rowid BETWEEN ? AND ? AND recipient.message=c.message AND recipient.number=c.number"
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
        condition, values = selection.condition(self._clock())
        sql = _LIST.format(condition=condition)
        current: ListedMessage | None = None
        recipients: list[ListedRecipient] = []
        count = 0
        try:
            for row in self.db.connection.execute(sql, values):
                message, recipient = _listed(row)
                if current is not None and message.id != current.id:
                    yield _with(current, recipients)
                    count += 1
                    recipients = []
                    if count == limit:
                        return
                current = message
                recipients.append(recipient)
        except apsw.Error as error:
            raise as_mail_error(error) from error
        if current is not None:
            yield _with(current, recipients)

    def find(self, name: str) -> list[int]:
        """Messages of this id or transaction id."""
        rows: list[Any] = self.db.connection.execute(
            "SELECT id FROM message WHERE id=? OR transaction_id=?", (int(name) if name.isdecimal() else -1, name)
        ).fetchall()
        return [row[0] for row in rows]

    def show(self, message: int) -> tuple[ListedMessage, list[Event]] | None:
        """With all recipients, also those that ended, and its history; None where it is not (any more) known."""
        try:
            rows: list[Any] = self.db.connection.execute(_LIST.format(condition="r.message=?"), (message,)).fetchall()
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
        listed = [_listed(row) for row in rows]
        return _with(listed[0][0], [each[1] for each in listed]), [Event(*event) for event in events]

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
            counts[_shown(state)] += count
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
        named = {
            "now": now,
            "dropped": ENDINGS.index(Ending.DROPPED),
            "text": "dropped by the administrator",
            "destination": None if destination is None else db.destination_id(str(destination)),
        }
        sql = f"UPDATE recipient SET {sets} " + _THOSE.replace("? AND ?", ":first AND :last")  # noqa: S608 - ours
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


def _shown(state: int) -> str:
    if state in (RecipientState.LEASED, RecipientState.LEASED_THEN_HELD):
        return ShownState.ACTIVE.value
    return {
        RecipientState.WAITING: ShownState.WAITING.value,
        RecipientState.HELD: ShownState.HELD.value,
        RecipientState.ENDED: ShownState.ENDED.value,
    }[RecipientState(state)]


def _listed(row: Any) -> tuple[ListedMessage, ListedRecipient]:
    identity, transaction_id, sender, account, accepted_at, size, rank, place, *rest = row
    number, address, destination, state, attempts, due, ending, reply = rest
    message = ListedMessage(
        identity, transaction_id, sender or "", account, accepted_at, size, -rank, place == Place.CORRUPT
    )
    ended = "" if ending is None else ENDINGS[ending].value
    return message, ListedRecipient(number, address, destination or "", _shown(state), attempts, due, ended, reply)


def _with(message: ListedMessage, recipients: list[ListedRecipient]) -> ListedMessage:
    return ListedMessage(
        message.id,
        message.transaction_id,
        message.sender,
        message.account,
        message.accepted_at,
        message.size,
        message.priority,
        message.is_damaged,
        tuple(recipients),
    )
