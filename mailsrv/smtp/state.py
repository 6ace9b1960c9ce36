"""The state that all parts of the engine share, how a reply is given, and how a transaction ends.

The parts (``authentication.py``, ``content.py``, ``transactions.py``) are classes on top of
:class:`SessionState`, one a subject; ``session.py`` puts them together.
"""

from __future__ import annotations

import enum

from attrs import define

from mailsrv.sasl import SaslExchange
from mailsrv.smtp import replies
from mailsrv.smtp.commands import Helo, Mail
from mailsrv.smtp.events import CommandRejected, Event, ReplyDelayed, TransactionAborted
from mailsrv.smtp.patience import Patience
from mailsrv.smtp.replies import Reply
from mailsrv.smtp.settings import Service, SmtpSettings
from mailsrv.wire.connection_limits import RateKind
from mailsrv.wire.dot_stuffing import DotDecoder
from mailsrv.wire.receive_buffer import ReceiveBuffer


class State(enum.Enum):
    """What the next octets are."""

    COMMAND = "command"
    CONTENT = "content"
    SASL = "sasl"
    TLS = "tls"
    """220 was said; ``start_tls`` has to come."""
    DISCARD_LINE = "discard line"
    DISCARD_CHUNK = "discard chunk"
    CLOSED = "closed"


class Owed(enum.Enum):
    """Which answer is waited for."""

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


class SessionState:
    """What is known of one connection. See :class:`~mailsrv.smtp.session.SmtpSession`."""

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
        patience: Patience | None = None,
    ) -> None:
        self.settings = settings
        self._patience = patience or Patience(settings)
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
        self._state = State.COMMAND
        self._owed = Owed.GREETING
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

    @property
    def _may_authenticate(self) -> bool:
        return (
            self._offers_authentication and not self.is_authenticated and (self.is_tls or self._is_plaintext_permitted)
        )

    def _ask(self, owed: Owed, event: Event) -> None:
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

    def _refuse(self, reply: Reply, *, counts: bool = True, kind: RateKind | None = RateKind.ERRORS) -> None:
        """Send a refusal; permanent ones count as errors of the client unless ``counts`` is False.

        A ``kind`` other than ERRORS counts against its rate in any case.
        """
        if reply.code >= 500 and (counts or kind is not RateKind.ERRORS):
            self.errors += counts
            late = self._patience.count_error(kind, self.errors if counts else 0)
            if late is None:
                self._send(replies.TOO_MANY_ERRORS)
                return
            if late > 0 and not self._is_exempt and not reply.closes:
                self._delayed = reply
                self._ask(Owed.DELAY, ReplyDelayed(late))
                return
        self._send(reply)

    def _end_transaction(self) -> None:
        """Begin afresh (R-SMTP-4); says so if a transaction was under way."""
        if self.transaction.mail is not None:
            self._events.append(TransactionAborted())
        self.transaction = TransactionState()

    def _close(self) -> None:
        if self._state is not State.CLOSED:
            if self._refusal is not None:
                self.transaction = TransactionState()
            self._end_transaction()
            self._state = State.CLOSED
            self._buffer.clear()
            self._exchange = None
            self._decoder = None
