"""The state that all parts of the engine share, how a reply is given, and how a transaction ends.

The parts (``authentication.py``, ``content.py``, ``transactions.py``, ``queries.py``) are classes on top of
:class:`SessionState`, one a subject; ``session.py`` puts them together.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable

from attrs import define

from mailsrv.sasl import OfferedMechanisms, SaslExchange, password_mechanisms
from mailsrv.smtp import replies
from mailsrv.smtp.commands import Helo, Query
from mailsrv.smtp.events import CommandRejected, Event, MailGiven, ReplyDelayed, TransactionAborted
from mailsrv.smtp.extensions import Offer, Standing, make_offer
from mailsrv.smtp.patience import Patience
from mailsrv.smtp.replies import Reply
from mailsrv.smtp.settings import Service, SmtpSettings
from mailsrv.wire.connection_limits import RateKind
from mailsrv.wire.dot_stuffing import DotDecoder
from mailsrv.wire.line_breaks import BareLineFeeds, LineBreaks
from mailsrv.wire.receive_buffer import ReceiveBuffer

_SLICE_OCTETS = 65536
"""Text is looked at in slices of this at most."""


class State(enum.Enum):
    """What the next octets are."""

    COMMAND = "command"
    CONTENT = "content"
    CHUNK = "chunk"
    """Of BDAT, taken or skipped."""
    SASL = "sasl"
    TLS = "tls"
    """220 was said; ``start_tls`` has to come."""
    DISCARD_LINE = "discard line"
    CLOSED = "closed"


class Owed(enum.Enum):
    """Which answer is waited for."""

    NOTHING = "nothing"
    GREETING = "greeting"
    HELO = "helo"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CHUNK = "chunk"
    """The same question as for DATA, before the first chunk."""
    MESSAGE = "message"
    AUTH = "auth"
    QUERY = "query"
    INTRODUCTION = "introduction"
    DELAY = "delay"


# Looking a member up in its class costs as much as a small method.
COMMAND, CONTENT, CHUNK, CLOSED = State.COMMAND, State.CONTENT, State.CHUNK, State.CLOSED
NOTHING = Owed.NOTHING


@define
class TransactionState:
    """A mail transaction as far as it has come. Never cleared: replaced."""

    mail: MailGiven | None = None
    recipients: int = 0
    """Accepted ones."""
    refused_recipients: int = 0
    overflow: int = 0
    """Recipients past the limit, or commands excused by one of the flags below."""
    has_chunks: bool = False
    """A BDAT was taken: only BDAT can go on with it."""
    small_chunks: int = 0
    is_mail_refused: bool = False
    """MAIL was refused: RCPT and DATA that were pipelined behind it are no errors of the client's (RFC 2920 3.1)."""
    is_chunk_refused: bool = False
    """A chunk was: so are those that were pipelined behind it."""


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
        is_proxy: bool = False,
        patience: Patience | None = None,
        mechanisms: OfferedMechanisms = password_mechanisms,
        seconds: Callable[[], float] = time.time,
    ) -> None:
        """``seconds`` since the epoch. ``is_proxy``: the client may say by XCLIENT whose connection this is."""
        self.settings = settings
        self._patience = patience or Patience(settings)
        self.service = service
        self.hostname = hostname
        self.is_tls = is_tls
        self.is_authenticated = False
        self.is_admitted = False
        """It may submit without a log-in."""
        self.helo = ""
        self.is_extended = False
        self.messages = 0
        """Accepted so far."""
        self.errors = 0
        """Since the last accepted message."""
        self.closing_reply: Reply | None = None
        """The last word, where we had it."""
        self.transaction = TransactionState()
        self._seconds = seconds
        self._offered_mechanisms = mechanisms
        self.mechanisms: tuple[str, ...] = ()
        """Of log-in, that can be had now."""
        self._offers_tls = offers_tls and "STARTTLS" not in settings.extensions_off
        self._offers_authentication = (
            offers_authentication and service is Service.SUBMISSION and "AUTH" not in settings.extensions_off
        )
        self._is_plaintext_permitted = is_plaintext_permitted
        self._is_exempt = is_exempt
        self._is_proxy = is_proxy
        self._is_lmtp = service is Service.LMTP
        self._counts_refusals = service is Service.MX
        self._recipient_limit = (
            settings.recipients_submission if service is Service.SUBMISSION else settings.recipients_mx
        )
        self._bare_line_feeds = BareLineFeeds.MEND if service is Service.SUBMISSION else BareLineFeeds.REFUSE
        self._slice_octets = max(1, min(_SLICE_OCTETS, settings.text_line_octets))
        """A line within one slice is no longer than the slice; longer ones are measured from slice to slice."""
        self._buffer = ReceiveBuffer()
        self._out: list[bytes] = []
        self._events: list[Event] = []
        self._state = State.COMMAND
        self._owed = Owed.GREETING
        self._pending: Helo | MailGiven | Query | None = None
        """What the answer that is owed is about, as far as it is needed then."""
        self._mail_reply: Reply = replies.SENDER_OK
        self._delayed: Reply | None = None
        self._is_turned_away = False
        self._is_stopping = False
        self._junk = 0
        self._auth_failures = 0
        self._exchange: SaslExchange | None = None
        self._decoder: DotDecoder | None = None
        self._line_breaks: LineBreaks | None = None
        """Of chunks that hold lines."""
        self._refusal: Reply | None = None
        """Why the message or chunk that is arriving will be refused."""
        self._content_octets = 0
        self._chunk_size = 0
        self._chunk_left = 0
        self._is_last_chunk = False
        self._is_chunk_skipped = False
        """The chunk belongs to no transaction."""
        self._discarded = 0
        self._offer: Offer
        self._make_offer()

    def _make_offer(self) -> None:
        """Which extensions there are depends on what the session has come to."""
        may_authenticate = self._may_authenticate
        self.mechanisms = self._offered_mechanisms(self.is_tls) if may_authenticate else ()
        standing = Standing(
            self.service,
            self.hostname,
            self.is_tls,
            self._offers_tls,
            may_authenticate,
            self.is_authenticated,
            self._is_exempt,
            self._is_proxy,
            self.mechanisms,
        )
        self._offer = make_offer(self.settings, standing)

    def _refresh_offer(self) -> None:
        """What the TLS handshake has shown, which ends after TLS was begun, may let somebody log in."""
        if self._may_authenticate and self._offered_mechanisms(self.is_tls) != self.mechanisms:
            self._make_offer()

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
        self._decoder = self._line_breaks = None

    def _close(self) -> None:
        if self._state is not CLOSED:
            if self._refusal is not None:
                # The transaction was given up with ContentRefused.
                self.transaction = TransactionState()
            self._end_transaction()
            self._state = CLOSED
            self._buffer.clear()
            self._exchange = None
