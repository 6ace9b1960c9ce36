"""Opens messages ahead for a client that retrieves one after the other.

A thread hand-over for each message would cost as much as sending it, so messages are asked of
the store in batches whose size together is bounded. Only a client that goes in order is served
ahead; others get what they ask for.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailsrv.errors import Unavailable
from mailsrv.interfaces.content import IContent
from mailsrv.interfaces.mailbox import IMailbox
from mailsrv.pop3.maildrop import Maildrop
from mailsrv.pop3.settings import Pop3Settings


class ContentPrefetcher:
    """The open messages of one session. Close it at the end."""

    def __init__(self, mailbox: IMailbox, maildrop: Maildrop, settings: Pop3Settings) -> None:
        self._mailbox = mailbox
        self._maildrop = maildrop
        self._settings = settings
        self._open: dict[int, IContent | None] = {}
        self._last = 0
        self._is_closed = False

    def has(self, number: int) -> bool:
        """Whether ``take`` would not have to wait."""
        return number in self._open

    def take(self, number: int) -> IContent | None:
        """A message that is there; it belongs to the caller, who closes it. None: it is gone from the mailbox."""
        self._last = number
        return self._open.pop(number)

    async def load(self, number: int) -> None:
        """Open ``number``, and what is likely to be wanted after it. Fails with what the store fails with."""
        self._let_go()
        wanted = self._batch(number)
        try:
            contents = await self._contents(wanted)
        except Unavailable:
            if len(wanted) == 1:
                raise
            # It may be one of the others that cannot be read.
            wanted = [number]
            contents = await self._contents(wanted)
        self._open.update(zip(wanted, contents, strict=True))
        if self._is_closed:
            self._let_go()

    async def _contents(self, numbers: list[int]) -> Sequence[IContent | None]:
        return await self._mailbox.contents([self._maildrop.uid(each) for each in numbers])

    def _batch(self, number: int) -> list[int]:
        batch = [number]
        if number != self._last + 1:
            return batch
        octets = self._maildrop.size(number)
        for following in range(number + 1, min(number + self._settings.prefetch_messages, len(self._maildrop) + 1)):
            if not self._maildrop.holds(following):
                continue
            octets += self._maildrop.size(following)
            if octets > self._settings.prefetch_octets:
                break
            batch.append(following)
        return batch

    def _let_go(self) -> None:
        for content in self._open.values():
            if content is not None:
                content.close()
        self._open.clear()

    def close(self) -> None:
        """Let go of everything, also of what a load under way brings."""
        self._is_closed = True
        self._let_go()
