"""Messages for servers that take less: what is said stays the same, and fits."""

from __future__ import annotations

import base64
import contextlib
import email
import email.policy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.message.downgrade import (
    CannotConvert,
    convert,
    has_eight_bit_header,
    has_long_line,
    is_binary,
    rest_of_lines,
)
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


@pytest.mark.parametrize("keeps_eight_bit", [True, False])
@pytest.mark.parametrize("length", [997, 998, 999, 1000, 1001, 5000])
def test_r_smtp_9_a_line_has_at_most_998_octets(length, keeps_eight_bit):
    octets = message(entity("text/plain", b"short\r\n" * 300 + b"x" * length + b"\r\nend\r\n", "7bit"))
    converted = check(octets, keeps_eight_bit=keeps_eight_bit)
    assert (converted is octets) is (length <= 998)
    assert has_long_line(octets) is (length > 998)
    assert has_long_line(octets[:-7]) is (length > 998)
    assert leaves(converted) == leaves(octets)


@given(st.lists(st.integers(0, 2500), max_size=8), st.integers(1, 3000))
def test_long_lines_are_found_in_pieces_too(lengths, size):
    octets = b"\r\n".join(b"x" * length for length in lengths)
    wanted = any(length > 998 for length in lengths)
    assert has_long_line(octets) is wanted
    found, rest = False, b""
    for start in range(0, len(octets), size):
        rest += octets[start : start + size]
        place = rest_of_lines(rest)
        if place is None:
            found = True
            break
        rest = rest[place:]
    assert found is wanted


def test_base64_and_quoted_printable_in_one_line_are_wrapped():
    payload = bytes(range(256)) * 20
    quoted = b"".join(b"=%02X" % octet for octet in payload)
    content = multipart(
        entity("application/x", base64.b64encode(payload), "base64"),
        entity("text/plain", quoted + b"=\r\n=41 b", "quoted-printable"),
        entity("text/plain", b"f=C3=BCr " * 200, "Quoted-Printable"),
    )
    octets = message(content)
    assert leaves(check(octets)) == leaves(octets)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"!" * 1200, "base64"),
        (b"=zz" * 500, "quoted-printable"),
        (b"=" * 1200, "quoted-printable"),
        (b"x" * 1200, "uuencode"),
    ],
)
def test_long_lines_that_are_not_what_they_say_are_refused(body, encoding):
    with pytest.raises(CannotConvert):
        convert(message(entity("text/plain", body, encoding)))


def test_header_fields_are_folded_at_their_white_space():
    references = b" ".join(b"<%d@example.test>" % number for number in range(400))
    octets = b"References: " + references + b"\r\n" + message(entity("text/plain", b"x\r\n", "7bit"))
    converted = check(octets)
    assert email.message_from_bytes(converted)["References"].replace("\r\n", "").encode() == references
    assert converted.replace(b"\r\n <", b" <") == octets


@pytest.mark.parametrize("field", [b"X: " + b"x" * 1200, b"X: x" + b" " * 1200, b"X" * 1200 + b": x"])
def test_header_fields_that_cannot_be_folded_are_refused(field):
    with pytest.raises(CannotConvert):
        convert(field + b"\r\n" + message(entity("text/plain", b"x\r\n")))


def test_a_signed_part_with_a_long_line_is_not_touched():
    octets = message(multipart(entity("text/plain", b"x" * 1200), entity("x/y", b"sig"), kind="signed"))
    with pytest.raises(CannotConvert):
        convert(octets)


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
