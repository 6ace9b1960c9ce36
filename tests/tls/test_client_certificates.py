"""Client certificates in the handshake: which are good, what becomes of the others, and that no session carries one."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from OpenSSL import SSL

from mailsrv.tls.certificates import TlsError
from mailsrv.tls.contexts import ListenerContext, TlsContexts
from mailsrv.tls.self_signed import make_self_signed, write_self_signed
from mailsrv.tls.settings import TlsSettings
from mailsrv.wire.client_certificate import CertificateUse, asks_for_certificate, client_certificate
from tests.tls.authority import CLIENT, SERVER, Issued, email, issue, revoke

VERSIONS = [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION]
CA = issue(None, common_name="CA", is_ca=True)
MIDDLE = issue(CA, common_name="middle", is_ca=True)
ELSEWHERE = issue(None, common_name="CA", is_ca=True)
ALICE = issue(CA, email("alice@example.test"))
BOB = issue(MIDDLE, email("bob@example.test"))
REVOKED = issue(CA, email("mallory@example.test"))
BAD = {
    "expired": issue(CA, email("alice@example.test"), from_days=-9, to_days=-1),
    "not valid yet": issue(CA, email("alice@example.test"), from_days=1),
    "of another CA of the same name": issue(ELSEWHERE, email("alice@example.test")),
    "self-signed": issue(None, email("alice@example.test")),
    "for servers": issue(CA, email("alice@example.test"), usages=SERVER),
    "for nothing said": issue(CA, email("alice@example.test"), usages=()),
    "by one that is no CA": issue(ALICE, email("alice@example.test")),
}


class Transport:
    """What a session has."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def getHandle(self) -> Any:
        return self.connection


@pytest.fixture
def tls(tmp_path) -> TlsSettings:
    (tmp_path / "ca.pem").write_bytes(CA.pem)
    settings = TlsSettings(
        str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"), client_ca_file=str(tmp_path / "ca.pem")
    )
    write_self_signed("mail.example.test", settings.certificate, settings.key)
    return settings


def client_context(shown: Issued | None, version: int, *chain: Issued) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    if shown is not None:
        context.use_certificate(shown.certificate)
        context.use_privatekey(shown.key)
        for one in chain:
            context.add_extra_chain_cert(one.certificate)
    return context


class Pair:
    """A client and a listener, through memory."""

    def __init__(self, listener: ListenerContext, context: SSL.Context, *, session: Any = None, name: bytes = b""):
        self.client = SSL.Connection(context, None)
        self.client.set_connect_state()
        if name:
            self.client.set_tlsext_host_name(name)
        if session is not None:
            session._context = context  # somebody has stolen it
            self.client.set_session(session)
        self.server = listener.serverConnectionForTLS(None)  # type: ignore[arg-type]
        self.server.set_accept_state()
        self.refusal: SSL.Error | None = None
        self.alert = ""
        for _ in range(6):
            self._step(self.client.do_handshake)
            self._carry(self.client, self.server)
            self._step(self.server.do_handshake)
            self._carry(self.server, self.client)
        self._step(lambda: self.client.recv(1))

    def _step(self, action: Any) -> None:
        try:
            action()
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            self.refusal = error
            if error.args and error.args[0]:
                self.alert = error.args[0][0][2]

    @staticmethod
    def _carry(source: Any, target: Any) -> None:
        while True:
            try:
                target.bio_write(source.bio_read(65536))
            except SSL.WantReadError:
                return

    @property
    def certificate(self) -> Any:
        return client_certificate(Transport(self.server))


def connect(tls: TlsSettings, shown: Issued | None, version: int, use: CertificateUse, *chain: Issued) -> Pair:
    return Pair(TlsContexts(tls).for_listener("imap", use), client_context(shown, version, *chain))


@pytest.mark.parametrize("use", [CertificateUse.REQUEST, CertificateUse.REQUIRE])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_good_certificate_is_seen(tls, version, use):
    assert connect(tls, ALICE, version, use).certificate == ALICE.certificate
    assert connect(tls, BOB, version, use, MIDDLE).certificate == BOB.certificate


