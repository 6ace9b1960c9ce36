"""The server engine: octets in, events out, answers in, octets to send out. It does no I/O and keeps no timer.

After ``receive_octets`` ask ``next_event`` until it says :attr:`Wait.NEED_DATA` or
:attr:`Wait.PAUSED`. An event whose docstring says *answer* pauses the engine until ``reply`` is
called: ``reply()`` is yes, ``reply(refusal)`` is no. So one command is under way at a time and
replies keep their order. ``octets_to_send`` then has the replies to everything, in one piece.

Message text comes as :class:`ContentReceived` slices. What the engine refuses by itself (size, line
ends) it announces at once with :class:`ContentRefused`, goes on to the real end of the data, and
replies there. The state of a mail transaction is one object, replaced by a fresh one with every
final reply to DATA, RSET, EHLO and STARTTLS (R-SMTP-4); whenever a transaction ends otherwise than
by :class:`MessageEnded`, there is one :class:`TransactionAborted` or :class:`ContentRefused`.
"""

from __future__ import annotations

from functools import lru_cache

from mailsrv.sasl import MECHANISM_NAMES
from mailsrv.smtp import replies
from mailsrv.smtp.authentication import AuthSteps
from mailsrv.smtp.commands import Auth, Command, CommandRefused, Helo, Mail, Plain, Rcpt, Rule, parse_command
from mailsrv.smtp.content import ContentSteps
from mailsrv.smtp.events import ClientGreeted, Event, TlsRequested, Wait
from mailsrv.smtp.replies import Reply, make_reply
from mailsrv.smtp.settings import Service
from mailsrv.smtp.state import Owed, State
from mailsrv.smtp.transactions import TransactionSteps
from mailsrv.status import OK
from mailsrv.wire.receive_buffer import BareLineBreak, LineTooLong


