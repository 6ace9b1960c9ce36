"""The Twisted shell of a POP3 session: transport, TLS, timers, back-pressure, log-in and content.

``_pump`` runs the engine until it needs input or an answer, or the peer takes no more octets.
Whatever waits (log-in, a batch of messages, the removal at QUIT) calls ``_pump`` again when it is
done. A lost connection lets go of the maildrop at once, or when what is under way comes out.
"""

from __future__ import annotations

import secrets
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.errors import MailError, Unavailable
from mailsrv.interfaces.account import PasswordCredentials, SaslCredentials
from mailsrv.interfaces.content import IContent
from mailsrv.interfaces.sessions import IUserSession, SessionEnd
from mailsrv.pop3.authorization import OpenMaildrop, open_maildrop
from mailsrv.pop3.events import (
    ENDED,
    NEED_DATA,
    PAUSED,
    SEND,
    TLS_REQUESTED,
    Event,
    LoginRequested,
    MessageRequested,
    UpdateRequested,
)
from mailsrv.pop3.prefetch import ContentPrefetcher
from mailsrv.pop3.replies import ResponseCode, format_refusal
from mailsrv.pop3.sending import send_message
from mailsrv.pop3.session import Pop3Session
from mailsrv.sasl import Conversations, ResponseOffered
from mailsrv.wire.channel_binding import TlsChannel
from mailsrv.wire.client_certificate import client_certificate
from mailsrv.wire.connection_limits import ConnectionSlot
from mailsrv.wire.deadline import Deadline
from mailsrv.wire.prompt_write import set_no_delay, write_promptly
from mailsrv.wire.tls_end import let_go_of_tls

if TYPE_CHECKING:
    from mailsrv.pop3.factory import Pop3ServerFactory


