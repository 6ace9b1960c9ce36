"""Who is given which mail: leases, fairly between senders, and what waits for each destination.

A take looks at the mail that is due longest, of the highest priority first. Where that is so much that
other senders may stand behind it, it goes round the senders as well, a bounded number each time; who was
served least lately comes first. So a million messages of one sender cost another one a turn, not a day.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from attrs import define, field
from twisted.logger import Logger

from mailsrv.errors import MailError
from mailsrv.interfaces.queue import Consignment, Destination, DestinationState
from mailsrv.queue.database import QueueDatabase
from mailsrv.queue.rows import MESSAGE_COLUMNS, RECIPIENT_COLUMNS, entry_of, recipient_of
from mailsrv.queue.schema import RecipientState

_LOWEST_RANK = -1000
_MOST_SENDERS = 64
_REMEMBERED_SENDERS = 20_000
_NEXT_RANK = (
    "SELECT rank, due FROM recipient INDEXED BY recipient_due "
    "WHERE state=0 AND destination=? AND rank>? ORDER BY rank, due LIMIT 1"
)
_OLDEST = (
    "SELECT message, sender, due FROM recipient INDEXED BY recipient_due "
    "WHERE state=0 AND destination=? AND rank=? AND due<=? ORDER BY due LIMIT ?"
)
_NEXT_SENDER = (
    "SELECT message, sender, due FROM recipient INDEXED BY recipient_sender "
    "WHERE state=0 AND destination=? AND rank=? AND sender>? ORDER BY sender, due LIMIT 1"
)
_MESSAGE = f"SELECT {MESSAGE_COLUMNS} FROM message WHERE id=?"  # noqa: S608 - columns of ours
_RECIPIENTS = (
    f"SELECT {RECIPIENT_COLUMNS} FROM recipient "  # noqa: S608 - as above
    "WHERE message=? AND destination=? AND state=0 AND due<=? ORDER BY number LIMIT ?"
)
_NUMBERS = (
    "SELECT number FROM recipient WHERE message=? AND destination=? AND state=0 AND due<=? ORDER BY number LIMIT ?"
)
_LEASE = "UPDATE recipient SET state=1, owner=?, lease_until=? WHERE message=? AND number=?"
_RENEW = "UPDATE recipient SET lease_until=? WHERE message=? AND owner=? AND state IN (1, 4)"
_FREE = (
    "UPDATE recipient SET state=CASE state WHEN 4 THEN 2 ELSE 0 END, owner=0, due=max(due, ?) "
    "WHERE state IN (1, 4) AND {condition} RETURNING destination, state"
)


@define
class _Sender:
    messages: list[int] = field(factory=list)
    due: float = math.inf


class Leases:
    """Gives mail out to one worker. Every method inside a transaction, or (``state``, ``destinations``) outside."""

    _log = Logger()

    def __init__(self, db: QueueDatabase, owner: int, lease_seconds: float) -> None:
        self._db = db
        self._owner = owner
        self._lease_seconds = lease_seconds
        # (destination, sender) → when it was served last, as a count; the least lately served is forgotten first.
        self._served: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._turn = 0
        self._scanned: OrderedDict[tuple[int, int], int] = OrderedDict()

    # -- take -----------------------------------------------------------------------

    def take(self, destination: Destination, now: float, messages: int, recipients: int) -> list[Consignment]:
        """As :meth:`IQueueStore.take`."""
        number = self._db.known_destination(str(destination))
        taken: list[Consignment] = []
        if number is None:
            return taken
        for rank, due in self._ranks(number):
            if len(taken) >= messages:
                break
            if due <= now:
                for message in self._choose(number, rank, now, messages - len(taken)):
                    consignment = self._lease(message, number, destination, now=now, recipients=recipients)
                    if consignment is not None:
                        taken.append(consignment)
        return taken

    def _ranks(self, destination: int) -> Iterator[tuple[int, float]]:
        rank = _LOWEST_RANK
        while (row := self._db.row(_NEXT_RANK, (destination, rank))) is not None:
            rank = row[0]
            yield rank, row[1]

    def _choose(self, destination: int, rank: int, now: float, wanted: int) -> list[int]:
        """Messages, in the order of their turns."""
        window = 4 * wanted + 16
        rows: list[Any] = self._db.connection.execute(_OLDEST, (destination, rank, now, window)).fetchall()
        senders: dict[int, _Sender] = {}
        seen: set[int] = set()
        for row in rows:
            _offer(senders, seen, row)
        if len(rows) == window:
            for row in self._other_senders(destination, rank, now, 2 * wanted + 8):
                _offer(senders, seen, row)
        if len(senders) == 1:
            (sender,) = senders.values()
            return sender.messages[:wanted]
        return self._in_turns(destination, senders, wanted)

    def _other_senders(self, destination: int, rank: int, now: float, most: int) -> Iterator[tuple[int, int, float]]:
        """The oldest message of each of the next senders, beginning where the last take left off."""
        start = at = self._scanned.pop((destination, rank), -1)
        has_wrapped = False
        for _ in range(min(most, _MOST_SENDERS)):
            row = self._db.row(_NEXT_SENDER, (destination, rank, at))
            if row is None:
                if has_wrapped:
                    break
                has_wrapped, at = True, -1
                continue
            at = row[1]
            if has_wrapped and at > start:
                break
            if row[2] <= now:
                yield row
        self._scanned[destination, rank] = at
        if len(self._scanned) > _REMEMBERED_SENDERS:
            self._scanned.popitem(last=False)

    def _in_turns(self, destination: int, senders: dict[int, _Sender], wanted: int) -> list[int]:
        """One message of each sender, then another one of each."""
        served = self._served
        line = sorted(senders.items(), key=lambda each: (served.get((destination, each[0]), 0), each[1].due))
        chosen: list[int] = []
        depth = 0
        while len(chosen) < wanted:
            before = len(chosen)
            for sender, waiting in line:
                if depth < len(waiting.messages) and len(chosen) < wanted:
                    chosen.append(waiting.messages[depth])
                    self._turn += 1
                    served[destination, sender] = self._turn
                    served.move_to_end((destination, sender))
            if len(chosen) == before:
                break
            depth += 1
        while len(served) > _REMEMBERED_SENDERS:
            served.popitem(last=False)
        return chosen

    def _lease(
        self, message: int, number: int, destination: Destination, *, now: float, recipients: int
    ) -> Consignment | None:
        connection = self._db.connection
        rows: list[Any] = connection.execute(_NUMBERS, (message, number, now, recipients)).fetchall()
        if not rows:
            return None
        try:
            # Text that is no UTF-8 fails already here.
            found = self._db.row(_MESSAGE, (message,))
            if found is None:
                raise ValueError("recipients without a message")
            full: list[Any] = connection.execute(_RECIPIENTS, (message, number, now, recipients)).fetchall()
            consignment = Consignment(entry_of(found), destination, tuple(recipient_of(row) for row in full))
        except (ValueError, MailError) as error:
            self._log.critical(
                "message {message} of the queue cannot be read and is held: {error}",
                log_alarm="queue-corrupt",
                message=message,
                error=str(error),
            )
            connection.executemany(
                "UPDATE recipient SET state=2 WHERE message=? AND number=?", [(message, row[0]) for row in rows]
            )
            self._db.count_waiting(number, -len(rows), is_news=False)
            return None
        until = now + self._lease_seconds
        for row in rows:
            connection.execute(_LEASE, (self._owner, until, message, row[0]))
        self._db.count_waiting(number, -len(rows), is_news=False)
        return consignment

    # -- the end of leases -------------------------------------------------------------

    def free_worker(self, owner: int, not_before: float) -> int:
        """All leases of a worker that has ended; how many. What was leased is not due ``not_before``."""
        return self._free("owner=?", owner, not_before)

    def free_other_runs(self, run: int, living: Sequence[int] = ()) -> int:
        """All leases of earlier runs of the server, except those of workers that live."""
        marks = ",".join(str(owner) for owner in living)
        return self._free(f"owner>>10<>? AND owner NOT IN ({marks})", run)

    def free_expired(self, now: float) -> int:
        """Leases nobody said anything more of."""
        return self._free("lease_until<?", now)

    def renew(self, messages: Sequence[int], now: float) -> None:
        """Ours of these messages begin anew."""
        until = now + self._lease_seconds
        self._db.connection.executemany(_RENEW, [(until, message, self._owner) for message in messages])

    def lengthen(self, seconds: float) -> None:
        """All leases, of whomever."""
        self._db.connection.execute(
            "UPDATE recipient SET lease_until=lease_until+? WHERE state IN (1, 4) AND lease_until>=0", (seconds,)
        )

    def _free(self, condition: str, value: float, not_before: float = 0.0) -> int:
        sql = _FREE.format(condition=condition)
        freed: list[Any] = self._db.connection.execute(sql, (not_before, value)).fetchall()
        for destination, state in freed:
            if state == RecipientState.WAITING:
                self._db.count_waiting(destination, 1, is_news=True)
        return len(freed)

    # -- what waits ----------------------------------------------------------------------

    def state(self, destination: Destination) -> DestinationState:
        """Of one destination."""
        row = self._db.row("SELECT id, waiting FROM destination WHERE name=?", (str(destination),))
        if row is None:
            return DestinationState(destination, 0, math.inf)
        return DestinationState(destination, row[1], self._next_due(row[0]))

    def destinations(self) -> Sequence[DestinationState]:
        """Of all for which something waits."""
        return self._states(self._db.connection.execute("SELECT id, name, waiting FROM destination WHERE waiting>0"))

    def news(self, since: int) -> tuple[int, Sequence[DestinationState]]:
        """What came to wait after the moment ``since``, and the number of this moment."""
        # First the number: what comes between the two is told twice, not never.
        wake = self._db.wake_number()
        if wake == since:
            return wake, ()
        rows = self._db.connection.execute("SELECT id, name, waiting FROM destination WHERE wake>?", (since,))
        return wake, self._states(rows)

    def _states(self, rows: Iterable[Any]) -> Sequence[DestinationState]:
        states = []
        for number, name, waiting in list(rows):
            try:
                destination = Destination.parse(name)
            except ValueError:
                self._log.error("the queue holds mail for {name}, which is no destination", name=name)
                continue
            states.append(DestinationState(destination, waiting, self._next_due(number)))
        return states

    def _next_due(self, destination: int) -> float:
        return min((due for _, due in self._ranks(destination)), default=math.inf)


def _offer(senders: dict[int, _Sender], seen: set[int], row: tuple[int, int, float]) -> None:
    message, number, due = row
    if message not in seen:
        seen.add(message)
        sender = senders.setdefault(number, _Sender())
        sender.messages.append(message)
        sender.due = min(sender.due, due)
