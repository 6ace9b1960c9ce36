"""Signatures of whole messages. dkimpy is who judges them."""

from __future__ import annotations

import re

import dkim  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailsrv.mailauth.keys import (
    SLOW_RSA_BITS,
    Algorithm,
    KeyProblem,
    SigningKey,
    format_private_key,
    is_selector,
    new_private_key,
    parse_private_key,
    split_text,
)
from mailsrv.mailauth.settings import Canonicalization, DkimSettings
from mailsrv.mailauth.signer import MessageSignature, SigningPlan

RSA = SigningKey("example.test", "rsa1", new_private_key(Algorithm.RSA))
EDWARDS = SigningKey("example.test", "ed1", new_private_key(Algorithm.ED25519))
BOTH = (RSA, EDWARDS)
RECORDS = {f"{key.record_name}.".encode(): key.record.encode() for key in BOTH}
KINDS = [
    (header, body) for header in Canonicalization for body in Canonicalization
]  # fmt: skip
SECONDS = 1_700_000_000


def signed(message: bytes, keys=BOTH, *, pieces: int | None = None, **options) -> bytes:
    signature = MessageSignature(SigningPlan.from_settings(DkimSettings(**options)), keys, SECONDS)
    step = pieces or max(1, len(message))
    for start in range(0, len(message), step):
        signature.feed(message[start : start + step])
    return signature.finish() + message


def find_record(name: bytes, timeout: int = 5) -> bytes:
    return RECORDS[name]


def verified(message: bytes, count: int = 2) -> bool:
    judge = dkim.DKIM(message, minkey=2048)
    try:
        return all(judge.verify(index, dnsfunc=find_record) for index in range(count))
    except dkim.ValidationError:
        return False


MESSAGE = (
    b"Received: from a by b\r\nFrom: Alice <alice@example.test>\r\nTo: Bob <bob@example.net>,\r\n\tCarol\r\n"
    b" <carol@example.net>\r\nSubject:  two  spaces \r\nDATE: Mon, 1 Jan 2024 00:00:00 +0000\r\n"
    b"MIME-Version: 1.0\r\nX-Other: unsigned\r\n\r\nHello \t world  \r\n\r\n.dot\r\n\r\n\r\n"
)

NAMES = st.sampled_from([b"From", b"to", b"SUBJECT", b"Cc", b"X-Odd", b"Date", b"List-Id", b"Content-Type"])
WORDS = st.sampled_from(
    [
        b"a",
        b" ",
        b"\t",
        b"\r\n ",
        b"\r\n\t",
        b"b@example.test",
        b"\xc3\xa4",
        b"\xff",
        b":",
        b";",
        b"=?q?",
        b"b=",
        b"\x01",
    ]
)
FIELDS = st.lists(st.tuples(NAMES, st.lists(WORDS, max_size=6).map(b"".join)), max_size=10)
BODIES = st.lists(
    st.sampled_from([b"\r\n", b" ", b"\t", b"line", b"\r\n\r\n", b"  \r\n", b"\xe4\xf6", b".", b"-" * 100]), max_size=20
).map(b"".join)


