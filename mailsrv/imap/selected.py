"""The selected mailbox as one session sees it: its numbering, what it was told, what is \\Recent to it.

Changes made by anyone, this session included, are told from here alone: the arrays of the
mailbox are compared with what the client knows. EXPUNGE is told only where the table of
commands allows it (RFC 3501 5.5, 7.4.1); until then the old numbering holds, and new messages
wait too, as a numbering cannot have both.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import frozen

from mailsrv.imap.flags import FlagTemplates, format_flags
from mailsrv.imap.numbering import Numbering
from mailsrv.interfaces.mailbox import SYSTEM_FLAGS, FlagSet, IMailbox

_ROWS_AT_ONCE = 1000


class Teller(Protocol):
    """Where responses go: the session."""

    has_condstore: bool

    def send(self, octets: bytes) -> None: ...

    async def breathe(self) -> None: ...


@frozen(eq=False)
class RowSlice:
    """Parallel columns of messages that are still there."""

    numbers: Sequence[int]
    uids: array[int]
    flag_set_numbers: array[int]
    mod_seqs: array[int]
    is_whole: bool
    """False where some of the messages asked for are gone."""


class SelectedMailbox:
    """One session's view of an open mailbox."""

    __slots__ = (
        "_keywords_told",
        "_quiet",
        "_recent",
        "_stop_watching",
        "is_examined",
        "mailbox",
        "numbering",
        "told_mod_seq",
        "told_read_only",
    )

    def __init__(self, mailbox: IMailbox, *, is_examined: bool, watcher: Callable[[], None]) -> None:
        self.mailbox = mailbox
        self.is_examined = is_examined
        """By EXAMINE: nothing is changed, whatever the user may do."""
        self.told_read_only = self.is_read_only
        """What the client believes."""
        self.numbering = Numbering(mailbox.uids, len(mailbox.uids))
        self.told_mod_seq = mailbox.highest_mod_seq
        self._keywords_told: FlagSet = mailbox.keywords()
        self._quiet: dict[int, int] | None = None
        self._recent: tuple[tuple[int, int], ...] = ()
        self._stop_watching = mailbox.watch(watcher)

    def close(self) -> None:
        """The session has left the mailbox."""
        self._stop_watching()
        self.mailbox.close()

    @property
    def is_read_only(self) -> bool:
        """Whether nothing may be changed now; a right may come and go meanwhile."""
        return self.is_examined or not self.mailbox.may_write

    def has_news(self) -> bool:
        """Whether there is anything the client was not told."""
        mailbox = self.mailbox
        return (
            mailbox.uids is not self.numbering.uids
            or len(mailbox.uids) != self.numbering.count
            or mailbox.highest_mod_seq > self.told_mod_seq
            or mailbox.is_gone
            or self.told_read_only is not self.is_read_only
        )

    # What is \Recent

    async def claim_recent(self) -> None:
        """What nobody was told of yet is \\Recent to this session."""
        first = await self.mailbox.claim_recent()
        end = max(self.mailbox.uid_next, self.mailbox.uids[-1] + 1 if self.mailbox.uids else 1)
        if first < end:
            if self._recent and self._recent[-1][1] >= first:
                self._recent = (*self._recent[:-1], (self._recent[-1][0], end))
            else:
                # More than a few holes mean other sessions claim in turn: the oldest do not matter any more.
                self._recent = (*self._recent[-7:], (first, end))

    def show_recent(self, count: int) -> None:
        """In EXAMINE the last ``count`` messages are shown as \\Recent and stay so for others."""
        uids = self.numbering
        if count > 0 and uids.count:
            self._recent = ((uids.uids[max(uids.count - count, 0)], uids.last_uid + 1),)

    def is_recent(self, uid: int) -> bool:
        """Whether a message is \\Recent to this session."""
        return any(first <= uid < end for first, end in self._recent)

    def recent_count(self) -> int:
        """The number of RECENT."""
        uids, count = self.numbering.uids, self.numbering.count
        return sum(bisect_left(uids, end, 0, count) - bisect_left(uids, first, 0, count) for first, end in self._recent)

    def is_all_recent(self, uids: Sequence[int]) -> bool | None:
        """Whether all of these (ascending) are \\Recent (True), none (False), or some (None)."""
        if not self._recent or not uids or uids[0] >= self._recent[-1][1] or uids[-1] < self._recent[0][0]:
            return False
        if any(first <= uids[0] and uids[-1] < end for first, end in self._recent):
            return True
        return None

    # Columns of messages

    def rows(self, first: int, last: int) -> RowSlice:
        """The columns of messages ``first`` to ``last`` of this session's numbering, as they are now."""
        mailbox, known = self.mailbox, self.numbering.uids
        low, high = first - 1, last
        if mailbox.uids is known:
            return RowSlice(
                range(first, last + 1),
                known[low:high],
                mailbox.flag_set_numbers[low:high],
                mailbox.mod_seqs[low:high],
                True,
            )
        now = mailbox.uids
        end = len(now)
        numbers, places = [], []
        place = 0
        for number, uid in enumerate(known[low:high], first):
            place = bisect_left(now, uid, place, end)
            if place < end and now[place] == uid:
                numbers.append(number)
                places.append(place)
        return RowSlice(
            numbers,
            array("I", [now[place] for place in places]),
            array("I", [mailbox.flag_set_numbers[place] for place in places]),
            array("Q", [mailbox.mod_seqs[place] for place in places]),
            len(numbers) == last - first + 1,
        )

    def rows_of_uids(self, uids: Sequence[int]) -> RowSlice:
        """The columns of these messages (ascending), as far as they are there and this session knows them."""
        mailbox = self.mailbox
        now, end = mailbox.uids, len(mailbox.uids)
        numbers, places = [], []
        place = 0
        for uid in uids:
            number = self.numbering.number_of(uid)
            place = bisect_left(now, uid, place, end)
            if number is not None and place < end and now[place] == uid:
                numbers.append(number)
                places.append(place)
        return RowSlice(
            numbers,
            array("I", [now[place] for place in places]),
            array("I", [mailbox.flag_set_numbers[place] for place in places]),
            array("Q", [mailbox.mod_seqs[place] for place in places]),
            len(numbers) == len(uids),
        )

    # Telling

    def keep_quiet(self, uids: Sequence[int], mod_seq: int) -> None:
        """STORE .SILENT: these messages at this mod-sequence are as the client made them."""
        if self._quiet is None:
            self._quiet = {}
        self._quiet.update(dict.fromkeys(uids, mod_seq))

    def flags_line(self) -> bytes:
        """``* FLAGS (…)`` with the keywords known now."""
        self._keywords_told = self.mailbox.keywords()
        return b"* FLAGS " + format_flags(self._keywords_told.union(SYSTEM_FLAGS)) + b"\r\n"

    def permanent_flags_line(self) -> bytes:
        """``* OK [PERMANENTFLAGS (…)]``: what can be changed for good; new keywords are welcome."""
        if self.is_read_only:
            return b"* OK [PERMANENTFLAGS ()] Read-only\r\n"
        listed = format_flags(self._keywords_told.union(SYSTEM_FLAGS))[:-1]
        return b"* OK [PERMANENTFLAGS " + listed + b" \\*)] Flags permitted\r\n"

    def tell_keywords(self, teller: Teller) -> None:
        """A keyword the client has not heard of is announced before it is used."""
        if self.mailbox.keywords() != self._keywords_told:
            teller.send(self.flags_line())
            teller.send(self.permanent_flags_line())

    async def tell(self, teller: Teller, *, may_renumber: bool, with_uid: bool) -> None:
        """Everything the client does not know and may be told now: EXPUNGE, EXISTS, RECENT, changed flags."""
        mailbox = self.mailbox
        if not self.has_news():
            self._quiet = None
            return
        if mailbox.is_gone:
            return  # BYE follows; what is told now could only make the client forget what it has
        self._tell_access(teller)
        if mailbox.uids and mailbox.uids[-1] > self.numbering.last_uid and not self.is_read_only:
            await self.claim_recent()
        known_uid = self.numbering.last_uid
        self._tell_numbers(teller, may_renumber=may_renumber)
        if mailbox.highest_mod_seq > self.told_mod_seq:
            changed = self._changed(known_uid)
            self.told_mod_seq = mailbox.highest_mod_seq
            if changed:
                await self.tell_flags(teller, changed, with_uid=with_uid)
        self._quiet = None

    def _tell_access(self, teller: Teller) -> None:
        """RFC 3501 7.1: the access to the selected mailbox has changed."""
        if self.told_read_only is not self.is_read_only:
            self.told_read_only = self.is_read_only
            code = b"READ-ONLY" if self.told_read_only else b"READ-WRITE"
            teller.send(b"* OK [%b] The right to the mailbox has changed\r\n" % code)
            teller.send(self.permanent_flags_line())

    def _tell_numbers(self, teller: Teller, *, may_renumber: bool) -> None:
        now = self.mailbox.uids
        count = len(now)
        gone = self.numbering.expunged(now)
        if gone:
            if not may_renumber:
                return
            teller.send(b"".join([b"* %d EXPUNGE\r\n" % number for number in reversed(gone)]))
        has_more = count > self.numbering.count - len(gone)
        self.numbering = Numbering(now, count)
        if has_more:
            teller.send(b"* %d EXISTS\r\n* %d RECENT\r\n" % (count, self.recent_count()))

    def _changed(self, known_uid: int) -> list[int]:
        """UIDs whose flags the client knows otherwise; what it was just told exists, it will ask for itself."""
        changed: list[int] = [uid for uid in self.mailbox.changed_since(self.told_mod_seq) if uid <= known_uid]
        quiet = self._quiet
        if quiet is None:
            return changed
        rows = self.rows_of_uids(changed)
        return [uid for uid, mod_seq in zip(rows.uids, rows.mod_seqs, strict=True) if quiet.get(uid) != mod_seq]

    async def tell_flags(self, teller: Teller, uids: Sequence[int], *, with_uid: bool) -> None:
        """FETCH responses with the flags of these messages (ascending)."""
        self.tell_keywords(teller)
        for start in range(0, len(uids), _ROWS_AT_ONCE):
            if start:
                await teller.breathe()
            self._send_flags(teller, self.rows_of_uids(uids[start : start + _ROWS_AT_ONCE]), with_uid=with_uid)

    def _send_flags(self, teller: Teller, rows: RowSlice, *, with_uid: bool) -> None:
        mailbox = self.mailbox
        plain = FlagTemplates(mailbox.flag_set, is_recent=False)
        recent = FlagTemplates(mailbox.flag_set, is_recent=True) if self._recent else plain
        out = []
        for number, uid, flag_set_number, mod_seq in zip(
            rows.numbers, rows.uids, rows.flag_set_numbers, rows.mod_seqs, strict=True
        ):
            flags = (recent if self.is_recent(uid) else plain)[flag_set_number]
            line = b"* %d FETCH (" % number
            if with_uid or teller.has_condstore:
                line += b"UID %d " % uid
            line += flags
            if teller.has_condstore:
                line += b" MODSEQ (%d)" % mod_seq
            out.append(line + b")\r\n")
        if out:
            teller.send(b"".join(out))
