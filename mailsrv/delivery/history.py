"""What became of a transaction, in one structured log event: enough to say later why a message was refused.

The event holds addresses, sizes, verdicts and the Message-ID; never content.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field
from twisted.logger import Logger

from mailsrv.address import Address
from mailsrv.errors import MailError
from mailsrv.filters.pipeline import FilterNote
from mailsrv.interfaces.filter import SessionView

REMEMBERED = 100
"""Refused recipients and verdicts kept for one event."""


@define
class TransactionHistory:
    """Collects while the transaction goes on; :meth:`log` writes the event, once."""

    transaction_id: str
    session: SessionView
    reverse_path: Address | None
    message_id: str = ""
    size_octets: int = 0
    _refused: list[str] = field(factory=list)
    _verdicts: list[str] = field(factory=list)
    _is_logged: bool = False

    _log = Logger()

    def recipient_refused(self, forward_path: Address, error: MailError) -> None:
        """At RCPT, or for LMTP at the end."""
        if len(self._refused) < REMEMBERED:
            self._refused.append(f"{forward_path}: {error}")

    def filters_said(self, notes: Iterable[FilterNote]) -> None:
        """Everything but plain acceptance."""
        self._verdicts.extend(str(note) for note in notes if len(self._verdicts) < REMEMBERED)

    def log(self, result: str, recipients: Iterable[Address], *, reason: str = "") -> None:
        """``result``: accepted, discarded, refused, deferred or abandoned; ``reason`` with the private cause."""
        if self._is_logged:
            return
        self._is_logged = True
        session = self.session
        self._log.info(
            "{service} {transaction_id} {result}: from <{reverse_path}> to {recipients}, "
            "{size_octets} octets, message-id {message_id}, client {helo} [{client_address}]"
            + (", reason {reason}" if reason else "")
            + (", refused recipients {refused_recipients}" if self._refused else "")
            + (", filters {verdicts}" if self._verdicts else ""),
            result=result,
            service=session.service,
            transaction_id=self.transaction_id,
            connection_id=session.connection_id,
            client_address=session.client_address,
            helo=session.helo,
            account=str(session.account) if session.account else "",
            tls=session.tls_version,
            reverse_path=str(self.reverse_path) if self.reverse_path else "",
            recipients=[str(recipient) for recipient in recipients],
            size_octets=self.size_octets,
            message_id=self.message_id,
            reason=reason,
            refused_recipients=list(self._refused),
            verdicts=list(self._verdicts),
        )

    def log_refusal(self, error: MailError, recipients: Iterable[Address]) -> None:
        """The whole transaction was refused."""
        self.log("deferred" if error.is_temporary else "refused", recipients, reason=str(error))

    def log_abandoned(self, recipients: Iterable[Address]) -> None:
        """RSET, QUIT or a lost connection. Not worth a line where nothing had happened yet."""
        named = list(recipients)
        if named or self._refused or self._verdicts:
            self.log("abandoned", named)
