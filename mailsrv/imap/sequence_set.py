"""Sequence sets (RFC 3501 section 9, `sequence-set`): reading and writing them.

A set is kept as the ranges the client wrote; only a numbering can say what they mean, as
``*`` is the largest number in use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from attrs import frozen

from mailsrv.imap.errors import BadCommand

# sequence-set = (seq-number / seq-range) *("," sequence-set)
_ONE = rb"(?:[1-9]\d{0,9}|\*)"
_SEQUENCE_SET = re.compile(rb"%b(?::%b)?(?:,%b(?::%b)?)*" % (_ONE, _ONE, _ONE, _ONE))

STAR = 0
"""Stands for ``*`` in :class:`SequenceSet`."""

LARGEST = 2**32 - 1


@frozen
class SequenceSet:
    """The ranges as written, first and last; 0 is ``*``."""

    ranges: tuple[tuple[int, int], ...]

    def resolve(self, largest: int) -> list[tuple[int, int]]:
        """Ascending, disjoint ranges, with ``largest`` for ``*``."""
        wanted = []
        for first, last in self.ranges:
            low, high = first or largest, last or largest
            wanted.append((low, high) if low <= high else (high, low))
        if len(wanted) == 1:
            return wanted
        wanted.sort()
        merged = [wanted[0]]
        for low, high in wanted:
            before = merged[-1]
            if low <= before[1] + 1:
                if high > before[1]:
                    merged[-1] = (before[0], high)
            else:
                merged.append((low, high))
        return merged


def match_sequence_set(octets: bytes, position: int) -> tuple[SequenceSet, int]:
    """Read a set at ``position``; the set and where it ends. Raises BadCommand."""
    found = _SEQUENCE_SET.match(octets, position)
    if found is None:
        raise BadCommand("Expected a set of message numbers")
    ranges = []
    for part in found.group().split(b","):
        first, colon, last = part.partition(b":")
        low = STAR if first == b"*" else int(first)
        high = low if not colon else STAR if last == b"*" else int(last)
        if low > LARGEST or high > LARGEST:
            raise BadCommand("Number too large")
        ranges.append((low, high))
    return SequenceSet(tuple(ranges)), found.end()


def format_sequence_set(numbers: Iterable[int]) -> bytes:
    """Ascending numbers as a set, neighbours joined."""
    parts: list[bytes] = []
    first = last = -1
    for number in numbers:
        if number == last + 1 and last >= 0:
            last = number
            continue
        if last >= 0:
            parts.append(b"%d" % first if first == last else b"%d:%d" % (first, last))
        first = last = number
    if last >= 0:
        parts.append(b"%d" % first if first == last else b"%d:%d" % (first, last))
    return b",".join(parts)


def format_uid_set(uids: Sequence[int]) -> bytes:
    """As :func:`format_sequence_set`, but in the order given, as COPYUID and APPENDUID pair them (RFC 4315 3)."""
    return format_sequence_set(uids)
