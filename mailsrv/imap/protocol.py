"""The Twisted shell of one IMAP connection: transport, TLS, producing and waiting. No rule of IMAP is here.

It runs the session's work, one piece at a time, and sends what comes of it. Reading pauses while
work is going on and enough is buffered; work pauses while the peer does not take what was sent.
Time limits are looked after by the factory, which asks each connection now and then (`check_time`),
so that an idle connection holds no timer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from cryptography.x509 import Certificate
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorThreads, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.imap.errors import PeerGone
from mailsrv.imap.session import Session, Work
from mailsrv.imap.state import State
from mailsrv.interfaces.account import IAccount, who
from mailsrv.interfaces.sessions import IUserSession, SessionEnd
from mailsrv.wire.channel_binding import TlsChannel
from mailsrv.wire.client_certificate import asks_for_certificate, client_certificate
from mailsrv.wire.connection_limits import ConnectionSlot, TooManyConnections
from mailsrv.wire.prompt_write import set_no_delay, write_promptly
from mailsrv.wire.tls_end import let_go_of_tls
from mailsrv.wire.tls_mode import TlsMode

if TYPE_CHECKING:
    from mailsrv.imap.factory import ImapServerFactory

_T = TypeVar("_T")
_COMPUTE_IN_PLACE_OCTETS = 262144
"""Scanning this much takes less than a third of a millisecond: no thread is worth it."""
_WORK_AT_ONCE = 32
"""Commands of one client that are carried out before others have their turn."""
_LINGER_SECONDS = 30.0
"""How long a client that was turned away has to take the reason (and to shake hands for that, with implicit TLS)."""
_CUT_OFF_SECONDS = 1.0
"""The same when the server stops."""
_log = Logger()


@implementer(IPushProducer, IUserSession)
class ImapProtocol(Protocol):
    """One connection; the session's `Peer`."""

    transport: Any  # TCP, TLS or in memory; interfaces differ in what they promise
    factory: ImapServerFactory

    _session: Session | None = None
    _slot: ConnectionSlot | None = None
    _is_working = False
    _is_pumping = False
    _is_writable = True
    _is_reading = True
    _is_gone = False
    _is_closing = False
    _started_tls = False
    _waiting_input: Deferred[None] | None = None
    _waiting_output: Deferred[None] | None = None
    _wake_is_due = False
    _linger: IDelayedCall | None = None
    service = "imap"
    client_address = ""
    connection_id = ""
    _active_at = 0.0
    _opened_at = 0.0
    _polled_at = 0.0

    # Transport

    def connectionMade(self) -> None:
        factory = self.factory
        peer = self.transport.getPeer()
        self.client_address = getattr(peer, "host", "") or ""
        self.connection_id = factory.next_connection_id()
        self._active_at = self._opened_at = factory.clock.seconds()
        try:
            self._slot = factory.connections.open(self.client_address, "imap")
        except TooManyConnections as error:
            self.transport.write(b"* BYE [LIMIT] " + error.text.encode("ascii", "replace") + b"\r\n")
            self.transport.loseConnection()
            self._linger = factory.clock.callLater(_LINGER_SECONDS, self.abort)
            return
        set_no_delay(self.transport)
        self._session = Session(factory.services, self)
        factory.opened(self)
        self.transport.registerProducer(self, True)
        _log.debug("{connection}: connected from {address}", connection=self.connection_id, address=self.client_address)
        self._session.greet()
        self._pump()

    def dataReceived(self, data: bytes) -> None:
        session = self._session
        if session is None or self._is_closing:
            return
        self._active_at = self.factory.clock.seconds()
        session.receive_octets(data)
        waiting, self._waiting_input = self._waiting_input, None
        if waiting is not None:
            waiting.callback(None)
        self._pump()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_gone = True
        let_go_of_tls(self.transport)
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        if self._slot is not None:
            self._slot.close()
        for waiting in (self._waiting_input, self._waiting_output):
            if waiting is not None:
                waiting.errback(PeerGone())
        self._waiting_input = self._waiting_output = None
        if not self._is_working:
            self._end()

    def _end(self) -> None:
        """The connection is gone and nothing runs for it any more."""
        session, self._session = self._session, None
        if session is None:
            return
        _log.debug("{connection}: closed", connection=self.connection_id)
        try:
            session.end()
        except Exception:
            _log.failure("{connection}: closing failed", connection=self.connection_id)
        self.factory.closed(self)

    # Work

    def _pump(self) -> None:
        """Run what there is to run, until octets are missing or something has to be waited for."""
        session = self._session
        if session is None or self._is_pumping:
            return
        self._is_pumping = True
        try:
            for _ in range(_WORK_AT_ONCE):
                if self._is_working or not self._is_writable or self._is_gone:
                    break
                work = session.next_work()
                if work is None:
                    break
                self._run(work)
                self.flush()
            else:
                self.wake()  # the rest in another turn of the reactor
        finally:
            self._is_pumping = False
        if not self._is_working:
            self.flush()
            if session.is_over:
                self._close()
        self._regulate_reading()

    def _run(self, work: Work) -> None:
        self._is_working = True
        done = Deferred.fromCoroutine(work)
        done.addErrback(self._work_failed)
        done.addCallback(self._work_done)

    def _work_failed(self, failure: Failure) -> None:
        # The session answers every error itself; this is a fault in doing so.
        _log.failure("{connection}: a session failed", failure, connection=self.connection_id)
        if self._session is not None:
            self._session.state = State.LOGOUT

    def _work_done(self, _: None) -> None:
        self._is_working = False
        if self._session is not None and self._session.idle_tag is None:  # news told in IDLE are no sign of life
            self._active_at = self.factory.clock.seconds()
        if self._is_gone:
            self._end()
        elif not self._is_pumping:
            self._pump()

    def flush(self) -> None:
        """Send what the session has for the client."""
        session = self._session
        if session is None:
            return
        octets = session.octets_to_send()
        if octets and not self._is_gone:
            write_promptly(self.transport, octets)

    def _close(self) -> None:
        if not self._is_closing and not self._is_gone:
            self._is_closing = True
            self._resume_reading()
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def _regulate_reading(self) -> None:
        session = self._session
        if session is None or self._is_gone or self._is_closing:
            return
        is_busy = self._is_working or self._wake_is_due or not self._is_writable
        if self._waiting_input is not None or not is_busy or session.wants_input():
            self._resume_reading()
        elif self._is_reading:
            self._is_reading = False
            self.transport.pauseProducing()

    def _resume_reading(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            self.transport.resumeProducing()

    # IPushProducer: the transport's buffer is full, or empty again

    def pauseProducing(self) -> None:
        self._is_writable = False
        self._active_at = self.factory.clock.seconds()

    def resumeProducing(self) -> None:
        self._is_writable = True
        self._active_at = self.factory.clock.seconds()
        waiting, self._waiting_output = self._waiting_output, None
        if waiting is not None:
            waiting.callback(None)
        elif not self._is_working:
            self.wake()

    def stopProducing(self) -> None:
        """The connection is going; `connectionLost` follows."""
        self._is_writable = False

    # Peer, as the session sees it

    def is_tls(self) -> bool:
        return self._started_tls or ISSLTransport.providedBy(self.transport)

    def may_start_tls(self) -> bool:
        return (
            self.factory.tls_mode is TlsMode.STARTTLS and self.factory.context_factory is not None and not self.is_tls()
        )

    def may_log_in(self) -> bool:
        return self.is_tls() or self.client_address in self.factory.plaintext_networks

    def mechanisms(self) -> tuple[str, ...]:
        is_tls = self.is_tls()
        return self.factory.mechanisms(is_tls, self.client_certificate() if is_tls else None)

    def has_settled(self) -> bool:
        return not asks_for_certificate(self.transport)

    def client_certificate(self) -> Certificate | None:
        return client_certificate(self.transport)

    def channel_binding(self, kind: str) -> bytes | None:
        return TlsChannel(self.transport)(kind)

    def start_tls(self) -> None:
        self.flush()
        self._started_tls = True
        self.transport.startTLS(self.factory.context_factory)

    async def breathe(self) -> None:
        """The next slice is made in another turn of the reactor, when the transport has room."""
        if self._is_gone:
            raise PeerGone
        self.flush()
        turn: Deferred[None] = Deferred()
        self.factory.clock.callLater(0, turn.callback, None)
        await turn
        while not self._is_writable and not self._is_gone:
            self._waiting_output = Deferred()
            await self._waiting_output
        if self._is_gone:
            raise PeerGone

    def more_input(self) -> Deferred[None]:
        if self._is_gone:
            raise PeerGone
        self.flush()
        waiting: Deferred[None] = Deferred()
        self._waiting_input = waiting
        self._regulate_reading()
        return waiting

    def compute(self, octets: int, function: Callable[[], _T]) -> Deferred[_T]:
        clock = self.factory.clock
        if octets <= _COMPUTE_IN_PLACE_OCTETS or not IReactorThreads.providedBy(clock):
            return succeed(function())
        return deferToThreadPool(clock, clock.getThreadPool(), function)

    def logged_in(self, account: IAccount) -> None:
        if self._slot is not None:
            self._slot.authenticate(str(account.address))
        _log.info(
            "{connection}: {user} logged in from {address}",
            connection=self.connection_id,
            user=who(account),
            address=self.client_address,
        )

    def wake(self) -> None:
        if not self._wake_is_due and not self._is_gone:
            self._wake_is_due = True
            self.factory.clock.callLater(0, self._awake)

    def _awake(self) -> None:
        self._wake_is_due = False
        self._pump()

    async def wait_seconds(self, seconds: float) -> None:
        waited: Deferred[None] = Deferred()
        self.factory.clock.callLater(seconds, waited.callback, None)
        await waited

    def seconds(self) -> float:
        return self.factory.clock.seconds()

    # What the factory asks

    def check_time(self, now: float) -> None:
        """Close what was silent too long; in IDLE, look for changes now and then."""
        session, settings = self._session, self.factory.services.settings
        if session is None:
            return
        silent = now - self._active_at
        is_new = session.state is State.NOT_AUTHENTICATED
        # Octet by octet does not buy time before log-in.
        is_late = is_new and now - self._opened_at > settings.login_timeout_seconds
        if self._is_working:
            # Where the command waits for the client, and not for ourselves.
            if (self._waiting_input or self._waiting_output) and (is_late or silent > settings.command_timeout_seconds):
                self.abort()
        elif self._is_closing:
            if silent > 2 * settings.login_timeout_seconds:
                self.abort()
        elif not self._is_writable:
            # Also who never shakes hands for implicit TLS: the greeting waits for it.
            if is_late or silent > settings.command_timeout_seconds:
                self.abort()
        elif is_late or (not is_new and silent > settings.idle_timeout_seconds):
            self._time_out()
        elif session.idle_tag is not None and now - self._polled_at >= settings.idle_poll_seconds:
            self._polled_at = now
            session.poll()
            self._pump()

    def _time_out(self) -> None:
        if self._session is not None:
            self._session.bye("Idle for too long")
            self._pump()

    def stop(self, text: str) -> None:
        """Say BYE when what is in flight is done."""
        if self._session is not None and not self._is_writable and self._session.state is State.NOT_AUTHENTICATED:
            self.abort()  # who has not taken the greeting (implicit TLS without a handshake) would hold up the stop
        elif self._session is not None:
            self._session.request_stop(text)
            self._pump()

    def end_session(self, end: SessionEnd) -> None:
        """See :class:`~mailsrv.interfaces.sessions.IUserSession`: BYE when what is in flight is done."""
        if self._session is not None:
            self._session.request_stop(end.value, b"")
            self._pump()

    def cut_off(self) -> None:
        """The time to finish is over: BYE where a command waits for the client (R-STOP-1), and close."""
        if self._waiting_input is None or not self._is_writable or self._is_closing or self._is_gone:
            self.abort()
            return
        self._is_closing = True
        self.transport.write(b"* BYE [UNAVAILABLE] Server shutting down\r\n")
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        self._linger = self.factory.clock.callLater(_CUT_OFF_SECONDS, self.abort)

    def abort(self) -> None:
        """Close at once."""
        if not self._is_gone:
            self.transport.abortConnection()
