"""R-SMTP-1, R-SMTP-7: the matrix of end-of-data forms, at every cut, with and without TLS: never two messages."""

from __future__ import annotations

import itertools

import pytest

from mailsrv.smtp.settings import Service
from mailsrv.wire.tls_mode import TlsMode
from tests.smtp.smtp_harness import make_server

BREAKS = [b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\r"]
FORMS = [
    before + dot + after
    for before, dot, after in itertools.product(BREAKS, [b".", b".\0"], [*BREAKS, b"\0\r\n", b" \r\n"])
    if b"\r\n.\r\n" not in before + dot + after
]
SMUGGLED = b"MAIL FROM:<evil@example.test>\r\nRCPT TO:<victim@example.test>\r\nDATA\r\nsmuggled\r\n"


def test_the_matrix_is_large_enough():
    assert len(FORMS) >= 40


@pytest.mark.parametrize("is_tls", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["clear", "tls"])
@pytest.mark.parametrize("service", [Service.MX, Service.LMTP, Service.SUBMISSION], ids=lambda service: service.value)
@pytest.mark.parametrize("form", FORMS, ids=repr)
def test_r_smtp_1_one_message_or_none(form, service, is_tls):
    text = b"Subject: one\r\n\r\nbody" + form + SMUGGLED + b".\r\n"
    server = make_server(
        service=service, tls_mode=TlsMode.IMPLICIT if is_tls else TlsMode.STARTTLS, plaintext=("127.0.0.0/8",)
    )
    hello = "LHLO c" if service is Service.LMTP else "EHLO c"
    log_in = ["AUTH PLAIN AGFsaWNlAHNlY3JldA=="] if service is Service.SUBMISSION else []
    is_bare = bool(set(form.replace(b"\r\n", b"")) & set(b"\r\n"))
    has_bare_cr = b"\r" in form.replace(b"\r\n", b"")
    is_refused = has_bare_cr if service is Service.SUBMISSION else is_bare
    start = len(b"Subject: one\r\n\r\nbod")
    for cut in range(start, start + len(form) + 4):
        server.receiver.messages.clear()
        client = server.connect(is_tls=is_tls).begin(
            hello, *log_in, "MAIL FROM:<a@b>", "RCPT TO:<jones@example.test>", "DATA"
        )
        answer = client.say(text[:cut]) + client.say(text[cut:])
        assert answer.count(b"\r\n") == 1
        assert client.transport.disconnecting is is_refused
        if is_refused:
            assert answer.startswith(b"550 5.5.2 ")
            assert server.receiver.messages == []
        else:
            assert answer.startswith(b"250 2.6.0 ")
            [message] = server.receiver.messages
            assert [str(recipient) for recipient in message.recipients] == ["jones@example.test"]
            assert message.content.count(b"smuggled") == 1
            assert b"\n" not in message.content.replace(b"\r\n", b"")
        client.transport.close_from_client()
    assert server.connections.total == 0
