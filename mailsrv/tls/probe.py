"""Trying TLS to one host, for people who ask: greeting, EHLO, STARTTLS, handshake, verdict, QUIT.

No mail is sent. Everything is bounded: octets, lines and time.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.interfaces.tls_policy import HostTlsPolicy, TlsLevel
from mailsrv.tls.client import ClientTls, TlsVerdict

MAX_OCTETS = 32_768


@frozen
class ProbeResult:
    """``verdict`` None: it did not come to TLS, and ``trouble`` says why. ``version`` and ``cipher`` of the session."""

    address: str
    verdict: TlsVerdict | None = None
    trouble: str = ""
    version: str = ""
    cipher: str = ""


async def probe(
    reactor: Any,
    tls: ClientTls,
    policy: HostTlsPolicy,
    *,
    address: str,
    port: int,
    hostname: str,
    timeout: float = 30.0,
) -> ProbeResult:
    """Never fails. ``hostname`` is for EHLO."""
    endpoint_type = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
    factory = Factory.forProtocol(lambda: _Probe(tls, policy, address, hostname))
    connecting: Deferred[Any] = endpoint_type(reactor, address, port, timeout=timeout).connect(factory)
    try:
        connection = await connecting
    except Exception as error:  # sockets have many
        return ProbeResult(address, trouble=f"no connection ({type(error).__name__})")
    delayed = reactor.callLater(timeout, connection.give_up, f"not done within {timeout:g} seconds")
    result: ProbeResult = await connection.result
    if delayed.active():
        delayed.cancel()
    return result


@implementer(IHandshakeListener)
class _Probe(Protocol):
    transport: Any

    def __init__(self, tls: ClientTls, policy: HostTlsPolicy, address: str, hostname: str) -> None:
        self._tls, self._policy, self._address = tls, policy, address
        self._commands = iter((f"EHLO {hostname}\r\n".encode("ascii"), b"STARTTLS\r\n"))
        self._buffer = b""
        self._received = 0
        self._reply: list[bytes] = []
        self._asked = b"the greeting"
        self._is_tls = False
        self._outcome: ProbeResult | None = None
        self.result: Deferred[ProbeResult] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > MAX_OCTETS:
            self.give_up("the host says too much")
            return
        self._buffer += data
        while b"\n" in self._buffer and self._outcome is None and not self._is_tls:
            line, _, self._buffer = self._buffer.partition(b"\n")
            self._reply.append(line.rstrip(b"\r"))
            # RFC 5321 4.2: a hyphen after the code says that more lines follow.
            if line[3:4] != b"-":
                reply, self._reply = self._reply, []
                self._take_reply(reply)

    def _take_reply(self, reply: list[bytes]) -> None:
        asked = self._asked.split()[0].decode("ascii", "replace")
        if not reply[-1].startswith(b"2"):
            said = reply[-1][:80].decode("ascii", "replace")
            self.give_up(f"{said!r} to {asked}")
        elif self._asked.startswith(b"STARTTLS"):
            # R-TLS-2: what follows in the clear would be taken for an answer under TLS.
            if self._buffer:
                self.give_up("octets after the answer to STARTTLS")
                return
            self._is_tls = True
            self.transport.startTLS(self._tls.connection_creator(self._policy))
        elif self._asked.startswith(b"EHLO") and not any(line[4:].upper() == b"STARTTLS" for line in reply):
            self._finish(ProbeResult(self._address, self._tls.not_offered(self._policy)))
        else:
            self._asked = next(self._commands)
            self.transport.write(self._asked)

    def handshakeCompleted(self) -> None:
        if self._outcome is not None:
            return
        verdict = self._tls.check(self._policy, self.transport)
        connection = self.transport.getHandle()
        version, cipher = connection.get_protocol_version_name(), connection.get_cipher_name() or ""
        self._finish(ProbeResult(self._address, verdict, version=version, cipher=cipher))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        outcome = self._outcome
        if outcome is None and self._is_tls:
            outcome = ProbeResult(self._address, self._tls.failed_handshake(self._policy))
        self.result.callback(outcome or ProbeResult(self._address, trouble="the host closed the connection"))

    def give_up(self, trouble: str) -> None:
        """End at once."""
        if self._outcome is None:
            self._outcome = ProbeResult(self._address, trouble=trouble)
        self.transport.abortConnection()

    def _finish(self, outcome: ProbeResult) -> None:
        if self._outcome is None:
            self._outcome = outcome
            self.transport.write(b"QUIT\r\n")
            self.transport.loseConnection()


def needs_tls(policy: HostTlsPolicy) -> bool:
    """Whether trying makes sense."""
    return policy.level is not TlsLevel.NONE
