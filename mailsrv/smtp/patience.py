"""How patient the server is with one client: rates of commands, and late answers to errors.

Rates belong to the client's network or to its user, over all of its connections
(:class:`~mailsrv.wire.connection_limits.ConnectionSlot`). Past those of transactions and recipients a
command gets 450 4.7.1. Errors and recipients that do not exist are answered late instead, each later
than the one before, and at last the connection is closed with 421; the same happens to a connection
with many errors of its own. While an answer is late nothing is read from the client.
"""

from __future__ import annotations

from mailsrv.errors import MailError
from mailsrv.smtp.settings import SmtpSettings
from mailsrv.status import POLICY_DELAY
from mailsrv.wire.connection_limits import ConnectionSlot, RateKind

_DOUBLINGS = 30


class Patience:
    """What is left of it for one connection. Keeps no timer and asks nobody: the table is in memory."""

    def __init__(self, settings: SmtpSettings, slot: ConnectionSlot | None = None) -> None:
        """Without ``slot`` there are no rates, only what this connection does counts."""
        self._settings = settings
        self._slot = slot
        self._late_answers = 0
        """Given because of a rate."""

    def refuse_transaction(self) -> MailError | None:
        """Count a MAIL command; the refusal if there were too many."""
        return self._refuse(RateKind.TRANSACTIONS, "Too many messages, try again later")

    def refuse_recipient(self) -> MailError | None:
        """Count a RCPT command; the refusal if there were too many."""
        return self._refuse(RateKind.RECIPIENTS, "Too many recipients, try again later")

    def _refuse(self, kind: RateKind, text: str) -> MailError | None:
        if self._slot is None or self._slot.take(kind):
            return None
        return MailError(POLICY_DELAY, text, cause=f"rate of {kind.value}")

    def count_error(self, kind: RateKind | None, errors: int) -> float | None:
        """The client was refused for good: seconds its reply is to be late, or None to close with 421 instead.

        ``kind`` is what it did wrong (None: it is excused from rates), ``errors`` how many there are in this
        connection since its last accepted message.
        """
        settings = self._settings
        late = 0
        if kind is not None and self._slot is not None and not self._slot.take(kind):
            self._late_answers += 1
            if self._late_answers > settings.late_answers_before_drop:
                return None
            late = self._late_answers
        if errors >= settings.errors_before_drop:
            return None
        late = max(late, errors - settings.errors_before_tarpit)
        if late <= 0:
            return 0.0
        return min(settings.tarpit_seconds * 2.0 ** min(late - 1, _DOUBLINGS), settings.tarpit_limit_seconds)
