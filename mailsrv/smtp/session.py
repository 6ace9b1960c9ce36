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

import enum
from functools import lru_cache

from attrs import define, field, frozen

from mailsrv.address import Address
from mailsrv.sasl import (
    MECHANISM_NAMES,
    Challenge,
    PasswordGiven,
    SaslCancelled,
    SaslError,
    SaslExchange,
    encode_challenge,
)
from mailsrv.smtp import replies
from mailsrv.smtp.commands import Auth, Bdat, Command, CommandRefused, Helo, Mail, Plain, Rcpt, Rule, parse_command
from mailsrv.smtp.replies import Reply, make_reply
from mailsrv.smtp.settings import Service, SmtpSettings
from mailsrv.status import AUTHENTICATION_REQUIRED, BAD_SYNTAX, OK
from mailsrv.wire.dot_stuffing import BareLineFeeds, DotDecoder
from mailsrv.wire.receive_buffer import BareLineBreak, LineTooLong, ReceiveBuffer

_SLICE_OCTETS = 65536
"""Text is looked at in slices of this at most."""


class Wait(enum.Enum):
    """Why there is no event."""

    NEED_DATA = "need data"
    PAUSED = "paused"
    """An answer is owed."""


@frozen
class ClientGreeted:
    """EHLO, HELO or LHLO. Answer."""

    domain: str
    is_extended: bool


@frozen
class MailGiven:
    """MAIL, checked. Answer."""

    mail: Mail


@frozen
class RecipientNamed:
    """RCPT, checked. Answer."""

    forward_path: Address


@frozen
class ContentRequested:
    """DATA with recipients. Answer: yes means 354."""


@frozen
class ContentReceived:
    """A slice of the message, un-stuffed."""

    octets: bytes = field(repr=False)


@frozen
class ContentRefused:
    """The message cannot be taken, whatever still comes of it; ``refusal`` is what the client will be told."""

    refusal: Reply


@frozen
class MessageEnded:
    """The end of the data. Answer: one reply, or for LMTP one for each accepted recipient."""

    size: int


@frozen
class TransactionAborted:
    """The transaction that was under way is over without a message."""


@frozen
class CommandRejected:
    """A command was refused by the engine itself, before anybody was asked; for the log."""

    reply: Reply


@frozen
class TlsRequested:
    """Send what is to be sent, call ``start_tls``, and start TLS."""


@frozen
class PasswordOffered:
    """AUTH came to its end. Answer."""

    given: PasswordGiven
    mechanism: str


@frozen
class ReplyDelayed:
    """The client made many errors: call ``resume`` after this time. Octets that come meanwhile wait."""

    seconds: float


Event = (
    ClientGreeted
    | MailGiven
    | RecipientNamed
    | ContentRequested
    | ContentReceived
    | ContentRefused
    | MessageEnded
    | TransactionAborted
    | CommandRejected
    | TlsRequested
    | PasswordOffered
    | ReplyDelayed
)


class _State(enum.Enum):
    COMMAND = "command"
    CONTENT = "content"
    SASL = "sasl"
    TLS = "tls"
    """220 was said; ``start_tls`` has to come."""
    DISCARD_LINE = "discard line"
    DISCARD_CHUNK = "discard chunk"
    CLOSED = "closed"


class _Owed(enum.Enum):
    NOTHING = "nothing"
    GREETING = "greeting"
    HELO = "helo"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    MESSAGE = "message"
    AUTH = "auth"
    DELAY = "delay"


@define
class TransactionState:
    """A mail transaction as far as it has come. Never cleared: replaced."""

    mail: Mail | None = None
    recipients: int = 0
    """Accepted ones."""
    refused_recipients: int = 0
    overflow: int = 0
    """Recipients past the limit."""
    is_mail_refused: bool = False
    """MAIL was refused: RCPT and DATA that were pipelined behind it are no errors of the client's (RFC 2920 3.1)."""


