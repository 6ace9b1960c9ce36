"""BINARYMIME (RFC 3030) through the whole server: in by BDAT, into the mailbox, out by IMAP; nothing is mended."""

from __future__ import annotations

import smtplib

import pytest

from tests.scenarios.conftest import MakeServer
from tests.scenarios.server import BOB, WholeServer

pytestmark = pytest.mark.slow

PAYLOAD = b"one\ntwo\rthree\r\n\n\r\xff\xfe" + bytes(range(1, 256)) * 20
MESSAGE = (
    b"From: <a@example.org>\r\nSubject: binary\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n" + PAYLOAD
)


def send_chunks(server: WholeServer, octets: bytes) -> None:
    with smtplib.SMTP("localhost", server.ports["mx"], timeout=30) as client:
        client.ehlo()
        assert client.has_extn("chunking")
        assert client.has_extn("binarymime")
        assert client.mail("a@example.org", ["BODY=BINARYMIME"])[0] == 250
        assert client.rcpt(BOB)[0] == 250
        for start in range(0, len(octets), 1000):
            chunk = octets[start : start + 1000]
            last = b" LAST" if start + 1000 >= len(octets) else b""
            client.send(b"BDAT %d%b\r\n%b" % (len(chunk), last, chunk))
            assert client.getreply()[0] == 250


def read(server: WholeServer) -> tuple[bytes, bytes, bytes]:
    """BODY[TEXT], the whole message, and what FETCH says of it."""
    with server.imap(BOB) as client:
        client.select(readonly=True)
        said = client.fetch("1", "(RFC822.SIZE BODYSTRUCTURE)")[1][0]
        whole = client.fetch("1", "(BODY.PEEK[])")[1][0]
        text = client.fetch("1", "(BODY.PEEK[TEXT])")[1][0]
        assert isinstance(said, bytes)
        assert isinstance(whole, tuple)
        assert isinstance(text, tuple)
        return text[1], whole[1], said


def test_binary_mail_stays_as_it_came(make_server: MakeServer) -> None:
    server = make_server(sections={"smtp": "greeting_delay_seconds = 0.0"})
    server.start()
    send_chunks(server, MESSAGE)
    text, whole, said = read(server)
    assert text == PAYLOAD
    assert whole.endswith(MESSAGE)
    assert b"RFC822.SIZE %d" % len(whole) in said
    server.restart()
    assert read(server) == (text, whole, said)
    server.stop()
    server.check_log()
