"""The transport of a dialogue: in memory, and as a real one where it matters to a protocol."""

from __future__ import annotations

from collections import deque
from typing import Any

from attrs import define
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IAddress, IHandshakeListener, IProtocol, ISSLTransport
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import alsoProvides


@define
class TlsHandle:
    """What :meth:`DialogueTransport.getHandle` answers: the questions a protocol asks of a pyOpenSSL connection."""

    protocol_version: str = "TLSv1.3"
    cipher: str = "TLS_AES_256_GCM_SHA384"

    def get_protocol_version_name(self) -> str:
        return self.protocol_version

    def get_cipher_name(self) -> str:
        return self.cipher


class DialogueTransport(StringTransport):
    """A transport in memory that behaves as a real one where it matters.

    It holds client octets back while the protocol has paused reading, drops them once the
    protocol closed the connection, tells ``connectionLost`` later and not inside
    ``loseConnection``, asks producers for more, and knows ``startTLS``.
    """

    def __init__(
        self,
        protocol: IProtocol | None = None,
        host: IAddress | None = None,
        peer: IAddress | None = None,
        *,
        is_tls: bool = False,
    ) -> None:
        super().__init__(hostAddress=host, peerAddress=peer)
        self.protocol = protocol
        self.is_tls = is_tls
        self.is_aborted = False
        self.is_gone = False
        self.tls_started = 0
        """How often the protocol began TLS."""
        self.write_calls = 0
        self._incoming: deque[bytes] = deque()
        self._is_delivering = False
        self._handshake_is_due = False
        if is_tls:
            self._begin_tls()
        self._client_closed = False

    def write(self, data: bytes) -> None:
        """Take what the server says. After the end it is lost, as on a real connection."""
        self.write_calls += 1
        if not self.is_gone:
            super().write(data)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def startTLS(self, context_factory: object, normal: bool = True) -> None:
        """Remember that TLS is on. Octets that were not yet delivered are lost, as they would be garbage."""
        self.tls_started += 1
        self._incoming.clear()
        self._begin_tls()

    def _begin_tls(self) -> None:
        self.is_tls = True
        self._handshake_is_due = True
        alsoProvides(self, ISSLTransport)

    def getHandle(self) -> TlsHandle:
        return TlsHandle()

    def getPeerCertificate(self) -> None:
        return None

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Accepted, as there is nothing to delay."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Accepted, as there is nothing to keep alive."""

    def loseConnection(self) -> None:
        self.disconnecting = True

    def abortConnection(self) -> None:
        self.disconnecting = True
        self.is_aborted = True

    def take(self) -> bytes:
        """What the server has said since the last call."""
        octets: bytes = self.value()
        self.clear()
        return octets

    def deliver(self, octets: bytes) -> None:
        """The client sends; the protocol gets it as soon as it reads."""
        self._incoming.append(octets)
        self.pump()

    def close_from_client(self) -> None:
        """The client closes; the protocol learns of it after what was sent before."""
        self._client_closed = True
        self.pump()

    def pump(self) -> None:
        """Do what a reactor would in its next turns: deliver input, ask producers, tell the end."""
        if self._is_delivering or self.protocol is None:
            return
        self._is_delivering = True
        try:
            if self._handshake_is_due:
                self._handshake_is_due = False
                if IHandshakeListener.providedBy(self.protocol):
                    self.protocol.handshakeCompleted()
            while self._incoming and self.producerState == "producing" and not self.disconnecting:
                self.protocol.dataReceived(self._incoming.popleft())
            self._ask_producer()
            if self.is_gone:
                return
            can_read_end = self._client_closed and not self._incoming and self.producerState == "producing"
            if self.is_aborted or (self.disconnecting and self.producer is None) or can_read_end:
                self.is_gone = True
                reason = ConnectionAborted() if self.is_aborted else ConnectionDone()
                self.protocol.connectionLost(Failure(reason))
        finally:
            self._is_delivering = False

    def _ask_producer(self) -> None:
        for _ in range(100_000):
            if self.producer is None or self.streaming:
                return
            self.producer.resumeProducing()

    @property
    def has_unread_input(self) -> bool:
        """Whether client octets wait because the protocol does not read."""
        return bool(self._incoming)