@implementer(IPushProducer, IUserSession)
class Pop3Protocol(Protocol):
    """One connection. Made by the factory, which holds what all connections share."""

    _log = Logger()
    service = "pop3"

    def __init__(self, factory: Pop3ServerFactory) -> None:
        self._shared = factory
        self._settings = factory.settings
        self.connection_id = secrets.token_hex(6)
        self.client_address = ""
        self._engine: Pop3Session | None = None
        self._slot: ConnectionSlot | None = None
        self._drop: OpenMaildrop | None = None
        self._contents: ContentPrefetcher | None = None
        self._conversations = Conversations()
        # RFC 1939 3: the autologout timer closes without a reply and deletes nothing.
        self._deadline = Deadline(factory.clock, self.abort)
        self._writable: Deferred[None] | None = None
        self._is_choked = False
        self._is_reading = True
        self._is_pumping = False
        self._is_lost = False
        self._is_closing = False
        self._is_updating = False
        self._deleted = 0

    # Beginning and end of the connection

    def connectionMade(self) -> None:
        """Count the connection and greet, or say why not."""
        transport: Any = self.transport
        self.client_address = getattr(transport.getPeer(), "host", "") or ""
        set_no_delay(transport)
        try:
            self._slot = self._shared.open_slot(self.client_address)
        except MailError as error:
            transport.write(format_refusal(error))
            transport.loseConnection()
            self._is_closing = True
            self._deadline.set(self._settings.close_timeout_seconds)
            return
        transport.registerProducer(self, True)
        self._engine = self._shared.make_session(self.client_address, transport)
        self._shared.opened(self)
        self._deadline.set(self._settings.login_timeout_seconds)
        self._pump()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nothing that was marked is deleted: only QUIT does that (RFC 1939 6)."""
        self._is_lost = True
        let_go_of_tls(self.transport)
        self._conversations.end()
        self._deadline.stop()
        if self._writable is not None:
            waiting, self._writable = self._writable, None
            waiting.callback(None)
        if not self._is_updating:  # a removal under way still needs its mailbox, and lets go when it is done
            self._let_go()
        if self._slot is not None:
            self._slot.close()
        self._shared.closed(self)

    def _let_go(self) -> None:
        if self._contents is not None:
            self._contents.close()
        if self._drop is not None and self._engine is not None:
            self._log.info(
                "POP3 session {connection_id} of {account} ends: "
                "of {messages} messages {retrieved} retrieved, {deleted} deleted",
                connection_id=self.connection_id,
                account=str(self._drop.account),
                retrieved=self._engine.messages_sent,
                deleted=self._deleted,
                messages=len(self._drop.listing),
            )
            self._drop.close()
            self._drop = None

    def drain(self) -> None:
        """The server stops: -ERR once what is in flight is done (R-STOP-1)."""
        if self._is_choked and self._drop is None:
            self.abort()  # who has not taken the greeting (implicit TLS without a handshake) would hold up the stop
        elif self._engine is not None and not self._is_lost:
            self._engine.stop("The server stops")
            self._pump()

    def end_session(self, end: SessionEnd) -> None:
        """See :class:`~mailsrv.interfaces.sessions.IUserSession`: -ERR when what is in flight is done."""
        if self._engine is not None and not self._is_lost:
            self._engine.stop(end.value, ResponseCode.AUTH)
            self._pump()

    def abort(self) -> None:
        """Close at once."""
        transport: Any = self.transport
        if not self._is_lost:
            transport.abortConnection()

    # Octets

    def dataReceived(self, data: bytes) -> None:
        """Feed the engine."""
        if self._engine is None or self._is_closing:
            return
        self._note_activity()
        self._engine.receive_octets(data)
        self._pump()

    def _note_activity(self) -> None:
        if self._drop is not None and not self._is_closing:
            self._deadline.set(self._settings.idle_timeout_seconds)

    def pauseProducing(self) -> None:
        """The peer does not take our octets."""
        self._is_choked = True

    def resumeProducing(self) -> None:
        """It takes them again."""
        self._is_choked = False
        self._note_activity()
        if self._writable is not None:
            waiting, self._writable = self._writable, None
            waiting.callback(None)
        self._pump()

    def stopProducing(self) -> None:
        """The transport is going; connectionLost follows."""
        self._is_choked = True

    def _flush(self) -> None:
        engine = self._engine
        if engine is not None and engine.unsent_octets and not self._is_lost:
            transport: Any = self.transport
            write_promptly(transport, engine.octets_to_send())

    def _pump(self) -> None:
        engine = self._engine
        if engine is None or self._is_pumping or self._is_lost or self._is_closing:
            return
        self._is_pumping = True
        try:
            while not self._is_choked and not self._is_lost:
                event = engine.next_event()
                if event is NEED_DATA or event is PAUSED:
                    break
                if event is SEND:
                    self._flush()
                elif event is ENDED:
                    self._close()
                    return
                else:
                    self._act(engine, event)
            self._flush()
            self._regulate_reading(engine)
        finally:
            self._is_pumping = False

    def _regulate_reading(self, engine: Pop3Session) -> None:
        """Stop reading while more is pipelined than is kept; the peer then notices by itself."""
        wanted = engine.unread_octets <= self._settings.pipeline_octets
        if wanted is not self._is_reading:
            self._is_reading = wanted
            transport: Any = self.transport
            if wanted:
                transport.resumeProducing()
            else:
                transport.pauseProducing()

    def _close(self) -> None:
        self._flush()
        self._is_closing = True
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.loseConnection()
        # The maildrop is free as soon as the session is over, not when the peer has read the Bye.
        self._let_go()
        self._deadline.set(self._settings.close_timeout_seconds)

    # What the engine cannot do by itself

    def _act(self, engine: Pop3Session, event: Event) -> None:
        match event:
            case MessageRequested(number=number):
                contents = self._contents
                if contents is not None and contents.has(number):
                    content = contents.take(number)
                    if content is not None and content.octets is not None:
                        engine.send_message(content.octets)
                        content.close()
                        return
                    self._run(engine, self._send_opened(engine, content))
                else:
                    self._run(engine, self._send_message(engine, number))
            case LoginRequested():
                self._run(engine, self._log_in(engine, event))
            case ResponseOffered():
                # Whoever waits for a response runs in its own coroutine, and pumps when it is done.
                if event.is_first or not self._conversations.respond(event.response):
                    self._run(engine, self._converse(engine, event))
            case UpdateRequested():
                self._run(engine, self._update(engine, event))
            case _ if event is TLS_REQUESTED:
                self._start_tls(engine)

    def _run(self, engine: Pop3Session, work: Coroutine[Deferred[Any], Any, None]) -> None:
        deferred = Deferred.fromCoroutine(work)
        deferred.addErrback(self._failed, engine)
        deferred.addCallback(lambda _: self._pump())

    def _failed(self, failure: Failure, engine: Pop3Session) -> None:
        """What was asked for cannot be done: say so, or close where part of the answer was sent already."""
        error = failure.value
        if isinstance(error, MailError) and engine.may_refuse:
            engine.refuse(error)
            return
        self._log.failure("POP3 session {connection_id}", failure=failure, connection_id=self.connection_id)
        if engine.may_refuse:
            engine.refuse(Unavailable())
        else:
            self.abort()

    def _start_tls(self, engine: Pop3Session) -> None:
        self._flush()
        transport: Any = self.transport
        # The producer was registered with the plain transport; TLS brings one of its own.
        transport.unregisterProducer()
        transport.startTLS(self._shared.context_factory)
        transport.registerProducer(self, True)
        if engine.tls_started():
            self.abort()

    def _challenge(self, octets: bytes) -> None:
        if self._engine is not None:
            self._engine.challenge(octets)
            self._pump()

    async def _converse(self, engine: Pop3Session, event: ResponseOffered) -> None:
        """A log-in by a mechanism with questions of its own."""
        if isinstance(event.response, MailError):
            raise event.response
        conversation = self._conversations.begin(self._challenge)
        credentials = SaslCredentials(
            event.mechanism,
            event.response,
            conversation.converse,
            self.client_address,
            "pop3",
            connection_id=self.connection_id,
            offered=engine.mechanisms,
            channel=TlsChannel(self.transport),
            certificate=client_certificate(self.transport),
        )
        try:
            await self._enter(engine, credentials)
        except MailError:
            if self._conversations.settle(conversation):
                raise
        finally:
            self._conversations.settle(conversation)

    async def _log_in(self, engine: Pop3Session, event: LoginRequested) -> None:
        credentials = PasswordCredentials(
            authcid=event.authcid,
            password=event.password,
            client_address=self.client_address,
            service="pop3",
            authzid=event.authzid,
            connection_id=self.connection_id,
        )
        await self._enter(engine, credentials)

    async def _enter(self, engine: Pop3Session, credentials: PasswordCredentials | SaslCredentials) -> None:
        drop = await open_maildrop(self._shared.portal, credentials, self._count_user, self)
        if self._is_lost:
            drop.close()
            return
        self._drop = drop
        self._contents = ContentPrefetcher(drop.mailbox, drop.listing, self._settings)
        engine.login_succeeded(drop.listing)
        self._note_activity()
        self._log.info(
            "POP3 session {connection_id} of {account} from {client_address} begins",
            connection_id=self.connection_id,
            account=str(drop.account),
            client_address=self.client_address,
        )

    def _count_user(self, user: str) -> None:
        if self._slot is not None:
            self._slot.authenticate(user)

    async def _send_message(self, engine: Pop3Session, number: int) -> None:
        contents = self._contents
        if contents is None:
            raise RuntimeError("no maildrop is open")
        await contents.load(number)
        if not self._is_lost:
            await self._send_opened(engine, contents.take(number))

    async def _send_opened(self, engine: Pop3Session, content: IContent | None) -> None:
        await send_message(engine, content, self._settings.write_octets, self._breathe)

    async def _breathe(self) -> bool:
        """Send what is there, and wait until the peer takes more. False: it is gone."""
        self._flush()
        if self._is_choked and not self._is_lost:
            self._writable = Deferred()
            await self._writable
        self._note_activity()
        return not self._is_lost

    async def _update(self, engine: Pop3Session, event: UpdateRequested) -> None:
        drop = self._drop
        if drop is None:
            raise RuntimeError("no maildrop is open")
        self._is_updating = True
        try:
            await drop.mailbox.delete_messages(event.uids)
            engine.update_done()
            self._deleted = len(event.uids)
        finally:
            self._is_updating = False
            if self._is_lost:
                self._let_go()
