"""FETCH rows of a slice of messages as columns, which are joined at once: message numbers, flags, mod-sequences.

Prefixes and flags are shared octets. What does not change of a message comes from elsewhere, as another column.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import chain

from mailsrv.imap.fetch.plan import FetchPlan
from mailsrv.imap.flags import FlagTemplates
from mailsrv.imap.responses import fetch_prefixes
from mailsrv.imap.selected import RowSlice, SelectedMailbox


class Columns:
    """Of one FETCH."""

    def __init__(self, selected: SelectedMailbox, plan: FetchPlan) -> None:
        self._selected = selected
        self._plan = plan
        flag_set = selected.mailbox.flag_set
        # Where flags end a row they bring its end with them.
        after = b" " if plan.wants_mod_seq or plan.wants_uid or not plan.is_array_only else b")\r\n"
        self._plain = FlagTemplates(flag_set, is_recent=False, after=after)
        self._recent = FlagTemplates(flag_set, is_recent=True, after=after)

    def array_rows(self, rows: RowSlice) -> bytes:
        """Whole rows, where nothing but what changes was asked for."""
        columns = self.changing(rows, b" " if self._plan.wants_uid else b")\r\n")
        if self._plan.wants_uid:
            columns.append(map(b"UID %d)\r\n".__mod__, rows.uids))
        return b"".join(chain.from_iterable(zip(*columns, strict=True)))

    def changing(self, rows: RowSlice, mod_seq_end: bytes) -> list[Iterable[bytes]]:
        """The beginnings of rows; ``mod_seq_end`` follows a mod-sequence."""
        columns: list[Iterable[bytes]] = [_prefixes(rows)]
        if self._plan.wants_flags:
            columns.append(self._flags(rows))
        if self._plan.wants_mod_seq:
            columns.append(map((b"MODSEQ (%d)" + mod_seq_end).__mod__, rows.mod_seqs))
        return columns

    def flags_of(self, uid: int, flag_set_number: int) -> bytes:
        """The flags of one message, and what follows them."""
        return (self._recent if self._selected.is_recent(uid) else self._plain)[flag_set_number]

    def _flags(self, rows: RowSlice) -> Iterable[bytes]:
        alike = self._selected.is_all_recent(rows.uids)
        if alike is not None:
            return map((self._recent if alike else self._plain).__getitem__, rows.flag_set_numbers)
        return map(self.flags_of, rows.uids, rows.flag_set_numbers)


def _prefixes(rows: RowSlice) -> Sequence[bytes]:
    numbers = rows.numbers
    if isinstance(numbers, range):
        return fetch_prefixes(numbers[0], numbers[-1]) if numbers else []
    return [b"* %d FETCH (" % number for number in numbers]


def joined(slices: Sequence[RowSlice]) -> RowSlice:
    """Several slices as one, so that a set with many holes takes no more steps than one without."""
    uids, flag_set_numbers, mod_seqs = array("I"), array("I"), array("Q")
    for rows in slices:
        uids += rows.uids
        flag_set_numbers += rows.flag_set_numbers
        mod_seqs += rows.mod_seqs
    numbers = list(chain.from_iterable(rows.numbers for rows in slices))
    return RowSlice(numbers, uids, flag_set_numbers, mod_seqs, all(rows.is_whole for rows in slices))


def present(rows: RowSlice, fixed: Sequence[bytes | None]) -> tuple[RowSlice, list[bytes | None]]:
    """Without the messages for which there is no row in ``fixed``."""
    places = [place for place, row in enumerate(fixed) if row is not None]
    return (
        RowSlice(
            [rows.numbers[place] for place in places],
            array("I", [rows.uids[place] for place in places]),
            array("I", [rows.flag_set_numbers[place] for place in places]),
            array("Q", [rows.mod_seqs[place] for place in places]),
            False,
        ),
        [fixed[place] for place in places],
    )
