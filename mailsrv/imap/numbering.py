"""A session's own message numbers over the arrays all sessions share (RFC 3501 2.3.1.2).

A mailbox appends to its array of UIDs when messages come and replaces it when messages go. So
the array and a count, taken at one moment, are a numbering that never changes and costs nothing
to keep. A session moves to the next numbering when it has told its client what lies between.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right

from attrs import frozen

from mailsrv.imap.errors import BadCommand
from mailsrv.imap.sequence_set import SequenceSet

NumberRange = tuple[int, int]
"""First and last message number, both counted from 1 and both in it."""


@frozen(eq=False)
class Numbering:
    """Message number ``n`` is ``uids[n - 1]``, for n up to ``count``."""

    uids: array[int]
    count: int

    @property
    def last_uid(self) -> int:
        """The largest UID; 0 in an empty mailbox."""
        return self.uids[self.count - 1] if self.count else 0

    def number_of(self, uid: int) -> int | None:
        """The message number of a UID."""
        place = bisect_left(self.uids, uid, 0, self.count)
        if place < self.count and self.uids[place] == uid:
            return place + 1
        return None

    def expunged(self, now: array[int]) -> list[int]:
        """Which of these messages are not in ``now`` (a later state of the array): their numbers, ascending.

        Each is found by halving, so a few in a large mailbox cost little.
        """
        known, count = self.uids, self.count
        if now is known or not count:
            return []
        kept = bisect_right(now, known[count - 1])
        missing = count - kept
        if missing > count >> 4:
            present = set(now[:kept])
            return [number for number, uid in enumerate(known[:count], 1) if uid not in present]
        gone = []
        place = 0
        for shift in range(missing):
            # Up to the next one that is gone, both agree but for the shift; after it they do not.
            low, high = place, kept + shift
            while low < high:
                middle = (low + high) >> 1
                if known[middle] == now[middle - shift]:
                    low = middle + 1
                else:
                    high = middle
            gone.append(low + 1)
            place = low + 1
        return gone

    def by_number(self, wanted: SequenceSet) -> list[NumberRange]:
        """The messages a set of message numbers means. A number that is not in use is an error."""
        if not self.count:
            if all(0 in ends for ends in wanted.ranges):
                return []  # "*" and "1:*" in an empty mailbox: clients ask, and mean nothing by it
            raise BadCommand("No such message")
        ranges = wanted.resolve(self.count)
        if ranges[-1][1] > self.count:
            raise BadCommand("No such message")
        return ranges

    def by_uid(self, wanted: SequenceSet) -> list[NumberRange]:
        """The messages a set of UIDs means; UIDs that are not in use are passed over (RFC 3501 6.4.8)."""
        if not self.count:
            return []
        found = []
        for low, high in wanted.resolve(self.last_uid):
            first = bisect_left(self.uids, low, 0, self.count) + 1
            last = bisect_right(self.uids, high, 0, self.count)
            if first <= last:
                found.append((first, last))
        return found

    def uids_in(self, ranges: list[NumberRange]) -> array[int]:
        """The UIDs of the messages in these ranges, ascending."""
        uids: array[int] = array("I")
        for first, last in ranges:
            uids += self.uids[first - 1 : last]
        return uids


def ranges_of(numbers: list[int]) -> list[NumberRange]:
    """Ascending message numbers as ranges."""
    ranges: list[NumberRange] = []
    first = last = 0
    for number in numbers:
        if number == last + 1 and last:
            last = number
            continue
        if last:
            ranges.append((first, last))
        first = last = number
    if last:
        ranges.append((first, last))
    return ranges
