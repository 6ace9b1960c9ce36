"""The Twisted shell around the engine: transport, TLS, one timer and back-pressure.

It moves octets; all replies to one segment go out in one write. What the engine's events mean to the
receiver and the portal is in ``receiving.py``.
"""

from __future__ import annotations

from attrs import evolve
from twisted.internet.interfaces import IHandshakeListener, IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.interfaces.sessions import IUserSession, SessionEnd
from mailsrv.smtp import replies
from mailsrv.smtp.events import NEED_DATA, PAUSED
from mailsrv.smtp.patience import Patience
from mailsrv.smtp.receiving import HANDLERS, ReceiverDialogue
from mailsrv.smtp.replies import Stage, make_reply
from mailsrv.smtp.session import SmtpSession
from mailsrv.smtp.settings import Service
from mailsrv.status import TEMPORARY_AUTHENTICATION_FAILURE
from mailsrv.wire.connection_limits import TooManyConnections
from mailsrv.wire.prompt_write import set_no_delay, write_promptly
from mailsrv.wire.tls_end import let_go_of_tls
from mailsrv.wire.tls_mode import TlsMode

log = Logger()

_LINGER_SECONDS = 30.0
"""How long a client has to take the last replies."""
_CUT_OFF_SECONDS = 1.0
"""The same when the server stops."""
_SHORTEST_LOOK_SECONDS = 1.0


