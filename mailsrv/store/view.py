"""A mailbox in memory: parallel arrays of UIDs, flag-set numbers and mod-sequences (IMailbox).

One view serves all sessions of a process that have the mailbox open. It does no I/O: whoever
owns it tells it what changed, in the order of mod-sequences. New messages are appended in place;
when messages go, all three arrays are replaced by new ones, so that a session may go on using
those it has.

``changed_since`` is answered from a bounded log of changes, read from its end, and from the array of
mod-sequences for anything older than the log.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence

from mailsrv.interfaces.mailbox import SYSTEM_FLAGS, FlagSet, Uid
from mailsrv.store.listeners import Listeners

SEEN = 8
DELETED = 4
_BIT_OF = {flag: 1 << position for position, flag in enumerate(SYSTEM_FLAGS)}
_SYSTEM_SETS = tuple(
    frozenset(flag for flag, bit in _BIT_OF.items() if number & bit) for number in range(1 << len(SYSTEM_FLAGS))
)

StoredFlags = tuple[int, str]
"""Flags as the index keeps them: bits of the system flags, and the keywords sorted and joined by spaces."""


def stored_flags(flags: Collection[str]) -> StoredFlags:
    """``flags`` as the index keeps them; \\Recent, which is no stored flag, is left out."""
    bits = 0
    keywords = []
    for flag in flags:
        bit = _BIT_OF.get(flag)
        if bit is not None:
            bits |= bit
        elif not flag.startswith("\\"):
            keywords.append(flag)
    keywords.sort()
    return bits, " ".join(keywords)


def flag_set_of(bits: int, keywords: str) -> FlagSet:
    """The inverse of :func:`stored_flags`."""
    flags = _SYSTEM_SETS[bits & 31]
    return flags | frozenset(keywords.split(" ")) if keywords else flags


class MailboxView:
    """The arrays and who watches them. Reactor thread only."""

    def __init__(self, change_log_entries: int = 4096) -> None:
        self.uids: array[int] = array("I")
        self.flag_set_numbers: array[int] = array("I")
        self.mod_seqs: array[int] = array("Q")
        self.highest_mod_seq = 0
        self.uid_next = 1
        self._flag_sets: list[FlagSet] = []
        self._numbers: dict[Hashable, int] = {}
        self._keywords: set[str] = set()
        self._changes: deque[tuple[int, int]] = deque(maxlen=change_log_entries)
        self._log_floor = 0
        self._watchers = Listeners()

    def flag_set(self, number: int) -> FlagSet:
        return self._flag_sets[number]

    def number_of(self, stored: StoredFlags) -> int:
        """The number of a flag set; each new one gets the next."""
        number = self._numbers.get(stored)
        if number is None:
            number = self._numbers[stored] = len(self._flag_sets)
            flags = flag_set_of(*stored)
            self._flag_sets.append(flags)
            self._keywords.update(flag for flag in flags if flag[0] != "\\")
        return number

    def keywords(self) -> FlagSet:
        return frozenset(self._keywords)

    def learn_keywords(self, keywords: Iterable[str]) -> None:
        """Keywords once used here, though no message has them now."""
        self._keywords.update(keywords)

    def __len__(self) -> int:
        return len(self.uids)

    def position(self, uid: int) -> int:
        """Index of ``uid`` in the arrays, -1 where it is gone."""
        at = bisect_left(self.uids, uid)
        return at if at < len(self.uids) and self.uids[at] == uid else -1

    def load(self, rows: Iterable[tuple[int, int, int, str]]) -> None:
        """Replace everything by rows of (uid, mod-sequence, flag bits, keywords), ascending by UID."""
        uids, numbers, mod_seqs = array("I"), array("I"), array("Q")
        number_of = self._numbers.get
        for uid, mod_seq, bits, keywords in rows:
            number = number_of((bits, keywords))
            if number is None:
                number = self.number_of((bits, keywords))
            uids.append(uid)
            numbers.append(number)
            mod_seqs.append(mod_seq)
        self.uids, self.flag_set_numbers, self.mod_seqs = uids, numbers, mod_seqs
        self._changes.clear()
        self._log_floor = max(mod_seqs, default=0)

    def apply_changes(
        self,
        rows: Iterable[tuple[int, int, int, str]],
        vanished: Iterable[int],
        highest_mod_seq: int,
        uid_next: int,
    ) -> bool:
        """Take in new and changed rows and the UIDs that went; whether anything changed. Watchers are told."""
        changed = False
        noted: list[tuple[int, int]] = []
        fresh: list[tuple[int, int, int, str]] = []
        last = self.uids[-1] if self.uids else 0
        for row in sorted(rows):
            uid, mod_seq, bits, keywords = row
            if uid > last:
                fresh.append(row)
                continue
            at = self.position(uid)
            if at < 0:
                fresh.append(row)
            elif self.mod_seqs[at] != mod_seq:
                self.flag_set_numbers[at] = self.number_of((bits, keywords))
                self.mod_seqs[at] = mod_seq
                noted.append((mod_seq, uid))
                changed = True
        gone = {uid for uid in vanished if self.position(uid) >= 0}
        if gone:
            self._remove(gone)
            changed = True
        if fresh:
            self._add(fresh)
            noted += [(mod_seq, uid) for uid, mod_seq, _, _ in fresh]
            changed = True
        self._note(noted)
        self.highest_mod_seq = max(self.highest_mod_seq, highest_mod_seq)
        self.uid_next = max(self.uid_next, uid_next)
        if changed:
            self.notify()
        return changed

    def _add(self, rows: list[tuple[int, int, int, str]]) -> None:
        if self.uids and rows[0][0] < self.uids[-1]:
            # UIDs are given in ascending order under a lock, so this is a repair of the index:
            # rare enough to build everything anew.
            self._merge(rows)
            return
        for uid, mod_seq, bits, keywords in rows:
            self.uids.append(uid)
            self.flag_set_numbers.append(self.number_of((bits, keywords)))
            self.mod_seqs.append(mod_seq)

    def _merge(self, rows: list[tuple[int, int, int, str]]) -> None:
        merged = sorted(
            [*zip(self.uids, self.flag_set_numbers, self.mod_seqs, strict=True)]
            + [(uid, self.number_of((bits, keywords)), mod_seq) for uid, mod_seq, bits, keywords in rows]
        )
        self.uids = array("I", [row[0] for row in merged])
        self.flag_set_numbers = array("I", [row[1] for row in merged])
        self.mod_seqs = array("Q", [row[2] for row in merged])

    def _remove(self, gone: set[int]) -> None:
        """Build the arrays anew without ``gone``, copying the stretches between by slices."""
        uids, numbers, mod_seqs = array("I"), array("I"), array("Q")
        start = 0
        for at in sorted(bisect_left(self.uids, uid) for uid in gone):
            uids.extend(self.uids[start:at])
            numbers.extend(self.flag_set_numbers[start:at])
            mod_seqs.extend(self.mod_seqs[start:at])
            start = at + 1
        uids.extend(self.uids[start:])
        numbers.extend(self.flag_set_numbers[start:])
        mod_seqs.extend(self.mod_seqs[start:])
        self.uids, self.flag_set_numbers, self.mod_seqs = uids, numbers, mod_seqs

    def _note(self, noted: list[tuple[int, int]]) -> None:
        """Into the log, which ascends by mod-sequence."""
        if not noted:
            return
        noted.sort()
        changes = self._changes
        if changes and noted[0][0] < changes[-1][0]:
            # Only where an index was repaired: mod-sequences come in their order.
            noted = sorted([*changes, *noted])
            changes.clear()
        most = changes.maxlen or 0
        dropped = len(changes) + len(noted) - most
        if dropped > 0:
            last = changes[dropped - 1] if dropped <= len(changes) else noted[dropped - len(changes) - 1]
            self._log_floor = max(self._log_floor, last[0])
        changes.extend(noted)

    def changed_since(self, mod_seq: int) -> Sequence[Uid]:
        """UIDs present whose mod-sequence is greater, ascending."""
        if mod_seq >= self.highest_mod_seq:
            return []
        if mod_seq < self._log_floor:
            return [Uid(uid) for uid, found in zip(self.uids, self.mod_seqs, strict=True) if found > mod_seq]
        changed: set[int] = set()
        for found, uid in reversed(self._changes):
            if found <= mod_seq:
                break
            changed.add(uid)
        return [Uid(uid) for uid in sorted(changed) if self.position(uid) >= 0]

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        return self._watchers.add(watcher)

    def notify(self) -> None:
        """Call every watcher."""
        self._watchers.call()


class ViewedMailbox:
    """The half of :class:`~mailsrv.interfaces.mailbox.IMailbox` that a view answers, for both stores."""

    _view: MailboxView

    @property
    def uid_next(self) -> int:
        return self._view.uid_next

    @property
    def highest_mod_seq(self) -> int:
        return self._view.highest_mod_seq

    @property
    def uids(self) -> array[int]:
        return self._view.uids

    @property
    def flag_set_numbers(self) -> array[int]:
        return self._view.flag_set_numbers

    @property
    def mod_seqs(self) -> array[int]:
        return self._view.mod_seqs

    def flag_set(self, number: int) -> FlagSet:
        return self._view.flag_set(number)

    def keywords(self) -> FlagSet:
        return self._view.keywords()

    def changed_since(self, mod_seq: int) -> Sequence[Uid]:
        return self._view.changed_since(mod_seq)

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        return self._view.watch(watcher)
