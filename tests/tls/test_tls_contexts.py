"""Server contexts: handshakes, resumption per listener, reload under open connections. Memory BIOs, no network."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface.verify import verifyObject

from mailsrv.tls.certificates import TlsError, load_certificate
from mailsrv.tls.contexts import ListenerContext, TlsContexts
from mailsrv.tls.self_signed import make_self_signed, write_self_signed
from mailsrv.tls.settings import TlsSettings, TlsVersion


@pytest.fixture
def tls(tmp_path) -> TlsSettings:
    settings = TlsSettings(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    write_self_signed("mail.example.test", settings.certificate, settings.key)
    return settings


def with_changes(tls: TlsSettings, **changes: Any) -> TlsSettings:
    return attrs.evolve(tls, **changes)


class Client:
    """A client that talks to a listener through memory."""

    def __init__(
        self,
        listener: ListenerContext,
        *,
        version: int = 0,
        name: bytes = b"",
        session: Any = None,
        context: Any = None,
    ) -> None:
        if context is None:
            context = SSL.Context(SSL.TLS_CLIENT_METHOD)
            if version:
                context.set_min_proto_version(version)
                context.set_max_proto_version(version)
        self.context = context
        self.client = SSL.Connection(context, None)
        self.client.set_connect_state()
        if name:
            self.client.set_tlsext_host_name(name)
        if session is not None:
            self.client.set_session(session)
        self.server = listener.serverConnectionForTLS(None)  # type: ignore[arg-type]
        self.server.set_accept_state()

    def shake(self) -> Client:
        for _ in range(10):
            done = [self._step(self.client), self._step(self.server)]
            self._carry()
            if all(done):
                break
        else:
            raise AssertionError("no end to the handshake")
        self.say(b"hello")
        return self

    @staticmethod
    def _step(connection: Any) -> bool:
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            return False
        return True

    def _carry(self) -> None:
        for source, target in ((self.client, self.server), (self.server, self.client)):
            while True:
                try:
                    target.bio_write(source.bio_read(65536))
                except SSL.WantReadError:
                    break

    def say(self, octets: bytes) -> None:
        """To the server and back; on the way the client takes in its tickets."""
        self.client.send(octets)
        self._carry()
        assert self.server.recv(65536) == octets
        self.server.send(octets)
        self._carry()
        assert self.client.recv(65536) == octets

    @property
    def serial(self) -> int:
        certificate = self.client.get_peer_certificate()
        assert certificate is not None
        return certificate.get_serial_number()

    @property
    def is_resumed(self) -> bool:
        from cryptography.hazmat.bindings.openssl.binding import Binding

        return bool(Binding.lib.SSL_session_reused(self.server._ssl))

    def again(self, listener: ListenerContext) -> Client:
        """Another connection with this one's session."""
        return Client(listener, context=self.context, session=self.client.get_session()).shake()


def serial_of(path: str) -> int:
    return load_certificate(path, path.replace("cert.pem", "key.pem")).chain[0].serial_number


VERSIONS = [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION]


@pytest.mark.parametrize("version", VERSIONS)
def test_sessions_resume_by_ticket(tls, version):
    listener = TlsContexts(tls).for_listener("imap")
    first = Client(listener, version=version).shake()
    assert not first.is_resumed
    second = first.again(listener)
    assert second.is_resumed
    assert second.again(listener).is_resumed


@pytest.mark.parametrize("version", VERSIONS)
def test_r_tls_3_a_session_of_one_listener_is_not_resumed_at_another(tls, version):
    contexts = TlsContexts(tls)
    first = Client(contexts.for_listener("imap"), version=version).shake()
    assert not first.again(contexts.for_listener("submission")).is_resumed
    assert contexts.for_listener("imap") is contexts.for_listener("imap")


@pytest.mark.parametrize("version", VERSIONS)
def test_resumption_can_be_switched_off(tls, version):
    listener = TlsContexts(with_changes(tls, session_seconds=0)).for_listener("imap")
    first = Client(listener, version=version).shake()
    assert not first.again(listener).is_resumed


