"""The seam between delivery and DKIM: whose mail is signed, and where the work is done."""

from __future__ import annotations

import dkim  # type: ignore[import-untyped]
import pytest
from twisted.internet.defer import Deferred, succeed

from mailsrv.coroutines import run_coroutine
from mailsrv.delivery.signing import MessageSigner, author_domain
from mailsrv.mailauth.keys import Algorithm, SigningKey, new_private_key
from mailsrv.mailauth.settings import DkimSettings

SMALL = SigningKey("example.test", "s1", new_private_key(Algorithm.ED25519))
LARGE = SigningKey("example.org", "s2", new_private_key(Algorithm.RSA, 4096))
MESSAGE = b"From: Alice <alice@Example.Test>\r\nSubject: hello\r\n\r\nHello\r\n"


def signer(calls: list | None = None) -> MessageSigner:
    def in_thread(function, *arguments) -> Deferred:
        if calls is not None:
            calls.append(function)
        return succeed(function(*arguments))

    keys = {key.domain: (key,) for key in (SMALL, LARGE)}
    return MessageSigner(DkimSettings(), keys, seconds=lambda: 1_700_000_000.5, run_in_thread=in_thread)


def sign(message: bytes, calls: list | None = None) -> bytes:
    results: list[bytes] = []
    run_coroutine(signer(calls).sign(message)).addCallback(results.append)
    return results[0]


def find_record(name: bytes, timeout: int = 5) -> bytes:
    return next(key.record.encode() for key in (SMALL, LARGE) if f"{key.record_name}.".encode() == name)


def test_small_keys_sign_at_once_and_large_ones_in_a_thread():
    for message, expected in ((MESSAGE, 0), (MESSAGE.replace(b"Test", b"ORG"), 1)):
        calls: list = []
        result = sign(message, calls)
        assert len(calls) == expected
        assert result.endswith(message)
        assert dkim.DKIM(result).verify(dnsfunc=find_record)


@pytest.mark.parametrize(
    "message",
    [
        b"From: a@elsewhere.test\r\n\r\n",
        b"From: a@sub.example.test\r\n\r\n",
        b"From: nobody\r\n\r\n",
        b"Subject: none\r\n\r\n",
        b"",
    ],
)
def test_other_mail_is_left_alone(message):
    assert sign(message) == message


def test_nothing_is_begun_for_a_domain_without_keys():
    assert signer().begin("elsewhere.test") is None
    assert MessageSigner(DkimSettings(), {}, seconds=lambda: 0).begin_for(MESSAGE) is None


def test_the_author_is_the_first_address():
    header = b'Sender: x@a.test\r\nfrom: "one, two" <a@B\xc3\xbc.test>, c@d.test\r\nFrom: e@f.test\r\n\r\n'
    assert author_domain(header) == "xn--b-eha.test"
