"""We hand mail to Postfix, Exim and OpenSMTPD: relayed, with notices, extensions and TLS."""

from __future__ import annotations

import smtplib
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dkim  # type: ignore[import-untyped]
import pytest
from attrs import frozen

from mailsrv.mailauth.key_store import KeyState, KeyStore
from mailsrv.mailauth.keys import Algorithm, SigningKey
from tests.interop.peers.exim import Exim
from tests.interop.peers.opensmtpd import OpenSmtpd
from tests.interop.peers.peer import DOMAIN, HOSTNAME, REJECTED, Peer
from tests.interop.peers.postfix import Postfix
from tests.interop.peers.smuggling import ENDS, Login, accepted_messages, names
from tests.interop.running import ALICE, MailServer

pytestmark = pytest.mark.slow

PEERS = (Postfix, Exim, OpenSmtpd)
SOMEONE = f"someone@{DOMAIN}"


@frozen
class Pair:
    """Our server, and a peer that takes all mail for peer.test and hands everything else back to us."""

    server: MailServer
    peer: Peer
    keys: tuple[SigningKey, ...] = ()

    def submit(
        self, recipient: str, message: bytes, *, mail_options: tuple[str, ...] = (), rcpt_options: tuple[str, ...] = ()
    ) -> None:
        """As Alice."""
        with smtplib.SMTP("localhost", self.server.ports["submission"], timeout=30) as client:
            client.starttls(context=ssl.create_default_context(cafile=self.server.certificate))
            client.login(ALICE, self.server.password)
            assert client.sendmail(ALICE, [recipient], message, mail_options, rcpt_options) == {}


def letter(subject: str, body: bytes = b"Hello\r\n", recipient: str = SOMEONE) -> bytes:
    return f"From: {ALICE}\r\nTo: {recipient}\r\nSubject: {subject}\r\n\r\n".encode() + body


def start_pair(folder: Path, peer: Peer, *, tables: str = "", trusted: Path | None = None) -> MailServer:
    """The server is started, then the peer; both have to be stopped. ``trusted`` instead of the peer's certificate."""
    server = MailServer(
        folder,
        sections={
            "smtp": "greeting_delay_seconds = 0.0",
            "queue.retry": "first_seconds = 1.0\nlongest_seconds = 2.0",
            "tls_client": f'ca_file = "{trusted or peer.certificate}"',
        },
        extra=f'[[route]]\nto = "{DOMAIN}"\nvia = "smtp:127.0.0.1:{peer.port}"\n\n{tables}',
    )
    try:
        server.start()
        peer.relay_port = server.ports["mx"]
        peer.start()
    except BaseException:
        server.kill()
        raise
    return server


def new_signing_keys(state_dir: Path) -> tuple[SigningKey, ...]:
    """Of Alice's domain, one of each kind."""
    store = KeyStore(str(state_dir / "dkim"))
    return tuple(
        store.new("example.test", kind.value, kind, bits=2048, state=KeyState.ACTIVE, seconds=0).key
        for kind in Algorithm
    )


@pytest.fixture(scope="module", params=PEERS, ids=lambda peer: str(peer.name))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    peer: Peer = request.param()
    try:
        folder = tmp_path_factory.mktemp("relay")
        keys = new_signing_keys(folder / "state")
        server = start_pair(folder, peer)
        with server_running(server):
            yield Pair(server, peer, keys)
    finally:
        peer.stop()


class server_running:
    """Stops it in good order where the tests went well."""

    def __init__(self, server: MailServer) -> None:
        self._server = server

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._server.stop()
            self._server.check_log()
        else:
            self._server.kill()


def test_mail_is_relayed_over_tls_where_it_is_offered(pair: Pair) -> None:
    body = b"First line.\r\n.dot\r\n\r\n..\r\n. \r\n" + b"x" * 900 + b"\r\n"
    pair.submit(SOMEONE, letter("relayed", body))
    message = pair.peer.wait_for(b"Subject: relayed")
    assert message.partition(b"\r\n\r\n")[2] == body
    received = message.partition(b"Received:")[2].partition(b"Received:")[0].lower()
    assert (b"esmtps" in received) is pair.peer.offers_starttls


def test_signatures_survive_the_way(pair: Pair) -> None:
    pair.submit(SOMEONE, letter("signed  twice ", b"Hello \t world  \r\n.dot\r\n\r\n\r\n"))
    message = pair.peer.wait_for(b"Subject: signed")
    judge = dkim.DKIM(message, minkey=2048)
    records = {f"{key.record_name}.".encode(): key.record.encode() for key in pair.keys}
    assert all(judge.verify(index, dnsfunc=lambda name, timeout: records[name]) for index in range(2))


def test_a_large_message_with_8_bit_lines_comes_whole(pair: Pair) -> None:
    body = b"".join(b"%06d %s\r\n" % (number, "Grüße ".encode() * 10) for number in range(20_000))
    message = letter("large", body).replace(
        b"Subject:", b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nSubject:"
    )
    pair.submit(SOMEONE, message, mail_options=("BODY=8BITMIME",))
    assert pair.peer.wait_for(b"Subject: large").partition(b"\r\n\r\n")[2] == body


def test_chunking_is_used_where_it_is_offered(pair: Pair) -> None:
    pair.submit(SOMEONE, letter("chunked"))
    message = pair.peer.wait_for(b"Subject: chunked")
    assert message.endswith(b"\r\n\r\nHello\r\n")
    if isinstance(pair.peer, Postfix):
        pair.server.stop()
        pair.peer.wait_for_log(" bdat=")
        pair.server.start()