def test_old_versions_and_unwanted_ones_are_refused(tls):
    listener = TlsContexts(with_changes(tls, minimum_version=TlsVersion.TLS_1_3)).for_listener("imap")
    assert Client(listener).shake().client.get_protocol_version_name() == "TLSv1.3"
    with pytest.raises(SSL.Error):
        Client(listener, version=SSL.TLS1_2_VERSION).shake()
    with pytest.raises(SSL.Error):
        Client(TlsContexts(tls).for_listener("imap"), version=SSL.TLS1_1_VERSION).shake()


def test_ciphers_of_tls_1_2_have_forward_secrecy(tls):
    client = Client(TlsContexts(tls).for_listener("imap"), version=SSL.TLS1_2_VERSION).shake()
    assert "ECDHE" in (client.client.get_cipher_name() or "")


def test_renegotiation_is_refused(tls):
    client = Client(TlsContexts(tls).for_listener("imap"), version=SSL.TLS1_2_VERSION).shake()
    try:
        client.client.renegotiate()
        client.client.do_handshake()
    except (SSL.Error, SSL.WantReadError):
        pass
    client._carry()
    with pytest.raises(SSL.Error):
        client.server.recv(100)
    assert client.server.total_renegotiations() == 0


# --- reload


def test_r_sighup_reload_shows_the_new_certificate_and_keeps_connections(tls):
    contexts = TlsContexts(tls)
    listener = contexts.for_listener("imap")
    old = Client(listener).shake()
    old_serial = old.serial
    write_self_signed("mail.example.test", tls.certificate, tls.key)
    assert Client(listener).shake().serial == old_serial
    contexts.reload()
    new = Client(listener).shake()
    assert new.serial == serial_of(tls.certificate) != old_serial
    old.say(b"still here")
    assert Client(contexts.for_listener("pop3")).shake().serial == new.serial


def damage(kind: str, tls: TlsSettings, folder: str) -> str:
    """Break a file and answer with its path."""
    key = rsa.generate_private_key(65537, 2048)
    if kind == "certificate missing":
        os.unlink(tls.certificate)
        return tls.certificate
    if kind == "key missing":
        os.unlink(tls.key)
        return tls.key
    if kind == "certificate cut":
        with open(tls.certificate, "r+b") as file:
            file.truncate(100)
        return tls.certificate
    if kind == "certificate empty":
        open(tls.certificate, "w").close()
        return tls.certificate
    if kind == "certificate huge":
        with open(tls.certificate, "ab") as file:
            file.truncate(2 << 20)
        return tls.certificate
    if kind == "key nonsense":
        with open(tls.key, "wb") as file:
            file.write(b"\xff\0")
        return tls.key
    if kind == "key of another":
        octets = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    elif kind == "key with passphrase":
        octets = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    else:
        octets = dsa.generate_private_key(1024).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with open(tls.key, "wb") as file:
        file.write(octets)
    return tls.key


@pytest.mark.parametrize(
    "kind",
    [
        "certificate missing",
        "certificate cut",
        "certificate empty",
        "certificate huge",
        "key missing",
        "key nonsense",
        "key of another",
        "key with passphrase",
        "key of a strange kind",
    ],
)
def test_r_sighup_a_broken_file_is_named_and_the_old_certificate_stays(tls, tmp_path, kind):
    contexts = TlsContexts(tls)
    listener = contexts.for_listener("imap")
    serial = Client(listener).shake().serial
    path = damage(kind, tls, str(tmp_path))
    with pytest.raises(TlsError) as caught:
        contexts.reload()
    assert path in str(caught.value)
    assert Client(listener).shake().serial == serial
    assert Client(contexts.for_listener("later")).shake().serial == serial
    write_self_signed("mail.example.test", tls.certificate, tls.key)
    contexts.reload()
    assert Client(listener).shake().serial != serial


def test_settings_that_cannot_work_are_told_at_the_start(tls):
    with pytest.raises(TlsError, match="not set"):
        TlsContexts(TlsSettings())
    with pytest.raises(TlsError, match="ciphers"):
        TlsContexts(with_changes(tls, ciphers="NONSENSE")).for_listener("imap")


# --- several names


