"""How far the store is behind, and what follows from it: who waits for it, and whether it gathers mail.

Answers wait for the store only where it has nothing else to do, or far too much (``apply_ahead``). A busy server
gathers mail before it stores it in one go: larger batches cost a message half as much. Answers do not wait for mail
that is gathered, so that with a few connections it is they that gain: their next messages come while the last ones
are gathered. Without gathering, each would be a batch of its own, and would wait for it.

Who sends one message after the other, however fast, finds each in its mailbox when it is told of it: batches of one do
not make a server busy.
"""

from __future__ import annotations

from collections.abc import Callable

from mailsrv.journal.settings import JournalSettings

_SEVERAL = 2
"""Messages that were stored in one go: more than one of them was under way."""


class Pace:
    """``handed_on`` is called in the commit thread, ``done_with`` and ``linger_after`` in the apply thread."""

    def __init__(self, settings: JournalSettings, seconds: Callable[[], float]) -> None:
        self._settings = settings
        self._seconds = seconds
        # Each is counted in one thread only.
        self._handed_on = 0
        self._done_with = 0
        self._is_busy = False
        """Whether the next batch gathers."""
        self._began_at = 0.0
        self._messages = 0
        """Since then."""

    def handed_on(self, records: int) -> bool:
        """So many are durable and the store's to do; whether their answers go without waiting for it."""
        is_behind = self._handed_on > self._done_with
        self._handed_on += records
        behind = self._handed_on - self._done_with
        return (is_behind or self._is_busy) and behind <= self._settings.apply_ahead

    def done_with(self, records: int) -> None:
        """Stored, or not to be stored now."""
        self._done_with += records

    def linger_after(self, messages: int) -> float:
        """How many seconds the batch after one with so many, whose answers need not wait, may gather."""
        self._judge(messages)
        return self._settings.apply_linger if self._is_busy else 0.0

    def _judge(self, messages: int) -> None:
        settings = self._settings
        if self._is_busy:
            # What came while it gathered is the rate.
            self._is_busy = messages >= settings.linger_from
            self._messages = 0
            return
        if messages < min(_SEVERAL, settings.linger_from):
            return
        now = self._seconds()
        if not self._messages or now - self._began_at > settings.apply_linger:
            self._began_at, self._messages = now, 0
        self._messages += messages
        self._is_busy = self._messages >= settings.linger_from
