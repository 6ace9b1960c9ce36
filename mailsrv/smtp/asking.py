"""Asking the receiver or the portal, and what becomes of their refusals.

An exception that is no MailError is logged here with its traceback and answered 451 4.3.0.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.address import Address
from mailsrv.errors import MailError
from mailsrv.interfaces.account import IAccount
from mailsrv.interfaces.delivery import IMailTransaction
from mailsrv.interfaces.filter import SessionView
from mailsrv.sasl import Conversations
from mailsrv.smtp.patience import Patience
from mailsrv.smtp.replies import Reply, Stage, internal_error_reply, reply_for_error
from mailsrv.smtp.session import SmtpSession
from mailsrv.wire.connection_limits import ConnectionSlot

if TYPE_CHECKING:
    from mailsrv.smtp.factory import SmtpServerFactory

log = Logger()


class Asking:
    """What the shell knows of its connection, and how it asks others about it."""

    transport: Any
    """ITransport, with what TCP, Unix and TLS transports have beside it."""

    def __init__(self, factory: SmtpServerFactory, address: str, port: int) -> None:
        self.factory: Any = factory
        self._settings = factory.settings
        self._receiver = factory.receiver
        self._clock = factory.clock
        self.connection_id = secrets.token_hex(6)
        self.view = SessionView(self.connection_id, factory.service.value, address, port)
        self._session: SmtpSession | None = None
        self._slot: ConnectionSlot | None = None
        self._patience = Patience(factory.settings)
        self._mail: IMailTransaction | None = None
        """The receiver's transaction, until it is finished or aborted."""
        self._recipient: Address | None = None
        """The one that is asked about."""
        self._recipients: list[Address] = []
        """Accepted in this transaction, twice if they were named twice."""
        self._account: IAccount | None = None
        self._logout: Callable[[], object] | None = None
        self._conversations = Conversations()
        """With who decides about a log-in, while it does."""
        self._is_passed_on = False
        """A proxy has named another client than the one at the other end (XCLIENT)."""
        self._timer: IDelayedCall | None = None
        self._delay: IDelayedCall | None = None
        """Waits out a tarpit or the time before the greeting."""
        self._opened_at = self._active_at = self._clock.seconds()
        self._content_began_at = 0.0
        """When the client was asked for its text, or began to send octets that are no commands; our waits left out."""
        self._content_octets = 0
        """What has come since, taken or thrown away."""
        self._is_content_measured = False
        self._wait_began_at = 0.0
        self._handshake_began_at: float | None = None
        """When TLS was asked for, until it is up."""
        self._is_running = False
        self._is_awaiting_write = False
        """The receiver is behind with the text it was given."""
        self._is_output_full = False
        """The client does not read its replies."""
        self._is_paused = False
        self._is_ended = False
        """The last word is said, or the connection is gone: nothing more is read."""
        self._is_gone = False
        self._has_begun = False
        self._is_drain_wanted = False

    def _run(self) -> None:
        """Let the engine go as far as it can, then send all it has to say."""
        raise NotImplementedError

    def abort(self) -> None:
        """Close at once."""
        raise NotImplementedError

    # -- answers that may come later

    def _await(
        self,
        stage: Stage,
        subject: object,
        succeed: Callable[[Any], None],
        ask: Callable[..., Deferred[Any]],
        *args: Any,
    ) -> None:
        """Ask somebody; ``succeed`` gets the result, the client the refusal. What comes too late is ignored."""
        result: Any = None
        try:
            deferred = ask(*args)
        except Exception:
            self._fail(Failure(), stage, subject)
            return
        if deferred.called and not deferred.paused:
            result = deferred.result
            # Deferred is an abstract class: isinstance would cost as much as the rest of this.
            if not isinstance(result, Failure) and result.__class__ is not Deferred:
                # The usual case; the way through the callbacks would cost more than all the rest.
                try:
                    succeed(result)
                except Exception:
                    self._crash(Failure())
                return
        deferred.addCallbacks(succeed, self._fail, errbackArgs=(stage, subject))
        deferred.addErrback(self._crash)
        # The traceback of a refusal leads to this call: what is kept here, would keep all until the collector comes.
        del deferred
        result = None

    def _fail(self, failure: Failure, stage: Stage, subject: object) -> None:
        error = failure.value
        if isinstance(error, MailError):
            reply = reply_for_error(error, stage)
            # Why is in the event of delivery or of log-in already.
            log.debug(
                "smtp {stage} {subject} refused in {connection_id}: {code} {error}",
                stage=stage.value,
                subject=str(subject),
                connection_id=self.connection_id,
                client_address=self.view.client_address,
                transaction_id=self._mail.transaction_id if self._mail is not None else "",
                code=reply.code,
                error=str(error),
            )
        else:
            reply = internal_error_reply(stage)
            log.failure(
                "smtp {stage} {subject} failed in {connection_id}",
                failure,
                stage=stage.value,
                subject=str(subject),
                connection_id=self.connection_id,
            )
        self._answer(reply)

    def _crash(self, failure: Failure) -> None:
        """A bug of ours after an answer was given: what the client is owed now is not known any more."""
        log.failure("smtp connection {connection_id} ended by a bug", failure, connection_id=self.connection_id)
        self.abort()

    def _answer(self, *answers: Reply) -> None:
        if self._session is not None:
            self._session.reply(*answers)
            if not self._is_running:
                # The wait was ours; the client's silence begins now.
                self._active_at = self._clock.seconds()
                self._run()

    def _answer_yes(self, _result: object) -> None:
        self._answer()

    def _abort_mail(self, reason: str) -> None:
        mail, self._mail = self._mail, None
        if mail is None:
            return
        if reason:
            log.info(
                "smtp transaction {transaction_id} in {connection_id} ended without a message: {reason}",
                transaction_id=mail.transaction_id,
                connection_id=self.connection_id,
                reason=reason,
            )
        mail.abort()
