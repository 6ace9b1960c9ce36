"""The POP3 server engine: octets and answers in, events and octets out.

``receive_octets`` takes what came; ``next_event`` says what there is to do: read on
(:data:`NEED_DATA`), send what is there (:data:`SEND`), wait because an answer is owed
(:data:`PAUSED`), or something only the shell can do, which it answers with one of the methods
named at the event. Commands that need nobody's help are answered inside, several in a row, so
replies to pipelined commands leave in one write (RFC 2449 6.6). One command at a time; nothing
is read past one whose answer is owed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from types import UnionType

from attrs import field, frozen

from mailsrv.errors import MailError
from mailsrv.interfaces.account import InvalidCredentials
from mailsrv.interfaces.mailbox import Uid
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
from mailsrv.pop3.maildrop import Maildrop
from mailsrv.pop3.replies import (
    ResponseCode,
    format_capabilities,
    format_error,
    format_ok,
    format_refusal,
    listing_slices,
)
from mailsrv.pop3.settings import Pop3Settings
from mailsrv.pop3.top import TopReader
from mailsrv.sasl import (
    Challenge,
    OfferedMechanisms,
    ResponseGiven,
    SaslExchange,
    Step,
    encode_challenge,
    password_mechanisms,
)
from mailsrv.wire.dot_stuffing import DotEncoder
from mailsrv.wire.receive_buffer import BareLineBreak, LineTooLong, ReceiveBuffer


class Signal(enum.Enum):
    """Events that carry nothing."""

    NEED_DATA = "need data"
    SEND = "send"
    """More will come when ``octets_to_send`` was taken."""
    PAUSED = "paused"
    """An answer is owed to the engine."""
    TLS_REQUESTED = "tls requested"
    """Send, start TLS, then call ``tls_started``."""
    ENDED = "ended"
    """Send and close."""


NEED_DATA, SEND, PAUSED = Signal.NEED_DATA, Signal.SEND, Signal.PAUSED
TLS_REQUESTED, ENDED = Signal.TLS_REQUESTED, Signal.ENDED


@frozen
class LoginRequested:
    """Answer with ``login_succeeded`` or ``refuse``."""

    authcid: str
    password: str = field(repr=False)
    authzid: str = ""


@frozen
class ResponseOffered:
    """A step of a SASL exchange: answer as to :class:`LoginRequested`, or ``challenge`` once more."""

    mechanism: str
    response: bytes | MailError = field(repr=False)
    """An error where the client cancelled or sent what is no response: it will be the answer."""
    is_first: bool


@frozen
class MessageRequested:
    """RETR or TOP: answer with ``send_message``; or ``begin_message``, ``send_part`` …, ``end_message``; or ``refuse``.

    What TOP leaves out is cut off by the engine.
    """

    number: int
    uid: Uid


@frozen
class UpdateRequested:
    """QUIT with messages marked: remove them, then ``update_done`` or ``refuse``."""

    uids: list[Uid]


Event = Signal | LoginRequested | ResponseOffered | MessageRequested | UpdateRequested


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
        self._may_start_tls = may_start_tls and not is_encrypted
        self._may_log_in = is_encrypted or may_log_in_plainly
        self._is_encrypted = is_encrypted
        self._mechanisms = mechanisms
        self._buffer = ReceiveBuffer()
        self._output: list[bytes] = []
        self._output_octets = 0
        self._listing: Iterator[bytes] | None = None
        self._state = State.AUTHORIZATION
        self._name: str | None = None
        self._exchange: SaslExchange | None = None
        self._owed: Event | None = None
        self._encoder: DotEncoder | None = None
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
                self._exchange = None
                self._refuse_command("Line too long")
            except BareLineBreak:
                # Two readers of these octets could see different commands; so nothing of them is one.
                self._refuse_command("Lines end with CRLF")
        return None

    def _line_limit(self) -> int:
        """AUTH may be longer than other commands: clients send tokens with it in spite of RFC 5034 4."""
        is_auth = self._exchange is not None or (
            self._state is State.AUTHORIZATION and self._buffer.startswith(b"AUTH ")
        )
        return self._settings.auth_line_octets if is_auth else self._settings.command_line_octets

    def _obey(self, line: bytes) -> Event | None:
        """Carry a line out, or answer with what the shell has to do for it."""
        exchange = self._exchange
        if exchange is not None:
            return self._exchange_step(exchange, lambda: exchange.receive(line))
        try:
            return self._carry_out(parse_command(line, self._state))
        except MailError as error:
            self._refuse_command(error.text)
            return None

    def _carry_out(self, command: Command) -> Event | None:
        match command:
            case Retr(number=number):
                return self._message(number, None)
            case Top(number=number, lines=lines):
                return self._message(number, lines)
            case Dele(number=number):
                self._delete(number)
            case List(number=number):
                self._list(number)
            case Uidl(number=number):
                self._list_unique_ids(number)
            case Stat():
                self._send(f"+OK {self.maildrop.messages_left} {self.maildrop.octets_left}\r\n".encode())
            case Noop():
                self._send(format_ok("Nothing done"))
            case Rset():
                self.maildrop.unmark_all()
                self._send(format_ok("No message is marked"))
            case Capa():
                self._send_capabilities()
            case Quit():
                return self._quit()
            case User(name=name):
                self._take_name(name)
            case Pass(password=password):
                return self._take_password(password)
            case Auth(mechanism=mechanism, initial_response=initial_response):
                return self._begin_exchange(mechanism, initial_response)
            case Stls():
                return self._request_tls()
        return None

    # Authorization state

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """Of log-in, that can be had now."""
        return self._mechanisms(self._is_encrypted)

    def _send_capabilities(self) -> None:
        may_log_in = self._may_log_in and self._state is State.AUTHORIZATION
        may_start_tls = self._may_start_tls and self._state is State.AUTHORIZATION
        self._send(format_capabilities(may_log_in=may_log_in, may_start_tls=may_start_tls, mechanisms=self.mechanisms))

    def _may_not_log_in(self) -> bool:
        if not self._may_log_in:
            self._refuse_command("Log-in needs TLS" + (", use STLS first" if self._may_start_tls else ""))
        return not self._may_log_in

    def _take_name(self, name: str) -> None:
        """+OK to any name: who exists is nobody's business (R-AUTH-6)."""
        if not self._may_not_log_in():
            self._name = name
            self._send(format_ok("Password, please"))

    def _take_password(self, password: str) -> Event | None:
        if self._may_not_log_in():
            return None
        if self._name is None:
            self._refuse_command("USER comes first")
            return None
        name, self._name = self._name, None
        return LoginRequested(name, password)

    def _begin_exchange(self, mechanism: str, initial_response: bytes | None) -> Event | None:
        if self._may_not_log_in():
            return None
        if not mechanism:
            self._send(("+OK Mechanisms\r\n" + "".join(f"{name}\r\n" for name in self.mechanisms) + ".\r\n").encode())
            return None
        if mechanism not in self.mechanisms:
            self._refuse_command("No such mechanism")
            return None
        self._exchange = exchange = SaslExchange(mechanism)
        return self._exchange_step(exchange, lambda: exchange.begin(initial_response))

    def _exchange_step(self, exchange: SaslExchange, step: Callable[[], Step]) -> Event | None:
        """One step of RFC 5034 4; what is no answer of the mechanism ends the exchange and is no failed log-in."""
        is_first = not exchange.is_conversing
        try:
            answer = step()
        except MailError as error:
            self._exchange = None
            if not is_first:
                # Somebody waits for the response; the error comes back as the answer.
                return ResponseOffered(exchange.mechanism_name, error, is_first=False)
            self._refuse_command(error.text)
            return None
        if isinstance(answer, Challenge):
            self._send(b"+ " + encode_challenge(answer) + b"\r\n")
            return None
        self._name = None
        if isinstance(answer, ResponseGiven):
            return ResponseOffered(exchange.mechanism_name, answer.octets, is_first)
        self._exchange = None
        return LoginRequested(answer.authcid, answer.password, answer.authzid)

    def challenge(self, octets: bytes) -> None:
        """Ask the client once more, instead of an answer to :class:`ResponseOffered`."""
        self._settle(ResponseOffered)
        self._send(b"+ " + encode_challenge(Challenge(octets)) + b"\r\n")

    def login_succeeded(self, maildrop: Maildrop) -> None:
        """Answer to :class:`LoginRequested` and to :class:`ResponseOffered`."""
        self._settle(LoginRequested | ResponseOffered)
        self._exchange = None
        self._maildrop = maildrop
        self._state = State.TRANSACTION
        self._send(format_ok(f"Maildrop has {len(maildrop)} messages ({maildrop.octets_left} octets)"))

    def _request_tls(self) -> Event | None:
        if not self._may_start_tls:
            self._refuse_command("TLS cannot be started")
            return None
        if len(self._buffer):
            # R-TLS-1: what came in the same breath would be obeyed as if it had been encrypted.
            self._end(format_error("Commands after STLS"))
            return None
        self._send(format_ok("Begin TLS"))
        return TLS_REQUESTED

    def tls_started(self) -> bool:
        """Answer to TLS_REQUESTED. Forgets what was said before; True if octets had been read meanwhile: then close."""
        self._settle(Signal)
        self._name = None
        self._may_start_tls = False
        self._may_log_in = True
        self._is_encrypted = True
        return self._buffer.clear() > 0

    # Transaction state

    def _checked(self, number: int) -> bool:
        if self.maildrop.holds(number):
            return True
        self._refuse_command("No such message")
        return False

    def _list(self, number: int | None) -> None:
        maildrop = self.maildrop
        if number is None:
            self._send(format_ok(f"{maildrop.messages_left} messages ({maildrop.octets_left} octets)"))
            self._listing = listing_slices(f"{each} {maildrop.size(each)}\r\n" for each in maildrop.numbers())
        elif self._checked(number):
            self._send(format_ok(f"{number} {maildrop.size(number)}"))

    def _list_unique_ids(self, number: int | None) -> None:
        maildrop = self.maildrop
        if number is None:
            self._send(format_ok("Unique-ids"))
            self._listing = listing_slices(f"{each} {maildrop.unique_id(each)}\r\n" for each in maildrop.numbers())
        elif self._checked(number):
            self._send(format_ok(f"{number} {maildrop.unique_id(number)}"))

    def _delete(self, number: int) -> None:
        if self._checked(number):
            self.maildrop.mark_deleted(number)
            self._send(b"+OK Marked\r\n")

    def _message(self, number: int, lines: int | None) -> Event | None:
        if not self._checked(number):
            return None
        self._top = None if lines is None else TopReader(lines)
        return MessageRequested(number, self.maildrop.uid(number))

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
        self._exchange = None
        reply = format_refusal(error)
        if isinstance(owed, UpdateRequested):
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
