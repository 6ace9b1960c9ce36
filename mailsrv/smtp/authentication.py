"""AUTH (RFC 4954): the exchange of challenges and responses, and what a failed one costs."""

from __future__ import annotations

from mailsrv.sasl import (
    Challenge,
    ResponseGiven,
    ResponseOffered,
    SaslCancelled,
    SaslError,
    SaslExchange,
    encode_challenge,
)
from mailsrv.smtp import replies
from mailsrv.smtp.commands import Auth
from mailsrv.smtp.events import PasswordOffered
from mailsrv.smtp.replies import Reply, make_reply
from mailsrv.smtp.state import Owed, SessionState, State
from mailsrv.status import AUTHENTICATION_REQUIRED, BAD_SYNTAX


class AuthSteps(SessionState):
    """The part of the engine that logs clients in."""

    def admit(self, is_admitted: bool, *, is_known: bool) -> None:
        """Whether the client may submit without a log-in; ``is_known``: as a user, so that it needs none."""
        self.is_admitted = is_admitted
        if is_known:
            self.is_authenticated = True
            self._make_offer()

    def _do_auth(self, command: Auth) -> None:
        if not self._offers_authentication:
            self._reject(replies.NOT_IMPLEMENTED)
        elif self.is_authenticated:
            self._reject(replies.ALREADY_AUTHENTICATED)
        elif self.transaction.mail is not None:
            self._reject(replies.NESTED_MAIL)
        elif not self._may_authenticate:
            self._reject(replies.ENCRYPT_FIRST)
        elif command.mechanism not in self.mechanisms:
            self._reject(replies.UNKNOWN_MECHANISM)
        else:
            self._exchange = SaslExchange(command.mechanism)
            self._advance_auth(command.initial_response, is_first=True)

    def _continue_auth(self, line: bytes) -> None:
        if len(self._buffer):
            self._send(replies.NOT_SYNCHRONISED)
        else:
            self._advance_auth(line, is_first=False)

    def _advance_auth(self, response: bytes | None, *, is_first: bool) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        is_conversing = exchange.is_conversing
        try:
            step = exchange.begin(response) if is_first else exchange.receive(response or b"")
        except (SaslCancelled, SaslError) as error:
            self._refuse_response(exchange, error)
            return
        if isinstance(step, Challenge):
            self._state = State.SASL
            self._out.append(b"334 " + encode_challenge(step) + b"\r\n")
        elif isinstance(step, ResponseGiven):
            self._state = State.COMMAND
            self._ask(Owed.AUTH, ResponseOffered(exchange.mechanism_name, step.octets, is_first=not is_conversing))
        else:
            self._end_auth()
            self._ask(Owed.AUTH, PasswordOffered(step, exchange.mechanism_name))

    def _refuse_response(self, exchange: SaslExchange, error: SaslCancelled | SaslError) -> None:
        self._end_auth()
        if exchange.is_conversing:
            # Somebody waits for the response; the error comes back as the answer.
            self._ask(Owed.AUTH, ResponseOffered(exchange.mechanism_name, error, is_first=False))
        elif isinstance(error, SaslCancelled):
            self._reject(make_reply(501, AUTHENTICATION_REQUIRED, error.text))
        else:
            self._count_auth_failure(make_reply(501, BAD_SYNTAX, error.text))

    def challenge(self, octets: bytes) -> None:
        """Ask the client once more, instead of an answer to :class:`ResponseOffered`."""
        if self._owed is not Owed.AUTH or self._state is State.CLOSED:
            return
        self._owed = Owed.NOTHING
        if len(self._buffer):
            # The client could not know the challenge yet (R-SMTP-6).
            self._send(replies.NOT_SYNCHRONISED)
            return
        self._state = State.SASL
        self._out.append(b"334 " + encode_challenge(Challenge(octets)) + b"\r\n")

    def _end_auth(self) -> None:
        self._exchange = None
        self._state = State.COMMAND

    def _answer_auth(self, answers: tuple[Reply, ...]) -> None:
        self._end_auth()
        answer = answers[0] if answers else replies.AUTHENTICATED
        if answer.is_positive:
            self.is_authenticated = True
            self._make_offer()
            self._send(answer)
        elif answer.code < 500:
            # We could not find out; that is no failure of the client's (R-AUTH-7).
            self._send(answer)
        else:
            self._count_auth_failure(answer)

    def _count_auth_failure(self, reply: Reply) -> None:
        self._auth_failures += 1
        if self._auth_failures >= self.settings.auth_failures_before_drop:
            self._send(replies.TOO_MANY_FAILED_LOGINS)
        else:
            self._refuse(reply)
