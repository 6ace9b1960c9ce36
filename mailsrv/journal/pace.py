"""Whether a server is busy enough to gather mail before it stores it: larger batches cost a message half as much.

Answers do not wait for mail that is gathered, so that with a few connections it is they that gain: their next messages
come while the last ones are gathered. Without gathering, each would be a batch of its own, and would wait for it.

Who sends one message after the other, however fast, finds each in its mailbox when it is told of it: batches of one do
not make a server busy.
"""

from __future__ import annotations

from collections.abc import Callable

from mailsrv.journal.settings import JournalSettings

_SEVERAL = 2
"""Messages that were stored in one go: more than one of them was under way."""


class Pace:
    """Told of every batch, in the apply thread."""

    def __init__(self, settings: JournalSettings, seconds: Callable[[], float]) -> None:
        self._settings = settings
        self._seconds = seconds
        self.is_busy = False
        """Whether the next batch gathers for ``apply_linger`` seconds."""
        self._began_at = 0.0
        self._messages = 0
        """Since then."""

    def stored(self, messages: int) -> None:
        """A batch with so many whose answers need not wait."""
        settings = self._settings
        if self.is_busy:
            # What came while it gathered is the rate.
            self.is_busy = messages >= settings.linger_from
            self._messages = 0
            return
        if messages < min(_SEVERAL, settings.linger_from):
            return
        now = self._seconds()
        if not self._messages or now - self._began_at > settings.apply_linger:
            self._began_at, self._messages = now, 0
        self._messages += messages
        self.is_busy = self._messages >= settings.linger_from