def test_many_messages_and_recipients_come_once(pair: Pair) -> None:
    for number in range(30):
        pair.submit(f"many{number}@{DOMAIN}", letter(f"many {number:02d}."))
    for number in range(30):
        pair.peer.wait_for(f"Subject: many {number:02d}.".encode())
    assert sum(b"Subject: many " in message for message in pair.peer.messages()) == 30


def test_a_refused_recipient_comes_back_as_a_notice(pair: Pair) -> None:
    pair.submit(
        REJECTED,
        letter("refused", b"secret body\r\n"),
        mail_options=("RET=HDRS", "ENVID=QQ314159"),
        rcpt_options=("NOTIFY=FAILURE", f"ORCPT=rfc822;original@{DOMAIN}"),
    )
    notice = wait_for_notice(pair.server, b"QQ314159")
    assert b"multipart/report" in notice
    assert b"Action: failed" in notice
    assert b"Original-Envelope-Id: QQ314159" in notice
    assert f"original-recipient:rfc822;original@{DOMAIN}".encode() in notice.lower().replace(b" ", b"")
    assert b"550" in notice
    assert b"Subject: refused" in notice
    assert b"secret body" not in notice


def test_success_is_told_by_who_delivers(pair: Pair) -> None:
    pair.submit(SOMEONE, letter("told"), rcpt_options=("NOTIFY=SUCCESS",), mail_options=("ENVID=QQ271828",))
    pair.peer.wait_for(b"Subject: told")
    # Only Postfix repeats the ENVID.
    notice = wait_for_notice(pair.server, b"QQ271828" if isinstance(pair.peer, Postfix) else b"Subject: told")
    assert b"Action: delivered" in notice


def wait_for_notice(server: MailServer, text: bytes) -> bytes:
    """A report in Alice's INBOX with this text."""
    found: list[bytes] = []

    def has_come() -> bool:
        found[:] = [each for each in server.messages(ALICE) if text in each and b"delivery-status" in each]
        return bool(found)

    wait_until(has_come, lambda: "\n".join(event["text"] for event in server.events_with("status=")))
    return found[0]


def wait_until(condition: Callable[[], bool], told: Callable[[], str], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.1)


def test_smtputf8_goes_where_it_is_offered_and_comes_back_elsewhere(pair: Pair) -> None:
    address = f"grüße@{DOMAIN}"
    message = letter("to everybody ü", recipient=address)
    with smtplib.SMTP("localhost", pair.server.ports["submission"], timeout=30) as client:
        client.starttls(context=ssl.create_default_context(cafile=pair.server.certificate))
        client.login(ALICE, pair.server.password)
        client.ehlo()
        client.command_encoding = "utf-8"
        client.sendmail(ALICE, [address], message, ("SMTPUTF8", "BODY=8BITMIME"))
    if pair.peer.offers_smtputf8:
        assert "Subject: to everybody ü".encode() in pair.peer.wait_for(b"to everybody")
    else:
        notice = wait_for_notice(pair.server, b"5.6.7")
        assert "grüße".encode() in notice


@pytest.mark.parametrize("chunking", [False, True], ids=["data", "bdat"])
def test_r_smtp_3_they_see_as_many_messages_as_we_took(pair: Pair, chunking: bool) -> None:
    kind = "bdat" if chunking else "data"
    login = Login(ALICE, pair.server.password)
    port = pair.server.ports["submission"]
    expected: dict[str, int] = {}
    for number, end in enumerate(ENDS):
        token = f"{kind}{number:02d}."
        count = accepted_messages(port, ALICE, SOMEONE, end, token, login=login, chunking=chunking)
        assert count in {0, 1}, f"we took {end!r} for an end of data"
        expected[token] = count
    last = f"{kind}last."
    assert accepted_messages(port, ALICE, SOMEONE, b"\r\n", last, login=login, chunking=chunking) == 1
    expected[last] = 1

    def found() -> dict[str, int]:
        headers = [message.partition(b"\r\n\r\n")[0] for message in pair.peer.messages()]
        return {
            token: sum(
                header.count(subject + b"\r\n") + header.endswith(subject)
                for header in headers
                for subject in names(token)
            )
            for token in expected
        }

    wait_until(lambda: found() == expected, lambda: f"{expected}\n{found()}\n{pair.peer.log()[-6000:]}")
    assert sum(expected.values()) > 3


# TLS

VERIFIED = f'[[tls_policy]]\ndomain = "*"\nlevel = "verify"\nnames = ["{HOSTNAME}"]\n'


@pytest.mark.parametrize("peer_type", [Postfix, Exim], ids=lambda peer: str(peer.name))
def test_a_certificate_is_verified_where_it_must_be(peer_type: type[Peer], tmp_path: Path) -> None:
    peer = peer_type()
    try:
        server = start_pair(tmp_path, peer, tables=VERIFIED)
        with server_running(server):
            Pair(server, peer).submit(SOMEONE, letter("verified"))
            assert b"esmtps" in peer.wait_for(b"Subject: verified").lower()
    finally:
        peer.stop()


def test_nothing_is_sent_to_a_peer_with_another_certificate(tmp_path: Path) -> None:
    peer, other = Postfix(), Postfix()
    try:
        # What we trust is the certificate of another server of the same name.
        server = start_pair(tmp_path, peer, tables=VERIFIED, trusted=other.certificate)
        with server_running(server):
            Pair(server, peer).submit(SOMEONE, letter("never seen"))
            [event] = server.wait_for_event("status=deferred", 20)
            assert "certificate" in event["text"]
            assert peer.messages() == []
    finally:
        peer.stop()
        other.stop()
