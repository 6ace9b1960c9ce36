"""Some messages that are being searched: columns at hand, summaries and contents when a key first asks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from mailsrv.imap.fetch.row_cache import MailboxKey
from mailsrv.imap.fetch.sections import OpenMessage
from mailsrv.imap.selected import RowSlice, SelectedMailbox
from mailsrv.imap.unreadable import Unreadable
from mailsrv.interfaces.mailbox import InternalDates, MessageSummary, UnreadableMessage

if TYPE_CHECKING:
    from mailsrv.imap.search.keys import Key
    from mailsrv.imap.session import Session

_OPEN_AT_ONCE = 32


class Page:
    """A slice of the mailbox. Keys speak of its messages by their place in it.

    Of a message that cannot be read some keys can say nothing. They add it to ``undecided``, and it matches neither
    them nor their opposite.
    """

    def __init__(
        self, session: Session, selected: SelectedMailbox, rows: RowSlice, now: int, unreadable: Unreadable
    ) -> None:
        self.session = session
        self.selected = selected
        self.rows = rows
        self.now = now
        self.undecided: set[int] = set()
        self.never_read: set[int] = set()
        """Of which only the index knows: nobody could look into them so far."""
        self._unreadable = unreadable
        mailbox = selected.mailbox
        self.key: MailboxKey = (str(mailbox.account), mailbox.mailbox_id, mailbox.uid_validity)
        self._summaries: dict[int, MessageSummary] = {}
        self._dates: InternalDates | None = None

    async def summaries(self, places: Sequence[int]) -> dict[int, MessageSummary]:
        """Summaries by UID, at least of these; a message that is gone has none, one in ``never_read`` a poor one."""
        known, uids = self._summaries, self.rows.uids
        missing = [uids[place] for place in places if uids[place] not in known]
        if missing:
            found: Sequence[MessageSummary] = await self.selected.mailbox.summaries(missing)  # type: ignore[arg-type]
            known.update((int(summary.uid), summary) for summary in found)
            if len(found) < len(missing):
                await self._look_for([place for place in places if uids[place] not in known])
        return known

    async def _look_for(self, places: Sequence[int]) -> None:
        """They are gone, or nobody can look into them: the index tells what it has."""
        uids = self.rows.uids
        self._unreadable.has_read = self._unreadable.has_read or bool(self._summaries)
        found: Sequence[MessageSummary] = await self.selected.mailbox.summaries(
            [uids[place] for place in places],  # type: ignore[misc]
            with_structure=False,
        )
        poor = {int(summary.uid): summary for summary in found}
        self._summaries.update(poor)
        for place in places:
            if uids[place] in poor:
                self.never_read.add(place)
                self._unreadable.add(UnreadableMessage(poor[uids[place]].uid, "nobody could look into it"))

    async def decide(self, key: Key, places: Sequence[int]) -> tuple[list[int], set[int]]:
        """Those that match, and those of which the key can say nothing."""
        before, self.undecided = self.undecided, set()
        try:
            return await key.select(self, list(places)), self.undecided
        finally:
            self.undecided = before

    async def read(self, place: int, message: OpenMessage, count: int) -> bytes | None:
        """The first octets; None, and the message is undecided, where they cannot be read."""
        if message.content.octets is not None:
            return message.content.octets[:count]
        octets = await self._unreadable.read(message.summary.uid, message.content, 0, min(message.content.size, count))
        if octets is None:
            self.undecided.add(place)
        return octets

    async def dates(self) -> InternalDates:
        """Internal dates of all messages of the page."""
        if self._dates is None:
            dates: InternalDates = await self.selected.mailbox.internal_dates(self.rows.uids)  # type: ignore[arg-type]
            self._dates = dates
        return self._dates

    async def messages(
        self, places: Sequence[int], *, with_structure: bool = True
    ) -> AsyncGenerator[tuple[int, OpenMessage], None]:
        """These messages one after the other, opened; closed as soon as the next is asked for.

        What cannot be read is left out, and undecided.
        """
        if with_structure:
            summaries = await self.summaries(places)
        else:
            asked: Sequence[MessageSummary] = await self.selected.mailbox.summaries(
                [self.rows.uids[place] for place in places],  # type: ignore[misc]
                with_structure=False,
            )
            summaries = {int(summary.uid): summary for summary in asked}
        uids = self.rows.uids
        present = [place for place in places if uids[place] in summaries]
        for start in range(0, len(present), _OPEN_AT_ONCE):
            batch = present[start : start + _OPEN_AT_ONCE]
            wanted = [summaries[uids[place]].uid for place in batch]
            contents = await self._unreadable.open(wanted)
            self.undecided.update(place for place in batch if uids[place] in self._unreadable.errors)
            try:
                for index, place in enumerate(batch):
                    content, contents[index] = contents[index], None
                    if content is None:
                        continue
                    try:
                        yield place, OpenMessage(summaries[uids[place]], content, self.key)
                    finally:
                        content.close()
            finally:
                for content in contents:
                    if content is not None:
                        content.close()
            await self.session.breathe()
