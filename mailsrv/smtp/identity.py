"""Who the client is: TLS, log-in, and the word of a trusted proxy (XCLIENT)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve
from cryptography.x509 import Certificate
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.errors import MailError
from mailsrv.interfaces.account import IAccount, PasswordCredentials, SaslCredentials, who
from mailsrv.interfaces.filter import SessionView
from mailsrv.sasl import ResponseOffered
from mailsrv.smtp.asking import Asking
from mailsrv.smtp.events import ClientIntroduced, PasswordOffered, TlsRequested
from mailsrv.smtp.patience import Patience
from mailsrv.smtp.replies import Stage, make_reply
from mailsrv.smtp.settings import Service
from mailsrv.smtp.xclient import Xclient
from mailsrv.wire.channel_binding import TlsChannel
from mailsrv.wire.client_certificate import client_certificate
from mailsrv.wire.connection_limits import TooManyConnections

log = Logger()


class IdentityEvents(Asking):
    """The part of the shell that finds out whom it talks to."""

    def _tls_requested(self, _event: TlsRequested) -> None:
        session, transport = self._session, self.transport
        if session is None:
            return
        octets = session.octets_to_send()
        if session.start_tls():
            # R-TLS-1. The engine refuses what came with the command; this is for what came since.
            self.abort()
            return
        transport.write(octets)
        self._log_out()
        self.view = evolve(self.view, helo="", is_extended=False, account=None)
        self._handshake_began_at = self._clock.seconds()
        self._admit_peer()
        transport.startTLS(self.factory.context_factory)

    def _admit_peer(self) -> None:
        """Submission: let in who needs no log-in, by what the system or the configuration says of the client."""
        session, factory = self._session, self.factory
        if session is None or factory.admission is None or factory.service is not Service.SUBMISSION:
            return
        admitted = factory.admission(self.transport, self.view.client_address)
        if isinstance(admitted, bool):
            session.admit(admitted, is_known=False)
            return
        session.admit(True, is_known=True)
        self._account = admitted
        self.view = evolve(self.view, account=admitted.address)
        log.info(
            "smtp connection {connection_id} is of {account}, a user of this machine",
            connection_id=self.connection_id,
            account=str(admitted.address),
        )

    def client_certificate(self) -> Certificate | None:
        """Of the client, verified; a proxy's own certificate speaks for none of those it passes on (R-PROXY-1)."""
        return None if self._is_passed_on else client_certificate(self.transport)

    def _password_offered(self, event: PasswordOffered) -> None:
        given = event.given
        credentials = PasswordCredentials(
            given.authcid,
            given.password,
            self.view.client_address,
            "submission",
            authzid=given.authzid,
            connection_id=self.connection_id,
        )
        self._await(Stage.AUTH, given.authcid, self._logged_in, self.factory.portal.login, credentials, self, IAccount)

    def _response_offered(self, event: ResponseOffered) -> None:
        if event.is_first or not self._conversations.respond(event.response):
            self._await(Stage.AUTH, event.mechanism, self._logged_in, self._begin_conversation, event)

    def _begin_conversation(self, event: ResponseOffered) -> Deferred[Any]:
        """Fires when the log-in is decided; never if the client went on to something else before that."""
        if isinstance(event.response, MailError):
            return fail(event.response)
        conversation = self._conversations.begin(self._challenge)
        session = self._session
        credentials = SaslCredentials(
            event.mechanism,
            event.response,
            conversation.converse,
            self.view.client_address,
            "submission",
            connection_id=self.connection_id,
            offered=session.mechanisms if session is not None else (),
            channel=TlsChannel(self.transport),
            certificate=self.client_certificate(),
        )
        decided: Deferred[Any] = Deferred()

        def decide(result: Any) -> None:
            if self._conversations.settle(conversation):
                decided.callback(result)
            elif not isinstance(result, Failure):
                result[2]()

        self.factory.portal.login(credentials, self, IAccount).addBoth(decide)
        return decided

    def _challenge(self, octets: bytes) -> None:
        if self._session is not None:
            self._session.challenge(octets)
            if not self._is_running:
                # The wait was ours; the client's silence begins now.
                self._active_at = self._clock.seconds()
                self._run()

    def _logged_in(self, avatar: tuple[object, IAccount, Callable[[], object]]) -> None:
        _interface, account, logout = avatar
        if self._is_ended or self._slot is None:
            logout()
            return
        try:
            self._slot.authenticate(str(account.address))
        except TooManyConnections as error:
            logout()
            self._answer(make_reply(421, error.status, error.text, closes=True))
            return
        self._account, self._logout = account, logout
        self.view = evolve(self.view, account=account.address)
        log.info(
            "smtp connection {connection_id} authenticated as {account}",
            connection_id=self.connection_id,
            account=who(account),
        )
        self._answer()

    def _log_out(self) -> None:
        self._conversations.end()
        logout, self._logout, self._account = self._logout, None, None
        if logout is not None:
            logout()

    # -- XCLIENT

    def _client_introduced(self, event: ClientIntroduced) -> None:
        """R-PROXY-1: the connection begins anew, under the limits of the other address and logged in as nobody."""
        session, slot = self._session, self._slot
        if session is None or slot is None:
            return
        self._log_out()
        slot.close()
        self._is_passed_on = True
        self.view = introduced_view(self.view, event.client)
        try:
            self._slot = self.factory.connections.open(self.view.client_address, "smtp")
        except TooManyConnections as error:
            self._answer(make_reply(421, error.status, error.text, closes=True))
            return
        self._patience = Patience(self._settings, None if self.factory.service is Service.LMTP else self._slot)
        session.restart(
            self._patience,
            is_plaintext_permitted=self.view.client_address in self.factory.plaintext_networks,
            is_exempt=self._slot.is_exempt,
        )
        self._admit_peer()
        log.info(
            "smtp connection {connection_id} is passed on for {client_address} ({client_name})",
            connection_id=self.connection_id,
            client_address=self.view.client_address,
            client_name=event.client.name or "unknown",
        )
        self._await(Stage.CONNECT, "", self._answer_yes, self._receiver.connected, self.view)


def introduced_view(view: SessionView, client: Xclient) -> SessionView:
    """What is known of a session now; of what the proxy did not mention nothing is changed but the log-in."""
    return evolve(
        view,
        account=None,
        client_address=view.client_address if client.address is None else client.address,
        client_port=view.client_port if client.port is None else client.port,
        local_address=view.local_address if client.destination_address is None else client.destination_address,
        helo=client.helo or "",
        is_extended=bool(client.is_extended),
    )
