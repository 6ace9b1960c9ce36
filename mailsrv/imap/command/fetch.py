"""FETCH and UID FETCH (RFC 3501 6.4.5), with CHANGEDSINCE (RFC 7162 3.1.4.1).

The answer is made in slices of messages; between them what is ready is sent, others have their
turn, and a peer that does not read is waited for. A slice's rows are joined from columns
(:mod:`mailsrv.imap.fetch.columns`); what does not change of a row is kept from the last time somebody asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, repeat
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.errors import BadCommand, CommandRefused
from mailsrv.imap.fetch.columns import Columns, joined, present
from mailsrv.imap.fetch.items import SectionItem, parse_items
from mailsrv.imap.fetch.plan import FetchPlan, make_plan, row_formatter
from mailsrv.imap.fetch.row_cache import MailboxKey, Rows
from mailsrv.imap.fetch.sections import OpenMessage, Prepared, prepare, send_in_pieces, send_ready
from mailsrv.imap.flags import SEEN
from mailsrv.imap.grammar import NUMBER64_MAX, Cursor
from mailsrv.imap.numbering import NumberRange, ranges_of
from mailsrv.imap.responses import Ok
from mailsrv.imap.selected import RowSlice, SelectedMailbox
from mailsrv.imap.sequence_set import SequenceSet
from mailsrv.imap.unreadable import Unreadable
from mailsrv.interfaces.mailbox import FlagOperation, MessageSummary, Uid

if TYPE_CHECKING:
    from mailsrv.imap.session import Session

_OPEN_AT_ONCE = 64
_FIRST_SLICE = 64
_WORTH_SENDING = 16384
_REMEMBERED_OCTETS = 1024


@frozen
class Fetch:
    """Values of messages."""

    messages: SequenceSet
    is_uid: bool
    plan: FetchPlan
    changed_since: int | None = None

    async def run(self, session: Session) -> Ok:
        selected = session.selected_mailbox()
        numbering = selected.numbering
        ranges = numbering.by_uid(self.messages) if self.is_uid else numbering.by_number(self.messages)
        plan = self.plan
        if plan.wants_mod_seq:
            session.enable_condstore()
        if self.changed_since is not None:
            ranges = _changed(selected, ranges, self.changed_since)
        answer = _Answer(session, selected, plan)
        is_whole = await answer.send(ranges)
        for error in answer.unreadable.errors.values():
            raise error
        if not is_whole and not self.is_uid:
            # RFC 5530: what is left was told. OK and not the NO of RFC 2180 4.1.2, which clients show as a failure.
            return Ok("Some of the messages no longer exist", b"EXPUNGEISSUED")
        return Ok()


def _changed(selected: SelectedMailbox, ranges: list[NumberRange], mod_seq: int) -> list[NumberRange]:
    numbers: list[int] = []
    for first, last in ranges:
        rows = selected.rows(first, last)
        numbers += [number for number, found in zip(rows.numbers, rows.mod_seqs, strict=True) if found > mod_seq]
    return ranges_of(numbers)


class _Answer:
    """One FETCH on its way out."""

    def __init__(self, session: Session, selected: SelectedMailbox, plan: FetchPlan) -> None:
        self._session = session
        self._selected = selected
        self._plan = plan
        self._settings = session.services.settings
        mailbox = selected.mailbox
        self._key: MailboxKey = (str(mailbox.account), mailbox.mailbox_id, mailbox.uid_validity)
        self._columns = Columns(selected, plan)
        self._rows: Rows | None = None
        self._unsent = 0
        self.unreadable = Unreadable(mailbox)
        """What is left out though it is there; the others are sent all the same."""

    async def send(self, ranges: list[NumberRange]) -> bool:
        """All rows; whether all of the messages were still there."""
        plan, settings = self._plan, self._settings
        if plan.wants_flags:
            self._selected.tell_keywords(self._session)
        if plan.columns or plan.cached_sections:
            self._rows = self._session.services.row_cache.rows(self._key, plan.key)
        is_whole = True
        count = settings.output_slice_messages if plan.is_array_only else _FIRST_SLICE
        pending = deque(ranges)
        while pending:
            rows = self._next_rows(pending, count)
            is_whole = is_whole and rows.is_whole
            before = self._unsent
            if plan.is_array_only:
                self._send(self._columns.array_rows(rows))
            elif plan.sections or plan.sets_seen:
                is_whole = await self._send_messages(rows) and is_whole
            else:
                is_whole = await self._send_summaries(rows) and is_whole
            count = self._next_count(max(self._unsent - before, 1), len(rows.numbers), count)
            if pending and self._unsent >= _WORTH_SENDING:
                self._unsent = 0
                await self._session.breathe()
        return is_whole

    def _next_rows(self, pending: deque[NumberRange], count: int) -> RowSlice:
        """The next ``count`` messages, of as many ranges as that takes."""
        taken: list[RowSlice] = []
        while pending and count:
            first, last = pending.popleft()
            end = min(last, first + count - 1)
            if end < last:
                pending.appendleft((end + 1, last))
            taken.append(self._selected.rows(first, end))
            count -= end - first + 1
        return taken[0] if len(taken) == 1 else joined(taken)

    def _next_count(self, octets: int, messages: int, count: int) -> int:
        """Slices of about the same size in octets, growing at most fourfold at a time."""
        if self._plan.is_array_only:
            return count
        fitting = self._settings.output_slice_octets * max(messages, 1) // octets
        return max(1, min(fitting, count * 4, self._settings.output_slice_messages))

    def _send(self, octets: bytes) -> None:
        self._session.send(octets)
        self._unsent += len(octets)

    # Rows from the arrays and the cache

    async def _send_summaries(self, rows: RowSlice) -> bool:
        """Rows from the cache, made from summaries where they are not there."""
        if not rows.numbers:
            return True
        known = self._rows if self._rows is not None else Rows()
        fixed = list(map(known.get, rows.uids))
        is_whole = True
        if None in fixed:
            made = await self._make_rows([uid for uid, row in zip(rows.uids, fixed, strict=True) if row is None])
            uncached = await self._without_fields([uid for uid, row in made.items() if not row])
            made.update(uncached)
            fixed = [row if row is not None else made.get(uid) for uid, row in zip(rows.uids, fixed, strict=True)]
            # The mailbox may have changed while we waited; rows keep their place all the same.
            if None in fixed:
                is_whole = False
                rows, fixed = present(rows, fixed)
        columns = self._columns.changing(rows, b" ")
        columns += [fixed, repeat(b")\r\n", len(fixed))]  # type: ignore[list-item]
        self._send(b"".join(chain.from_iterable(zip(*columns, strict=True))))
        return is_whole

    async def _make_rows(self, uids: list[int]) -> dict[int, bytes]:
        """Rows by UID; an empty one where the fields asked for are not in the summary."""
        plan = self._plan
        format_row = plan.format_row
        summaries = await self._summaries(uids)
        needs_fields = bool(plan.cached_sections)
        made = {
            int(summary.uid): b"" if needs_fields and not summary.cached_fields else format_row(summary)
            for summary in summaries
        }
        if self._rows is not None:
            self._session.services.row_cache.add(self._rows, {uid: row for uid, row in made.items() if row})
        return made

    async def _summaries(self, uids: Sequence[int]) -> Sequence[MessageSummary]:
        """Of those that are there and can be read; who cannot be is remembered."""
        mailbox = self._selected.mailbox
        summaries: Sequence[MessageSummary] = await mailbox.summaries(
            uids,  # type: ignore[arg-type]
            with_structure=self._plan.needs_structure,
        )
        if len(summaries) < len(uids):
            found = {summary.uid for summary in summaries}
            for content in await self.unreadable.open([Uid(uid) for uid in uids if uid not in found]):
                if content is not None:
                    content.close()
        return summaries

    async def _without_fields(self, uids: list[int]) -> dict[int, bytes]:
        """Rows of messages whose header fields are not in the index: read from the messages, a few at a time."""
        made: dict[int, bytes] = {}
        if not uids:
            return made
        format_row = row_formatter(evolve(self._plan, cached_sections=()))
        has_columns = self._plan.wants_uid or bool(self._plan.columns)
        for start in range(0, len(uids), _OPEN_AT_ONCE):
            messages = await self._open(uids[start : start + _OPEN_AT_ONCE])
            try:
                for message in messages:
                    parts = [format_row(message.summary)] if has_columns else []
                    for item in self._plan.cached_sections:
                        fields = (await prepare(self._session, message, item)).octets or b""
                        parts.append(b"%b {%d}\r\n%b" % (item.label, len(fields), fields.replace(b"\0", b"\x80")))
                    made[int(message.summary.uid)] = b" ".join(parts)
            finally:
                for message in messages:
                    message.content.close()
        return made

    # Rows with sections

    async def _open(self, uids: Sequence[int]) -> list[OpenMessage]:
        """Messages that are still there, opened. Close each."""
        plan = self._plan
        summaries: Sequence[MessageSummary]
        if plan.needs_structure or plan.columns:
            summaries = await self._summaries(uids)
        else:
            summaries = [MessageSummary(Uid(uid), 0, 0, 0, 0, b"", b"", b"", b"", -1) for uid in uids]
        found: list[Uid] = [summary.uid for summary in summaries]
        contents = await self.unreadable.open(found)
        return [
            OpenMessage(summary, content, self._key)
            for summary, content in zip(summaries, contents, strict=True)
            if content is not None
        ]

    async def _send_messages(self, rows: RowSlice) -> bool:
        """Rows that take octets of the messages: opened a few at a time, by their size."""
        session = self._session
        numbers = dict(zip(rows.uids, rows.numbers, strict=True))
        sent = 0
        start = 0
        batch = 8
        while start < len(rows.uids):
            uids = rows.uids[start : start + batch]
            start += batch
            messages = await self._open(uids)
            octets = 0
            try:
                seen = await self._mark_seen([message.summary.uid for message in messages])
                now = self._selected.rows_of_uids(uids)
                places = {uid: place for place, uid in enumerate(now.uids)}
                while messages:
                    message = messages[0]
                    place = places.get(message.summary.uid)
                    if place is not None:
                        uid = int(message.summary.uid)
                        row = RowSlice(
                            (numbers[uid],),
                            now.uids[place : place + 1],
                            now.flag_set_numbers[place : place + 1],
                            now.mod_seqs[place : place + 1],
                            True,
                        )
                        await self._send_message(message, row, with_flags=uid in seen)
                        octets += message.content.size
                        sent += 1
                    messages.pop(0).content.close()
                    if self._unsent >= self._settings.output_slice_octets:
                        self._unsent = 0
                        await session.breathe()
                        if self._selected.mailbox.is_gone:
                            # A right that went while a slow peer read: what is opened is not sent any more.
                            return False
            finally:
                for message in messages:
                    message.content.close()
            # What is open at one time is bounded by size, as small messages come with all their octets.
            batch = max(1, min(_OPEN_AT_ONCE, self._settings.output_slice_octets * 2 * len(uids) // max(octets, 1)))
        return sent == len(rows.uids)

    async def _mark_seen(self, uids: Sequence[Uid]) -> frozenset[int]:
        """\\Seen is on disk before the octets go out, one commit for all; which messages it is new for."""
        selected = self._selected
        if not self._plan.sets_seen or selected.is_read_only:
            return frozenset()
        rows = selected.rows_of_uids(uids)
        flag_set = selected.mailbox.flag_set
        unseen = [
            Uid(uid)
            for uid, number in zip(rows.uids, rows.flag_set_numbers, strict=True)
            if SEEN not in flag_set(number)
        ]
        if not unseen:
            return frozenset()
        stored = await selected.mailbox.store_flags(unseen, FlagOperation.ADD, frozenset({SEEN}))
        selected.keep_quiet(stored.changed, stored.mod_seq)
        return frozenset(stored.changed)

    async def _send_message(self, message: OpenMessage, row: RowSlice, *, with_flags: bool) -> None:
        session, plan, summary = self._session, self._plan, message.summary
        sections: list[SectionItem] = list(plan.sections)
        format_row = plan.format_row
        if plan.cached_sections and not summary.cached_fields:
            format_row = row_formatter(evolve(plan, cached_sections=()))
            sections += plan.cached_sections
        prepared: list[Prepared] = []
        at_hand = 0
        for item in sections:
            prepared.append(await prepare(session, message, item))
            at_hand += len(prepared[-1].octets or b"")
            if at_hand > self._settings.section_octets:
                # The same large part under many names (of ranges, of field lists) would be here as often.
                raise CommandRefused("Too much of one message at a time", code=b"LIMIT")
        values = [b"* %d FETCH (" % row.numbers[0]]
        if with_flags or plan.wants_flags:
            values.append(self._columns.flags_of(row.uids[0], row.flag_set_numbers[0]))
        if plan.wants_mod_seq or (with_flags and session.has_condstore):
            values.append(b"MODSEQ (%d) " % row.mod_seqs[0])
        if plan.wants_uid or plan.columns or (plan.cached_sections and len(sections) == len(plan.sections)):
            values.append(format_row(summary))
            values.append(b" ")
        self._send(b"".join(values))
        is_first = True
        for section in prepared:
            if not is_first:
                session.send(b" ")
            is_first = False
            if not send_ready(session, section):
                await send_in_pieces(session, message, section)
            elif section.octets is not None:
                self._unsent += len(section.octets)
        session.send(b")\r\n")


def parse(cursor: Cursor, context: ParseContext) -> Fetch:
    """``fetch = "FETCH" SP sequence-set SP (…) [SP "(" fetch-modifier *(SP fetch-modifier) ")"]``"""
    cursor.space()
    messages = cursor.sequence_set()
    cursor.space()
    rest = cursor.octets[cursor.position :]
    cursor.position = len(cursor.octets)
    parse_rest = _parse_items if len(rest) <= _REMEMBERED_OCTETS else _parse_items.__wrapped__
    plan, changed_since = parse_rest(rest, context.is_uid)
    return Fetch(messages, context.is_uid, plan, changed_since)


@lru_cache(maxsize=512)
def _parse_items(octets: bytes, is_uid: bool) -> tuple[FetchPlan, int | None]:
    """Items and modifiers. Clients ask for the same again and again, so what they mean is kept."""
    cursor = Cursor(octets)
    items = parse_items(cursor)
    changed_since = None
    if cursor.skip(b" "):
        cursor.expect(b"(")
        if cursor.word() != b"CHANGEDSINCE":
            raise BadCommand("Unknown modifier of FETCH")
        cursor.space()
        changed_since = cursor.number(NUMBER64_MAX)
        cursor.expect(b")")
    cursor.end()
    return make_plan(items, is_uid=is_uid, with_mod_seq=changed_since is not None), changed_since
