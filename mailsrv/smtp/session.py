"""The server engine: octets in, events out, answers in, octets to send out. It does no I/O and keeps no timer.

After ``receive_octets`` ask ``next_event`` until it says :attr:`Wait.NEED_DATA` or
:attr:`Wait.PAUSED`. An event whose docstring says *answer* pauses the engine until ``reply`` is
called: ``reply()`` is yes, ``reply(refusal)`` is no. So one command is under way at a time and
replies keep their order. ``octets_to_send`` then has the replies to everything, in one piece.

Message text comes as :class:`ContentReceived` slices. What the engine refuses by itself (size, line
ends) it announces at once with :class:`ContentRefused`, goes on to the real end of the data, and
replies there. The state of a mail transaction is one object, replaced by a fresh one with every
final reply to DATA, BDAT, RSET, EHLO and STARTTLS (R-SMTP-4); whenever a transaction ends otherwise
than by :class:`MessageEnded`, there is one :class:`TransactionAborted` or :class:`ContentRefused`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mailsrv.smtp import replies
from mailsrv.smtp.authentication import AuthSteps
from mailsrv.smtp.commands import (
    Auth,
    Bdat,
    Command,
    CommandRefused,
    Helo,
    Introduction,
    Mail,
    Plain,
    Query,
    Rcpt,
    Rule,
    parse_command,
)
from mailsrv.smtp.content import ContentSteps
from mailsrv.smtp.events import NEED_DATA, PAUSED, ClientGreeted, ClientIntroduced, Event, TlsRequested, Wait
from mailsrv.smtp.extensions import farewell, greeting, hello_reply
from mailsrv.smtp.patience import Patience
from mailsrv.smtp.queries import QuerySteps
from mailsrv.smtp.replies import Reply, make_reply
from mailsrv.smtp.state import CHUNK, CLOSED, COMMAND, CONTENT, NOTHING, Owed, State
from mailsrv.smtp.xclient import parse_xclient
from mailsrv.wire.receive_buffer import BareLineBreak, LineTooLong


class SmtpSession(AuthSteps, ContentSteps, QuerySteps):
    """One connection. It begins with the greeting owed: ``reply()`` to greet, ``reply(refusal)`` to turn away."""

    _is_introduced = False
    """A proxy has named the client's address: once, for good (R-PROXY-1)."""
    _last_word: Reply = replies.SHUTTING_DOWN
    """Said when what is in flight is done."""

    # -- input

    def receive_octets(self, octets: bytes) -> None:
        """What the transport brought. After the end it is ignored."""
        if self._state is not CLOSED:
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
        return self._owed is not NOTHING

    @property
    def is_closing(self) -> bool:
        """Nothing more will be read: send what there is and close."""
        return self._state is CLOSED

    @property
    def is_receiving_content(self) -> bool:
        """Whether message text is arriving: from 354, or from the first chunk on, also between two chunks."""
        return self._state is CONTENT or self._state is CHUNK or self.transaction.has_chunks

    def octets_to_send(self) -> bytes:
        """All replies since the last call."""
        out = self._out
        if not out:
            return b""
        octets = b"".join(out)
        out.clear()
        return octets

    def next_event(self) -> Event | Wait:
        """What happened next, or why nothing did."""
        events = self._events
        while True:
            if events:
                return events.pop(0)
            if self._owed is not NOTHING:
                return PAUSED
            if self._is_stopping and not self.is_receiving_content and self._state is not CLOSED:
                self._send(self._last_word)
            elif self._state is COMMAND:
                if not self._take_line():
                    return NEED_DATA
            elif not len(self._buffer) or not self._step():
                return NEED_DATA

    def _step(self) -> bool:
        """Understand one more thing that is no command; False if more octets are needed for that."""
        state = self._state
        if state is CONTENT:
            return self._take_content()
        if state is CHUNK:
            return self._take_chunk()
        if state is State.SASL:
            return self._take_line()
        return self._discard_line() if state is State.DISCARD_LINE else False

    # -- things that happen to the session from outside

    def shut_down(self, reply: Reply = replies.SHUTTING_DOWN) -> None:
        """The server stops: what is in flight is finished, then the client is told 421 (R-STOP-1)."""
        self._is_stopping, self._last_word = True, reply
        if self._owed is Owed.GREETING or self._owed is Owed.DELAY:
            # Nothing is in flight, we only keep the client waiting.
            self._owed = NOTHING

    def time_out(self, reply: Reply = replies.TIMED_OUT) -> None:
        """The client was silent, or slow, for too long."""
        if self._state is not CLOSED:
            self._owed = NOTHING
            self._send(reply)

    def resume(self) -> None:
        """The delay of :class:`ReplyDelayed` is over."""
        if self._owed is Owed.DELAY and self._delayed is not None:
            self._owed = NOTHING
            delayed, self._delayed = self._delayed, None
            self._send(delayed)

    def start_tls(self) -> int:
        """TLS starts: forget what was said in the clear (RFC 3207 4.2).

        Answers how many octets were dropped; with any, close the connection: somebody may have put
        commands in (R-TLS-1).
        """
        dropped = self._buffer.clear()
        self.is_tls = True
        self._forget()
        if self._state is State.TLS:
            self._state = COMMAND
        return dropped

    def restart(self, patience: Patience, *, is_plaintext_permitted: bool, is_exempt: bool) -> None:
        """It is somebody else's connection (:class:`ClientIntroduced`): everything but TLS begins anew."""
        self._patience = patience
        self._is_plaintext_permitted = is_plaintext_permitted
        self._is_exempt = is_exempt
        self.messages = self.errors = self._junk = self._auth_failures = 0
        self._is_turned_away = False
        self._forget()

    def _forget(self) -> None:
        self.helo = ""
        self.is_extended = False
        self.is_authenticated = False
        self._end_transaction()
        self._make_offer()

    # -- answers

    def reply(self, *answers: Reply) -> None:
        """Answer the event that paused the engine: nothing for yes, else what to say.

        Replies to a closed session are dropped.
        """
        owed = self._owed
        self._owed = NOTHING
        if self._state is CLOSED:
            return
        # The usual ones first: to look a member up in a table would cost more.
        if owed is _RCPT:
            self._answer_rcpt(answers)
        elif owed is _MAIL:
            self._answer_mail(answers)
        elif owed is _MESSAGE:
            self._answer_message(answers)
        elif owed in _SYNCHRONISED and len(self._buffer):
            # The client could not know the answer yet (R-SMTP-6).
            self._send(replies.NOT_SYNCHRONISED)
        else:
            answer = _ANSWERS.get(owed)
            if answer is not None:
                answer(self, answers)

    def _answer_greeting(self, answers: tuple[Reply, ...]) -> None:
        if len(self._buffer):
            self._send(replies.EARLY_TALKER)
        else:
            self._answer_introduction(answers)

    def _answer_introduction(self, answers: tuple[Reply, ...]) -> None:
        """After XCLIENT commands may be under way already: the proxy knows what it will be told."""
        if not answers:
            self._send(greeting(self.hostname, self.service))
        else:
            # RFC 5321 3.1: after 554 the client is expected to QUIT, and everything else is 503.
            self._is_turned_away = True
            self._send(answers[0])

    def _answer_helo(self, answers: tuple[Reply, ...]) -> None:
        hello, self._pending = self._pending, None
        self._end_transaction()
        if answers and not answers[0].is_positive:
            self.helo = ""
            self._refuse(answers[0], counts=self._counts_refusals)
        elif isinstance(hello, Helo):
            self.helo = hello.domain
            self.is_extended = hello.is_extended
            if hello.is_extended:
                self._send(hello_reply(self.hostname, self._offer, self.settings.hold_seconds, self._seconds()))
            else:
                self._send(make_reply(250, None, self.hostname))

    # -- lines

    def _take_line(self) -> bool:
        is_command = self._state is COMMAND
        settings = self.settings
        try:
            line = self._buffer.maybe_extract_line(
                settings.command_line_octets if is_command else settings.auth_line_octets
            )
        except LineTooLong:
            return self._take_long_line()
        except BareLineBreak:
            self._send(replies.BARE_LINE_BREAK)
            return True
        if line is None:
            return False
        if is_command:
            self._take_command(line)
        else:
            self._continue_auth(line)
        return True

    def _take_long_line(self) -> bool:
        """Only AUTH, with what comes after it, may be longer than other commands (RFC 4954 4)."""
        if self._state is COMMAND and self._may_authenticate and self._buffer.startswith(b"AUTH "):
            try:
                line = self._buffer.maybe_extract_line(self.settings.auth_line_octets)
            except LineTooLong:
                pass
            except BareLineBreak:
                self._send(replies.BARE_LINE_BREAK)
                return True
            else:
                if line is not None:
                    self._take_command(line)
                return line is not None
        self._exchange = None
        self._state = State.DISCARD_LINE
        self._discarded = 0
        return True

    def _discard_line(self) -> bool:
        self._discarded += len(self._buffer)
        if self._discarded > 16 * self.settings.auth_line_octets:
            self._send(replies.TOO_MANY_ERRORS)
            return True
        if not self._buffer.discard_line():
            return False
        self._discarded = 0
        self._state = COMMAND
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
        elif rule.is_restricted and self.service not in rule.services:
            self._reject(replies.UNKNOWN_COMMAND)
        elif self._is_turned_away and not rule.is_always_heard:
            self._reject(replies.SERVICE_REFUSED)
        elif rule.needs_greeting and not self.helo:
            self._reject(replies.GREET_FIRST)
        elif rule.is_junk and self._is_too_much_junk():
            self._send(replies.TOO_MUCH_JUNK)
        else:
            _DO[command.__class__](self, command)

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

    def _do_plain(self, command: Plain) -> None:
        _PLAIN[command.verb](self)

    def _do_helo(self, command: Helo) -> None:
        self._pending = command
        self._refresh_offer()
        self._ask(Owed.HELO, ClientGreeted(command.domain, command.is_extended))

    def _do_introduction(self, command: Introduction) -> None:
        if "XCLIENT" not in self._offer.keywords:
            self._reject(replies.NOT_A_PROXY)
        elif self.transaction.mail is not None:
            self._reject(replies.NESTED_MAIL)
        else:
            try:
                client = parse_xclient(command.text)
            except ValueError:
                self._reject(replies.BAD_XCLIENT)
            else:
                if client.address is not None:
                    if self._is_introduced:
                        # Many proxies only pass octets on from here: it may be the client who speaks.
                        self._reject(replies.NOT_A_PROXY)
                        return
                    self._is_introduced = True
                self._ask(Owed.INTRODUCTION, ClientIntroduced(client))

    def _do_rset(self) -> None:
        self._end_transaction()
        self._send(replies.OK)

    def _do_noop(self) -> None:
        self._send(replies.OK)

    def _do_unimplemented(self) -> None:
        self._reject(replies.NOT_IMPLEMENTED)

    def _do_quit(self) -> None:
        self._send(farewell(self.hostname))

    def _do_starttls(self) -> None:
        if self.is_tls:
            self._reject(replies.TLS_IS_ON)
        elif not self._offers_tls:
            self._reject(replies.NOT_IMPLEMENTED)
        else:
            self._send(replies.START_TLS)
            self._state = State.TLS
            self._events.append(TlsRequested())