def test_sni_chooses_the_certificate(tls, tmp_path):
    paths: list[str] = []
    for host in ("one.example.org", "*.example.net"):
        certificate, key = make_self_signed(host)
        path = tmp_path / f"{len(paths)}.pem"
        path.write_bytes(key + certificate)
        paths.append(str(path))
    listener = TlsContexts(with_changes(tls, more_certificates=tuple(paths))).for_listener("imap")
    serials = [load_certificate(path, path).chain[0].serial_number for path in paths]
    main = serial_of(tls.certificate)
    for name, expected in (
        (b"one.example.org", serials[0]),
        (b"ONE.example.org", serials[0]),
        (b"x.example.net", serials[1]),
        (b"y.x.example.net", main),
        (b"example.net", main),
        (b"mail.example.test", main),
        (b"", main),
    ):
        client = Client(listener, name=name).shake()
        assert client.serial == expected, name


@pytest.mark.parametrize("version", VERSIONS)
def test_sessions_resume_with_several_certificates(tls, tmp_path, version):
    certificate, key = make_self_signed("one.example.org")
    path = tmp_path / "one.pem"
    path.write_bytes(key + certificate)
    listener = TlsContexts(with_changes(tls, more_certificates=(str(path),))).for_listener("imap")
    first = Client(listener, version=version, name=b"one.example.org").shake()
    second = Client(
        listener, context=first.context, session=first.client.get_session(), name=b"one.example.org"
    ).shake()
    assert second.is_resumed


# --- in Twisted


class Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


def test_twisted_takes_it_for_its_factory(tls):
    listener = TlsContexts(tls).for_listener("imap")
    verifyObject(IOpenSSLServerConnectionCreator, listener)
    factory = TLSMemoryBIOFactory(listener, False, Factory.forProtocol(Echo))
    protocol = factory.buildProtocol(None)
    assert protocol is not None
    transport = StringTransport()
    protocol.makeConnection(transport)
    client = Client(listener)
    for _ in range(4):
        client._step(client.client)
        with contextlib.suppress(SSL.WantReadError):
            protocol.dataReceived(client.client.bio_read(65536))
        if transport.value():
            client.client.bio_write(transport.value())
            transport.clear()
    assert client.client.get_state_string()
    assert client.client.get_protocol_version_name() == "TLSv1.3"


# --- the self-signed certificate


def test_the_self_signed_certificate_names_host_and_loopback(tmp_path):
    certificate, key = tmp_path / "a" / "b" / "cert.pem", tmp_path / "a" / "b" / "key.pem"
    write_self_signed("mail.example.test", str(certificate), str(key))
    loaded = load_certificate(str(certificate), str(key))
    assert loaded.names == ("mail.example.test", "localhost")
    assert loaded.expires > datetime.now(UTC) + timedelta(days=800)
    for path in (certificate, key):
        assert path.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(os.listdir(key.parent)) == ["cert.pem", "key.pem"]
    assert "PRIVATE" not in repr(loaded)


def test_the_standard_library_verifies_it(tmp_path):
    import ssl

    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    write_self_signed("mail.example.test", str(certificate), str(key))
    listener = TlsContexts(TlsSettings(str(certificate), str(key))).for_listener("imap")
    for name in ("mail.example.test", "localhost", "127.0.0.1", "::1"):
        context = ssl.create_default_context(cafile=str(certificate))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname=name)
        server = listener.serverConnectionForTLS(None)  # type: ignore[arg-type]
        server.set_accept_state()
        for _ in range(4):
            for step in (client.do_handshake, server.do_handshake):
                with contextlib.suppress(ssl.SSLWantReadError, SSL.WantReadError):
                    step()
                if outgoing.pending:
                    server.bio_write(outgoing.read())
                with contextlib.suppress(SSL.WantReadError):
                    incoming.write(server.bio_read(65536))
        assert client.version() == "TLSv1.3"


def test_a_certificate_that_ended_is_loaded_with_a_warning(tmp_path):
    certificate, key = make_self_signed("mail.example.test", now=datetime(2020, 1, 1, tzinfo=UTC), valid_days=10)
    (tmp_path / "cert.pem").write_bytes(certificate)
    (tmp_path / "key.pem").write_bytes(key)
    contexts = TlsContexts(TlsSettings(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")))
    assert contexts.expires < datetime.now(UTC)


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TlsError, match="cannot be written"):
        write_self_signed("mail.example.test", str(tmp_path / "file" / "cert.pem"), str(tmp_path / "file" / "key.pem"))