@implementer(IHandshakeListener, IPushProducer, IUserSession)
class SmtpProtocol(ReceiverDialogue, Protocol):
    """One SMTP, submission or LMTP connection. Made by :class:`~mailsrv.smtp.factory.SmtpServerFactory`."""

    # -- the connection's beginning and end

    def connectionMade(self) -> None:
        factory = self.factory
        transport = self.transport
        set_no_delay(transport)
        factory.connection_opened(self)
        try:
            self._slot = factory.connections.open(self.view.client_address, "smtp")
        except TooManyConnections as error:
            # The table tells once a minute which client is over which limit.
            log.debug(
                "smtp connection {connection_id} from {client_address} refused: {limit}",
                connection_id=self.connection_id,
                client_address=self.view.client_address,
                limit=error.limit,
            )
            transport.write(make_reply(421, error.status, error.text).octets)
            transport.loseConnection()
            self._linger()
            return
        # LMTP comes from an MTA of ours: it has been patient with the client already.
        self._patience = Patience(self._settings, None if factory.service is Service.LMTP else self._slot)
        handshake_is_due = ISSLTransport.providedBy(transport)
        self.view = evolve(self.view, local_address=str(getattr(transport.getHost(), "host", "") or ""))
        self._session = SmtpSession(
            self._settings,
            service=factory.service,
            hostname=factory.hostname,
            offers_tls=factory.offers_starttls,
            is_tls=handshake_is_due or factory.tls_mode is TlsMode.IMPLICIT,
            offers_authentication=factory.portal is not None,
            is_plaintext_permitted=self.view.client_address in factory.plaintext_networks,
            is_exempt=self._slot.is_exempt,
            is_proxy=self.view.client_address in factory.xclient_networks,
            patience=self._patience,
            mechanisms=lambda is_tls: factory.mechanisms(is_tls, self.client_certificate() if is_tls else None),
            seconds=self._clock.seconds,
        )
        self._admit_peer()
        if self._is_drain_wanted:
            self._session.shut_down()
        if handshake_is_due:
            self._handshake_began_at = self._opened_at
        transport.registerProducer(self, True)
        log.info(
            "smtp connection {connection_id} from "
            + ("{client_address}" if self.view.client_address else "a program of this machine")
            + " opened ({service})",
            connection_id=self.connection_id,
            client_address=self.view.client_address,
            service=self.view.service,
        )
        self._arm_timer()
        if not handshake_is_due:
            self._begin()

    def handshakeCompleted(self) -> None:
        """TLS is up, from the start or after STARTTLS."""
        self._handshake_began_at = None
        handle = self.transport.getHandle()
        version = getattr(handle, "get_protocol_version_name", None)
        cipher = getattr(handle, "get_cipher_name", None)
        self.view = evolve(
            self.view,
            tls_version=(version() if version is not None else "") or "TLS",
            tls_cipher=(cipher() if cipher is not None else "") or "",
        )
        if self._session is not None and not self._has_begun:
            self._begin()

    def _begin(self) -> None:
        """Ask the receiver, wait for early talkers, greet."""
        self._has_begun = True
        delay = self.factory.greeting_delay(self._slot)
        if delay > 0:
            self._delay = self._clock.callLater(delay, self._ask_connected)
        else:
            self._ask_connected()

    def _ask_connected(self) -> None:
        self._delay = None
        if self._session is not None and self._session.unread_octets:
            self._answer()
            return
        self._await(Stage.CONNECT, "", self._answer_yes, self._receiver.connected, self.view)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._is_gone:
            return
        self._is_gone = self._is_ended = True
        for call in (self._timer, self._delay):
            if call is not None and call.active():
                call.cancel()
        self._timer = self._delay = None
        if self._session is not None:
            self._session.receive_eof()
        self._abort_mail("connection lost")
        self._log_out()
        if self._slot is not None:
            self._slot.close()
            session = self._session
            last = session.closing_reply if session is not None else None
            log.info(
                "smtp connection {connection_id} closed after {messages} messages, {errors} errors: {reason}",
                connection_id=self.connection_id,
                messages=session.messages if session is not None else 0,
                errors=session.errors if session is not None else 0,
                code=last.code if last is not None else 0,
                reason=last.lines[0] if last is not None else "by the client",
            )
        # It asks for this connection's mechanisms: the two would keep each other until the collector comes.
        self._session = None
        let_go_of_tls(self.transport)
        self.factory.connection_closed(self)

    def drain(self) -> None:
        """Finish what is in flight, say 421, close."""
        self._is_drain_wanted = True
        if self._session is not None and not self._has_begun:
            self.abort()  # implicit TLS, and no handshake: nobody is there to be told, and nobody worth waiting for
        elif self._session is not None:
            self._session.shut_down()
            self._run()

    @property
    def service(self) -> str:
        """See :class:`~mailsrv.interfaces.sessions.IUserSession`."""
        return self.view.service

    @property
    def client_address(self) -> str:
        """See :class:`~mailsrv.interfaces.sessions.IUserSession`."""
        return self.view.client_address

    def end_session(self, end: SessionEnd) -> None:
        """See :class:`~mailsrv.interfaces.sessions.IUserSession`: 421. A message that is not all there is not taken."""
        session = self._session
        if session is not None:
            reply = make_reply(421, TEMPORARY_AUTHENTICATION_FAILURE, end.value, closes=True)
            if session.is_receiving_content:
                session.time_out(reply)
            else:
                session.shut_down(reply)
            self._run()

    def cut_off(self) -> None:
        """The time to finish is over: 421 even within a message (R-STOP-1), as far as the client takes it at once."""
        session = self._session
        if session is not None and not self._is_ended and not self._is_output_full:
            session.time_out(replies.SHUTTING_DOWN)
            self._run()
        if self._is_ended and not self._is_gone and self._timer is not None and self._timer.active():
            self._timer.reset(_CUT_OFF_SECONDS)
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once."""
        abort = getattr(self.transport, "abortConnection", None)
        if abort is not None:
            abort()
        else:
            self.transport.loseConnection()

    # -- octets

    def dataReceived(self, data: bytes) -> None:
        session = self._session
        if session is None:
            return
        if session.is_receiving_content:
            # Else only a whole command counts (RFC 5321 4.5.3.2.7): one octet now and then buys no time.
            self._active_at = self._clock.seconds()
            if not self._is_content_measured:
                # A chunk that is thrown away: nobody was asked.
                self._measure_content()
            self._content_octets += len(data)
        else:
            self._is_content_measured = False
        session.receive_octets(data)
        self._run()

    def _run(self) -> None:
        """Let the engine go as far as it can, then send all it has to say in one write."""
        session = self._session
        if self._is_running or session is None or self._is_ended:
            return
        self._is_running = True
        try:
            while not self._is_awaiting_write:
                event = session.next_event()
                if event is NEED_DATA or event is PAUSED:
                    break
                HANDLERS[event.__class__](self, event)
        finally:
            self._is_running = False
        self._flush()

    def _flush(self) -> None:
        session, transport = self._session, self.transport
        if session is None or self._is_ended:
            return
        octets = session.octets_to_send()
        if octets:
            self._active_at = self._clock.seconds()
            write_promptly(transport, octets)
        if session.is_closing:
            self._end()
        else:
            self._regulate()

    def _end(self) -> None:
        """The last word was said."""
        self._is_ended = True
        self._abort_mail("connection closed")
        # loseConnection would wait for a producer.
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        self._linger()

    def _linger(self) -> None:
        """A client that does not read its last replies must not keep the connection open for ever."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._clock.callLater(_LINGER_SECONDS, self.abort)

    def _regulate(self) -> None:
        """Read only while the input can be used and the output is taken."""
        session = self._session
        wants_pause = (
            self._is_awaiting_write
            or self._is_output_full
            or self._delay is not None
            or (session is not None and session.unread_octets >= self._settings.input_buffer_octets)
        )
        if wants_pause is not self._is_paused:
            self._is_paused = wants_pause
            if wants_pause:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    def pauseProducing(self) -> None:
        """The transport has too much to send."""
        self._is_output_full = True
        self._regulate()

    def resumeProducing(self) -> None:
        """The transport has room again."""
        self._is_output_full = False
        self._regulate()

    def stopProducing(self) -> None:
        """The transport is gone; ``connectionLost`` follows."""

    # -- time: one timer, which looks at its turn at what has happened since

    def _arm_timer(self) -> None:
        settings = self._settings
        now = self._clock.seconds()
        # Not later than the grace of the data rate, so that a message that begins meanwhile is looked at in time.
        due = min(self._active_at + settings.command_timeout_seconds, now + settings.data_rate_grace_seconds)
        if self._session_ends_at is not None:
            due = min(due, self._session_ends_at)
        if self._handshake_began_at is not None:
            due = min(due, self._handshake_began_at + settings.handshake_timeout_seconds)
        self._timer = self._clock.callLater(max(_SHORTEST_LOOK_SECONDS, due - now), self._look_at_time)

    @property
    def _session_ends_at(self) -> float | None:
        limit = self._settings.session_timeout_seconds
        if self.factory.service is not Service.MX or limit <= 0:
            return None
        return self._opened_at + limit

    def _look_at_time(self) -> None:
        self._timer = None
        session = self._session
        if session is None or self._is_ended:
            return
        now = self._clock.seconds()
        if self._handshake_began_at is not None:
            if now - self._handshake_began_at >= self._settings.handshake_timeout_seconds:
                # There is nobody to say a word to.
                log.info("smtp connection {connection_id} timed out before TLS", connection_id=self.connection_id)
                self.abort()
                return
        elif session.is_paused or self._is_awaiting_write:
            # The silence is ours: the client's time begins anew.
            self._active_at = now
        else:
            self._judge_silence(session, now)
        if session.is_closing:
            log.info("smtp connection {connection_id} timed out", connection_id=self.connection_id)
            self._run()
        else:
            self._arm_timer()

    def _judge_silence(self, session: SmtpSession, now: float) -> None:
        settings = self._settings
        ends_at = self._session_ends_at
        if now - self._active_at >= settings.command_timeout_seconds:
            session.time_out()
        elif session.is_receiving_content:
            seconds = now - self._content_began_at
            slowest = settings.data_rate_octets * (seconds - settings.data_rate_grace_seconds)
            if self._is_content_measured and self._content_octets < slowest:
                session.time_out(replies.TOO_SLOW)
        elif ends_at is not None and now >= ends_at:
            session.time_out()
