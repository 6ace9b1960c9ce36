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

from mailsrv.interfaces.envelope import BodyType
from mailsrv.smtp.client.answers import Answers
from mailsrv.smtp.client.asked import PHASES, Asked
from mailsrv.smtp.client.capabilities import NO_CAPABILITIES
from mailsrv.smtp.client.commands import OutgoingMessage, format_mail, format_rcpt
from mailsrv.smtp.client.events import (
    Event,
    Phase,
    Problem,
    Wait,
)
from mailsrv.smtp.client.login import begin_login
from mailsrv.smtp.client.replies import BrokenReply
from mailsrv.smtp.client.transaction import Content, Transaction

_CHUNK_WINDOW = 4
"""Chunks whose replies may be owed at a time, with PIPELINING."""


class SmtpClientSession(Answers):
    """One connection."""

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

    def quit(self) -> None:
        """QUIT: SessionEnded without a problem."""
        self._check_idle()
        self._send(Asked.QUIT, b"QUIT\r\n")

    def _check_idle(self) -> None:
        if not self.is_idle:
            raise RuntimeError(f"the session is not idle: {self.phase.value}")
