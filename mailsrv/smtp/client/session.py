"""The client engine: one connection to an SMTP or LMTP server, without I/O and without a timer.

It begins waiting for the greeting and says EHLO (HELO, LHLO) by itself; then come events. When it is
:attr:`Phase.IDLE`, ask for one thing at a time: ``request_tls``, ``authenticate``, ``begin`` (a mail
transaction) or ``quit``. After ``receive_octets`` take events until :attr:`Wait.NEED_DATA`, and send
``octets_to_send``. ``phase`` says what is being waited for, and so for how long.

Every reply belongs to a command: one that comes too early, too late or twice makes the connection
useless (:attr:`Problem.CONFUSED`), and it is closed rather than guessed about. A transaction that is
under way then ends with one outcome for each recipient all the same; only a message whose end was
sent and not answered is uncertain (RFC 1047).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

from mailsrv.interfaces.envelope import BodyType
from mailsrv.smtp.client.asked import INTERMEDIATE, PHASES, Asked
from mailsrv.smtp.client.capabilities import NO_CAPABILITIES, Capabilities, parse_capabilities
from mailsrv.smtp.client.commands import OutgoingMessage, format_mail, format_rcpt
from mailsrv.smtp.client.events import (
    Authenticated,
    AuthenticationRefused,
    ContentWanted,
    Event,
    Phase,
    Problem,
    Ready,
    SessionEnded,
    TlsAgreed,
    TlsRefused,
    TransactionEnded,
    Wait,
)
from mailsrv.smtp.client.login import begin_login
from mailsrv.smtp.client.replies import BrokenReply, ReplyReader, ServerReply
from mailsrv.smtp.client.settings import SmtpClientSettings
from mailsrv.smtp.client.transaction import Content, Transaction

_CHUNK_WINDOW = 4
"""Chunks whose replies may be owed at a time, with PIPELINING."""
_HOSTNAME = re.compile(r"[0-9A-Za-z.:\[\]_-]{1,255}")


class SmtpClientSession:
    """One connection. ``hostname`` is the argument of EHLO."""

    def __init__(self, settings: SmtpClientSettings, *, hostname: str, is_lmtp: bool = False) -> None:
        if not _HOSTNAME.fullmatch(hostname):
            raise ValueError("no host name to say EHLO with")
        self.capabilities: Capabilities = NO_CAPABILITIES
        self.is_lmtp = is_lmtp
        self.is_tls = False
        self.is_closed = False
        self.messages = 0
        """Transactions whose content was answered."""
        self._settings = settings
        self._hostname = hostname
        self._reader = ReplyReader(settings)
        self._out: list[bytes] = []
        self._events: deque[Event] = deque()
        self._asked: deque[Asked] = deque((Asked.GREETING,))
        self._unsent: deque[tuple[Asked, bytes]] = deque()
        """Commands of a transaction that wait for the reply to the one before: no PIPELINING."""
        self._transaction: Transaction | None = None
        self._needs_reset = False
        self._closing: ServerReply | None = None
        """421, while answers to a message that was sent already are still owed."""
        self._is_awaiting_handshake = False
        self._answers: deque[bytes] = deque()
        """What the next challenges of AUTH are answered with."""

    # -- input and output

    def receive_octets(self, octets: bytes) -> None:
        """What the transport brought. After the end it is ignored."""
        if self.is_closed:
            return
        if self._is_awaiting_handshake:
            self._fail(Problem.CONFUSED, text="octets in the clear after STARTTLS was agreed")
            return
        self._reader.feed(octets)
        try:
            while not self.is_closed and (reply := self._reader.next_reply()) is not None:
                self._take(reply)
        except BrokenReply as error:
            self._fail(Problem.CONFUSED, text=str(error))

    def receive_eof(self, text: str = "the connection was lost") -> None:
        """The server is gone."""
        if not self.is_closed:
            problem = None if self._asked and self._asked[0] is Asked.QUIT else Problem.LOST
            self._fail(problem, self._closing, text=text)

    def time_out(self) -> None:
        """The phase has lasted too long."""
        if not self.is_closed:
            self._fail(Problem.TIMED_OUT, self._closing, text=f"timed out in phase {self.phase.value}")

    def give_up(self, text: str) -> None:
        """End it for a reason of ours. The connection is to be cut, so that the server takes no half of a message."""
        if not self.is_closed:
            self._fail(Problem.OURS, text=text)

    def next_event(self) -> Event | Wait:
        """What happened next, or that nothing did."""
        return self._events.popleft() if self._events else Wait.NEED_DATA

    def octets_to_send(self) -> bytes:
        """Everything written since the last call."""
        out = self._out
        if not out:
            return b""
        octets = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return octets

    @property
    def phase(self) -> Phase:
        """What is being waited for."""
        if self.is_closed:
            return Phase.CLOSED
        if self._is_awaiting_handshake:
            return Phase.TLS
        transaction = self._transaction
        if transaction is not None and transaction.content is Content.WANTED:
            return Phase.DATA_BLOCK
        return PHASES[self._asked[0]] if self._asked else Phase.IDLE

    @property
    def is_idle(self) -> bool:
        """Whether something can be asked for."""
        return not self._asked and self._transaction is None and not self.is_closed and not self._is_awaiting_handshake

    # -- what can be asked for

    def request_tls(self) -> None:
        """STARTTLS: TlsAgreed or TlsRefused."""
        self._check_idle()
        self._send(Asked.STARTTLS, b"STARTTLS\r\n")

    def tls_established(self) -> None:
        """The handshake is done: whatever was learned before it is forgotten, EHLO is said again (RFC 3207 4.2)."""
        if self.is_closed:
            return
        self._is_awaiting_handshake = False
        self.is_tls = True
        self.capabilities = NO_CAPABILITIES
        if not self._asked:
            self._say_ehlo()

    def authenticate(self, username: str, password: str) -> bool:
        """AUTH PLAIN or LOGIN (RFC 4616, RFC 4954): Authenticated or AuthenticationRefused.

        False: the server offers neither, or the connection is in the clear; nothing was sent.
        """
        self._check_idle()
        begun = begin_login(self.capabilities.mechanisms, username, password) if self.is_tls else None
        if begun is None:
            return False
        line, self._answers = begun
        self._send(Asked.AUTH, line)
        return True

    def begin(self, message: OutgoingMessage, octets: bytes | None = None) -> None:
        """A mail transaction: in the end TransactionEnded, and ContentWanted before it if it comes so far.

        ``octets``: the whole content. Where the server can pipeline and take chunks it goes out at
        once, with the envelope; else it goes when it is wanted. ContentWanted does not come then.
        """
        self._check_idle()
        offered = self.capabilities
        is_binary = message.body is BodyType.BINARY
        uses_chunks = offered.can_chunk and (is_binary or self._settings.uses_chunking)
        transaction = Transaction(message, uses_chunks, self.is_lmtp, is_raw=is_binary, eager=octets)
        self._transaction = transaction
        commands: list[tuple[Asked, bytes]] = []
        if self._needs_reset:
            commands.append((Asked.RSET, b"RSET\r\n"))
            self._needs_reset = False
        commands.append((Asked.MAIL, format_mail(message, offered)))
        commands += [(Asked.RCPT, format_rcpt(recipient, offered)) for recipient in message.recipients]
        if not offered.can_pipeline:
            self._unsent.extend(commands)
            self._send_next()
            return
        for asked, line in commands:
            self._send(asked, line)
        if not uses_chunks:
            # RFC 2920 3.1: DATA is the last of its group.
            self._ask_for_data(transaction)
        elif octets is not None:
            self._send_eagerly(transaction, octets)

    def wants_content(self) -> bool:
        """Whether ``write_content`` may be called now."""
        transaction = self._transaction
        if transaction is None or transaction.content is not Content.WANTED:
            return False
        if not transaction.uses_chunks:
            return True
        return transaction.chunks_owed < (_CHUNK_WINDOW if self.capabilities.can_pipeline else 1)

    def write_content(self, octets: bytes, *, is_last: bool) -> None:
        """The next piece of the message; only while ``wants_content()``."""
        transaction = self._transaction
        if transaction is None or transaction.content is not Content.WANTED:
            raise RuntimeError("no content is wanted")
        if transaction.uses_chunks:
            self._write_chunk(transaction, octets, is_last)
            return
        self._out.append(transaction.dots.encode(octets))
        if is_last:
            self._out.append(transaction.dots.finish())
            transaction.content = Content.ENDED
            self._asked.extend([Asked.END] * (transaction.accepted if self.is_lmtp else 1))

    def quit(self) -> None:
        """QUIT: SessionEnded without a problem."""
        self._check_idle()
        self._send(Asked.QUIT, b"QUIT\r\n")

    # -- sending

    def _check_idle(self) -> None:
        if not self.is_idle:
            raise RuntimeError(f"the session is not idle: {self.phase.value}")

    def _send(self, asked: Asked, line: bytes) -> None:
        self._asked.append(asked)
        self._out.append(line)

    def _send_next(self) -> None:
        if self._unsent and not self._asked:
            self._send(*self._unsent.popleft())

    def _say_ehlo(self) -> None:
        verb = "LHLO" if self.is_lmtp else "EHLO"
        self._send(Asked.EHLO, f"{verb} {self._hostname}\r\n".encode("ascii"))

    def _ask_for_data(self, transaction: Transaction) -> None:
        transaction.content = Content.ASKED
        self._send(Asked.DATA, b"DATA\r\n")

    def _send_eagerly(self, transaction: Transaction, octets: bytes) -> None:
        """The message as one chunk, the last."""
        transaction.content = Content.WANTED
        self._write_chunk(transaction, octets, is_last=True)

    def _write_chunk(self, transaction: Transaction, octets: bytes, is_last: bool) -> None:
        if not transaction.is_raw:
            octets = transaction.lines.encode(octets)
            if is_last:
                octets += transaction.lines.finish()
        if is_last:
            transaction.content = Content.ENDED
            self._asked.append(Asked.LAST_CHUNK)
            self._out += (b"BDAT %d LAST\r\n" % len(octets), octets)
        elif octets:
            transaction.chunks_owed += 1
            self._asked.append(Asked.CHUNK)
            self._out += (b"BDAT %d\r\n" % len(octets), octets)

    # -- replies

    def _take(self, reply: ServerReply) -> None:
        if not self._asked:
            self._take_unasked(reply)
            return
        asked = self._asked.popleft()
        if reply.code == 421 and asked is not Asked.QUIT and not self._is_owed_an_end():
            # RFC 5321 3.8: to any command, if the server knows it must shut down.
            problem = Problem.REFUSED if asked is Asked.GREETING else Problem.CLOSED_BY_SERVER
            self._fail(problem, reply, reply.text)
        elif 300 <= reply.code < 400 and (asked, reply.code) not in INTERMEDIATE:
            self._fail(Problem.CONFUSED, text=f"{reply.code} in answer to {asked.value}")
        else:
            if reply.code == 421:
                # It should close now. Those that go on instead may still take the message, which is all there.
                self._closing = reply
            _HANDLERS[asked](self, reply)
            if self._unsent:
                self._send_next()

    def _is_owed_an_end(self) -> bool:
        transaction = self._transaction
        return transaction is not None and transaction.content is Content.ENDED and bool(self._asked)

    def _take_unasked(self, reply: ServerReply) -> None:
        transaction = self._transaction
        if transaction is not None and transaction.content is Content.WANTED and reply.is_refusal:
            # It has had enough of the message before its end. What we say next it would still read as content.
            self._fail(Problem.CLOSED_BY_SERVER, reply, reply.text)
        elif reply.code == 421:
            self._fail(Problem.CLOSED_BY_SERVER, reply, reply.text)
        else:
            self._fail(Problem.CONFUSED, text=f"{reply.code} without a question")

    def _greeted(self, reply: ServerReply) -> None:
        if reply.code == 220:
            self._say_ehlo()
        elif reply.is_refusal:
            self._fail(Problem.REFUSED, reply, reply.text)
        else:
            self._fail(Problem.CONFUSED, text=f"{reply.code} is no greeting")

    def _ehlo_answered(self, reply: ServerReply) -> None:
        if reply.is_positive:
            self.capabilities = parse_capabilities(reply.lines)
            self._events.append(Ready(self.capabilities))
        elif reply.is_permanent and not self.is_lmtp:
            # RFC 5321 3.2: a server that knows no EHLO.
            self._send(Asked.HELO, f"HELO {self._hostname}\r\n".encode("ascii"))
        else:
            self._fail(Problem.REFUSED, reply, reply.text)

    def _helo_answered(self, reply: ServerReply) -> None:
        if reply.is_positive:
            self.capabilities = NO_CAPABILITIES
            self._events.append(Ready(self.capabilities))
        else:
            self._fail(Problem.REFUSED, reply, reply.text)

    def _starttls_answered(self, reply: ServerReply) -> None:
        if reply.code != 220:
            if reply.is_positive:
                self._fail(Problem.CONFUSED, text=f"{reply.code} in answer to STARTTLS")
            else:
                self._events.append(TlsRefused(reply))
        elif self._reader.has_octets:
            # R-TLS-2: somebody put answers into the stream that would be read as if TLS had protected them.
            self._fail(Problem.CONFUSED, text="octets in the clear after STARTTLS was agreed")
        else:
            self._is_awaiting_handshake = True
            self._events.append(TlsAgreed())

    def _auth_answered(self, reply: ServerReply) -> None:
        if reply.code == 334:
            # "*" cancels (RFC 4954 4) an exchange that asks for more than it should.
            answer = self._answers.popleft() if self._answers else b"*"
            self._send(Asked.AUTH, answer + b"\r\n")
            return
        self._answers.clear()
        if reply.code == 235:
            self._events.append(Authenticated())
        elif reply.is_refusal:
            self._events.append(AuthenticationRefused(reply))
        else:
            self._fail(Problem.CONFUSED, text=f"{reply.code} in answer to AUTH")

    def _rset_answered(self, reply: ServerReply) -> None:
        if reply.is_refusal:
            # RFC 5321 4.1.1.5 knows no refusal; the old transaction may still be there.
            self._fail(Problem.CONFUSED, text=f"{reply.code} in answer to RSET")

    def _mail_answered(self, reply: ServerReply) -> None:
        transaction = self._current()
        transaction.mail_reply = reply
        if reply.is_refusal and not self._asked:
            self._unsent.clear()
            self._end_transaction()

    def _rcpt_answered(self, reply: ServerReply) -> None:
        transaction = self._current()
        transaction.recipient_replies.append(reply)
        if reply.is_positive and not transaction.is_mail_refused:
            transaction.accepted += 1
        if not transaction.has_recipient_answers or transaction.content is not Content.NOT_ASKED:
            return
        if not transaction.accepted:
            self._end_transaction()
        elif not transaction.uses_chunks:
            self._ask_for_data(transaction)
        elif transaction.eager is not None:
            self._send_eagerly(transaction, transaction.eager)
        else:
            transaction.content = Content.WANTED
            self._events.append(ContentWanted())

    def _data_answered(self, reply: ServerReply) -> None:
        transaction = self._current()
        if reply.code == 354:
            if not transaction.accepted:
                if self.is_lmtp or transaction.is_mail_refused:
                    # It may have a transaction in mind of which we know nothing.
                    self._fail(Problem.CONFUSED, text="354 without a recipient")
                    return
                # RFC 2920 3.1: it said yes to DATA without a recipient, and waits for an end.
                transaction.content = Content.REFUSED
                self._send(Asked.EMPTY_END, b".\r\n")
                return
            transaction.content = Content.WANTED
            if transaction.eager is not None:
                self.write_content(transaction.eager, is_last=True)
            else:
                self._events.append(ContentWanted())
        elif reply.is_refusal:
            transaction.content = Content.REFUSED
            transaction.data_reply = reply
            self._end_transaction()
        else:
            self._fail(Problem.CONFUSED, text=f"{reply.code} in answer to DATA")

    def _chunk_answered(self, reply: ServerReply) -> None:
        transaction = self._current()
        transaction.chunks_owed -= 1
        if reply.is_refusal and transaction.data_reply is None:
            # What was sent behind it will be refused too (RFC 3030 2), each with a reply of its own.
            transaction.data_reply = reply
            if transaction.content is Content.WANTED:
                transaction.content = Content.REFUSED
        if transaction.content is Content.REFUSED and not self._asked:
            self._end_transaction()

    def _last_chunk_answered(self, reply: ServerReply) -> None:
        transaction = self._current()
        if transaction.data_reply is not None or not transaction.accepted:
            self._end_transaction()
            return
        if self.is_lmtp and transaction.accepted > 1:
            # RFC 2033 4.2: one reply each; how many were accepted was not known when the chunk was sent.
            self._asked.extendleft([Asked.END] * (transaction.accepted - 1))
        self._end_answered(reply)

    def _end_answered(self, reply: ServerReply) -> None:
        transaction = self._current()
        transaction.end_replies.append(reply)
        if not self._asked:
            self.messages += 1
            # By RFC 5321 4.1.1.4 a refused message is over as well; servers are known to keep its recipients.
            self._end_transaction(is_over=all(each.is_positive for each in transaction.end_replies))

    def _empty_end_answered(self, _reply: ServerReply) -> None:
        self._end_transaction()

    def _quit_answered(self, _reply: ServerReply) -> None:
        self._fail(None)

    # -- the end of things

    def _current(self) -> Transaction:
        transaction = self._transaction
        if transaction is None:
            raise RuntimeError("a reply to a transaction that is none")
        return transaction

    def _end_transaction(self, *, is_over: bool = False) -> None:
        """``is_over``: the server has forgotten it too (RFC 5321 4.1.1.4); else the next begins with RSET."""
        transaction, self._transaction = self._current(), None
        self._needs_reset = not is_over
        self._events.append(TransactionEnded(transaction.outcomes()))
        if self._closing is not None:
            self._fail(Problem.CLOSED_BY_SERVER, self._closing, self._closing.text)

    def _fail(self, problem: Problem | None, reply: ServerReply | None = None, text: str = "") -> None:
        self.is_closed = True
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            self._events.append(TransactionEnded(transaction.outcomes(problem, reply, text)))
        self._asked.clear()
        self._unsent.clear()
        self._answers.clear()
        self._out.clear()
        self._events.append(SessionEnded(problem, reply, text))


_HANDLERS: dict[Asked, Callable[[SmtpClientSession, ServerReply], None]] = {
    Asked.GREETING: SmtpClientSession._greeted,
    Asked.EHLO: SmtpClientSession._ehlo_answered,
    Asked.HELO: SmtpClientSession._helo_answered,
    Asked.STARTTLS: SmtpClientSession._starttls_answered,
    Asked.AUTH: SmtpClientSession._auth_answered,
    Asked.RSET: SmtpClientSession._rset_answered,
    Asked.MAIL: SmtpClientSession._mail_answered,
    Asked.RCPT: SmtpClientSession._rcpt_answered,
    Asked.DATA: SmtpClientSession._data_answered,
    Asked.CHUNK: SmtpClientSession._chunk_answered,
    Asked.LAST_CHUNK: SmtpClientSession._last_chunk_answered,
    Asked.END: SmtpClientSession._end_answered,
    Asked.EMPTY_END: SmtpClientSession._empty_end_answered,
    Asked.QUIT: SmtpClientSession._quit_answered,
}
