"""Messages for servers that take less: what is said stays the same, and fits."""

from __future__ import annotations

import base64
import contextlib
import email
import email.policy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.message.downgrade import CannotConvert, convert, has_eight_bit_header, is_binary
from tests.message.corpus import Corpus

TEXT = "Grüße aus Köln ☃\r\nund mehr = Text .\r\n.\r\n".encode()


def entity(kind: str, body: bytes, encoding: str = "8bit", extra: str = "") -> bytes:
    head = f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n{extra}\r\n"
    return head.encode() + body


def multipart(*parts: bytes, kind: str = "mixed", encoding: str = "8bit", preamble: bytes = b"") -> bytes:
    head = f'Content-Type: multipart/{kind}; boundary="b-{kind}"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n'
    delimiter = f"--b-{kind}".encode()
    return (
        head.encode()
        + preamble
        + b"".join(delimiter + b"\r\n" + part + b"\r\n" for part in parts)
        + delimiter
        + b"--\r\n"
    )


def message(content: bytes) -> bytes:
    return b"From: a@example.test\r\nSubject: x\r\nMIME-Version: 1.0\r\n" + content


def leaves(octets: bytes) -> list[tuple[str, object]]:
    parsed = email.message_from_bytes(octets, policy=email.policy.compat32)
    return [
        (part.get_content_type(), part.get_payload(decode=True)) for part in parsed.walk() if not part.is_multipart()
    ]


def check(octets: bytes, *, keeps_eight_bit: bool = False) -> bytes:
    converted = convert(octets, keeps_eight_bit=keeps_eight_bit)
    assert not is_binary(converted)
    assert keeps_eight_bit or converted.isascii()
    assert convert(converted, keeps_eight_bit=keeps_eight_bit) == converted
    return converted


def test_what_fits_stays_as_it_is():
    octets = message(entity("text/plain", b"plain\r\n", "8bit"))
    assert convert(octets) is octets
    assert convert(message(entity("text/plain", TEXT)), keeps_eight_bit=True) == message(entity("text/plain", TEXT))


def test_text_becomes_quoted_printable():
    converted = check(message(entity("text/plain; charset=utf-8", TEXT)))
    assert b"Content-Transfer-Encoding: quoted-printable\r\n" in converted
    assert leaves(converted) == [("text/plain", TEXT)]


def test_other_media_become_base64():
    converted = check(message(entity("image/png", b"\x89PNG\r\n\x1a\n\x00\xff\r\n", "binary")))
    assert leaves(converted) == [("image/png", b"\x89PNG\r\n\x1a\n\x00\xff\r\n")]


def test_parts_of_parts_and_attached_messages():
    inner = message(
        multipart(entity("text/html; charset=utf-8", TEXT), entity("text/plain", b"ascii\r\n"), kind="alternative")
    )
    octets = message(
        multipart(
            entity("text/plain; charset=utf-8", TEXT), entity("message/rfc822", inner), preamble="für\r\n".encode()
        )
    )
    converted = check(octets)
    assert leaves(converted) == leaves(octets)
    assert b"8bit" not in converted
    assert b"f??r" in converted


def test_binary_becomes_base64_and_8_bit_may_stay():
    octets = message(
        multipart(
            entity("text/plain; charset=utf-8", TEXT), entity("image/png", b"\x00\n\xff", "binary"), encoding="binary"
        )
    )
    converted = check(octets, keeps_eight_bit=True)
    assert TEXT in converted
    assert b"AAr/" in converted
    assert b"Transfer-Encoding: binary" not in converted


@pytest.mark.parametrize("kind", ["signed", "encrypted"])
def test_what_is_signed_or_encrypted_is_not_touched(kind):
    fit = multipart(
        entity("text/plain", b"plain\r\n", "7bit"), entity("application/x", b"x"), kind=kind, encoding="7bit"
    )
    octets = message(multipart(fit, entity("text/plain; charset=utf-8", TEXT)))
    assert fit in check(octets)
    unfit = multipart(entity("text/plain", TEXT), entity("application/x", b"x"), kind=kind)
    with pytest.raises(CannotConvert):
        convert(message(multipart(unfit)))


@pytest.mark.parametrize(
    "content",
    [entity("message/partial; id=x", TEXT), entity("message/delivery-status", TEXT),
     entity("text/plain", TEXT, "x-uuencode"), entity("text/plain", TEXT, "base64"),
     entity("multipart/mixed; boundary=none", TEXT)],
)  # fmt: skip
def test_what_may_not_be_encoded_is_refused(content):
    with pytest.raises(CannotConvert):
        convert(message(content))


def test_a_message_without_mime_gets_it():
    converted = check(b"From: a@example.test\r\n\r\n" + TEXT)
    assert b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" in converted


def test_lines_that_are_too_long_are_broken_softly():
    octets = message(entity("text/plain", b"x" * 5000 + b"\r\n", "7bit"))
    converted = check(octets)
    assert leaves(converted) == [("text/plain", b"x" * 5000 + b"\r\n")]


def test_raw_text_in_header_fields_becomes_encoded_words():
    octets = "From: Jürgen Groß <a@example.test>\r\nSubject: schöne Grüße an\r\n alle Größen\r\n\r\ntext\r\n".encode()
    assert has_eight_bit_header(octets)
    parsed = email.message_from_bytes(check(octets), policy=email.policy.default)
    assert parsed["Subject"] == "schöne Grüße an alle Größen"
    assert parsed["From"] == "Jürgen Groß <a@example.test>"


def test_raw_file_names_become_parameters_of_rfc_2231():
    octets = message(entity('text/plain; name="Fußnote.txt"', TEXT))
    (part,) = [email.message_from_bytes(check(octets), policy=email.policy.default)]
    assert part.get_filename() == "Fußnote.txt"


def test_octets_of_no_known_charset():
    converted = check(b"Subject: sch\xf6n\r\n\r\nx\r\n")
    assert b"=?unknown-8bit?b?" + base64.b64encode(b"sch\xf6n") in converted


@pytest.mark.parametrize("line", ['To: "Jürgen" <a@example.test>', "To: jürgen@example.test, b@example.test"])
def test_where_no_encoded_word_may_stand(line):
    with pytest.raises(CannotConvert):
        convert(line.encode() + b"\r\n\r\nx\r\n")


def test_messages_of_all_kinds_beside_what_has_to_be_converted():
    corpus = Corpus(7)
    for _ in range(60):
        whole = corpus.message()
        assert convert(whole) is whole
        octets = message(multipart(entity("message/rfc822", whole), entity("text/plain; charset=utf-8", TEXT)))
        converted = check(octets)
        assert whole in converted
        assert leaves(converted) == leaves(octets)


@given(
    st.binary(max_size=400),
    st.booleans(),
    st.sampled_from([b"", b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"]),
)
@settings(max_examples=300)
def test_any_octets_are_converted_or_refused(octets, keeps_eight_bit, start):
    with contextlib.suppress(CannotConvert):
        check(start + octets, keeps_eight_bit=keeps_eight_bit)
