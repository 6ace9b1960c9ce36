"""Internal dates of an open mailbox in memory, for searches by date.

Loaded when first asked for, then kept beside the view: 20 octets a message, for as long as the
mailbox is open. Dates never change, so only what came since has to be read.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import apsw

from mailsrv.interfaces.mailbox import DATE_OF_NONE, InternalDates
from mailsrv.store.index.rows import UID_MASK

_SELECT = (
    f"SELECT id & {UID_MASK}, internal_date, date_offset FROM summary"  # noqa: S608
    " WHERE id BETWEEN ? AND ? ORDER BY id"
)
_SECONDS_PER_DAY = 86_400
Columns: TypeAlias = "tuple[array[int], array[int], array[int]]"
"""UIDs, seconds, days."""


def read_dates(connection: apsw.Connection, mailbox_id: int, first_uid: int) -> Columns:
    """Of messages from this UID on. In a thread, inside a read transaction."""
    uids, seconds, days = array("I"), array("q"), array("q")
    first = mailbox_id << 32
    for uid, second, offset_minutes in connection.execute(_SELECT, (first | first_uid, first | UID_MASK)):
        uids.append(uid)
        seconds.append(second)
        days.append((second + offset_minutes * 60) // _SECONDS_PER_DAY)
    return uids, seconds, days


class DateColumn:
    """What was loaded. Reactor thread only."""

    def __init__(self) -> None:
        self._uids, self._seconds, self._days = array("I"), array("q"), array("q")

    def first_missing(self, uids: Sequence[int]) -> int | None:
        """The UID from which on dates have to be read to answer for these (ascending); None: nothing is missing."""
        known = self._uids
        if not uids or (known and self._place(uids) is not None):
            return None
        last = known[-1] if known else 0
        if any(uid not in self for uid in uids if uid <= last):
            return 1
        return last + 1 if uids[-1] > last else None

    def add(self, columns: Columns, present: array[int]) -> None:
        """Take in what was read. What is not among ``present`` is forgotten."""
        # Another session may have loaded the same meanwhile.
        end = bisect_left(self._uids, columns[0][0]) if columns[0] else len(self._uids)
        self._uids = self._uids[:end] + columns[0]
        self._seconds = self._seconds[:end] + columns[1]
        self._days = self._days[:end] + columns[2]
        if len(self._uids) > len(present):
            places = [place for place in map(self._find, present) if place is not None]
            self._uids, self._seconds, self._days = (
                array("I", [self._uids[place] for place in places]),
                array("q", [self._seconds[place] for place in places]),
                array("q", [self._days[place] for place in places]),
            )

    def answer(self, uids: Sequence[int]) -> InternalDates:
        """Of these, ascending; DATE_OF_NONE where there is none."""
        at = self._place(uids)
        if at is not None:
            return InternalDates(self._seconds[at : at + len(uids)], self._days[at : at + len(uids)])
        places = list(map(self._find, uids))
        return InternalDates(_picked(self._seconds, places), _picked(self._days, places))

    def __contains__(self, uid: int) -> bool:
        return self._find(uid) is not None

    def _place(self, uids: Sequence[int]) -> int | None:
        """Where all of these stand one after the other."""
        if not uids:
            return 0
        at = bisect_left(self._uids, uids[0])
        return at if self._uids[at : at + len(uids)] == array("I", uids) else None

    def _find(self, uid: int) -> int | None:
        at = bisect_left(self._uids, uid)
        return at if at < len(self._uids) and self._uids[at] == uid else None


def _picked(column: array[int], places: Iterable[int | None]) -> array[int]:
    return array("q", [DATE_OF_NONE if place is None else column[place] for place in places])
