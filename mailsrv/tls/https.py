"""HTTPS as MTA-STS, TLS reports and issuers of tokens need it: one request, verified, bounded in time and octets.

Nothing else: no redirects, no cookies, no compressed bodies; names are resolved by our own resolver, so that a
server without a working system resolver behaves the same everywhere.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from typing import Any

from attrs import frozen
from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate, optionsForClientTLS, platformTrust, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, FileBodyProducer, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

from mailsrv import __version__
from mailsrv.interfaces.resolver import IResolver
from mailsrv.tls.certificates import MAX_PEM_OCTETS, TlsError

_MAX_ADDRESSES = 5
_OPTIONS_HOSTS = 8
_OPTIONS_SECONDS = 3600.0
"""By then the system's authorities may have changed."""


class HttpsError(Exception):
    """What came is not to be used; the text is for the log."""


@frozen
class HttpsAnswer:
    """An answer; ``media_type`` in lower case without parameters."""

    status: int
    media_type: str
    body: bytes


class HttpsClient:
    """``ca_file`` as in ``tls_client.ca_file``: the constructor reads it; it waits, and raises TlsError."""

    def __init__(self, reactor: Any, resolver: IResolver, ca_file: str = "", *, connect_timeout: float = 15.0) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._tls = _HostOptions(_read_trust(ca_file), reactor.seconds)
        self._connect_timeout = connect_timeout

    async def request(
        self,
        method: str,
        url: str,
        *,
        timeout: float,
        max_octets: int,
        accept: str = "",
        authorization: str = "",
        content_type: str = "",
        body: IBodyProducer | bytes | None = None,
    ) -> HttpsAnswer:
        """Fails with HttpsError, or with what connecting and TLS fail with; neither names what was sent."""
        headers = Headers({"User-Agent": [f"mailsrv/{__version__}"], "Accept-Encoding": ["identity"]})
        for name, value in (("Accept", accept), ("Authorization", authorization), ("Content-Type", content_type)):
            if value:
                headers.setRawHeaders(name, [value])
        if isinstance(body, bytes):
            body = FileBodyProducer(BytesIO(body))
        asking = Deferred.fromCoroutine(self._ask(method, url, max_octets, headers, body))
        too_late = Failure(HttpsError(f"no answer within {timeout:g} seconds"))
        return await asking.addTimeout(timeout, self._reactor, onTimeoutCancel=lambda _, __: too_late)

    async def _ask(
        self, method: str, url: str, max_octets: int, headers: Headers, body: IBodyProducer | None
    ) -> HttpsAnswer:
        opened: list[Any] = []
        how = _Connecting(self._reactor, self._resolver, self._tls, self._connect_timeout, opened.append)
        agent = Agent.usingEndpointFactory(self._reactor, _Endpoints(how))
        collector = _BodyCollector(max_octets)
        try:
            response: Any = await agent.request(method.encode("ascii"), url.encode("ascii"), headers, body)
            response.deliverBody(collector)
            received = await collector.body
        finally:
            # At once: a server that hangs, or sends an octet a minute, would not take part in the end of TLS.
            for transport in opened:
                transport.abortConnection()
        if response.headers.hasHeader("Content-Encoding"):
            raise HttpsError("an answer in a coding that was not asked for")
        media_type = (response.headers.getRawHeaders("Content-Type") or [""])[0].partition(";")[0].strip().lower()
        return HttpsAnswer(response.code, media_type, received)


class _BodyCollector(Protocol):
    """``body`` fires with all octets of an answer, or fails with HttpsError at the first one too many."""

    def __init__(self, max_octets: int) -> None:
        self.body: Deferred[bytes] = Deferred()
        self._max_octets = max_octets
        self._received = bytearray()

    def dataReceived(self, data: bytes) -> None:
        if self.body.called:
            return
        if len(self._received) + len(data) > self._max_octets:
            self.body.errback(HttpsError(f"an answer of more than {self._max_octets} octets"))
            return
        self._received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.body.called:
            return
        # The latter: an answer that says nothing of its length ends with the connection (HTTP/1.0).
        if reason.check(ResponseDone, PotentialDataLoss):
            self.body.callback(bytes(self._received))
        else:
            self.body.errback(reason)


class _HostOptions:
    """TLS to the hosts that were asked last: the system's authorities are read for each (5 ms), but not each time."""

    def __init__(self, trust: Any, seconds: Callable[[], float]) -> None:
        self._trust = trust
        self._seconds = seconds
        self._made: OrderedDict[str, tuple[Any, float]] = OrderedDict()

    def of(self, host: str) -> Any:
        options, made_at = self._made.get(host, (None, 0.0))
        now = self._seconds()
        if options is None or now - made_at > _OPTIONS_SECONDS:
            options = optionsForClientTLS(host, trustRoot=self._trust)
            self._made[host] = options, now
            if len(self._made) > _OPTIONS_HOSTS:
                self._made.popitem(last=False)
        self._made.move_to_end(host)
        return options


@frozen(eq=False)
class _Connecting:
    """How connections are made; ``opened`` is told of the transport of each."""

    reactor: Any
    resolver: IResolver
    tls: _HostOptions
    timeout: float
    opened: Callable[[Any], None]


@implementer(IAgentEndpointFactory)
@frozen(eq=False)
class _Endpoints:
    how: _Connecting

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        if uri.scheme != b"https":
            raise HttpsError("only https is spoken")
        host = uri.host.decode("ascii")
        connecting = _ResolvedEndpoint(self.how, host, uri.port)
        endpoint: IStreamClientEndpoint = wrapClientTLS(self.how.tls.of(host), connecting)
        return endpoint


@implementer(IStreamClientEndpoint)
@frozen(eq=False)
class _ResolvedEndpoint:
    """Connects to the first address of a host that takes the connection."""

    how: _Connecting
    host: str
    port: int

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> Any:
        answer = await self.how.resolver.addresses(self.host)
        last: Exception = ConnectError(string=f"{self.host} has no address")
        for address in answer.records[:_MAX_ADDRESSES]:
            endpoint_type = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
            try:
                endpoint = endpoint_type(self.how.reactor, address, self.port, timeout=self.how.timeout)
                protocol: Any = await endpoint.connect(factory)
            except ConnectError as error:
                last = error
            else:
                self.how.opened(protocol.transport)
                return protocol
        raise last


def _read_trust(ca_file: str) -> Any:
    if not ca_file:
        return platformTrust()
    try:
        with open(ca_file, "rb") as file:
            certificates = x509.load_pem_x509_certificates(file.read(MAX_PEM_OCTETS + 1))
    except (OSError, ValueError) as error:
        raise TlsError(f"{ca_file} has no certificates that can be read") from error
    from OpenSSL.crypto import X509

    return trustRootFromCertificates([Certificate(X509.from_cryptography(one)) for one in certificates])