_DO: Mapping[type[Command], Callable[[SmtpSession, Any], None]] = {
    Mail: SmtpSession._do_mail,
    Rcpt: SmtpSession._do_rcpt,
    Bdat: SmtpSession._do_bdat,
    Plain: SmtpSession._do_plain,
    Helo: SmtpSession._do_helo,
    Auth: SmtpSession._do_auth,
    Query: SmtpSession._do_query,
    Introduction: SmtpSession._do_introduction,
}
_PLAIN: Mapping[str, Callable[[SmtpSession], None]] = {
    "DATA": SmtpSession._do_data,
    "RSET": SmtpSession._do_rset,
    "NOOP": SmtpSession._do_noop,
    "HELP": SmtpSession._do_help,
    "ETRN": SmtpSession._do_unimplemented,
    "TURN": SmtpSession._do_unimplemented,
    "QUIT": SmtpSession._do_quit,
    "STARTTLS": SmtpSession._do_starttls,
}
_ANSWERS: Mapping[Owed, Callable[[SmtpSession, tuple[Reply, ...]], None]] = {
    Owed.DATA: SmtpSession._answer_data,
    Owed.CHUNK: SmtpSession._answer_chunk,
    Owed.GREETING: SmtpSession._answer_greeting,
    Owed.HELO: SmtpSession._answer_helo,
    Owed.AUTH: SmtpSession._answer_auth,
    Owed.QUERY: SmtpSession._answer_query,
    Owed.INTRODUCTION: SmtpSession._answer_introduction,
}
_SYNCHRONISED = (Owed.DATA, Owed.HELO, Owed.AUTH)
_MAIL, _RCPT, _MESSAGE = Owed.MAIL, Owed.RCPT, Owed.MESSAGE
