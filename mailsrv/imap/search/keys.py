"""Search keys (RFC 3501 6.4.4, RFC 5032, RFC 7162), each able to pick its messages of a page.

A key is asked with the places still in question and answers with those that match. Keys know
their cost; what is joined is asked cheapest first, so a body is opened only for messages that
everything else has let through.
"""

from __future__ import annotations

import enum
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import aclosing
from functools import lru_cache
from itertools import compress
from typing import TYPE_CHECKING, Protocol

from attrs import evolve, field, frozen

from mailsrv.imap.fetch.sections import OpenMessage
from mailsrv.imap.numbering import Numbering, NumberRange
from mailsrv.imap.sequence_set import SequenceSet
from mailsrv.interfaces.mailbox import DATE_OF_NONE, FlagSet, MessageSummary
from mailsrv.message import CACHED_FIELD_NAMES, DEFAULT_LIMITS, MessageLimits, TextSearch, scan

if TYPE_CHECKING:
    from mailsrv.imap.search.page import Page

Places = list[int]


class Cost(enum.IntEnum):
    """What a key has to look at."""

    ARRAYS = 0
    DATES = 1
    SUMMARY = 2
    CACHED_FIELDS = 3
    HEADER = 4
    BODY = 5


class Key(Protocol):
    """One search key."""

    @property
    def cost(self) -> Cost:
        """The most it has to look at."""

    async def select(self, page: Page, places: Places) -> Places:
        """Those of ``places`` (ascending) that match, ascending. What cannot be told is added to ``page.undecided``."""


@frozen
class All:
    """ALL"""

    cost: Cost = Cost.ARRAYS

    async def select(self, page: Page, places: Places) -> Places:
        return places


class _Verdicts(dict[int, bool]):
    """Whether a flag set has a flag, found once for each number."""

    def __init__(self, flag_set: Callable[[int], FlagSet], flag: str, *, is_wanted: bool) -> None:
        super().__init__()
        self._flag_set = flag_set
        self._flag = flag
        self._is_wanted = is_wanted

    def __missing__(self, number: int) -> bool:
        # Keywords are the same in any case (RFC 9051 2.3.2 leaves it open; clients rely on it).
        has_flag = any(flag.lower() == self._flag for flag in self._flag_set(number))
        verdict = self[number] = has_flag == self._is_wanted
        return verdict


@frozen
class HasFlag:
    """ANSWERED … SEEN, KEYWORD and, not ``is_wanted``, UNANSWERED … UNSEEN, UNKEYWORD; ``flag`` in lower case"""

    flag: str
    is_wanted: bool = True
    cost: Cost = Cost.ARRAYS

    async def select(self, page: Page, places: Places) -> Places:
        verdicts = _Verdicts(page.selected.mailbox.flag_set, self.flag, is_wanted=self.is_wanted)
        numbers = page.rows.flag_set_numbers
        if len(places) == len(numbers):
            return list(compress(places, map(verdicts.__getitem__, numbers)))
        return [place for place in places if verdicts[numbers[place]]]


@frozen
class IsRecent:
    """RECENT"""

    cost: Cost = Cost.ARRAYS

    async def select(self, page: Page, places: Places) -> Places:
        uids, is_recent = page.rows.uids, page.selected.is_recent
        return [place for place in places if is_recent(uids[place])]


@frozen
class InSet:
    """sequence-set, UID sequence-set"""

    numbers: SequenceSet
    is_uid: bool
    cost: Cost = Cost.ARRAYS
    _ranges: list[NumberRange] = field(factory=list, eq=False, alias="ranges")

    def check(self, numbering: Numbering) -> None:
        """Work out what the set means, before the search begins. BadCommand for numbers not in use."""
        ranges = numbering.by_uid(self.numbers) if self.is_uid else numbering.by_number(self.numbers)
        self._ranges[:] = ranges

    async def select(self, page: Page, places: Places) -> Places:
        firsts = [first for first, _ in self._ranges]
        found = []
        for place in places:
            number = page.rows.numbers[place]
            at = bisect_right(firsts, number) - 1
            if at >= 0 and number <= self._ranges[at][1]:
                found.append(place)
        return found


@frozen
class ModSeqAtLeast:
    """MODSEQ (RFC 7162 3.1.5)"""

    mod_seq: int
    cost: Cost = Cost.ARRAYS

    async def select(self, page: Page, places: Places) -> Places:
        mod_seqs = page.rows.mod_seqs
        return [place for place in places if mod_seqs[place] >= self.mod_seq]


@frozen
class BySummary:
    """A key on what the index keeps of a message's content: Date field and size."""

    matches: Callable[[MessageSummary, int], bool]
    """Is given the summary and the time now."""
    needs_content: bool = True
    """Whether somebody has to have looked into the message."""
    cost: Cost = Cost.SUMMARY

    async def select(self, page: Page, places: Places) -> Places:
        summaries, uids = await page.summaries(places), page.rows.uids
        found = []
        for place in places:
            summary = summaries.get(uids[place])
            if summary is None:
                continue
            if self.needs_content and place in page.never_read:
                page.undecided.add(place)
            elif self.matches(summary, page.now):
                found.append(place)
        return found


