"""The Twisted shell around the client engine: transport, TLS, one timer, and content with back-pressure.

Each method that returns a Deferred asks for one thing; the next is asked for when it has fired. They
fail with :class:`SessionFailed`, after which the connection is closed, or with what their docstrings
name. ``send`` never fails: it answers with one outcome for each recipient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.errors import MailError
from mailsrv.interfaces.content import IContent
from mailsrv.smtp.client.capabilities import Capabilities
from mailsrv.smtp.client.commands import OutgoingMessage
from mailsrv.smtp.client.events import (
    Authenticated,
    AuthenticationRefused,
    ContentWanted,
    Event,
    Phase,
    Problem,
    Ready,
    RecipientOutcome,
    SessionEnded,
    TlsAgreed,
    TlsRefused,
    TransactionEnded,
    Wait,
)
from mailsrv.smtp.client.failures import LoginRefused, SessionFailed, TlsFailed, TlsNotStarted, handshake_trouble
from mailsrv.smtp.client.session import SmtpClientSession
from mailsrv.smtp.client.settings import SmtpClientSettings
from mailsrv.smtp.client.streaming import BLOCK_OCTETS, stream_content
from mailsrv.smtp.client.timeouts import TIMEOUTS
from mailsrv.wire.deadline import Deadline
from mailsrv.wire.prompt_write import set_no_delay, write_promptly
from mailsrv.wire.tls_end import let_go_of_tls

log = Logger()


@implementer(IHandshakeListener, IPushProducer)
class SmtpClientProtocol(Protocol):
    """One connection to an SMTP or LMTP server."""

    transport: Any

    def __init__(self, session: SmtpClientSession, settings: SmtpClientSettings, clock: IReactorTime) -> None:
        self.session = session
        self._settings = settings
        self._clock = clock
        self._deadline = Deadline(clock, self._time_passed)
        self._timed_phase = Phase.CLOSED
        self._timed_replies = 0
        self._is_connected = False
        self._is_in_handshake = False
        self._answer: Deferred[Any] | None = None
        """For what was asked last."""
        self._early: Ready | SessionEnded | None = None
        """What happened before anybody asked."""
        self._outcomes: tuple[RecipientOutcome, ...] | None = None
        self._creator: IOpenSSLClientConnectionCreator | None = None
        self._check: Callable[[Any], None] | None = None
        self._content: IContent | None = None
        self._is_full = False
        """The transport has as much as it wants."""
        self._room: Deferred[None] | None = None
        """Fires when more content may be written, or when there is no more to do."""
        self.closed: Callable[[], object] | None = None
        """Called once, when the session is over while nothing was asked for."""

    # -- what can be asked for

    def wait_until_ready(self) -> Deferred[Capabilities]:
        """The greeting and EHLO."""
        early, self._early = self._early, None
        answer = self._expect()
        if early is not None:
            self._dispatch(early)
        return answer

    def start_tls(
        self, creator: IOpenSSLClientConnectionCreator, check: Callable[[Any], None]
    ) -> Deferred[Capabilities]:
        """STARTTLS, the handshake, and EHLO again.

        ``check(transport)`` is called between the two; what it raises comes out, and the connection is
        cut. Fails with :class:`TlsNotStarted` or :class:`TlsFailed` too.
        """
        self._creator, self._check = creator, check
        answer = self._expect()
        self.session.request_tls()
        self._run()
        return answer

    def begin_tls(
        self, creator: IOpenSSLClientConnectionCreator, check: Callable[[Any], None]
    ) -> Deferred[Capabilities]:
        """TLS before the first octet (RFC 8314 3), then greeting and EHLO. As ``start_tls``."""
        self._creator, self._check = creator, check
        answer = self._expect()
        early, self._early = self._early, None
        if isinstance(early, SessionEnded):
            self._dispatch(early)
        elif early is not None:
            self._fail_answer(SessionFailed(Problem.CONFUSED, None, "the server talks in the clear where TLS is due"))
            self.abort()
        else:
            self._begin_handshake()
        return answer

    def authenticate(self, username: str, password: str) -> Deferred[None]:
        """AUTH. Fails with :class:`LoginRefused` too."""
        answer = self._expect()
        if not self.session.authenticate(username, password):
            self._fail_answer(LoginRefused(None))
        self._run()
        return answer

    def send(
        self, message: OutgoingMessage, content: IContent, *, is_eager: bool = True
    ) -> Deferred[tuple[RecipientOutcome, ...]]:
        """A mail transaction. ``content`` stays the caller's.

        ``is_eager``: a small message may go out with its envelope. Not to be said of a connection that may
        have been closed meanwhile: there would be no knowing whether it was taken.
        """
        octets = content.octets
        if octets is not None and len(octets) > (self._settings.eager_octets if is_eager else -1):
            octets = None
        self._content = content
        answer = self._expect()
        self.session.begin(message, octets)
        self._run()
        return answer

    def quit(self) -> None:
        """Say QUIT and close, in bounded time. Where something is under way, or nothing can be said: cut."""
        if self.session.is_idle and self._is_connected:
            self.session.quit()
            self._run()
        else:
            self.abort()

    def abort(self) -> None:
        """Cut the connection. What is under way ends as lost."""
        self.session.give_up("given up")
        self._run()

    # -- the transport

    def connectionMade(self) -> None:
        self._is_connected = True
        set_no_delay(self.transport)
        self._watch()

    def dataReceived(self, data: bytes) -> None:
        self.session.receive_octets(data)
        self._run()

    def handshakeCompleted(self) -> None:
        """The TLS handshake is over; whether it is good enough is for ``check`` to say."""
        if not self._is_in_handshake:
            return
        self._is_in_handshake = False
        check, self._check = self._check, None
        try:
            if check is not None:
                check(self.transport)
        except Exception:
            self._fail_answer(Failure())
            self.abort()
            return
        self.session.tls_established()
        self._run()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_connected = False
        let_go_of_tls(self.transport)
        if self._is_in_handshake:
            self._is_in_handshake = False
            self._fail_answer(TlsFailed(handshake_trouble(reason)))
        self.session.receive_eof()
        self._run()

    def pauseProducing(self) -> None:
        """The transport has enough of the message for now."""
        self._is_full = True

    def resumeProducing(self) -> None:
        """It wants more."""
        self._is_full = False
        self._restart_phase()
        self._make_room()

    def stopProducing(self) -> None:
        """The connection is gone; ``connectionLost`` says so too."""
        self._make_room()

    # -- time

    def _watch(self) -> None:
        """Set the deadline of the phase that began; one that goes on without an answer keeps its own."""
        session = self.session
        phase = Phase.TLS if self._is_in_handshake else session.phase
        if phase is self._timed_phase and session.replies == self._timed_replies:
            return
        self._timed_phase, self._timed_replies = phase, session.replies
        self._restart_phase()

    def _restart_phase(self) -> None:
        limit = TIMEOUTS.get(self._timed_phase)
        if limit is not None:
            self._deadline.set(limit(self._settings))
        elif self._timed_phase is Phase.CLOSED:
            self._deadline.stop()
        else:
            self._deadline.lift()

    def _time_passed(self) -> None:
        if self._is_in_handshake:
            self._is_in_handshake = False
            self._fail_answer(TlsFailed("the TLS handshake timed out"))
        self.session.time_out()
        self._run()

    # -- the engine

    def _expect(self) -> Deferred[Any]:
        """Somebody asks, and gets the answer with this."""
        answer: Deferred[Any] = Deferred()
        self._answer = answer
        return answer

    def _run(self) -> None:
        session = self.session
        self._flush()
        while (event := session.next_event()) is not Wait.NEED_DATA:
            self._dispatch(event)
            self._flush()
        if self._room is not None and (session.wants_content() or session.phase is not Phase.DATA_BLOCK):
            self._make_room()
        self._watch()

    def _flush(self) -> None:
        octets = self.session.octets_to_send()
        if octets and self._is_connected:
            write_promptly(self.transport, octets)

    def _dispatch(self, event: Event) -> None:
        _HANDLERS[type(event)](self, event)

    def _ready(self, event: Ready) -> None:
        if self._answer is None:
            self._early = event
        else:
            self._succeed(event.capabilities)

    def _begin_handshake(self, _event: TlsAgreed | None = None) -> None:
        self._is_in_handshake = True
        self._watch()
        self.transport.startTLS(self._creator)

    def _tls_refused(self, event: TlsRefused) -> None:
        self._fail_answer(TlsNotStarted(event.reply))

    def _authenticated(self, _event: Authenticated) -> None:
        self._succeed(None)

    def _authentication_refused(self, event: AuthenticationRefused) -> None:
        self._fail_answer(LoginRefused(event.reply))

    def _content_wanted(self, _event: ContentWanted) -> None:
        content = self._content
        if content is None:
            self.session.give_up("no content to send")
            return
        octets = content.octets
        if octets is not None and len(octets) <= BLOCK_OCTETS:
            self.session.write_content(octets, is_last=True)
        else:
            Deferred.fromCoroutine(self._stream(content)).addErrback(self._streaming_failed)

    def _transaction_ended(self, event: TransactionEnded) -> None:
        self._content = None
        if self.session.is_closed:
            # What closed it comes next; then nobody is tempted to go on with this connection.
            self._outcomes = event.outcomes
        else:
            self._succeed(event.outcomes)

    def _session_ended(self, event: SessionEnded) -> None:
        self._is_in_handshake = False
        if self._is_connected:
            if event.problem is None or event.problem in {Problem.CLOSED_BY_SERVER, Problem.REFUSED}:
                self.transport.loseConnection()
            else:
                self.transport.abortConnection()
        outcomes, self._outcomes = self._outcomes, None
        if outcomes is not None:
            self._succeed(outcomes)
        elif self._answer is not None:
            self._fail_answer(SessionFailed(event.problem or Problem.LOST, event.reply, event.text))
        else:
            self._early = event
        self._make_room()
        closed, self.closed = self.closed, None
        if closed is not None:
            closed()

    def _succeed(self, result: object) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            # What is written by now goes out before somebody asks for the next thing.
            self._flush()
            answer.callback(result)

    def _fail_answer(self, error: BaseException | Failure) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.errback(error)

    # -- large content

    async def _stream(self, content: IContent) -> None:
        session, transport = self.session, self.transport
        transport.registerProducer(self, True)
        try:
            await stream_content(session, content, self._settings, self._clock.seconds, self._send_block)
        finally:
            if self._is_connected:
                transport.unregisterProducer()

    async def _send_block(self) -> None:
        """Wait until the next may follow. Each has the time of the phase to itself (RFC 5321 4.5.3.2.5)."""
        session = self.session
        self._run()
        self._restart_phase()
        while session.phase is Phase.DATA_BLOCK and (self._is_full or not session.wants_content()):
            self._room = Deferred()
            await self._room

    def _streaming_failed(self, failure: Failure) -> None:
        """Our own trouble: the message is not ended, so the server cannot take the half of it."""
        if failure.check(MailError, OSError) is None:
            log.failure("smtp client: content could not be sent", failure)
        self.session.give_up("the message could not be read")
        self._run()

    def _make_room(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)


_HANDLERS: dict[type[Event], Callable[[SmtpClientProtocol, Any], None]] = {
    Ready: SmtpClientProtocol._ready,
    TlsAgreed: SmtpClientProtocol._begin_handshake,
    TlsRefused: SmtpClientProtocol._tls_refused,
    Authenticated: SmtpClientProtocol._authenticated,
    AuthenticationRefused: SmtpClientProtocol._authentication_refused,
    ContentWanted: SmtpClientProtocol._content_wanted,
    TransactionEnded: SmtpClientProtocol._transaction_ended,
    SessionEnded: SmtpClientProtocol._session_ended,
}
