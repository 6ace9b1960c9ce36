"""The POP3 server engine: octets and answers in, events and octets out.

``receive_octets`` takes what came; ``next_event`` says what there is to do (``events.py``): read on
(``NEED_DATA``), send what is there (``SEND``), wait because an answer is owed (``PAUSED``), or
something only the shell can do, which it answers with one of the methods named at the event.
Commands that need nobody's help are answered inside, several in a row, so replies to pipelined
commands leave in one write (RFC 2449 6.6). One command at a time; nothing is read past one whose
answer is owed.

How a client comes to log in stands in ``authentication.py``, what it is told of its maildrop in
``listings.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType

from mailsrv.errors import MailError
from mailsrv.interfaces.account import InvalidCredentials
from mailsrv.pop3.authentication import Authentication
from mailsrv.pop3.commands import (
    Auth,
    Capa,
    Command,
    Dele,
    List,
    Noop,
    Pass,
    Quit,
    Retr,
    Rset,
    Stat,
    State,
    Stls,
    Top,
    Uidl,
    User,
    parse_command,
)
from mailsrv.pop3.errors import CommandRefused
from mailsrv.pop3.events import (
    ENDED,
    NEED_DATA,
    PAUSED,
    SEND,
    TLS_REQUESTED,
    Event,
    LoginRequested,
    MessageRequested,
    Signal,
    UpdateRequested,
)
from mailsrv.pop3.listings import checked, drop_listing, scan_listing, unique_id_listing
from mailsrv.pop3.maildrop import Maildrop
from mailsrv.pop3.replies import ResponseCode, format_challenge, format_error, format_ok, format_refusal
from mailsrv.pop3.settings import Pop3Settings
from mailsrv.pop3.top import TopReader
from mailsrv.sasl import OfferedMechanisms, ResponseOffered, SaslCancelled, SaslError, password_mechanisms
from mailsrv.wire.dot_stuffing import DotEncoder
from mailsrv.wire.receive_buffer import BareLineBreak, LineTooLong, ReceiveBuffer


class Pop3Session:
    """One session. Raises nothing on any input; misuse by the shell is a RuntimeError."""

    def __init__(
        self,
        settings: Pop3Settings,
        *,
        hostname: str,
        is_encrypted: bool,
        may_start_tls: bool,
        may_log_in_plainly: bool,
        mechanisms: OfferedMechanisms = password_mechanisms,
    ) -> None:
        """``may_log_in_plainly``: the client's network may log in without TLS (R-TRUST-1)."""
        self._settings = settings
        self._authentication = Authentication(
            mechanisms, is_encrypted=is_encrypted, may_start_tls=may_start_tls, may_log_in_plainly=may_log_in_plainly
        )
        self._buffer = ReceiveBuffer()
        self._output: list[bytes] = []
        self._output_octets = 0
        self._listing: Iterator[bytes] | None = None
        self._state = State.AUTHORIZATION
        self._owed: Event | None = None
        self._encoder: DotEncoder | None = None
        """Of the message that is being sent."""
        self._top: TopReader | None = None
        self._maildrop: Maildrop | None = None
        self._is_discarding = False
        self._stop_text = ""
        self._stop_code = ResponseCode.SYS_TEMP
        self._errors = 0
        self._login_failures = 0
        self.has_ended = False
        self.messages_sent = 0
        """RETR answered, for the log."""
        self._send(format_ok(f"{hostname} POP3 ready"))

    # What comes in

    @property
    def state(self) -> State:
        """Where the session is."""
        return self._state

    @property
    def unread_octets(self) -> int:
        """Pipelined input not yet looked at; past the setting the shell stops reading."""
        return len(self._buffer)

    @property
    def maildrop(self) -> Maildrop:
        """Only after log-in."""
        if self._maildrop is None:
            raise RuntimeError("nobody is logged in")
        return self._maildrop

    def receive_octets(self, octets: bytes) -> None:
        """What the transport brought."""
        if not self.has_ended:
            self._buffer.append(octets)

    def stop(self, text: str, code: ResponseCode = ResponseCode.SYS_TEMP) -> None:
        """The server stops (R-STOP-1): what is in flight is finished, then -ERR; marks are not carried out."""
        self._stop_text, self._stop_code = text, code

    # What goes out

    @property
    def unsent_octets(self) -> int:
        """Waiting for ``octets_to_send``."""
        return self._output_octets

    def octets_to_send(self) -> bytes:
        """Everything that is to be sent now."""
        output = self._output
        if not output:
            return b""
        octets = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        self._output_octets = 0
        return octets

    def _send(self, octets: bytes) -> None:
        self._output.append(octets)
        self._output_octets += len(octets)

    # The loop

    def next_event(self) -> Event:
        """What there is to do. Call again until it is NEED_DATA, PAUSED or ENDED."""
        while True:
            if self._owed is not None:
                return PAUSED
            if self._output_octets >= self._settings.write_octets:
                return SEND
            if self._listing is not None:
                self._continue_listing(self._listing)
                continue
            if self.has_ended:
                return ENDED
            if self._stop_text:
                self._end(format_error(self._stop_text, self._stop_code))
                continue
            line = self._maybe_line()
            if line is None:
                return NEED_DATA
            event = self._obey(line)
            if event is not None:
                self._owed = event
                return event

    def _continue_listing(self, listing: Iterator[bytes]) -> None:
        octets = next(listing, None)
        if octets is None:
            self._listing = None
        else:
            self._send(octets)

    def _maybe_line(self) -> bytes | None:
        """The next line; answers by itself to what is no line."""
        while not self.has_ended:
            if self._is_discarding:
                if not self._buffer.discard_line():
                    return None
                self._is_discarding = False
            try:
                return self._buffer.maybe_extract_line(self._line_limit())
            except LineTooLong:
                self._is_discarding = True
                self._authentication.exchange = None
                self._refuse_command("Line too long")
            except BareLineBreak:
                # Two readers of these octets could see different commands; so nothing of them is one.
                self._refuse_command("Lines end with CRLF")
        return None

    def _line_limit(self) -> int:
        """AUTH may be longer than other commands: clients send tokens with it in spite of RFC 5034 4."""
        is_auth = self._authentication.exchange is not None or (
            self._state is State.AUTHORIZATION and self._buffer.startswith(b"AUTH ")
        )
        return self._settings.auth_line_octets if is_auth else self._settings.command_line_octets

    def _obey(self, line: bytes) -> Event | None:
        """Carry a line out, or answer with what the shell has to do for it."""
        try:
            outcome: bytes | Event | None
            if self._authentication.exchange is not None:
                outcome = self._authentication.receive(line)
            else:
                outcome = self._carry_out(parse_command(line, self._state))
        except MailError as error:
            self._refuse_command(error.text)
            return None
        if isinstance(outcome, bytes):
            self._send(outcome)
            return None
        return outcome

    def _carry_out(self, command: Command) -> bytes | Event | None:
        """The reply, or what it takes to have one. None: all is said. Raises MailError."""
        match command:
            case Retr(number=number):
                return self._message(number, None)
            case Top(number=number, lines=lines):
                return self._message(number, lines)
            case Dele(number=number):
                self.maildrop.mark_deleted(checked(self.maildrop, number))
                return b"+OK Marked\r\n"
            case List(number=number):
                self._listing = scan_listing(self.maildrop, number)
            case Uidl(number=number):
                self._listing = unique_id_listing(self.maildrop, number)
            case Stat():
                return drop_listing(self.maildrop)
            case Noop():
                return format_ok("Nothing done")
            case Rset():
                self.maildrop.unmark_all()
                return format_ok("No message is marked")
            case Capa():
                return self._authentication.capabilities(is_over=self._state is not State.AUTHORIZATION)
            case Quit():
                return self._quit()
            case User(name=name):
                return self._authentication.take_name(name)
            case Pass(password=password):
                return self._authentication.take_password(password)
            case Auth(mechanism=mechanism, initial_response=initial_response):
                return self._authentication.begin(mechanism, initial_response)
            case Stls():
                return self._request_tls()
        return None

    # Authorization state

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """Of log-in, that can be had now."""
        return self._authentication.mechanisms

    def challenge(self, octets: bytes) -> None:
        """Ask the client once more, instead of an answer to :class:`ResponseOffered`."""
        self._settle(ResponseOffered)
        self._send(format_challenge(octets))

    def login_succeeded(self, maildrop: Maildrop) -> None:
        """Answer to :class:`LoginRequested` and to :class:`ResponseOffered`."""
        self._settle(LoginRequested | ResponseOffered)
        self._authentication.exchange = None
        self._maildrop = maildrop
        self._state = State.TRANSACTION
        self._send(format_ok(f"Maildrop has {len(maildrop)} messages ({maildrop.octets_left} octets)"))

    def _request_tls(self) -> Event | None:
        if not self._authentication.may_start_tls:
            raise CommandRefused("TLS cannot be started")
        if len(self._buffer):
            # R-TLS-1: what came in the same breath would be obeyed as if it had been encrypted.
            self._end(format_error("Commands after STLS"))
            return None
        self._send(format_ok("Begin TLS"))
        return TLS_REQUESTED

    def tls_started(self) -> bool:
        """Answer to TLS_REQUESTED. Forgets what was said before; True if octets had been read meanwhile: then close."""
        self._settle(Signal)
        self._authentication.tls_started()
        return self._buffer.clear() > 0

    # Transaction state

    def _message(self, number: int, lines: int | None) -> Event:
        event = MessageRequested(number, self.maildrop.uid(checked(self.maildrop, number)))
        self._top = None if lines is None else TopReader(lines)
        return event

    def send_message(self, octets: bytes) -> None:
        """Answer to :class:`MessageRequested` with all of a message in memory."""
        self.begin_message(len(octets))
        self.send_part(octets)
        self.end_message()

    def begin_message(self, size_octets: int) -> None:
        """Answer to :class:`MessageRequested`: content follows in parts; the event stays owed until its end."""
        if not isinstance(self._owed, MessageRequested) or self._encoder is not None:
            raise RuntimeError("no message was requested")
        self._encoder = DotEncoder()
        self._send(b"+OK %d octets\r\n" % size_octets if self._top is None else b"+OK Top follows\r\n")

    def send_part(self, octets: bytes) -> bool:
        """The next octets of the message. False when TOP has seen enough: go to ``end_message``."""
        if self._encoder is None:
            raise RuntimeError("no message was begun")
        if self._top is not None:
            if self._top.is_finished:
                return False
            octets = self._top.feed(octets)
        self._send(self._encoder.encode(octets))
        return self._top is None or not self._top.is_finished

    def end_message(self) -> None:
        """The message is complete."""
        if self._encoder is None:
            raise RuntimeError("no message was begun")
        self._settle(MessageRequested)
        self._send(self._encoder.finish())
        self._encoder = None
        if self._top is None:
            self.messages_sent += 1

    # The end

    def _quit(self) -> Event | None:
        uids = self._maildrop.deleted_uids() if self._maildrop is not None else []
        self._state = State.UPDATE
        if uids:
            return UpdateRequested(uids)
        self._end(format_ok("Bye"))
        return None

    def update_done(self) -> None:
        """Answer to :class:`UpdateRequested`: the removal is durable (R-DUR-1)."""
        self._settle(UpdateRequested)
        self._end(format_ok("Bye"))

    @property
    def may_refuse(self) -> bool:
        """Whether an answer is owed of which nothing was said yet."""
        return self._owed is not None and self._encoder is None

    def refuse(self, error: MailError) -> None:
        """Answer to any event: what was asked for cannot be done."""
        owed = self._owed
        if not self.may_refuse:
            raise RuntimeError("nothing to refuse")
        self._owed = None
        self._authentication.exchange = None
        reply = format_refusal(error)
        if isinstance(error, SaslError | SaslCancelled):
            # A mistake of the client's like any other, which is no trouble of the system's.
            self._refuse_command(error.text)
        elif isinstance(owed, UpdateRequested):
            self._end(reply)
        elif isinstance(owed, LoginRequested | ResponseOffered) and isinstance(error, InvalidCredentials):
            self._login_failures += 1
            self._finish_if(self._login_failures >= self._settings.login_failure_limit, reply)
        else:
            self._send(reply)

    def _refuse_command(self, text: str) -> None:
        self._errors += 1
        self._finish_if(self._errors >= self._settings.error_limit, format_error(text))

    def _finish_if(self, is_over: bool, reply: bytes) -> None:
        if is_over:
            self._end(reply)
        else:
            self._send(reply)

    def _end(self, reply: bytes) -> None:
        self._send(reply)
        self._state = State.UPDATE
        self.has_ended = True
        self._buffer.clear()

    def _settle(self, kind: type[object] | UnionType) -> None:
        if not isinstance(self._owed, kind):
            raise RuntimeError(f"{kind} is not owed")
        self._owed = None
