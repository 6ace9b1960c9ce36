"""What becomes of the engine's events: calls of the receiver and of the portal, and replies from what they answer.

An exception that is no MailError is logged here with its traceback and answered 451 4.3.0.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.address import Address
from mailsrv.errors import MailError
from mailsrv.interfaces.account import IAccount, PasswordCredentials
from mailsrv.interfaces.delivery import Accepted, IMailTransaction, MailParameters, Refused
from mailsrv.interfaces.envelope import BodyType, EnvelopeParameters
from mailsrv.interfaces.filter import SessionView
from mailsrv.smtp import replies
from mailsrv.smtp.events import (
    ClientGreeted,
    CommandRejected,
    ContentReceived,
    ContentRefused,
    ContentRequested,
    Event,
    MailGiven,
    MessageEnded,
    PasswordOffered,
    RecipientNamed,
    ReplyDelayed,
    TlsRequested,
    TransactionAborted,
    Wait,
)
from mailsrv.smtp.patience import Patience
from mailsrv.smtp.replies import Reply, Stage, internal_error_reply, make_reply, reply_for_error
from mailsrv.smtp.session import SmtpSession
from mailsrv.smtp.settings import Service
from mailsrv.status import MESSAGE_ACCEPTED
from mailsrv.wire.connection_limits import ConnectionSlot, TooManyConnections

if TYPE_CHECKING:
    from mailsrv.smtp.factory import SmtpServerFactory

log = Logger()


class ReceiverDialogue:
    """The half of :class:`~mailsrv.smtp.protocol.SmtpProtocol` that knows the receiver; the other moves octets."""

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
        self._timer: IDelayedCall | None = None
        self._delay: IDelayedCall | None = None
        """Waits out a tarpit or the time before the greeting."""
        self._opened_at = self._active_at = self._clock.seconds()
        self._content_began_at = 0.0
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
        ask: Callable[[], Deferred[Any]],
        stage: Stage,
        succeed: Callable[[Any], None],
        subject: str = "",
    ) -> None:
        """Ask somebody; ``succeed`` gets the result, the client the refusal. What comes too late is ignored."""
        try:
            deferred = ask()
        except Exception:
            self._fail(Failure(), stage, subject)
            return
        if deferred.called and not deferred.paused and not isinstance(deferred.result, Failure | Deferred):
            # The usual case; the way through the callbacks would cost more than all the rest.
            try:
                succeed(deferred.result)
            except Exception:
                self._crash(Failure())
            return
        deferred.addCallbacks(succeed, self._fail, errbackArgs=(stage, subject))
        deferred.addErrback(self._crash)

    def _fail(self, failure: Failure, stage: Stage, subject: str) -> None:
        error = failure.value
        if isinstance(error, MailError):
            reply = reply_for_error(error, stage)
            # Why is in the event of delivery or of log-in already.
            log.debug(
                "smtp {stage} {subject} refused in {connection_id}: {code} {error}",
                stage=stage.value,
                subject=subject,
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
                subject=subject,
                connection_id=self.connection_id,
            )
        self._answer(reply)

    def _crash(self, failure: Failure) -> None:
        """A bug of ours after an answer was given: what the client is owed now is not known any more."""
        log.failure("smtp connection {connection_id} ended by a bug", failure, connection_id=self.connection_id)
        self.abort()

    def _answer(self, *answers: Reply) -> None:
        if self._session is not None:
            # The wait was ours; the client's silence begins now.
            self._active_at = self._clock.seconds()
            self._session.reply(*answers)
            self._run()

    def _answer_yes(self, _result: object) -> None:
        self._answer()

    # -- events

    def _client_greeted(self, event: ClientGreeted) -> None:
        self.view = evolve(self.view, helo=event.domain, is_extended=event.is_extended)
        self._await(lambda: self._receiver.greeted(self.view), Stage.HELO, self._answer_yes)

    def _mail_given(self, event: MailGiven) -> None:
        too_many = self._patience.refuse_transaction()
        if too_many is not None:
            self._answer(reply_for_error(too_many, Stage.MAIL))
            return
        mail = event.mail
        envelope = EnvelopeParameters(
            body=BodyType.EIGHT_BIT if mail.is_8bit else BodyType.SEVEN_BIT, is_smtputf8=mail.is_smtputf8
        )
        parameters = MailParameters(mail.size, envelope)
        self._await(
            lambda: self._receiver.begin(self.view, mail.reverse_path, parameters, self._account),
            Stage.MAIL,
            self._mail_begun,
        )

    def _mail_begun(self, mail: IMailTransaction) -> None:
        if self._is_ended:
            mail.abort()
            return
        self._mail = mail
        self._recipients = []
        self._answer()

    def _recipient_named(self, event: RecipientNamed) -> None:
        mail = self._mail
        if mail is None:
            self._answer(replies.INTERNAL_ERROR)
            return
        too_many = self._patience.refuse_recipient()
        if too_many is not None:
            self._answer(reply_for_error(too_many, Stage.RCPT))
            return
        self._recipient = event.forward_path
        self._await(
            lambda: mail.add_recipient(event.forward_path),
            Stage.RCPT,
            self._recipient_accepted,
            str(event.forward_path),
        )

    def _recipient_accepted(self, _result: object) -> None:
        if self._recipient is not None:
            self._recipients.append(self._recipient)
        self._answer()

    def _content_requested(self, _event: ContentRequested) -> None:
        mail = self._mail
        if mail is None:
            self._answer(replies.INTERNAL_ERROR)
            return
        self._await(mail.begin_content, Stage.DATA, self._content_begun)

    def _content_begun(self, _result: object) -> None:
        self._content_began_at = self._clock.seconds()
        self._answer()

    def _content_received(self, event: ContentReceived) -> None:
        if self._mail is None:
            return
        waiting = self._mail.write(event.octets)
        if waiting is not None:
            self._is_awaiting_write = True
            waiting.addBoth(self._content_taken)

    def _content_taken(self, result: object) -> None:
        # A failure is kept by the transaction and comes out of finish().
        self._is_awaiting_write = False
        self._active_at = self._clock.seconds()
        self._run()

    def _content_refused(self, event: ContentRefused) -> None:
        log.info(
            "smtp message refused in {connection_id}: {code} {reason}",
            connection_id=self.connection_id,
            transaction_id=self._mail.transaction_id if self._mail is not None else "",
            code=event.refusal.code,
            reason=event.refusal.lines[0],
        )
        self._abort_mail("")

    def _message_ended(self, event: MessageEnded) -> None:
        mail, self._mail = self._mail, None
        if mail is None:
            self._answer(replies.INTERNAL_ERROR)
            return
        transaction_id = mail.transaction_id

        def finished(outcomes: Sequence[Accepted | Refused]) -> None:
            self._message_finished(outcomes, transaction_id, event.size)

        self._await(mail.finish, Stage.MESSAGE, finished)

    def _message_finished(self, outcomes: Sequence[Accepted | Refused], transaction_id: str, size: int) -> None:
        given = [self._outcome_reply(outcome, transaction_id) for outcome in outcomes]
        accepted = sum(isinstance(outcome, Accepted) for outcome in outcomes)
        log.debug(
            "smtp message {transaction_id} in {connection_id}: {size} octets, "
            "accepted for {accepted}, refused for {refused}",
            transaction_id=transaction_id,
            connection_id=self.connection_id,
            size=size,
            accepted=accepted,
            refused=len(outcomes) - accepted,
        )
        if accepted:
            self.factory.mail_accepted(self._slot)
        if self.factory.service is Service.LMTP:
            self._answer(*self._replies_in_order(outcomes, given))
        else:
            self._answer(_joint_reply(given))

    def _replies_in_order(self, outcomes: Sequence[Accepted | Refused], given: Sequence[Reply]) -> Sequence[Reply]:
        """RFC 2033 4.2: a reply for each RCPT that was accepted, also if it named a recipient again."""
        if len(given) == len(self._recipients):
            return given
        by_recipient = {outcome.recipient: reply for outcome, reply in zip(outcomes, given, strict=True)}
        return [by_recipient.get(recipient, replies.INTERNAL_ERROR) for recipient in self._recipients]

    def _outcome_reply(self, outcome: Accepted | Refused, transaction_id: str) -> Reply:
        if isinstance(outcome, Accepted):
            return make_reply(250, MESSAGE_ACCEPTED, f"Accepted as {outcome.transaction_id}")
        reply = reply_for_error(outcome.error, Stage.MESSAGE)
        # Why is in the event of delivery or of log-in already.
        log.debug(
            "smtp message {transaction_id} refused for {recipient}: {code} {error}",
            transaction_id=transaction_id,
            connection_id=self.connection_id,
            recipient=str(outcome.recipient),
            code=reply.code,
            error=str(outcome.error),
        )
        return reply

    def _transaction_aborted(self, _event: TransactionAborted) -> None:
        self._abort_mail("given up by the client")

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

    def _command_rejected(self, event: CommandRejected) -> None:
        log.info(
            "smtp command refused in {connection_id}: {code} {reason}",
            connection_id=self.connection_id,
            transaction_id=self._mail.transaction_id if self._mail is not None else "",
            code=event.reply.code,
            reason=event.reply.lines[0],
        )

    def _tls_requested(self, _event: TlsRequested) -> None:
        session, transport = self._session, self.transport
        if session is None:
            return
        octets = session.octets_to_send()
        if session.start_tls():
            # R-TLS-1. The engine refuses what came with the command; this is for what came since.
            self.abort()
            return
        transport.write(octets)
        self._log_out()
        self.view = evolve(self.view, helo="", is_extended=False, account=None)
        self._handshake_began_at = self._clock.seconds()
        transport.startTLS(self.factory.context_factory)

    def _password_offered(self, event: PasswordOffered) -> None:
        given = event.given
        credentials = PasswordCredentials(
            given.authcid,
            given.password,
            self.view.client_address,
            "submission",
            authzid=given.authzid,
            connection_id=self.connection_id,
        )
        self._await(
            lambda: self.factory.portal.login(credentials, None, IAccount),
            Stage.AUTH,
            self._logged_in,
            given.authcid,
        )

    def _logged_in(self, avatar: tuple[object, IAccount, Callable[[], object]]) -> None:
        _interface, account, logout = avatar
        if self._is_ended or self._slot is None:
            logout()
            return
        try:
            self._slot.authenticate(str(account.address))
        except TooManyConnections as error:
            logout()
            self._answer(make_reply(421, error.status, error.text, closes=True))
            return
        self._account, self._logout = account, logout
        self.view = evolve(self.view, account=account.address)
        log.info(
            "smtp connection {connection_id} authenticated as {account}",
            connection_id=self.connection_id,
            account=str(account.address),
        )
        self._answer()

    def _log_out(self) -> None:
        logout, self._logout, self._account = self._logout, None, None
        if logout is not None:
            logout()

    def _reply_delayed(self, event: ReplyDelayed) -> None:
        self._delay = self._clock.callLater(event.seconds, self._delay_over)

    def _delay_over(self) -> None:
        self._delay = None
        if self._session is not None:
            self._session.resume()
            self._run()


HANDLERS: dict[type[Event] | type[Wait], Callable[[ReceiverDialogue, Any], None]] = {
    ClientGreeted: ReceiverDialogue._client_greeted,
    MailGiven: ReceiverDialogue._mail_given,
    RecipientNamed: ReceiverDialogue._recipient_named,
    ContentRequested: ReceiverDialogue._content_requested,
    ContentReceived: ReceiverDialogue._content_received,
    ContentRefused: ReceiverDialogue._content_refused,
    MessageEnded: ReceiverDialogue._message_ended,
    TransactionAborted: ReceiverDialogue._transaction_aborted,
    CommandRejected: ReceiverDialogue._command_rejected,
    TlsRequested: ReceiverDialogue._tls_requested,
    PasswordOffered: ReceiverDialogue._password_offered,
    ReplyDelayed: ReceiverDialogue._reply_delayed,
}


def _joint_reply(given: Sequence[Reply]) -> Reply:
    """SMTP has one reply for all recipients: yes if one of them has the message, else a temporary refusal first.

    A receiver that accepted some and not others owes the others' originator a notification.
    """
    if not given:
        return replies.INTERNAL_ERROR
    return min(given, key=lambda reply: reply.code)
