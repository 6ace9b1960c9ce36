"""The Twisted shell around the engine: transport, TLS, one timer, back-pressure, log, and the receiver's answers.

It moves octets, turns events into calls of the :class:`~mailsrv.interfaces.delivery.IMessageReceiver`
and the portal, and turns what comes of them into replies. All replies to one segment go out in one
write. An exception that is no MailError is logged here with its traceback and answered 451 4.3.0.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.errors import MailError
from mailsrv.interfaces.account import IAccount, PasswordCredentials
from mailsrv.interfaces.delivery import Accepted, IMailTransaction, MailParameters, Refused
from mailsrv.interfaces.envelope import BodyType, EnvelopeParameters
from mailsrv.interfaces.filter import SessionView
from mailsrv.smtp import replies
from mailsrv.smtp.replies import Reply, Stage, internal_error_reply, make_reply, reply_for_error
from mailsrv.smtp.session import (
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
    SmtpSession,
    TlsRequested,
    TransactionAborted,
    Wait,
)
from mailsrv.smtp.settings import Service
from mailsrv.status import MESSAGE_ACCEPTED
from mailsrv.wire.connection_limits import ConnectionSlot, TooManyConnections
from mailsrv.wire.prompt_write import write_promptly
from mailsrv.wire.tls_mode import TlsMode

if TYPE_CHECKING:
    from mailsrv.smtp.factory import SmtpServerFactory

log = Logger()


@implementer(IHandshakeListener, IPushProducer)
class SmtpProtocol(Protocol):
    """One SMTP, submission or LMTP connection. Made by :class:`~mailsrv.smtp.factory.SmtpServerFactory`."""

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

    # -- the connection's beginning and end

    def connectionMade(self) -> None:
        factory = self.factory
        transport = self.transport
        set_no_delay = getattr(transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(True)
        factory.connection_opened(self)
        try:
            self._slot = factory.connections.open(self.view.client_address, "smtp")
        except TooManyConnections as error:
            log.info(
                "smtp connection {connection_id} from {client_address} refused: {limit}",
                connection_id=self.connection_id,
                client_address=self.view.client_address,
                limit=error.limit,
            )
            transport.write(make_reply(421, error.status, error.text).octets)
            transport.loseConnection()
            self._linger()
            return
        handshake_is_due = ISSLTransport.providedBy(transport)
        self.view = evolve(self.view, local_address=str(getattr(transport.getHost(), "host", "") or ""))
        self._session = SmtpSession(
            self._settings,
            service=factory.service,
            hostname=factory.hostname,
            offers_tls=factory.offers_starttls,
            is_tls=handshake_is_due or factory.tls_mode is TlsMode.IMPLICIT,
            offers_authentication=factory.portal is not None,
            is_plaintext_permitted=self.view.client_address in factory.plaintext_networks,
            is_exempt=self._slot.is_exempt,
        )
        if self._is_drain_wanted:
            self._session.shut_down()
        transport.registerProducer(self, True)
        log.info(
            "smtp connection {connection_id} from {client_address} opened ({service})",
            connection_id=self.connection_id,
            client_address=self.view.client_address,
            service=self.view.service,
        )
        self._arm_timer()
        if not handshake_is_due:
            self._begin()

    def handshakeCompleted(self) -> None:
        """TLS is up, from the start or after STARTTLS."""
        handle = self.transport.getHandle()
        version = getattr(handle, "get_protocol_version_name", None)
        cipher = getattr(handle, "get_cipher_name", None)
        self.view = evolve(
            self.view,
            tls_version=(version() if version is not None else "") or "TLS",
            tls_cipher=(cipher() if cipher is not None else "") or "",
        )
        if self._session is not None and not self._has_begun:
            self._begin()

    def _begin(self) -> None:
        """Ask the receiver, wait for early talkers, greet."""
        self._has_begun = True
        delay = self.factory.greeting_delay(self._slot)
        if delay > 0:
            self._delay = self._clock.callLater(delay, self._ask_connected)
        else:
            self._ask_connected()

    def _ask_connected(self) -> None:
        self._delay = None
        if self._session is not None and self._session.unread_octets:
            self._answer()
            return
        self._await(lambda: self._receiver.connected(self.view), Stage.CONNECT, self._answer_yes)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._is_gone:
            return
        self._is_gone = self._is_ended = True
        for call in (self._timer, self._delay):
            if call is not None and call.active():
                call.cancel()
        self._timer = self._delay = None
        if self._session is not None:
            self._session.receive_eof()
        self._abort_mail("connection lost")
        self._log_out()
        if self._slot is not None:
            self._slot.close()
            session = self._session
            last = session.closing_reply if session is not None else None
            log.info(
                "smtp connection {connection_id} closed after {messages} messages, {errors} errors: {reason}",
                connection_id=self.connection_id,
                messages=session.messages if session is not None else 0,
                errors=session.errors if session is not None else 0,
                code=last.code if last is not None else 0,
                reason=last.lines[0] if last is not None else "by the client",
            )
        self.factory.connection_closed(self)

    def drain(self) -> None:
        """Finish what is in flight, say 421, close."""
        self._is_drain_wanted = True
        if self._session is not None and not self._has_begun:
            self.abort()  # implicit TLS, and no handshake: nobody is there to be told, and nobody worth waiting for
        elif self._session is not None:
            self._session.shut_down()
            self._run()

    def cut_off(self) -> None:
        """The time to finish is over: 421 even within a message (R-STOP-1), as far as the client takes it at once."""
        session = self._session
        if session is not None and not self._is_ended and not self._is_output_full:
            session.time_out(replies.SHUTTING_DOWN)
            self._run()
        if self._is_ended and not self._is_gone and self._timer is not None and self._timer.active():
            self._timer.reset(_CUT_OFF_SECONDS)
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once."""
        abort = getattr(self.transport, "abortConnection", None)
        if abort is not None:
            abort()
        else:
            self.transport.loseConnection()

    # -- octets

    def dataReceived(self, data: bytes) -> None:
        session = self._session
        if session is None:
            return
        if session.is_receiving_content:
            # Else only a whole command counts (RFC 5321 4.5.3.2.7): one octet now and then buys no time.
            self._active_at = self._clock.seconds()
        session.receive_octets(data)
        self._run()

    def _run(self) -> None:
        """Let the engine go as far as it can, then send all it has to say in one write."""
        session = self._session
        if self._is_running or session is None or self._is_ended:
            return
        self._is_running = True
        try:
            while not self._is_awaiting_write:
                event = session.next_event()
                if event.__class__ is Wait:
                    break
                _HANDLERS[event.__class__](self, event)
        finally:
            self._is_running = False
        self._flush()

    def _flush(self) -> None:
        session, transport = self._session, self.transport
        if session is None or self._is_ended:
            return
        octets = session.octets_to_send()
        if octets:
            self._active_at = self._clock.seconds()
            write_promptly(transport, octets)
        if session.is_closing:
            self._end()
        else:
            self._regulate()

    def _end(self) -> None:
        """The last word was said."""
        self._is_ended = True
        self._abort_mail("connection closed")
        # loseConnection would wait for a producer.
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        self._linger()

    def _linger(self) -> None:
        """A client that does not read its last replies must not keep the connection open for ever."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._clock.callLater(_LINGER_SECONDS, self.abort)

    def _regulate(self) -> None:
        """Read only while the input can be used and the output is taken."""
        session = self._session
        wants_pause = (
            self._is_awaiting_write
            or self._is_output_full
            or (session is not None and session.unread_octets >= self._settings.input_buffer_octets)
        )
        if wants_pause is not self._is_paused:
            self._is_paused = wants_pause
            if wants_pause:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    def pauseProducing(self) -> None:
        """The transport has too much to send."""
        self._is_output_full = True
        self._regulate()

    def resumeProducing(self) -> None:
        """The transport has room again."""
        self._is_output_full = False
        self._regulate()

    def stopProducing(self) -> None:
        """The transport is gone; ``connectionLost`` follows."""

    # -- time: one timer, which looks at its turn at what has happened since

    def _arm_timer(self) -> None:
        settings = self._settings
        now = self._clock.seconds()
        # Not later than the grace of the data rate, so that a message that begins meanwhile is looked at in time.
        due = min(self._active_at + settings.command_timeout_seconds, now + settings.data_rate_grace_seconds)
        if self._session_ends_at is not None:
            due = min(due, self._session_ends_at)
        self._timer = self._clock.callLater(max(_SHORTEST_LOOK_SECONDS, due - now), self._look_at_time)

    @property
    def _session_ends_at(self) -> float | None:
        limit = self._settings.session_timeout_seconds
        if self.factory.service is not Service.MX or limit <= 0:
            return None
        return self._opened_at + limit

    def _look_at_time(self) -> None:
        self._timer = None
        session = self._session
        if session is None or self._is_ended:
            return
        now = self._clock.seconds()
        if not self._has_begun:
            # Implicit TLS, and the handshake has not come: there is nobody to say a word to.
            if now - self._active_at >= self._settings.command_timeout_seconds:
                log.info("smtp connection {connection_id} timed out before TLS", connection_id=self.connection_id)
                self.abort()
                return
        elif session.is_paused or self._is_awaiting_write:
            # The silence is ours: the client's time begins anew.
            self._active_at = now
        else:
            self._judge_silence(session, now)
        if session.is_closing:
            log.info("smtp connection {connection_id} timed out", connection_id=self.connection_id)
            self._run()
        else:
            self._arm_timer()

    def _judge_silence(self, session: SmtpSession, now: float) -> None:
        settings = self._settings
        ends_at = self._session_ends_at
        if now - self._active_at >= settings.command_timeout_seconds:
            session.time_out()
        elif session.is_receiving_content:
            seconds = now - self._content_began_at
            slowest = settings.data_rate_octets * (seconds - settings.data_rate_grace_seconds)
            if session.content_octets < slowest:
                session.time_out(replies.TOO_SLOW)
        elif ends_at is not None and now >= ends_at:
            session.time_out()

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


_LINGER_SECONDS = 30.0
"""How long a client has to take the last replies."""
_CUT_OFF_SECONDS = 1.0
"""The same when the server stops."""
_SHORTEST_LOOK_SECONDS = 1.0

_HANDLERS: dict[type[Event] | type[Wait], Callable[[SmtpProtocol, Any], None]] = {
    ClientGreeted: SmtpProtocol._client_greeted,
    MailGiven: SmtpProtocol._mail_given,
    RecipientNamed: SmtpProtocol._recipient_named,
    ContentRequested: SmtpProtocol._content_requested,
    ContentReceived: SmtpProtocol._content_received,
    ContentRefused: SmtpProtocol._content_refused,
    MessageEnded: SmtpProtocol._message_ended,
    TransactionAborted: SmtpProtocol._transaction_aborted,
    CommandRejected: SmtpProtocol._command_rejected,
    TlsRequested: SmtpProtocol._tls_requested,
    PasswordOffered: SmtpProtocol._password_offered,
    ReplyDelayed: SmtpProtocol._reply_delayed,
}


def _joint_reply(given: Sequence[Reply]) -> Reply:
    """SMTP has one reply for all recipients: yes if one of them has the message, else a temporary refusal first.

    A receiver that accepted some and not others owes the others' originator a notification.
    """
    if not given:
        return replies.INTERNAL_ERROR
    return min(given, key=lambda reply: reply.code)
