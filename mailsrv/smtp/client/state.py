"""What a connection of the client engine knows, how it says something, and how it ends."""

from __future__ import annotations

import re
from collections import deque

from mailsrv.smtp.client.asked import Asked
from mailsrv.smtp.client.capabilities import NO_CAPABILITIES, Capabilities
from mailsrv.smtp.client.events import Event, Problem, SessionEnded, TransactionEnded
from mailsrv.smtp.client.replies import ReplyReader, ServerReply
from mailsrv.smtp.client.settings import SmtpClientSettings
from mailsrv.smtp.client.transaction import Content, Transaction

_HOSTNAME = re.compile(r"[0-9A-Za-z.:\[\]_-]{1,255}")


class ClientState:
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
        self.replies = 0
        """That came so far: the next one has its time to itself (RFC 5321 4.5.3.2)."""
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