@pytest.mark.parametrize("version", VERSIONS)
def test_who_is_not_asked_shows_none(tls, version):
    pair = connect(tls, ALICE, version, CertificateUse.OFF)
    assert pair.refusal is None
    assert pair.certificate is None
    assert not asks_for_certificate(Transport(pair.server))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_one_is_not_used_where_it_is_requested(tls, version, kind):
    contexts = TlsContexts(tls)
    listener = contexts.for_listener("imap", CertificateUse.REQUEST)
    pair = Pair(listener, client_context(BAD[kind], version))
    assert pair.refusal is None
    assert pair.certificate is None
    assert asks_for_certificate(Transport(pair.server))
    assert (listener.client_certificates.accepted, listener.client_certificates.refused) == (0, 1)
    assert contexts.refused_client_certificates == 1
    Pair(listener, client_context(ALICE, version))
    assert (listener.client_certificates.accepted, listener.client_certificates.refused) == (1, 1)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("kind", "alert"),
    [
        ("expired", "expired"),
        ("not valid yet", "bad certificate"),
        ("of another CA of the same name", "decrypt|bad certificate|unknown ca"),
        ("self-signed", "unknown ca|bad certificate"),
        ("for servers", "unsupported certificate"),
        # OpenSSL has no alert for an objection of ours; the log says what it was.
        ("for nothing said", "internal error"),
        ("by one that is no CA", "unknown ca"),
    ],
)
def test_a_bad_one_ends_the_handshake_where_it_is_required_and_the_alert_says_why(tls, version, kind, alert):
    pair = connect(tls, BAD[kind], version, CertificateUse.REQUIRE)
    assert any(part in pair.alert for part in alert.split("|")), pair.alert
    assert pair.certificate is None