def whole(fields: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    header = b"From: <alice@example.test>\r\n" + b"".join(
        # An all-white line within a field would end the header for readers that are not strict.
        name + b":x" + re.sub(rb"(\r\n[ \t]+)(?=\r\n|$)", rb"\1x", text) + b"\r\n"
        for name, text in fields
    )
    return header + b"\r\n" + body


@pytest.mark.parametrize(("header", "body"), KINDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=FIELDS, octets=BODIES, piece=st.integers(1, 40))
def test_dkimpy_verifies_what_we_sign(header, body, fields, octets, piece):
    message = whole(fields, octets)
    result = signed(message, pieces=piece, header_canonicalization=header, body_canonicalization=body)
    # DATA always ends with a line end, so what arrives has one.
    assert verified(result if result.endswith(b"\r\n") else result + b"\r\n"), result


def test_a_message_is_signed_the_same_octet_by_octet():
    assert signed(MESSAGE, (EDWARDS,), pieces=1) == signed(MESSAGE, (EDWARDS,))
    assert verified(signed(MESSAGE, pieces=1))


@pytest.mark.parametrize(
    "message",
    [
        b"From: a@example.test\r\n\r\n",
        b"From: a@example.test\r\n",
        b"From: a@example.test\r\n\r\nno line end",
        b"From: a@example.test\r\n\r\n\r\n\r\n\r\n",
        b"From: a@example.test\r\nSubject: " + b"x" * 5000 + b"\r\n\r\n" + b"y" * 200_000,
        b"From: a@example.test\r\n" + b"To: b@example.net\r\n" * 100 + b"\r\nmany\r\n",
    ],
)
def test_unusual_messages(message):
    if not message.endswith(b"\r\n\r\n") and b"\r\n\r\n" not in message:
        assert verified(signed(message) + b"\r\n")
    else:
        assert verified(signed(message))


def test_what_a_signature_says():
    result = signed(MESSAGE, valid_seconds=3600)
    first, second = re.findall(rb"DKIM-Signature:(?:.*\r\n)(?:[ \t].*\r\n)*", result)
    tags = dict(
        part.strip().split("=", 1) for part in re.sub(r"\s", "", first.decode().partition(":")[2]).split(";") if part
    )
    assert tags["v"] == "1"
    assert tags["a"] == "rsa-sha256"
    assert tags["c"] == "relaxed/relaxed"
    assert (tags["d"], tags["s"]) == ("example.test", "rsa1")
    assert (tags["t"], tags["x"]) == ("1700000000", "1700003600")
    assert not {"i", "l", "z", "q"} & set(tags)
    names = tags["h"].split(":")
    assert (names.count("from"), names.count("to"), names.count("cc")) == (2, 2, 1)
    assert "received" not in names
    assert "x-other" not in names
    assert b"a=ed25519-sha256" in second
    assert all(len(line) <= 78 for line in (first + second).split(b"\r\n"))


@pytest.mark.parametrize(
    "added",
    [b"From: mallory@example.org\r\n", b"Subject: other\r\n", b"Cc: x@example.org\r\n", b"Content-Type: text/html\r\n"],
)
def test_fields_that_are_oversigned_cannot_be_added(added):
    result = signed(MESSAGE)
    assert verified(b"X-Trace: yes\r\n" + result)
    assert not verified(added + result)
    head, _, rest = result.partition(b"Received:")
    assert not verified(head + added + b"Received:" + rest)


def test_a_body_cannot_be_changed_or_extended():
    result = signed(MESSAGE)
    assert verified(result + b"\r\n\r\n")
    assert not verified(result + b"more\r\n")
    assert not verified(result.replace(b"world", b"World"))


def test_fields_put_in_front_later_are_signed_too():
    signature = MessageSignature(SigningPlan.from_settings(DkimSettings()), BOTH, SECONDS)
    signature.feed(MESSAGE)
    signature.prepend(b"List-Id: <a.example.test>\r\n")
    result = signature.finish() + b"List-Id: <a.example.test>\r\n" + MESSAGE
    assert verified(result)
    assert b"list-id" in result.partition(b"\r\nList-Id")[0]


def test_the_settings_refuse_what_must_not_be_signed():
    for names in (("From", "DKIM-Signature"), ("Subject",), ("From", "a b"), ("From", "a;b"), ("From", "ä")):
        with pytest.raises(ValueError, match=r"field|From|must not"):
            DkimSettings(oversigned_fields=names)
    with pytest.raises(ValueError, match="must not"):
        DkimSettings(signed_fields=("Received",))


def test_keys():
    for key in BOTH:
        again = SigningKey(key.domain, key.selector, parse_private_key(format_private_key(key.private)))
        assert again.record == key.record
        assert "private" not in repr(key).lower()
    assert RSA.record_name == "rsa1._domainkey.example.test"
    assert (RSA.algorithm, RSA.bits, RSA.is_slow) == (Algorithm.RSA, 2048, False)
    assert EDWARDS.record.startswith("v=DKIM1; k=ed25519; p=")
    assert len(EDWARDS.record.rpartition("p=")[2]) == 44
    assert [len(part) for part in split_text(RSA.record)] == [255, len(RSA.record) - 255]
    assert SigningKey("example.test", "big", new_private_key(Algorithm.RSA, SLOW_RSA_BITS + 8)).is_slow


@pytest.mark.parametrize("bits", [1024, 8192])
def test_rfc_8301_keys_of_other_sizes_are_refused(bits):
    with pytest.raises(KeyProblem, match="2048 to 4096"):
        new_private_key(Algorithm.RSA, bits)


def test_keys_that_cannot_be_read_are_refused():
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    with pytest.raises(KeyProblem, match="no private key"):
        parse_private_key(b"hello")
    curve = ec.generate_private_key(ec.SECP256R1())
    options = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    with pytest.raises(KeyProblem, match="does not know"):
        parse_private_key(curve.private_bytes(*options, serialization.NoEncryption()))
    with pytest.raises(KeyProblem, match="passphrase"):
        parse_private_key(EDWARDS.private.private_bytes(*options, serialization.BestAvailableEncryption(b"x")))


def test_selectors():
    assert all(map(is_selector, ("a", "2024-01", "a.b", "x" * 63)))
    assert not any(map(is_selector, ("", "A", "a_b", "-a", "a-", "a..b", "../x", "x" * 64, "a\n")))
