"""SEARCH and UID SEARCH (RFC 3501 6.4.4), with RETURN (ESEARCH, RFC 4731) and MODSEQ (RFC 7162 3.1.5, 3.1.10)."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.errors import BadCommand
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok, status_line
from mailsrv.imap.search.keys import Cost, InSet, Key
from mailsrv.imap.search.page import Page
from mailsrv.imap.search.parse import SearchParser, codec_of
from mailsrv.imap.sequence_set import format_sequence_set
from mailsrv.imap.unreadable import Unreadable

if TYPE_CHECKING:
    from mailsrv.imap.selected import SelectedMailbox
    from mailsrv.imap.session import Session

_ARRAYS_AT_ONCE = 5000
_TESTS_AT_ONCE = 50_000
"""Messages times keys that are looked at before others have their turn."""
_FEWEST_AT_ONCE = 16


class Result(enum.Enum):
    """search-return-opt"""

    MIN = b"MIN"
    MAX = b"MAX"
    ALL = b"ALL"
    COUNT = b"COUNT"


_RESULTS = {result.value: result for result in Result}


@frozen
class Search:
    """Which messages match? ``results`` None is a SEARCH without RETURN."""

    key: Key
    is_uid: bool
    results: frozenset[Result] | None
    sets: tuple[InSet, ...]
    has_mod_seq: bool
    key_count: int = 1

    async def run(self, session: Session) -> Ok:
        selected = session.selected_mailbox()
        if self.has_mod_seq:
            session.enable_condstore()
        for numbers in self.sets:
            numbers.check(selected.numbering)
        names, mod_seqs = await self._find(session, selected)
        if self.results is None:
            session.send(self._format(names, mod_seqs))
        else:
            session.send(self._format_extended(session.tag, self.results, names, mod_seqs))
        return Ok()

    async def _find(self, session: Session, selected: SelectedMailbox) -> tuple[list[int], list[int]]:
        settings = session.services.settings
        size = _ARRAYS_AT_ONCE if self.key.cost <= Cost.DATES else settings.search_slice_messages
        names: list[int] = []
        mod_seqs: list[int] = []
        now = int(session.peer.seconds())
        size = max(_FEWEST_AT_ONCE, min(size, _TESTS_AT_ONCE // self.key_count))
        unreadable = Unreadable(selected.mailbox)
        undecided = 0
        for first in range(1, selected.numbering.count + 1, size):
            if first > 1:
                await session.breathe()
            rows = selected.rows(first, min(first + size - 1, selected.numbering.count))
            page = Page(session, selected, rows, now, unreadable)
            places = await self.key.select(page, list(range(len(rows.uids))))
            undecided += len(page.undecided)
            column = rows.uids if self.is_uid else rows.numbers
            names += [column[place] for place in places]
            if self.has_mod_seq:
                mod_seqs += [rows.mod_seqs[place] for place in places]
        if undecided:
            if not (names or unreadable.has_read):
                raise next(iter(unreadable.errors.values()))
            _tell_undecided(session, undecided)
        return names, mod_seqs

    def _format(self, names: list[int], mod_seqs: list[int]) -> bytes:
        """``* SEARCH n …``, with ``(MODSEQ n)`` where a match was asked for by mod-sequence."""
        # The numbers of a list as Python writes them, without its commas: several times as fast as one by one.
        listed = str(names)[1:-1].replace(",", "").encode("ascii")
        parts = [b"* SEARCH", listed] if names else [b"* SEARCH"]
        if self.has_mod_seq and names:
            parts.append(b"(MODSEQ %d)" % max(mod_seqs))
        return b" ".join(parts) + b"\r\n"

    def _format_extended(self, tag: bytes, results: frozenset[Result], names: list[int], mod_seqs: list[int]) -> bytes:
        """``* ESEARCH (TAG "…") [UID] …``; MIN, MAX and ALL are left out where nothing matched."""
        parts = [b'* ESEARCH (TAG "' + tag.replace(b"\\", b"\\\\") + b'")']
        if self.is_uid:
            parts.append(b"UID")
        if names and Result.MIN in results:
            parts.append(b"MIN %d" % names[0])
        if names and Result.MAX in results:
            parts.append(b"MAX %d" % names[-1])
        if Result.COUNT in results:
            parts.append(b"COUNT %d" % len(names))
        if names and Result.ALL in results:
            parts.append(b"ALL " + format_sequence_set(names))
        if self.has_mod_seq and names:
            parts.append(b"MODSEQ %d" % _highest(results, mod_seqs))
        return b" ".join(parts) + b"\r\n"


def _tell_undecided(session: Session, count: int) -> None:
    """An untagged NO warns of a command that is done all the same (RFC 3501 7.1.2)."""
    said = "1 message cannot be read and was" if count == 1 else f"{count} messages cannot be read and were"
    session.send(status_line(b"*", b"NO", f"{said} not searched"))


def _highest(results: frozenset[Result], mod_seqs: list[int]) -> int:
    """RFC 7162 3.1.10: the highest mod-sequence of the messages that are told."""
    if results & {Result.ALL, Result.COUNT}:
        return max(mod_seqs)
    told = []
    if Result.MIN in results:
        told.append(mod_seqs[0])
    if Result.MAX in results:
        told.append(mod_seqs[-1])
    return max(told)


def parse(cursor: Cursor, context: ParseContext) -> Search:
    """``search = "SEARCH" [search-return-opts] [SP "CHARSET" SP astring] 1*(SP search-key)``"""
    cursor.space()
    results = None
    if cursor.skip(b"RETURN ("):
        results = _parse_results(cursor)
        cursor.space()
    codec = "utf-8"
    if cursor.skip(b"CHARSET "):
        if context.is_utf8:
            raise BadCommand("No CHARSET after UTF8=ACCEPT was enabled")  # RFC 6855 3
        codec = codec_of(cursor.astring())
        cursor.space()
    parser = SearchParser(cursor, codec, context.settings.search_keys, context.settings.search_text_keys)
    key = parser.keys()
    return Search(key, context.is_uid, results, tuple(parser.sets), parser.has_mod_seq, parser.key_count)


def _parse_results(cursor: Cursor) -> frozenset[Result]:
    results = set()
    if not cursor.looking_at(b")"):
        while True:
            result = _RESULTS.get(cursor.word())
            if result is None:
                raise BadCommand("Unknown result option")
            results.add(result)
            if not cursor.skip(b" "):
                break
    cursor.expect(b")")
    return frozenset(results) or frozenset({Result.ALL})