class SmtpSession(AuthSteps, ContentSteps, TransactionSteps):
    """One connection. It begins with the greeting owed: ``reply()`` to greet, ``reply(refusal)`` to turn away."""

    # -- input

    def receive_octets(self, octets: bytes) -> None:
        """What the transport brought. After the end it is ignored."""
        if self._state is not State.CLOSED:
            self._buffer.append(octets)

    def receive_eof(self) -> None:
        """The client is gone: whatever was under way is over."""
        self._close()

    @property
    def unread_octets(self) -> int:
        """Input that waits; stop reading while it is much."""
        return len(self._buffer)

    @property
    def is_paused(self) -> bool:
        """Whether an answer is owed."""
        return self._owed is not Owed.NOTHING

    @property
    def is_closing(self) -> bool:
        """Nothing more will be read: send what there is and close."""
        return self._state is State.CLOSED

    @property
    def is_receiving_content(self) -> bool:
        """Whether message text is arriving."""
        return self._state is State.CONTENT

    @property
    def content_octets(self) -> int:
        """How much of the message that is arriving has come."""
        return self._content_octets

    def octets_to_send(self) -> bytes:
        """All replies since the last call."""
        if not self._out:
            return b""
        octets = b"".join(self._out)
        self._out.clear()
        return octets

    def next_event(self) -> Event | Wait:
        """What happened next, or why nothing did."""
        while True:
            if self._events:
                return self._events.pop(0)
            if self._owed is not Owed.NOTHING:
                return Wait.PAUSED
            if self._is_stopping and self._state is not State.CONTENT and self._state is not State.CLOSED:
                self._send(replies.SHUTTING_DOWN)
            elif not self._step():
                return Wait.NEED_DATA

    def _step(self) -> bool:
        """Understand one more thing; False if more octets are needed for that."""
        state = self._state
        if not len(self._buffer) and state is not State.DISCARD_CHUNK:
            return False
        if state is State.COMMAND or state is State.SASL:
            return self._take_line()
        if state is State.CONTENT:
            return self._take_content()
        if state is State.DISCARD_LINE:
            return self._discard_line()
        return self._discard_chunk() if state is State.DISCARD_CHUNK else False

    # -- things that happen to the session from outside

    def shut_down(self) -> None:
        """The server stops: what is in flight is finished, then the client is told 421 (R-STOP-1)."""
        self._is_stopping = True
        if self._owed is Owed.GREETING or self._owed is Owed.DELAY:
            # Nothing is in flight, we only keep the client waiting.
            self._owed = Owed.NOTHING

    def time_out(self, reply: Reply = replies.TIMED_OUT) -> None:
        """The client was silent, or slow, for too long."""
        if self._state is not State.CLOSED:
            self._owed = Owed.NOTHING
            self._send(reply)

    def resume(self) -> None:
        """The delay of :class:`ReplyDelayed` is over."""
        if self._owed is Owed.DELAY and self._delayed is not None:
            self._owed = Owed.NOTHING
            delayed, self._delayed = self._delayed, None
            self._send(delayed)

    def start_tls(self) -> int:
        """TLS starts: forget what was said in the clear (RFC 3207 4.2).

        Answers how many octets were dropped; with any, close the connection: somebody may have put
        commands in (R-TLS-1).
        """
        dropped = self._buffer.clear()
        self.is_tls = True
        self.helo = ""
        self.is_extended = False
        self.is_authenticated = False
        self._end_transaction()
        if self._state is State.TLS:
            self._state = State.COMMAND
        return dropped

    # -- answers

    def reply(self, *answers: Reply) -> None:
        """Answer the event that paused the engine: nothing for yes, else what to say.

        Replies to a closed session are dropped.
        """
        owed, self._owed = self._owed, Owed.NOTHING
        if self._state is State.CLOSED:
            return
        answer = answers[0] if answers else None
        is_positive = answer is None or answer.is_positive
        if owed is Owed.RCPT:
            self._answer_rcpt(answer or replies.RECIPIENT_OK)
        elif owed is Owed.MESSAGE:
            self._answer_message(answers or (replies.OK,))
        elif owed is Owed.MAIL:
            self._answer_mail(answer or replies.SENDER_OK)
        elif owed is Owed.GREETING:
            self._answer_greeting(answer)
        elif len(self._buffer):
            # HELO, DATA, AUTH: the client could not know the answer yet (R-SMTP-6).
            self._send(replies.NOT_SYNCHRONISED)
        elif owed is Owed.DATA:
            self._answer_data(answer or replies.START_CONTENT)
        elif owed is Owed.HELO:
            self._answer_helo(answer)
        elif owed is Owed.AUTH:
            self._answer_auth(answer or replies.AUTHENTICATED, is_positive=is_positive)

    def _answer_greeting(self, answer: Reply | None) -> None:
        if len(self._buffer):
            self._send(replies.EARLY_TALKER)
        elif answer is None:
            self._send(_greeting(self.hostname, self.service))
        else:
            # RFC 5321 3.1: after 554 the client is expected to QUIT, and everything else is 503.
            self._is_turned_away = True
            self._send(answer)

    def _answer_helo(self, answer: Reply | None) -> None:
        hello, self._pending = self._pending, None
        self._end_transaction()
        if answer is not None and not answer.is_positive:
            self.helo = ""
            self._refuse(answer, counts=self._counts_refusals)
        elif isinstance(hello, Helo):
            self.helo = hello.domain
            self.is_extended = hello.is_extended
            self._send(self._hello_reply())

    # -- lines

    def _take_line(self) -> bool:
        try:
            line = self._extract_line()
        except LineTooLong:
            self._exchange = None
            self._state = State.DISCARD_LINE
            self._discarded = 0
            return True
        except BareLineBreak:
            self._send(replies.BARE_LINE_BREAK)
            return True
        if line is None:
            return False
        if self._state is State.SASL:
            self._continue_auth(line)
        else:
            self._take_command(line)
        return True

    def _extract_line(self) -> bytes | None:
        if self._state is State.SASL:
            return self._buffer.maybe_extract_line(self.settings.auth_line_octets)
        try:
            return self._buffer.maybe_extract_line(self.settings.command_line_octets)
        except LineTooLong:
            if self._may_authenticate and self._buffer.startswith(b"AUTH "):
                return self._buffer.maybe_extract_line(self.settings.auth_line_octets)
            raise

    def _discard_line(self) -> bool:
        self._discarded += len(self._buffer)
        if self._discarded > 16 * self.settings.auth_line_octets:
            self._send(replies.TOO_MANY_ERRORS)
            return True
        if not self._buffer.discard_line():
            return False
        self._discarded = 0
        self._state = State.COMMAND
        self._reject(replies.LINE_TOO_LONG)
        return True

    def _take_command(self, line: bytes) -> None:
        try:
            rule, command = parse_command(line)
        except CommandRefused as refusal:
            self._refuse_command(refusal)
            return
        if rule.synchronises and len(self._buffer):
            self._send(replies.NOT_SYNCHRONISED)
        elif self.service not in rule.services:
            self._reject(replies.UNKNOWN_COMMAND)
        elif self._is_turned_away and rule.verb != "QUIT":
            self._reject(replies.SERVICE_REFUSED)
        elif rule.needs_greeting and not self.helo:
            self._reject(replies.GREET_FIRST)
        elif rule.is_junk and self._is_too_much_junk():
            self._send(replies.TOO_MUCH_JUNK)
        else:
            self._do(command)

    def _refuse_command(self, refusal: CommandRefused) -> None:
        rule: Rule | None = refusal.rule
        if rule is not None and rule.synchronises and len(self._buffer):
            self._send(replies.NOT_SYNCHRONISED)
            return
        if rule is not None and rule.verb == "RCPT" and self.transaction.mail is not None:
            self.transaction.refused_recipients += 1
        self._reject(refusal.reply)

    def _is_too_much_junk(self) -> bool:
        self._junk += 1
        return self._junk > self.settings.junk_commands

    # -- commands

    def _do(self, command: Command) -> None:
        if isinstance(command, Plain):
            _PLAIN[command.verb](self)
        elif isinstance(command, Rcpt):
            self._do_rcpt(command)
        elif isinstance(command, Mail):
            self._do_mail(command)
        elif isinstance(command, Helo):
            self._pending = command
            self._ask(Owed.HELO, ClientGreeted(command.domain, command.is_extended))
        elif isinstance(command, Auth):
            self._do_auth(command)
        else:
            self._do_bdat(command)

    def _do_rset(self) -> None:
        self._end_transaction()
        self._send(replies.OK)

    def _do_noop(self) -> None:
        self._send(replies.OK)

    def _do_help(self) -> None:
        self._send(replies.HELP)

    def _do_vrfy(self) -> None:
        self._send(replies.CANNOT_VERIFY)

    def _do_unimplemented(self) -> None:
        self._reject(replies.NOT_IMPLEMENTED)

    def _do_quit(self) -> None:
        self._send(_farewell(self.hostname))

    def _do_starttls(self) -> None:
        if self.is_tls:
            self._reject(replies.TLS_IS_ON)
        elif not self._offers_tls:
            self._reject(replies.NOT_IMPLEMENTED)
        else:
            self._send(replies.START_TLS)
            self._state = State.TLS
            self._events.append(TlsRequested())

    def _hello_reply(self) -> Reply:
        if not self.is_extended:
            return make_reply(250, None, self.hostname)
        return _extended_hello(
            self.hostname,
            self.settings.message_octets,
            self._offers_tls and not self.is_tls,
            self._may_authenticate,
        )


