"""Postfix, Exim and OpenSMTPD hand mail to us and take it from us."""

from __future__ import annotations

import smtplib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.peers.exim import Exim
from tests.interop.peers.opensmtpd import OpenSmtpd
from tests.interop.peers.peer import DOMAIN, Peer
from tests.interop.peers.postfix import Postfix
from tests.interop.peers.smuggling import ENDS, accepted_messages, names
from tests.interop.running import ALICE, BOB, MailServer

pytestmark = pytest.mark.slow

STRANGER = "someone@example.org"
PEERS = (Postfix, Exim, OpenSmtpd)


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    server = MailServer(tmp_path_factory.mktemp("peers"), sections={"smtp": "greeting_delay_seconds = 0.0"})
    with server:
        yield server
    server.check_log()


@pytest.fixture(params=PEERS, ids=lambda peer: str(peer.name))
def sender(request: pytest.FixtureRequest, receiver: MailServer) -> Iterator[Peer]:
    """A peer that hands everything on to our MX."""
    with request.param(relay_port=receiver.ports["mx"]) as peer:
        yield peer


def subjects(server: MailServer, token: str) -> list[bytes]:
    """Of Bob's messages, the subject fields with this word."""
    found = []
    with server.imap(BOB) as client:
        client.select("INBOX", readonly=True)
        _, numbers = client.search(None, "SUBJECT", token)
        for number in numbers[0].split():
            part = client.fetch(number, "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1][0]
            assert isinstance(part, tuple)
            found.append(part[1].strip())
    return found


def wait_until(condition: Callable[[], bool], told: Callable[[], str], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)


# From them to us


def test_their_sendmail_delivers_to_us(sender: Peer, receiver: MailServer) -> None:
    subject = f"by {sender.name}"
    body = "First line.\n.dot\n\n..\n. \nGrüße\n" + "x" * 900 + "\n"
    text = f"From: {STRANGER}\nTo: {BOB}\nSubject: {subject}\nContent-Type: text/plain; charset=utf-8\n\n{body}"
    sender.send(STRANGER, [BOB], text.encode())
    message = receiver.wait_for_subject(BOB, subject)
    assert message.partition(b"\r\n\r\n")[2] == body.replace("\n", "\r\n").encode()


def test_their_sendmail_uses_tls(receiver: MailServer) -> None:
    for peer_type in PEERS:
        with peer_type(relay_port=receiver.ports["mx"], relay_tls=True) as peer:
            subject = f"encrypted {peer.name}"
            peer.send(STRANGER, [BOB], f"From: {STRANGER}\nSubject: {subject}\n\nHi\n".encode())
            message = receiver.wait_for_subject(BOB, subject)
            assert b"with ESMTPS" in message
            assert b"TLSv1.3" in message


def test_a_recipient_we_refuse_comes_back_to_them(sender: Peer, receiver: MailServer) -> None:
    sender.send(f"back@{DOMAIN}", [f"nobody@{BOB.partition('@')[2]}"], b"Subject: never\n\nHi\n")
    notice = sender.wait_for(b"5.1.1")
    assert b"multipart/report" in notice or b"failed" in notice.lower()


def test_a_large_message_comes_whole(sender: Peer, receiver: MailServer) -> None:
    body = b"".join(b"%06d %s\n" % (number, b"y" * 60) for number in range(30_000))
    sender.send(STRANGER, [BOB], b"From: %b\nSubject: large %b\n\n" % (STRANGER.encode(), sender.name.encode()) + body)
    message = receiver.wait_for_subject(BOB, f"large {sender.name}")
    assert message.partition(b"\r\n\r\n")[2] == body.replace(b"\n", b"\r\n")


@pytest.mark.parametrize("chunking", [False, True], ids=["data", "bdat"])
def test_r_smtp_1_we_see_as_many_messages_as_they_sent(sender: Peer, receiver: MailServer, chunking: bool) -> None:
    if chunking and not sender.offers_chunking:
        assert b"chunking" not in _capabilities(sender.port)
        return
    kind = f"{sender.name}{'bdat' if chunking else 'data'}"
    expected: dict[str, int] = {}
    for number, end in enumerate(ENDS):
        token = f"{kind}{number:02d}"
        expected[token] = accepted_messages(sender.port, STRANGER, BOB, end, token, chunking=chunking)
    last = f"{kind}last"
    assert accepted_messages(sender.port, STRANGER, BOB, b"\r\n", last) == 1
    expected[last] = 1

    def found() -> dict[str, int]:
        got = subjects(receiver, kind)
        return {token: sum(subject in got for subject in names(token)) for token in expected}

    def kept_out() -> int:
        """Messages in which a lone CR or LF came to us: we refuse these and end the connection.

        OpenSMTPD then tries again after five seconds, and what it was about to send next after minutes.
        """
        refusals = ("status=bounced", "PermFail", " ** ")
        return sum(
            ("Bare carriage" in line and any(sign in line for sign in refusals))
            or ("TempFail" in line and "closed unexpectedly" in line)
            for line in sender.log().splitlines()
        )

    def told() -> str:
        return f"{expected}\n{found()}\n{sender.log()[-8000:]}"

    total = sum(expected.values())
    wait_until(lambda: len(subjects(receiver, kind)) + kept_out() >= total, told, seconds=60)
    assert len(subjects(receiver, kind)) + kept_out() == total, told()
    assert all(found()[token] <= count for token, count in expected.items()), told()
    assert found()[last] == 1
    assert sum(expected.values()) > len(expected) // 2


def _capabilities(port: int) -> bytes:
    with smtplib.SMTP("127.0.0.1", port) as client:
        return client.ehlo()[1].lower()


# From us to them


def test_smtplib_hands_mail_to_them() -> None:
    """The peers themselves: what the tests below rely on."""
    for peer_type in PEERS:
        with peer_type() as peer:
            with smtplib.SMTP("127.0.0.1", peer.port) as client:
                client.ehlo()
                assert client.has_extn("dsn") is peer.offers_dsn
                assert client.has_extn("chunking") is peer.offers_chunking
                assert client.has_extn("smtputf8") is peer.offers_smtputf8
                assert client.has_extn("starttls") is peer.offers_starttls
                client.sendmail(ALICE, [f"someone@{DOMAIN}"], "Subject: from smtplib\r\n\r\nHello\r\n.dot\r\n")
                with pytest.raises(smtplib.SMTPRecipientsRefused, match="550"):
                    client.sendmail(ALICE, [f"reject@{DOMAIN}"], "Subject: never\r\n\r\n")
            assert b"\r\nHello\r\n.dot\r\n" in peer.wait_for(b"Subject: from smtplib")


def test_a_peer_whose_tls_is_broken_gets_mail_all_the_same(tmp_path: Path) -> None:
    """RFC 7435: opportunistic TLS that fails is no reason to fail. (Newer ones can do it, and then it is used.)"""
    with OpenSmtpd(broken_tls=True) as peer:
        server = MailServer(
            tmp_path,
            sections={"smtp": "greeting_delay_seconds = 0.0"},
            extra=f'[[route]]\nto = "{DOMAIN}"\nvia = "smtp:127.0.0.1:{peer.port}"\n',
        )
        with server:
            server.submit(ALICE, f"someone@{DOMAIN}", f"From: {ALICE}\r\nSubject: all the same\r\n\r\nHi\r\n".encode())
            assert peer.wait_for(b"Subject: all the same")
