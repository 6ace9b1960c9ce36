"""HTTPS on loopback: verified, bounded, and without any of the web's comforts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IPullProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase
from twisted.web.client import FileBodyProducer, RequestTransmissionFailed, ResponseFailed
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

from mailsrv.interfaces.resolver import DnsFailure
from mailsrv.testing.resolver import MemoryResolver
from mailsrv.tls.certificates import TlsError
from mailsrv.tls.https import HttpsAnswer, HttpsClient, HttpsError
from tests.tls.issued import CA, HOST, LEAF, MIDDLE, server_context

reactor: Any = _reactor


class Page(Resource):
    """One page that behaves as its path says."""

    isLeaf = True

    def __init__(self, ended: Deferred[None]) -> None:
        super().__init__()
        self.ended = ended

    def render_GET(self, request: Request) -> bytes | int:
        if request.path == b"/silent":
            return NOT_DONE_YET
        if request.path == b"/begun":
            request.setHeader(b"Content-Type", b"text/plain")
            request.notifyFinish().addBoth(lambda _: self.ended.callback(None))
            request.write(b"x")
            return NOT_DONE_YET
        if request.path == b"/cut":
            request.setHeader(b"Content-Length", b"5000")
            request.write(b"x")
            request.loseConnection()
            return NOT_DONE_YET
        if request.path == b"/endless":
            request.notifyFinish().addBoth(lambda _: self.ended.callback(None))
            request.registerProducer(Endless(request), False)
            return NOT_DONE_YET
        if request.path == b"/elsewhere":
            request.redirect(b"/plain")
            return b""
        if request.path == b"/packed":
            request.setHeader(b"Content-Encoding", b"gzip")
        request.setHeader(b"Content-Type", b"Text/Plain; charset=utf-8")
        return b"x" * 5000

    def render_POST(self, request: Request) -> bytes:
        content: Any = request.content
        if request.path == b"/headers":
            names = ("Accept", "Authorization", "Content-Type", "Content-Length")
            return b"|".join(request.getHeader(name.encode()) or b"" for name in names)
        body: bytes = content.read()
        return body[::-1]


class OldServer(Protocol):
    """HTTP/1.0, which says nothing of lengths: the end of the connection is the end of the answer."""

    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold")
        transport.loseConnection()


@implementer(IPullProducer)
class Endless:
    """A body of which there is always more."""

    def __init__(self, request: Request) -> None:
        self.request = request

    def resumeProducing(self) -> None:
        self.request.write(b"x" * 1000)

    def stopProducing(self) -> None:
        """The client has gone."""


@implementer(IOpenSSLServerConnectionCreator)
class ServerContext:
    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return SSL.Connection(server_context(LEAF, MIDDLE), None)


class HttpsTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.ended: Deferred[None] = Deferred()
        self.port = reactor.listenSSL(0, Site(Page(self.ended)), ServerContext(), interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.resolver = MemoryResolver(failures={"broken.test"})
        self.resolver.add_addresses(HOST, "127.0.0.1")
        self.resolver.add_addresses("other.example.test", "127.0.0.1")
        path = Path(self.mktemp())
        path.write_bytes(CA.certificate.public_bytes(Encoding.PEM))
        self.client = HttpsClient(reactor, self.resolver, str(path))

    def ask(self, path: str, host: str = HOST, client: HttpsClient | None = None, **more: Any) -> Deferred[HttpsAnswer]:
        url = f"https://{host}:{self.port.getHost().port}/{path}"
        options: dict[str, Any] = {"timeout": 20.0, "max_octets": 5000, **more}
        return Deferred.fromCoroutine((client or self.client).request(options.pop("method", "GET"), url, **options))

    async def test_a_page(self) -> None:
        answer = await self.ask("plain")
        assert (answer.status, answer.media_type, len(answer.body)) == (200, "text/plain", 5000)

    async def test_hosts_asked_before_are_verified_as_at_first(self) -> None:
        for _ in range(2):
            assert (await self.ask("plain")).status == 200
            with pytest.raises(ResponseFailed):
                await self.ask("plain", "other.example.test")
        for number in range(10):
            self.resolver.add_addresses(f"host{number}.example.test", "127.0.0.1")
            with pytest.raises(ResponseFailed):
                await self.ask("plain", f"host{number}.example.test")
        assert (await self.ask("plain")).status == 200

    async def test_redirects_are_not_followed(self) -> None:
        assert (await self.ask("elsewhere")).status == 302

    async def test_bounds(self) -> None:
        with pytest.raises(HttpsError, match="more than 4999"):
            await self.ask("plain", max_octets=4999)
        with pytest.raises(HttpsError, match="coding"):
            await self.ask("packed")
        with pytest.raises(HttpsError, match="within"):
            await self.ask("silent", timeout=0.2)
        with pytest.raises(HttpsError, match="within"):
            await self.ask("begun", timeout=0.3)
        # Its connection was closed, or the server's side would still be there when the test ends.
        await self.ended

    async def test_a_body_without_end_is_left_at_the_bound(self) -> None:
        with pytest.raises(HttpsError, match="more than 4500"):
            await self.ask("endless", max_octets=4500)
        await self.ended

    async def test_a_body_that_is_cut_off_is_no_answer(self) -> None:
        with pytest.raises(ResponseFailed):
            await self.ask("cut")

    async def test_a_body_without_length_ends_with_the_connection(self) -> None:
        await self.port.stopListening()
        self.port = reactor.listenSSL(0, Factory.forProtocol(OldServer), ServerContext(), interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        assert (await self.ask("old")).body == b"old"

    async def test_certificates_are_verified(self) -> None:
        for host, client in (
            ("other.example.test", self.client),
            (HOST, HttpsClient(reactor, self.resolver)),
        ):
            with pytest.raises(ResponseFailed):
                await self.ask("plain", host, client)

    async def test_names_are_found_by_our_resolver(self) -> None:
        with pytest.raises(DnsFailure):
            await self.ask("plain", "broken.test")
        with pytest.raises(Exception, match="has no address"):
            await self.ask("plain", "nowhere.test")

    async def test_a_body_is_sent(self) -> None:
        from io import BytesIO

        answer = await self.ask("post", method="POST", body=FileBodyProducer(BytesIO(b"report")), content_type="a/b")
        assert answer.body == b"troper"

    async def test_what_may_be_said_besides(self) -> None:
        answer = await self.ask(
            "headers", method="POST", body=b"x=y", accept="a/b", authorization="Basic eDp5", content_type="c/d"
        )
        assert answer.body == b"a/b|Basic eDp5|c/d|3"
        answer = await self.ask("headers", method="POST", body=b"")
        assert answer.body == b"|||0"

    async def test_nothing_that_was_sent_is_in_an_error(self) -> None:
        for host in (HOST, "other.example.test", "nowhere.test"):
            with pytest.raises((HttpsError, RequestTransmissionFailed, ResponseFailed, ConnectError)) as caught:
                await self.ask("silent", host, method="GET", timeout=0.2, authorization="Basic c2VjcmV0", body=b"token")
            assert "c2VjcmV0" not in repr(caught.value)
            assert "token" not in repr(caught.value)

    def test_a_file_without_certificates(self) -> None:
        with pytest.raises(TlsError):
            HttpsClient(reactor, self.resolver, "/nonexistent/ca.pem")
