"""Ready-made summaries of open mailboxes, bounded by octets over all mailboxes of a worker."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from mailsrv.interfaces.mailbox import MessageSummary

_OVERHEAD = 400
"""About what Python spends on a summary besides its octets."""


class SummaryCache:
    """Hands out one dictionary a mailbox; the mailbox longest unused loses its own when room is short."""

    def __init__(self, limit_octets: int) -> None:
        self._limit = limit_octets
        self._octets = 0
        self._mailboxes: OrderedDict[object, dict[int, MessageSummary]] = OrderedDict()
        self._sizes: dict[object, int] = {}

    def of(self, owner: object) -> dict[int, MessageSummary]:
        """What is kept for this mailbox; not to be changed by the caller."""
        kept = self._mailboxes.get(owner)
        if kept is None:
            return {}
        self._mailboxes.move_to_end(owner)
        return kept

    def add(self, owner: object, summaries: Iterable[MessageSummary]) -> None:
        """Keep these, as far as there is room."""
        kept = self._mailboxes.setdefault(owner, {})
        self._mailboxes.move_to_end(owner)
        added = 0
        room = self._limit - self._sizes.get(owner, 0)
        for summary in summaries:
            size = (
                _OVERHEAD
                + len(summary.imap_envelope)
                + len(summary.body_structure)
                + len(summary.body)
                + len(summary.cached_fields)
            )
            if added + size > room:
                break
            if summary.uid not in kept:
                added += size
            kept[summary.uid] = summary
        self._sizes[owner] = self._sizes.get(owner, 0) + added
        self._octets += added
        while self._octets > self._limit and len(self._mailboxes) > 1:
            self.drop(next(iter(self._mailboxes)))

    def drop(self, owner: object) -> None:
        """Forget a mailbox."""
        self._mailboxes.pop(owner, None)
        self._octets -= self._sizes.pop(owner, 0)
