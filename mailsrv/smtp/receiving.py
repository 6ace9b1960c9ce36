"""What becomes of a transaction's events: calls of the receiver, and replies from what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.address import Address
from mailsrv.errors import MailError
from mailsrv.interfaces.delivery import Accepted, IMailTransaction, Refused
from mailsrv.sasl import ResponseOffered
from mailsrv.smtp import replies
from mailsrv.smtp.events import (
    AddressQueried,
    ClientGreeted,
    ClientIntroduced,
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
from mailsrv.smtp.identity import IdentityEvents
from mailsrv.smtp.queries import leads_elsewhere, query_reply
from mailsrv.smtp.replies import Reply, Stage, make_accepted_reply, reply_for_error
from mailsrv.smtp.settings import Service

log = Logger()


class ReceiverDialogue(IdentityEvents):
    """The half of :class:`~mailsrv.smtp.protocol.SmtpProtocol` that knows the receiver; the other moves octets."""

    # -- events

    def _client_greeted(self, event: ClientGreeted) -> None:
        self.view = evolve(self.view, helo=event.domain, is_extended=event.is_extended)
        self._await(Stage.HELO, "", self._answer_yes, self._receiver.greeted, self.view)

    def _mail_given(self, event: MailGiven) -> None:
        too_many = self._patience.refuse_transaction()
        if too_many is not None:
            self._answer(reply_for_error(too_many, Stage.MAIL))
            return
        self._await(
            Stage.MAIL,
            "",
            self._mail_begun,
            self._receiver.begin,
            self.view,
            event.reverse_path,
            event.parameters,
            self._account,
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
            Stage.RCPT,
            event.forward_path,
            self._recipient_accepted,
            mail.add_recipient,
            event.forward_path,
            event.parameters,
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
        self._await(Stage.DATA, "", self._content_begun, mail.begin_content)

    def _content_begun(self, _result: object) -> None:
        self._measure_content()
        self._answer()

    def _measure_content(self) -> None:
        self._content_began_at = self._clock.seconds()
        self._content_octets = 0
        self._is_content_measured = True

    def _content_received(self, event: ContentReceived) -> None:
        if self._mail is None:
            return
        waiting = self._mail.write(event.octets)
        if waiting is not None:
            self._is_awaiting_write = True
            self._wait_began_at = self._clock.seconds()
            waiting.addBoth(self._content_taken)

    def _content_taken(self, result: object) -> None:
        # A failure is kept by the transaction and comes out of finish().
        self._is_awaiting_write = False
        self._active_at = now = self._clock.seconds()
        # The client is not slow because we are.
        self._content_began_at += now - self._wait_began_at
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

        self._await(Stage.MESSAGE, "", finished, mail.finish)

    def _message_finished(self, outcomes: Sequence[Accepted | Refused], transaction_id: str, size: int) -> None:
        if len(outcomes) == 1 and isinstance(outcomes[0], Accepted):
            # The usual case, of which delivery tells.
            self.factory.mail_accepted(self._slot)
            self._answer(make_accepted_reply(outcomes[0].transaction_id))
            return
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
            return make_accepted_reply(outcome.transaction_id)
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

    def _command_rejected(self, event: CommandRejected) -> None:
        log.info(
            "smtp command refused in {connection_id}: {code} {reason}",
            connection_id=self.connection_id,
            transaction_id=self._mail.transaction_id if self._mail is not None else "",
            code=event.reply.code,
            reason=event.reply.lines[0],
        )

    def _is_local(self, address: Address) -> Deferred[bool]:
        """Whether the receiver knows the address as one of ours."""

        def refused(failure: Failure) -> bool:
            if not isinstance(failure.value, MailError) or failure.value.is_temporary:
                failure.raiseException()
            return False

        asked: Deferred[Sequence[Address]] = self._receiver.verify(self.view, address, self._account)
        return asked.addCallbacks(lambda _: True, refused)

    def _address_queried(self, event: AddressQueried) -> None:
        def found(addresses: Sequence[Address]) -> None:
            if not leads_elsewhere(event, addresses):
                self._answer(query_reply(event, addresses))
                return

            def judged(is_local: bool) -> None:
                self._answer(query_reply(event, addresses, is_local=is_local))

            self._await(Stage.QUERY, event.address, judged, self._is_local, addresses[0])

        self._await(Stage.QUERY, event.address, found, self._receiver.verify, self.view, event.address, self._account)

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
    ResponseOffered: ReceiverDialogue._response_offered,
    AddressQueried: ReceiverDialogue._address_queried,
    ClientIntroduced: ReceiverDialogue._client_introduced,
    ReplyDelayed: ReceiverDialogue._reply_delayed,
}


def _joint_reply(given: Sequence[Reply]) -> Reply:
    """SMTP has one reply for all recipients: yes if one of them has the message, else a temporary refusal first.

    A receiver that accepted some and not others owes the others' originator a notification.
    """
    if not given:
        return replies.INTERNAL_ERROR
    return min(given, key=lambda reply: reply.code)
