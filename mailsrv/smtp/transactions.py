"""MAIL, RCPT, DATA: what a transaction needs before its text may come."""

from __future__ import annotations

from mailsrv.smtp import replies
from mailsrv.smtp.commands import Mail, Rcpt
from mailsrv.smtp.events import ContentRequested, MailGiven, RecipientNamed
from mailsrv.smtp.replies import Reply, make_reply
from mailsrv.smtp.settings import Service
from mailsrv.smtp.state import Owed, SessionState, TransactionState
from mailsrv.wire.connection_limits import RateKind

_NO_PARAMETERS = make_reply(555, replies.UNKNOWN_MECHANISM.status, "Parameters need EHLO")


class TransactionSteps(SessionState):
    """The part of the engine that opens transactions and collects recipients."""

    def _do_mail(self, mail: Mail) -> None:
        settings = self.settings
        if self.service is Service.SUBMISSION and not self.is_authenticated:
            must_encrypt = self._offers_tls and not self.is_tls and not self._may_authenticate
            self._reject(replies.TLS_FIRST if must_encrypt else replies.AUTHENTICATE_FIRST)
        elif self.transaction.mail is not None:
            self._reject(replies.NESTED_MAIL)
        elif self.messages >= settings.messages_per_session and not self._is_exempt and not self._is_lmtp:
            self._send(replies.TOO_MANY_MESSAGES)
        elif not self.is_extended and (mail.size is not None or mail.is_8bit or mail.is_smtputf8):
            self._reject(_NO_PARAMETERS)
        elif mail.size is not None and mail.size > settings.message_octets:
            self.transaction = TransactionState(is_mail_refused=True)
            self._reject(replies.MESSAGE_TOO_LARGE, counts=False)
        else:
            self._pending = mail
            self._ask(Owed.MAIL, MailGiven(mail))

    def _answer_mail(self, answer: Reply) -> None:
        mail, self._pending = self._pending, None
        if answer.is_positive and isinstance(mail, Mail):
            self.transaction = TransactionState(mail=mail)
            self._send(answer)
        else:
            self.transaction = TransactionState(is_mail_refused=True)
            self._refuse(answer, counts=self._counts_refusals)

    def _do_rcpt(self, command: Rcpt) -> None:
        transaction = self.transaction
        if transaction.mail is None:
            transaction.overflow += 1
            excused = transaction.is_mail_refused and transaction.overflow <= self._recipient_limit
            self._reject(replies.MAIL_FIRST, counts=not excused)
        elif not command.is_ascii and not transaction.mail.is_smtputf8:
            transaction.refused_recipients += 1
            self._reject(replies.NEEDS_SMTPUTF8)
        elif transaction.recipients >= self._recipient_limit:
            transaction.overflow += 1
            is_endless = transaction.overflow > 10 * self._recipient_limit
            self._send(replies.TOO_MUCH_JUNK if is_endless else replies.TOO_MANY_RECIPIENTS)
        else:
            self._ask(Owed.RCPT, RecipientNamed(command.forward_path))

    def _answer_rcpt(self, answer: Reply) -> None:
        if answer.is_positive:
            self.transaction.recipients += 1
            self._send(answer)
        else:
            self.transaction.refused_recipients += 1
            self._refuse(answer, counts=self._counts_refusals, kind=RateKind.WRONG_RECIPIENTS)

    def _do_data(self) -> None:
        transaction = self.transaction
        if transaction.recipients:
            self._ask(Owed.DATA, ContentRequested())
            return
        self._end_transaction()
        if transaction.mail is None:
            self._reject(replies.MAIL_FIRST, counts=not transaction.is_mail_refused)
        elif transaction.refused_recipients:
            self._reject(replies.NO_VALID_RECIPIENTS, counts=False)
        else:
            self._reject(replies.RCPT_FIRST)
