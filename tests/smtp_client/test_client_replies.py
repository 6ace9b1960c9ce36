"""Replies within bounds, commands without injection, text without a false end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.address import Address
from mailsrv.interfaces.envelope import BodyType
from mailsrv.smtp.client.capabilities import parse_capabilities
from mailsrv.smtp.client.commands import (
    OutgoingMessage,
    OutgoingRecipient,
    encode_xtext,
    format_mail,
    format_original_recipient,
    format_rcpt,
)
from mailsrv.smtp.client.replies import BrokenReply, ReplyReader, ServerReply
from mailsrv.smtp.client.settings import SmtpClientSettings
from mailsrv.status import EnhancedStatus
from mailsrv.wire.dot_stuffing import DotDecoder, DotEncoder
from mailsrv.wire.line_breaks import LineEncoder, canonicalise


def read(octets: bytes, size: int = 0, **changes) -> list[ServerReply]:
    reader = ReplyReader(SmtpClientSettings(**changes))
    found: list[ServerReply] = []
    size = size or len(octets) or 1
    for start in range(0, len(octets), size):
        reader.feed(octets[start : start + size])
        while (reply := reader.next_reply()) is not None:
            found.append(reply)
    return found


@pytest.mark.parametrize("size", [0, 1, 3])
def test_replies_of_one_and_more_lines(size):
    octets = b"220 hop\r\n250-a\r\n250-b \r\n250 c\r\n354\r\n451 4.7.1 l\xc3\xa4ter\n"
    found = read(octets, size)
    assert [(reply.code, reply.lines) for reply in found] == [
        (220, ("hop",)),
        (250, ("a", "b ", "c")),
        (354, ("",)),
        (451, ("4.7.1 l??ter",)),
    ]
    assert found[3].status == EnhancedStatus(4, 7, 1)
    assert found[1].text == "250 a b  c"


@pytest.mark.parametrize("text", ["550 4.1.1 other class", "550 5.1", "550 5.1.1.1 more", "550 text"])
def test_only_a_status_of_the_replys_own_class_counts(text):
    (reply,) = read(text.encode() + b"\r\n")
    assert reply.status is None


@pytest.mark.parametrize(
    "octets",
    [b"hello\r\n", b"2500 x\r\n", b"150 x\r\n", b"600 x\r\n", b"250-a\r\n251 b\r\n", b"250 a\rb\r\n", b"\r\n",
     b"250 " + b"x" * 3000, b"250 " + b"x" * 3000 + b"\r\n", b"250-x\r\n" * 300, b"250-" + b"x" * 900 + b"\r\n" * 1],
)  # fmt: skip
def test_what_is_no_reply_or_has_no_end(octets):
    if octets.startswith(b"250-xxx"):
        octets *= 100
    with pytest.raises(BrokenReply):
        read(octets)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_octets_give_the_same_however_they_come(octets, size):
    def outcome(size: int) -> tuple[list[ServerReply], bool]:
        reader = ReplyReader(SmtpClientSettings())
        found: list[ServerReply] = []
        try:
            for start in range(0, len(octets), size):
                reader.feed(octets[start : start + size])
                while (reply := reader.next_reply()) is not None:
                    found.append(reply)
                    assert len(reply.text) <= 512
                    assert reply.text.isascii()
        except BrokenReply:
            return found, True
        return found, False

    assert outcome(size) == outcome(max(len(octets), 1))


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), max_size=20), st.booleans())
def test_r_smtp_3_what_goes_out_has_one_end_and_is_canonical(octets, sizes, ends_with_cr):
    octets = octets.replace(b"\x00", b".").replace(b"\x01", b"\r").replace(b"\x02", b"\n") + b"\r" * ends_with_cr
    dots, lines = DotEncoder(), LineEncoder()
    stuffed, chunked, position = b"", b"", 0
    for size in [*sizes, len(octets) + 1]:
        piece = octets[position : position + size]
        position += size
        stuffed += dots.encode(piece)
        chunked += lines.encode(piece)
    stuffed += dots.finish()
    chunked += lines.finish()
    decoder = DotDecoder()
    decoded = decoder.feed(stuffed)
    assert decoder.is_finished
    assert decoder.unused == b""
    assert not decoder.has_bare_line_break
    assert decoded == chunked == canonicalise(octets)


ADDRESSES = st.builds(
    lambda text: Address(text, "example.org"),
    st.text(
        st.sampled_from([chr(code) for code in range(33, 0x2FF) if not 0x7F <= code < 0xA0]), min_size=1, max_size=20
    ),
)
EVERYTHING = parse_capabilities(["x", "SIZE", "DSN", "SMTPUTF8", "8BITMIME", "MT-PRIORITY", "DELIVERBY"])


@given(ADDRESSES, st.text(max_size=100), st.text(max_size=40))
def test_r_inj_1_commands_are_one_line_whatever_is_in_them(address, original, envelope_id):
    from attrs import evolve

    recipient = OutgoingRecipient(address, original_recipient=original)
    message = OutgoingMessage(address, (recipient,), 5, BodyType.EIGHT_BIT, True)
    message = evolve(message, parameters=evolve(message.parameters, envelope_id=envelope_id))
    for line in (format_mail(message, EVERYTHING), format_rcpt(recipient, EVERYTHING)):
        assert line.endswith(b"\r\n")
        assert not {13, 10, 0} & set(line[:-2])


def test_xtext_and_the_original_recipient():
    assert encode_xtext(b"a+b=c d\r\n") == b"a+2Bb+3Dc+20d+0D+0A"
    assert format_original_recipient("rfc822;bob@example.org") == b"rfc822;bob@example.org"
    assert format_original_recipient("rfc822;jürgen@example.org") == b"utf-8;j\\x{FC}rgen@example.org"


def test_capabilities_that_are_told_oddly():
    offered = parse_capabilities(["x", "", "SIZE x", "LIMITS RCPTMAX=5 MAILMAX=x", "deliverby 30", "auth plain"])
    assert offered.size_limit is None
    assert offered.recipient_limit == 5
    assert offered.message_limit is None
    assert offered.shortest_delivery_time == 30
    assert offered.mechanisms == {"PLAIN"}