@pytest.mark.parametrize("version", VERSIONS)
def test_none_at_all_is_served_where_it_is_requested_and_refused_where_it_is_required(tls, version):
    requested = connect(tls, None, version, CertificateUse.REQUEST)
    assert requested.refusal is None
    assert requested.certificate is None
    listener = TlsContexts(tls).for_listener("imap", CertificateUse.REQUIRE)
    required = Pair(listener, client_context(None, version))
    assert "handshake failure" in required.alert or "certificate required" in required.alert
    assert (listener.client_certificates.accepted, listener.client_certificates.refused) == (0, 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_missing_intermediate_is_no_trust(tls, version):
    assert connect(tls, BOB, version, CertificateUse.REQUEST).certificate is None


@pytest.mark.parametrize("version", VERSIONS)
def test_an_intermediate_alone_may_be_trusted(tls, tmp_path, version):
    (tmp_path / "ca.pem").write_bytes(MIDDLE.pem)
    assert connect(tls, BOB, version, CertificateUse.REQUIRE).certificate == BOB.certificate
    assert connect(tls, ALICE, version, CertificateUse.REQUEST).certificate is None


@pytest.mark.parametrize("version", VERSIONS)
def test_r_lim_2_a_chain_may_have_eight_intermediates(tls, version):
    chain = [CA]
    for number in range(10):
        chain.append(issue(chain[-1], common_name=f"CA {number}", is_ca=True))
    for count, is_good in ((8, True), (9, False), (8, True)):
        leaf = issue(chain[count], email("alice@example.test"))
        pair = connect(tls, leaf, version, CertificateUse.REQUEST, *chain[count:0:-1])
        assert pair.refusal is None
        assert (pair.certificate is not None) is is_good, count


@pytest.mark.parametrize("version", VERSIONS)
def test_revocation(tls, tmp_path, version):
    path = tmp_path / "crl.pem"
    with_list = attrs.evolve(tls, client_crl_file=str(path))
    path.write_bytes(b"about CA\n" + revoke(CA, REVOKED) + revoke(MIDDLE))
    assert connect(with_list, ALICE, version, CertificateUse.REQUEST).certificate is not None
    assert connect(with_list, BOB, version, CertificateUse.REQUEST, MIDDLE).certificate is not None
    assert connect(with_list, REVOKED, version, CertificateUse.REQUEST).certificate is None
    assert "revoked" in connect(with_list, REVOKED, version, CertificateUse.REQUIRE).alert
    # A list that is too old, or of somebody else, lets nobody in.
    path.write_bytes(revoke(CA, from_days=-9, to_days=-2))
    assert connect(with_list, ALICE, version, CertificateUse.REQUEST).certificate is None
    path.write_bytes(revoke(MIDDLE))
    assert connect(with_list, ALICE, version, CertificateUse.REQUEST).certificate is None
    path.write_bytes(revoke(CA))
    assert connect(with_list, BOB, version, CertificateUse.REQUEST, MIDDLE).certificate is None
    # The CA itself may have taken the intermediate back.
    path.write_bytes(revoke(CA, MIDDLE) + revoke(MIDDLE))
    assert connect(with_list, BOB, version, CertificateUse.REQUEST, MIDDLE).certificate is None


@pytest.mark.parametrize("use", [CertificateUse.REQUEST, CertificateUse.REQUIRE])
@pytest.mark.parametrize("version", VERSIONS)
def test_r_tls_3_no_session_carries_an_identity(tls, version, use):
    contexts = TlsContexts(tls)
    listener = contexts.for_listener("imap", use)
    known = client_context(ALICE, version)
    first = Pair(listener, known)
    session = first.client.get_session()
    assert first.certificate is not None
    # The same session without a certificate, with a bad one, at another listener, at one that does not ask.
    for at, shown in (
        (listener, None),
        (listener, BAD["expired"]),
        (contexts.for_listener("pop3", CertificateUse.REQUEST), None),
        (contexts.for_listener("submission"), ALICE),
    ):
        again = Pair(at, client_context(shown, version), session=session)
        assert again.certificate is None
        assert bool(again.refusal) is (at is listener and use is CertificateUse.REQUIRE)
    same = Pair(listener, known, session=session)
    assert same.certificate == ALICE.certificate
    assert not _is_resumed(same)


def _is_resumed(pair: Pair) -> bool:
    from cryptography.hazmat.bindings.openssl.binding import Binding

    return bool(Binding.lib.SSL_session_reused(pair.server._ssl))


def test_listeners_that_do_not_ask_resume_as_before(tls):
    contexts = TlsContexts(tls)
    contexts.for_listener("imap", CertificateUse.REQUIRE)
    listener = contexts.for_listener("submission")
    context = client_context(None, SSL.TLS1_2_VERSION)
    first = Pair(listener, context)
    assert _is_resumed(Pair(listener, context, session=first.client.get_session()))


@pytest.mark.parametrize("version", VERSIONS)
def test_with_several_server_certificates_the_client_is_verified_all_the_same(tls, tmp_path, version):
    certificate, key = make_self_signed("one.example.org")
    (tmp_path / "one.pem").write_bytes(key + certificate)
    contexts = TlsContexts(attrs.evolve(tls, more_certificates=(str(tmp_path / "one.pem"),)))
    listener = contexts.for_listener("imap", CertificateUse.REQUEST)
    good = Pair(listener, client_context(ALICE, version), name=b"one.example.org")
    assert "one.example.org" in str(good.client.get_peer_certificate(as_cryptography=True).subject)  # type: ignore[union-attr]
    assert good.certificate == ALICE.certificate
    bad = Pair(listener, client_context(BAD["self-signed"], version), name=b"one.example.org")
    assert bad.refusal is None
    assert bad.certificate is None


@pytest.mark.parametrize("version", VERSIONS)
def test_r_sighup_reload_reads_issuers_and_lists_again(tls, tmp_path, version):
    path = tmp_path / "crl.pem"
    path.write_bytes(revoke(CA))
    settings = attrs.evolve(tls, client_crl_file=str(path))
    contexts = TlsContexts(settings)
    listener = contexts.for_listener("imap", CertificateUse.REQUEST)
    old = Pair(listener, client_context(ALICE, version))
    path.write_bytes(revoke(CA, ALICE))
    assert Pair(listener, client_context(ALICE, version)).certificate is not None
    contexts.reload()
    assert Pair(listener, client_context(ALICE, version)).certificate is None
    assert old.certificate is not None
    (tmp_path / "ca.pem").write_bytes(ELSEWHERE.pem)
    contexts.reload(attrs.evolve(settings, client_crl_file=""))
    other = BAD["of another CA of the same name"]
    assert Pair(listener, client_context(other, version)).certificate == other.certificate
    for name in ("ca.pem", "crl.pem"):
        (tmp_path / name).write_bytes(b"nonsense")
    with pytest.raises(TlsError, match=r"ca\.pem"):
        contexts.reload()
    (tmp_path / "ca.pem").write_bytes(CA.pem)
    with pytest.raises(TlsError, match=r"crl\.pem"):
        contexts.reload(settings)
    path.write_bytes(b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
    with pytest.raises(TlsError, match=r"crl\.pem"):
        contexts.reload(settings)
    with pytest.raises(TlsError, match="client_ca_file"):
        contexts.reload(attrs.evolve(tls, client_ca_file=""))
    assert Pair(listener, client_context(other, version)).certificate is not None


def test_files_that_are_not_there_are_named(tls, tmp_path):
    with pytest.raises(TlsError, match=r"none\.pem"):
        TlsContexts(attrs.evolve(tls, client_ca_file=str(tmp_path / "none.pem")))
    with pytest.raises(TlsError, match="client_ca_file"):
        TlsContexts(attrs.evolve(tls, client_ca_file="")).for_listener("imap", CertificateUse.REQUEST)


def test_a_hostile_subject_is_logged_as_one_line(tls):
    hostile = issue(None, email("alice@example.test"), common_name="a\r\nadmin logged in", usages=CLIENT)
    assert connect(tls, hostile, SSL.TLS1_3_VERSION, CertificateUse.REQUEST).certificate is None


def test_a_transport_without_tls_has_no_certificate():
    assert client_certificate(object()) is None
    assert client_certificate(Transport(None)) is None
    assert client_certificate(Transport(object())) is None