class SmtpSession:
    """One connection. It begins with the greeting owed: ``reply()`` to greet, ``reply(refusal)`` to turn away."""

    def __init__(
        self,
        settings: SmtpSettings,
        *,
        service: Service,
        hostname: str,
        offers_tls: bool = False,
        is_tls: bool = False,
        offers_authentication: bool = False,
        is_plaintext_permitted: bool = False,
        is_exempt: bool = False,
    ) -> None:
        self.settings = settings
        self.service = service
        self.hostname = hostname
        self.is_tls = is_tls
        self.is_authenticated = False
        self.helo = ""
        self.is_extended = False
        self.messages = 0
        """Accepted so far."""
        self.errors = 0
        """Since the last accepted message."""
        self.closing_reply: Reply | None = None
        """The last word, where we had it."""
        self.transaction = TransactionState()
        self._offers_tls = offers_tls
        self._offers_authentication = offers_authentication and service is Service.SUBMISSION
        self._is_plaintext_permitted = is_plaintext_permitted
        self._is_exempt = is_exempt
        self._is_lmtp = service is Service.LMTP
        self._counts_refusals = service is Service.MX
        self._recipient_limit = (
            settings.recipients_submission if service is Service.SUBMISSION else settings.recipients_mx
        )
        self._buffer = ReceiveBuffer()
        self._out: list[bytes] = []
        self._events: list[Event] = []
        self._state = _State.COMMAND
        self._owed = _Owed.GREETING
        self._pending: Helo | Mail | None = None
        """The command whose answer is owed, as far as it is needed then."""
        self._delayed: Reply | None = None
        self._is_turned_away = False
        self._is_stopping = False
        self._junk = 0
        self._auth_failures = 0
        self._exchange: SaslExchange | None = None
        self._decoder: DotDecoder | None = None
        self._refusal: Reply | None = None
        """Why the message that is arriving will be refused."""
        self._content_octets = 0
        self._to_discard = 0
        self._discarded = 0

    # -- input

    def receive_octets(self, octets: bytes) -> None:
        """What the transport brought. After the end it is ignored."""
        if self._state is not _State.CLOSED:
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
        return self._owed is not _Owed.NOTHING

    @property
    def is_closing(self) -> bool:
        """Nothing more will be read: send what there is and close."""
        return self._state is _State.CLOSED

    @property
    def is_receiving_content(self) -> bool:
        """Whether message text is arriving."""
        return self._state is _State.CONTENT

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
            if self._owed is not _Owed.NOTHING:
                return Wait.PAUSED
            if self._is_stopping and self._state is not _State.CONTENT and self._state is not _State.CLOSED:
                self._send(replies.SHUTTING_DOWN)
            elif not self._step():
                return Wait.NEED_DATA

    def _step(self) -> bool:
        """Understand one more thing; False if more octets are needed for that."""
        state = self._state
        if not len(self._buffer) and state is not _State.DISCARD_CHUNK:
            return False
        if state is _State.COMMAND or state is _State.SASL:
            return self._take_line()
        if state is _State.CONTENT:
            return self._take_content()
        if state is _State.DISCARD_LINE:
            return self._discard_line()
        return self._discard_chunk() if state is _State.DISCARD_CHUNK else False

    # -- things that happen to the session from outside

    def shut_down(self) -> None:
        """The server stops: what is in flight is finished, then the client is told 421 (R-STOP-1)."""
        self._is_stopping = True
        if self._owed is _Owed.GREETING or self._owed is _Owed.DELAY:
            # Nothing is in flight, we only keep the client waiting.
            self._owed = _Owed.NOTHING

    def time_out(self, reply: Reply = replies.TIMED_OUT) -> None:
        """The client was silent, or slow, for too long."""
        if self._state is not _State.CLOSED:
            self._owed = _Owed.NOTHING
            self._send(reply)

    def resume(self) -> None:
        """The delay of :class:`ReplyDelayed` is over."""
        if self._owed is _Owed.DELAY and self._delayed is not None:
            self._owed = _Owed.NOTHING
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
        if self._state is _State.TLS:
            self._state = _State.COMMAND
        return dropped

    # -- answers

    def reply(self, *answers: Reply) -> None:
        """Answer the event that paused the engine: nothing for yes, else what to say.

        Replies to a closed session are dropped.
        """
        owed, self._owed = self._owed, _Owed.NOTHING
        if self._state is _State.CLOSED:
            return
        answer = answers[0] if answers else None
        is_positive = answer is None or answer.is_positive
        if owed is _Owed.RCPT:
            self._answer_rcpt(answer or replies.RECIPIENT_OK)
        elif owed is _Owed.MESSAGE:
            self._answer_message(answers or (replies.OK,))
        elif owed is _Owed.MAIL:
            self._answer_mail(answer or replies.SENDER_OK)
        elif owed is _Owed.GREETING:
            self._answer_greeting(answer)
        elif len(self._buffer):
            # HELO, DATA, AUTH: the client could not know the answer yet (R-SMTP-6).
            self._send(replies.NOT_SYNCHRONISED)
        elif owed is _Owed.DATA:
            self._answer_data(answer or replies.START_CONTENT)
        elif owed is _Owed.HELO:
            self._answer_helo(answer)
        elif owed is _Owed.AUTH:
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

    def _answer_mail(self, answer: Reply) -> None:
        mail, self._pending = self._pending, None
        if answer.is_positive and isinstance(mail, Mail):
            self.transaction = TransactionState(mail=mail)
            self._send(answer)
        else:
            self.transaction = TransactionState(is_mail_refused=True)
            self._refuse(answer, counts=self._counts_refusals)

    def _answer_rcpt(self, answer: Reply) -> None:
        if answer.is_positive:
            self.transaction.recipients += 1
            self._send(answer)
        else:
            self.transaction.refused_recipients += 1
            self._refuse(answer, counts=self._counts_refusals)

    def _answer_data(self, answer: Reply) -> None:
        if answer.code == 354:
            mends = self.service is Service.SUBMISSION
            self._decoder = DotDecoder(BareLineFeeds.MEND if mends else BareLineFeeds.REFUSE)
            self._refusal = None
            self._content_octets = 0
            self._state = _State.CONTENT
            self._send(answer)
        else:
            self._end_transaction()
            self._refuse(answer, counts=self._counts_refusals)

    def _answer_message(self, answers: tuple[Reply, ...]) -> None:
        recipients = self.transaction.recipients
        self.transaction = TransactionState()
        if self._is_lmtp and len(answers) != recipients:
            answers = (answers[0],) * recipients
        if any(answer.is_positive for answer in answers):
            self.messages += 1
            self.errors = self._junk = 0
        if len(answers) == 1 and not answers[0].is_positive:
            self._refuse(answers[0], counts=self._counts_refusals)
            return
        closes = False
        for answer in answers:
            self._out.append(answer.octets)
            closes |= answer.closes
        if closes:
            self._close()

    def _answer_auth(self, answer: Reply, *, is_positive: bool) -> None:
        if is_positive:
            self.is_authenticated = True
            self._send(answer)
        elif answer.code < 500:
            # We could not find out; that is no failure of the client's (R-AUTH-7).
            self._send(answer)
        else:
            self._count_auth_failure(answer)

    # -- lines

    def _take_line(self) -> bool:
        try:
            line = self._extract_line()
        except LineTooLong:
            self._exchange = None
            self._state = _State.DISCARD_LINE
            self._discarded = 0
            return True
        except BareLineBreak:
            self._send(replies.BARE_LINE_BREAK)
            return True
        if line is None:
            return False
        if self._state is _State.SASL:
            self._continue_auth(line)
        else:
            self._take_command(line)
        return True

    def _extract_line(self) -> bytes | None:
        if self._state is _State.SASL:
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
        self._state = _State.COMMAND
        self._reject(replies.LINE_TOO_LONG)
        return True

    def _discard_chunk(self) -> bool:
        """RFC 3030 2: the octets of a BDAT that was refused are no commands (R-SMTP-8)."""
        self._to_discard -= len(self._buffer.take(self._to_discard))
        if self._to_discard:
            return False
        self._state = _State.COMMAND
        self._reject(replies.NOT_IMPLEMENTED)
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
            self._ask(_Owed.HELO, ClientGreeted(command.domain, command.is_extended))
        elif isinstance(command, Auth):
            self._do_auth(command)
        else:
            self._do_bdat(command)

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
            self._ask(_Owed.MAIL, MailGiven(mail))

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
            self._ask(_Owed.RCPT, RecipientNamed(command.forward_path))

    def _do_data(self) -> None:
        transaction = self.transaction
        if transaction.recipients:
            self._ask(_Owed.DATA, ContentRequested())
            return
        self._end_transaction()
        if transaction.mail is None:
            self._reject(replies.MAIL_FIRST, counts=not transaction.is_mail_refused)
        elif transaction.refused_recipients:
            self._reject(replies.NO_VALID_RECIPIENTS, counts=False)
        else:
            self._reject(replies.RCPT_FIRST)

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
            self._state = _State.TLS
            self._events.append(TlsRequested())

    def _do_bdat(self, command: Bdat) -> None:
        if command.octets > self.settings.message_octets:
            self._send(make_reply(552, replies.MESSAGE_TOO_LARGE.status, "Chunk too large", closes=True))
            return
        self._to_discard = command.octets
        self._state = _State.DISCARD_CHUNK

    # -- AUTH (RFC 4954)

    @property
    def _may_authenticate(self) -> bool:
        return (
            self._offers_authentication and not self.is_authenticated and (self.is_tls or self._is_plaintext_permitted)
        )

    def _do_auth(self, command: Auth) -> None:
        if not self._offers_authentication:
            self._reject(replies.NOT_IMPLEMENTED)
        elif self.is_authenticated:
            self._reject(replies.ALREADY_AUTHENTICATED)
        elif self.transaction.mail is not None:
            self._reject(replies.NESTED_MAIL)
        elif not self._may_authenticate:
            self._reject(replies.ENCRYPT_FIRST)
        elif command.mechanism not in MECHANISM_NAMES:
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
        try:
            step = exchange.begin(response) if is_first else exchange.receive(response or b"")
        except SaslCancelled as error:
            self._end_auth()
            self._reject(make_reply(501, AUTHENTICATION_REQUIRED, error.text))
            return
        except SaslError as error:
            self._end_auth()
            self._count_auth_failure(make_reply(501, BAD_SYNTAX, error.text))
            return
        if isinstance(step, Challenge):
            self._state = _State.SASL
            self._out.append(b"334 " + encode_challenge(step) + b"\r\n")
        else:
            self._end_auth()
            self._ask(_Owed.AUTH, PasswordOffered(step, exchange.mechanism_name))

    def _end_auth(self) -> None:
        self._exchange = None
        self._state = _State.COMMAND

    def _count_auth_failure(self, reply: Reply) -> None:
        self._auth_failures += 1
        if self._auth_failures >= self.settings.auth_failures_before_drop:
            self._send(replies.TOO_MANY_FAILED_LOGINS)
        else:
            self._refuse(reply)

    # -- message text

    def _take_content(self) -> bool:
        decoder = self._decoder
        # A line within one slice is no longer than the slice; longer ones the decoder measures.
        octets = self._buffer.take(max(1, min(_SLICE_OCTETS, self.settings.text_line_octets)))
        if not octets or decoder is None:
            return False
        content = decoder.feed(octets)
        self._content_octets += len(content)
        if self._refusal is None:
            self._judge_content(decoder)
            if content and self._refusal is None:
                self._events.append(ContentReceived(content))
        if decoder.is_finished:
            if decoder.unused:
                self._buffer.put_back(decoder.unused)
            self._end_content()
        elif self._content_octets > 2 * self.settings.message_octets:
            # It was too large long ago, and does not end.
            self._send(make_reply(421, replies.MESSAGE_TOO_LARGE.status, "Message too large", closes=True))
        return True

    def _judge_content(self, decoder: DotDecoder) -> None:
        if decoder.has_bare_line_break:
            self._refusal = replies.BARE_LINE_BREAK
        elif self._content_octets > self.settings.message_octets:
            self._refusal = replies.MESSAGE_TOO_LARGE
        elif decoder.line_octets > self.settings.text_line_octets:
            self._refusal = replies.TEXT_LINE_TOO_LONG
        if self._refusal is not None:
            self._events.append(ContentRefused(self._refusal))

    def _end_content(self) -> None:
        self._decoder = None
        self._state = _State.COMMAND
        refusal, self._refusal = self._refusal, None
        if refusal is None:
            self._ask(_Owed.MESSAGE, MessageEnded(self._content_octets))
        else:
            # The transaction was given up with ContentRefused: no event, only the final reply.
            self._answer_message((refusal,))

    # -- replies

    def _hello_reply(self) -> Reply:
        if not self.is_extended:
            return make_reply(250, None, self.hostname)
        return _extended_hello(
            self.hostname,
            self.settings.message_octets,
            self._offers_tls and not self.is_tls,
            self._may_authenticate,
        )

    def _ask(self, owed: _Owed, event: Event) -> None:
        self._owed = owed
        self._events.append(event)

    def _send(self, reply: Reply) -> None:
        self._out.append(reply.octets)
        if reply.closes:
            self.closing_reply = reply
            self._close()

    def _reject(self, reply: Reply, *, counts: bool = True) -> None:
        """Refuse a command without having asked anybody."""
        self._events.append(CommandRejected(reply))
        self._refuse(reply, counts=counts)

    def _refuse(self, reply: Reply, *, counts: bool = True) -> None:
        """Send a refusal; permanent ones count as errors of the client unless ``counts`` is False."""
        if counts and reply.code >= 500:
            self.errors += 1
            if self.errors >= self.settings.errors_before_drop:
                self._send(replies.TOO_MANY_ERRORS)
                return
            if self.errors > self.settings.errors_before_tarpit and not self._is_exempt and not reply.closes:
                self._delayed = reply
                self._ask(_Owed.DELAY, ReplyDelayed(self.settings.tarpit_seconds))
                return
        self._send(reply)

    def _end_transaction(self) -> None:
        """Begin afresh (R-SMTP-4); says so if a transaction was under way."""
        if self.transaction.mail is not None:
            self._events.append(TransactionAborted())
        self.transaction = TransactionState()

    def _close(self) -> None:
        if self._state is not _State.CLOSED:
            if self._refusal is not None:
                self.transaction = TransactionState()
            self._end_transaction()
            self._state = _State.CLOSED
            self._buffer.clear()
            self._exchange = None
            self._decoder = None


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
_NO_PARAMETERS = make_reply(555, replies.UNKNOWN_MECHANISM.status, "Parameters need EHLO")


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
