"""Ready-made parts of FETCH responses, kept for the next client that asks the same of the same mailbox.

What is kept never changes as long as its UID means its message: everything but flags and
mod-sequence. One budget of octets holds for all mailboxes; the set of rows that was not used for
longest goes first. Structures of messages are kept likewise, by number, so that a client that
fetches a large message piece by piece does not have it scanned each time.
"""

from __future__ import annotations

from collections import OrderedDict

from mailsrv.message import MessageStructure

MailboxKey = tuple[str, int, int]
"""Account, mailbox id, UIDVALIDITY."""

_ROW_OVERHEAD = 150
"""What Python needs beside a row's own octets: objects and the dictionary's entry."""
_LONGEST_ROW = 65536
_SETS_MAX = 4096
_PARTS_KEPT = 10_000
_PARTS_OF_ONE = 500
_HEADER_OCTETS_OF_ONE = 65536


class Rows(dict[int, bytes]):
    """Rows by UID of one mailbox and one list of items."""

    __slots__ = ("is_dropped", "octets")

    def __init__(self) -> None:
        super().__init__()
        self.octets = 0
        self.is_dropped = False
        """No longer in the cache, but maybe still in the hands of somebody who is answering."""


class RowCache:
    """All rows and structures of a process."""

    def __init__(self, octet_limit: int) -> None:
        self._limit = octet_limit
        self._rows: OrderedDict[tuple[MailboxKey, bytes], Rows] = OrderedDict()
        self._structures: OrderedDict[tuple[MailboxKey, int], MessageStructure] = OrderedDict()
        self._parts = 0
        self.octets = 0
        """What the rows take now."""

    def rows(self, mailbox: MailboxKey, items: bytes) -> Rows:
        """The rows of a mailbox for a list of items; maybe none yet."""
        key = (mailbox, items)
        rows = self._rows.get(key)
        if rows is None:
            rows = self._rows[key] = Rows()
            if len(self._rows) > _SETS_MAX:
                self._drop_oldest(rows)
        self._rows.move_to_end(key)
        return rows

    def add(self, rows: Rows, made: dict[int, bytes]) -> None:
        """Keep rows that were just made, as far as the budget allows."""
        if rows.is_dropped:
            return
        fresh = {uid: row for uid, row in made.items() if len(row) <= _LONGEST_ROW}
        cost = sum(map(len, fresh.values())) + _ROW_OVERHEAD * len(fresh)
        while self.octets + cost > self._limit and self._drop_oldest(rows):
            pass
        if self.octets + cost <= self._limit:
            rows.update(fresh)
            rows.octets += cost
            self.octets += cost

    def _drop_oldest(self, but: Rows) -> bool:
        for key, rows in self._rows.items():
            if rows is not but:
                self.octets -= rows.octets
                rows.octets = 0
                rows.is_dropped = True
                rows.clear()
                del self._rows[key]
                return True
        return False

    def structure(self, mailbox: MailboxKey, uid: int) -> MessageStructure | None:
        """The structure of a message, if it is kept."""
        key = (mailbox, uid)
        found = self._structures.get(key)
        if found is not None:
            self._structures.move_to_end(key)
        return found

    def keep_structure(self, mailbox: MailboxKey, uid: int, structure: MessageStructure) -> None:
        """Keep a structure, if it is not too large, and of all of them not too many parts."""
        parts = structure.parts
        header_octets = sum(part.body_start - part.header_start for part in parts[:_PARTS_OF_ONE])
        if len(parts) > _PARTS_OF_ONE or header_octets > _HEADER_OCTETS_OF_ONE or (mailbox, uid) in self._structures:
            return
        self._structures[mailbox, uid] = structure
        self._parts += len(parts)
        while self._parts > _PARTS_KEPT:
            _, dropped = self._structures.popitem(last=False)
            self._parts -= len(dropped.parts)