_PLAIN = {
    "DATA": SmtpSession._do_data,
    "RSET": SmtpSession._do_rset,
    "NOOP": SmtpSession._do_noop,
    "HELP": SmtpSession._do_help,
    "VRFY": SmtpSession._do_vrfy,
    "EXPN": SmtpSession._do_unimplemented,
    "ETRN": SmtpSession._do_unimplemented,
    "TURN": SmtpSession._do_unimplemented,
    "QUIT": SmtpSession._do_quit,
    "STARTTLS": SmtpSession._do_starttls,
}


@lru_cache(maxsize=64)
def _greeting(hostname: str, service: Service) -> Reply:
    return make_reply(220, None, f"{hostname} {'LMTP' if service is Service.LMTP else 'ESMTP'} mailsrv")


@lru_cache(maxsize=64)
def _farewell(hostname: str) -> Reply:
    return make_reply(221, OK, f"{hostname} closing connection", closes=True)


@lru_cache(maxsize=64)
def _extended_hello(hostname: str, message_octets: int, offers_tls: bool, offers_authentication: bool) -> Reply:
    """RFC 5321 4.1.1.1, with the extensions of the IANA registry that are served."""
    lines = [
        hostname,
        "PIPELINING",  # RFC 2920
        f"SIZE {message_octets}",  # RFC 1870
        "8BITMIME",  # RFC 6152
        "SMTPUTF8",  # RFC 6531
        "ENHANCEDSTATUSCODES",  # RFC 2034
    ]
    if offers_tls:
        lines.append("STARTTLS")  # RFC 3207
    if offers_authentication:
        lines.append("AUTH " + " ".join(MECHANISM_NAMES))  # RFC 4954
    return make_reply(250, None, *lines)
