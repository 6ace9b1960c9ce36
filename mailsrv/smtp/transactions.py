"""MAIL, RCPT, DATA: what a transaction needs before its text may come."""

from __future__ import annotations

import math

from mailsrv.interfaces.delivery import MailParameters
from mailsrv.interfaces.envelope import BodyType, DeliverBy, EnvelopeParameters
from mailsrv.smtp import replies
from mailsrv.smtp.commands import Mail, Rcpt
from mailsrv.smtp.events import ContentRequested, MailGiven, RecipientNamed
from mailsrv.smtp.parameters import NO_ARGUMENTS, NO_RECIPIENT_PARAMETERS, MailArguments
from mailsrv.smtp.replies import Reply, make_reply
from mailsrv.smtp.settings import Service
from mailsrv.smtp.state import Owed, SessionState, TransactionState
from mailsrv.status import PRIORITY_CHANGED
from mailsrv.wire.connection_limits import RateKind

_NO_PARAMETERS = MailParameters()
_ONLY_SIZE = frozenset({"SIZE"})
_SIZE_AND_BODY = frozenset({"SIZE", "BODY"})
_EIGHT_BIT = EnvelopeParameters(BodyType.EIGHT_BIT)
_MAIL, _RCPT = Owed.MAIL, Owed.RCPT