@frozen
class ByDay:
    """BEFORE, ON, SINCE: internal dates from ``first`` to before ``end``, in days since 1970"""

    first: int | None
    end: int | None
    cost: Cost = Cost.DATES

    async def select(self, page: Page, places: Places) -> Places:
        days = (await page.dates()).days
        return _between(days, places, self.first, self.end)


@frozen
class ByAge:
    """YOUNGER and OLDER (RFC 5032): the internal date is at most, or at least, so many seconds ago"""

    seconds: int
    is_younger: bool
    cost: Cost = Cost.DATES

    async def select(self, page: Page, places: Places) -> Places:
        moments = (await page.dates()).seconds
        then = page.now - self.seconds
        return _between(moments, places, then, None) if self.is_younger else _between(moments, places, None, then + 1)


def _between(column: Sequence[int], places: Places, first: int | None, end: int | None) -> Places:
    least = DATE_OF_NONE + 1 if first is None else first
    if end is None:
        return [place for place in places if column[place] >= least]
    return [place for place in places if least <= column[place] < end]


@frozen(eq=False)
class InHeader:
    """BCC, CC, FROM, SUBJECT, TO, HEADER: a field (name in lower case) contains a text"""

    name: bytes
    search: TextSearch

    @property
    def cost(self) -> Cost:
        return Cost.CACHED_FIELDS if self.name in CACHED_FIELD_NAMES else Cost.HEADER

    async def select(self, page: Page, places: Places) -> Places:
        found, unknown = [], places
        if self.name in CACHED_FIELD_NAMES:
            summaries, uids = await page.summaries(places), page.rows.uids
            unknown = []
            for place in places:
                summary = summaries.get(uids[place])
                if summary is not None and not summary.cached_fields:
                    unknown.append(place)
                elif summary is not None and self.search.is_in_header(summary.cached_fields, self.name):
                    found.append(place)
        if unknown:
            async with aclosing(page.messages(unknown)) as messages:
                async for place, message in messages:
                    header = await page.read(place, message, message.summary.header_octets)
                    if header is not None and self.search.is_in_header(header, self.name):
                        found.append(place)
            found.sort()
        return found


@frozen(eq=False)
class InMessage:
    """BODY and TEXT: the message's text contains a text"""

    search: TextSearch
    with_header: bool
    cost: Cost = Cost.BODY

    async def select(self, page: Page, places: Places) -> Places:
        found = []
        async with aclosing(page.messages(places, with_structure=False)) as messages:
            async for place, message in messages:
                if await self._is_in(page, place, message):
                    found.append(place)
        return found

    async def _is_in(self, page: Page, place: int, message: OpenMessage) -> bool:
        session = page.session
        most = session.services.settings.search_octets
        text = await page.read(place, message, most)
        if text is None:
            return False
        return await session.peer.compute(len(text), lambda: self._is_in_text(text, most))

    def _is_in_text(self, text: bytes, most: int) -> bool:
        search = self.search
        if search.is_ruled_out(text, with_header=self.with_header):
            return False
        find = search.is_in_message if self.with_header else search.is_in_body
        return find(text, scan(text), _limits(most))


@lru_cache(maxsize=16)
def _limits(search_octets: int) -> MessageLimits:
    return evolve(DEFAULT_LIMITS, search_text_octets=search_octets)


@frozen
class Not:
    """NOT"""

    key: Key

    @property
    def cost(self) -> Cost:
        return self.key.cost

    async def select(self, page: Page, places: Places) -> Places:
        matching, undecided = await page.decide(self.key, places)
        page.undecided |= undecided
        excluded = {*matching, *undecided}
        return [place for place in places if place not in excluded]


@frozen
class Or:
    """OR: the dearer key is asked only about what the cheaper has not found"""

    cheaper: Key
    dearer: Key

    @property
    def cost(self) -> Cost:
        return max(self.cheaper.cost, self.dearer.cost)

    async def select(self, page: Page, places: Places) -> Places:
        found, undecided = await page.decide(self.cheaper, places)
        already = set(found)
        left = [place for place in places if place not in already]
        if not left:
            return found
        more, further = await page.decide(self.dearer, left)
        page.undecided |= (undecided | further).difference(more)
        return sorted(found + more)


@frozen
class And:
    """Several keys, the cheapest first"""

    keys: tuple[Key, ...]

    @property
    def cost(self) -> Cost:
        return max(key.cost for key in self.keys)

    async def select(self, page: Page, places: Places) -> Places:
        undecided: set[int] = set()
        for key in self.keys:
            if not places:
                break
            places, further = await page.decide(key, places)
            if undecided or further:
                # Asked on: one key that does not match decides.
                undecided = undecided.intersection(places) | further
                places = sorted({*places, *further})
        page.undecided |= undecided
        return [place for place in places if place not in undecided] if undecided else places


def either(first: Key, second: Key) -> Key:
    """OR, the cheaper first."""
    return Or(first, second) if first.cost <= second.cost else Or(second, first)


def negated(key: Key) -> Key:
    """NOT; a flag is looked for as quickly as its absence."""
    return evolve(key, is_wanted=not key.is_wanted) if isinstance(key, HasFlag) else Not(key)


def joined(keys: list[Key]) -> Key:
    """All of them, the cheapest first."""
    return keys[0] if len(keys) == 1 else And(tuple(sorted(keys, key=lambda key: key.cost)))
