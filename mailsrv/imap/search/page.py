"""Some messages that are being searched: columns at hand, summaries and contents when a key first asks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from mailsrv.imap.fetch.row_cache import MailboxKey
from mailsrv.imap.fetch.sections import OpenMessage
from mailsrv.imap.selected import RowSlice, SelectedMailbox
from mailsrv.interfaces.mailbox import InternalDates, MessageSummary

if TYPE_CHECKING:
    from mailsrv.imap.session import Session

_OPEN_AT_ONCE = 32


class Page:
    """A slice of the mailbox. Keys speak of its messages by their place in it."""

    def __init__(self, session: Session, selected: SelectedMailbox, rows: RowSlice, key: MailboxKey, now: int) -> None:
        self.session = session
        self.selected = selected
        self.rows = rows
        self.now = now
        self._key = key
        self._summaries: dict[int, MessageSummary] = {}
        self._dates: InternalDates | None = None

    async def summaries(self, places: Sequence[int]) -> dict[int, MessageSummary]:
        """Summaries by UID, at least of these; a message that is gone has none."""
        known, uids = self._summaries, self.rows.uids
        missing = [uids[place] for place in places if uids[place] not in known]
        if missing:
            found: Sequence[MessageSummary] = await self.selected.mailbox.summaries(missing)  # type: ignore[arg-type]
            known.update((int(summary.uid), summary) for summary in found)
        return known

    async def dates(self) -> InternalDates:
        """Internal dates of all messages of the page."""
        if self._dates is None:
            dates: InternalDates = await self.selected.mailbox.internal_dates(self.rows.uids)  # type: ignore[arg-type]
            self._dates = dates
        return self._dates

    async def messages(
        self, places: Sequence[int], *, with_structure: bool = True
    ) -> AsyncGenerator[tuple[int, OpenMessage], None]:
        """These messages one after the other, opened; closed as soon as the next is asked for."""
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
            contents = list(await self.selected.mailbox.contents(wanted))
            try:
                for index, place in enumerate(batch):
                    content, contents[index] = contents[index], None
                    if content is None:
                        continue
                    try:
                        yield place, OpenMessage(summaries[uids[place]], content, self._key)
                    finally:
                        content.close()
            finally:
                for content in contents:
                    if content is not None:
                        content.close()
            await self.session.breathe()