class TransactionSteps(SessionState):
    """The part of the engine that opens transactions and collects recipients."""

    # -- MAIL

    def _do_mail(self, mail: Mail) -> None:
        if self.service is Service.SUBMISSION and not (self.is_authenticated or self.is_admitted):
            must_encrypt = self._offers_tls and not self.is_tls and not self._may_authenticate
            self._reject(replies.TLS_FIRST if must_encrypt else replies.AUTHENTICATE_FIRST)
            return
        if self.transaction.mail is not None:
            self._reject(replies.NESTED_MAIL)
            return
        if self.messages >= self.settings.messages_per_session and not self._is_exempt and not self._is_lmtp:
            self._send(replies.TOO_MANY_MESSAGES)
            return
        arguments = mail.arguments
        self._mail_reply = replies.SENDER_OK
        parameters = _NO_PARAMETERS
        if arguments is not NO_ARGUMENTS:
            refusal = self._judge_arguments(arguments)
            if refusal is not None:
                # What follows in one group with it is no error of the client's.
                self.transaction = TransactionState(is_mail_refused=True)
                self._reject(refusal, counts=refusal is not replies.MESSAGE_TOO_LARGE)
                return
            parameters = self._make_parameters(arguments)
        event = MailGiven(mail.reverse_path, parameters)
        self._pending = event
        self._owed = _MAIL
        self._events.append(event)

    def _judge_arguments(self, arguments: MailArguments) -> Reply | None:
        """Why these parameters cannot be had here and now."""
        if not self.is_extended:
            return replies.PARAMETERS_NEED_EHLO
        offer, settings = self._offer, self.settings
        if arguments.requires_tls and not self.is_tls and "REQUIRETLS" not in settings.extensions_off:
            return replies.REQUIRETLS_NEEDS_TLS  # RFC 8689 2
        if not arguments.keywords <= offer.mail_parameters:
            return replies.UNKNOWN_PARAMETER
        if arguments.body is BodyType.BINARY and "BINARYMIME" not in offer.keywords:
            return replies.NO_BINARY
        if arguments.body is BodyType.EIGHT_BIT and "8BITMIME" not in offer.keywords:
            return replies.UNKNOWN_PARAMETER
        if arguments.size is not None and arguments.size > settings.message_octets:
            return replies.MESSAGE_TOO_LARGE
        by = arguments.by
        if by is not None and by.must_return and by.seconds < settings.deliver_by_seconds:
            return replies.DELIVER_BY_TOO_SOON
        return self._judge_hold(arguments)

    def _judge_hold(self, arguments: MailArguments) -> Reply | None:
        """RFC 4865 4: a release that is further ahead than was announced is 501."""
        wait = self._wait_of(arguments)
        if wait is None:
            return None
        if wait > self.settings.hold_seconds:
            return replies.HELD_TOO_LONG
        by = arguments.by
        if by is not None and by.must_return and by.seconds <= wait:
            return replies.HELD_PAST_DEADLINE
        return None

    def _wait_of(self, arguments: MailArguments) -> int | None:
        """How long the message is to be held; a date that has passed means not at all."""
        if arguments.hold_until is not None:
            return max(0, arguments.hold_until - int(self._seconds()))
        return arguments.hold_seconds

    def _make_parameters(self, arguments: MailArguments) -> MailParameters:
        """As they travel with the message: times as instants, a priority within its bounds."""
        if arguments.keywords == _ONLY_SIZE:
            return MailParameters(arguments.size, _NO_PARAMETERS.envelope)
        if arguments.keywords <= _SIZE_AND_BODY and arguments.body is BodyType.EIGHT_BIT:
            return MailParameters(arguments.size, _EIGHT_BIT)
        wait, by = self._wait_of(arguments), arguments.by
        now = int(self._seconds()) if by is not None else 0
        return MailParameters(
            arguments.size,
            EnvelopeParameters(
                arguments.body,
                arguments.is_smtputf8,
                arguments.return_content,
                arguments.envelope_id,
                arguments.requires_tls,
                self._bounded_priority(arguments.priority),
                DeliverBy(now + by.seconds, by.must_return, by.is_traced) if by is not None else None,
                self._release_of(arguments) if wait else None,
            ),
        )

    def _release_of(self, arguments: MailArguments) -> int:
        """The second at which a message that is held may go: never before its time (RFC 4865 4)."""
        if arguments.hold_until is not None:
            return arguments.hold_until
        return math.ceil(self._seconds() + (arguments.hold_seconds or 0))

    def _bounded_priority(self, wanted: int | None) -> int:
        if wanted is None:
            return 0
        given = min(max(wanted, self.settings.priority_lowest), self.settings.priority_highest)
        if given != wanted:
            # RFC 6710 4.1: the client is told.
            self._mail_reply = make_reply(250, PRIORITY_CHANGED, f"Ok, with priority {given}")
        return given

    def _answer_mail(self, answers: tuple[Reply, ...]) -> None:
        mail, self._pending = self._pending, None
        answer = answers[0] if answers else self._mail_reply
        if answer.is_positive and isinstance(mail, MailGiven):
            self.transaction = TransactionState(mail)
            self._send(answer)
        else:
            self.transaction = TransactionState(is_mail_refused=True)
            self._refuse(answer, counts=self._counts_refusals)

    # -- RCPT

    def _do_rcpt(self, command: Rcpt) -> None:
        transaction = self.transaction
        mail = transaction.mail
        if mail is None:
            transaction.overflow += 1
            excused = transaction.is_mail_refused and transaction.overflow <= self._recipient_limit
            self._reject(replies.MAIL_FIRST, counts=not excused)
        elif transaction.has_chunks:
            self._reject(replies.CHUNKS_UNDER_WAY)
        elif command.parameters is not NO_RECIPIENT_PARAMETERS and not self._takes_rcpt_parameters:
            transaction.refused_recipients += 1
            self._reject(replies.UNKNOWN_PARAMETER if self.is_extended else replies.PARAMETERS_NEED_EHLO)
        elif not command.is_ascii and not mail.parameters.envelope.is_smtputf8:
            transaction.refused_recipients += 1
            self._reject(replies.NEEDS_SMTPUTF8)
        elif transaction.recipients >= self._recipient_limit:
            transaction.overflow += 1
            is_endless = transaction.overflow > 10 * self._recipient_limit
            self._send(replies.TOO_MUCH_JUNK if is_endless else replies.TOO_MANY_RECIPIENTS)
        else:
            self._owed = _RCPT
            self._events.append(RecipientNamed(command.forward_path, command.parameters))

    @property
    def _takes_rcpt_parameters(self) -> bool:
        return self.is_extended and "DSN" in self._offer.keywords

    def _answer_rcpt(self, answers: tuple[Reply, ...]) -> None:
        answer = answers[0] if answers else replies.RECIPIENT_OK
        if answer.code < 400:
            self.transaction.recipients += 1
            self._send(answer)
        else:
            self.transaction.refused_recipients += 1
            self._refuse(answer, counts=self._counts_refusals, kind=RateKind.WRONG_RECIPIENTS)

    # -- DATA

    def _do_data(self) -> None:
        transaction = self.transaction
        mail = transaction.mail
        if transaction.recipients and mail is not None:
            if not transaction.has_chunks and mail.parameters.envelope.body is not BodyType.BINARY:
                self._ask(Owed.DATA, ContentRequested())
                return
            # RFC 3030 2 and 3: not after BDAT, nor for binary content.
            self._end_transaction()
            self._reject(replies.CHUNKS_UNDER_WAY if transaction.has_chunks else replies.BINARY_NEEDS_CHUNKS)
            return
        self._end_transaction()
        self._reject_unready(transaction)

    def _reject_unready(self, transaction: TransactionState) -> None:
        """There is nobody the text could be for."""
        if transaction.mail is None:
            excused = transaction.is_mail_refused or transaction.is_chunk_refused
            self._reject(replies.MAIL_FIRST, counts=not excused)
        elif transaction.refused_recipients:
            self._reject(replies.NO_VALID_RECIPIENTS, counts=False)
        else:
            self._reject(replies.RCPT_FIRST)
