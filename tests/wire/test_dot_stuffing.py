"""R-SMTP-1, R-SMTP-2, R-SMTP-3: one end of data, one canonical form, under every chunking."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailsrv.wire.dot_stuffing import DotDecoder, DotEncoder
from mailsrv.wire.line_breaks import BareLineFeeds, canonicalise, has_bare_line_break

CRLF = b"\r\n"
# Everything that some server somewhere took for the end of data, and relatives.
BREAKS = [b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\r", b"\x00\r\n", b"\r\x00\n"]
FALSE_ENDS = [
    before + dot + after
    for before, dot, after in itertools.product(BREAKS, [b".", b"..", b". "], BREAKS[:7])
    if b"\r\n.\r\n" not in before + dot + after
]
alphabet = st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n", b"\r\n.", b"\r\n..", b" "])
texts = st.lists(alphabet, max_size=24).map(b"".join)


def decode(wire: bytes, sizes: list[int], mode: BareLineFeeds = BareLineFeeds.REFUSE) -> tuple[DotDecoder, bytes]:
    decoder = DotDecoder(mode)
    content = b""
    rest = wire
    for size in itertools.chain(sizes, itertools.repeat(len(wire) or 1)):
        if decoder.is_finished or not rest:
            break
        content += decoder.feed(rest[:size])
        rest = rest[size:]
    decoder.unused += rest
    return decoder, content


def reference(wire: bytes) -> tuple[bytes, bytes] | None:
    """Line by line, as RFC 5321 4.5.2 tells it: content and what follows the end."""
    content = b""
    rest = wire
    while True:
        line, found, rest = rest.partition(CRLF)
        if not found:
            return None
        if line == b".":
            return content, rest
        content += (line[1:] if line.startswith(b".") else line) + CRLF


def test_there_are_enough_false_ends():
    assert len(FALSE_ENDS) > 40


@pytest.mark.parametrize("false_end", FALSE_ENDS, ids=repr)
def test_r_smtp_1_only_crlf_dot_crlf_ends_the_data(false_end):
    wire = b"a" + false_end + b"MAIL FROM:<x@y>\r\nb\r\n.\r\nQUIT\r\n"
    expected = reference(wire)
    assert expected is not None
    for cut in range(len(wire) + 1):
        decoder, content = decode(wire, [cut])
        assert decoder.is_finished
        assert decoder.unused == b"QUIT\r\n"
        assert content == expected[0]
        assert decoder.has_bare_line_break == has_bare_line_break(wire)
        mended, text = decode(wire, [cut], BareLineFeeds.MEND)
        assert mended.unused == b"QUIT\r\n"
        assert mended.has_bare_line_break == (b"\r" in wire.replace(CRLF, b""))
        if not mended.has_bare_line_break:
            assert not has_bare_line_break(text)


@given(texts, st.lists(st.integers(1, 5), max_size=40), st.sampled_from(BareLineFeeds))
def test_the_decoder_equals_the_line_based_reference(text, sizes, mode):
    wire = text + b"\r\n.\r\nNOOP\r\n"
    expected = reference(wire)
    assert expected is not None
    decoder, content = decode(wire, sizes, mode)
    assert decoder.is_finished
    assert decoder.unused == expected[1]
    if mode is BareLineFeeds.REFUSE:
        assert content == expected[0]
    assert decoder.has_bare_line_break or not has_bare_line_break(content)


@settings(max_examples=300)
@given(texts, st.lists(st.integers(1, 5), max_size=40), st.lists(st.integers(1, 5), max_size=40))
@example(b"\r", [1], [1])
@example(b".", [1], [1])
@example(b"\r\n.\r\n", [1], [2])
@example(b"a\rb\nc", [1], [3])
def test_r_smtp_3_decoding_the_encoded_gives_the_canonical_text(text, encode_sizes, decode_sizes):
    encoder = DotEncoder()
    wire = b""
    rest = text
    for size in itertools.chain(encode_sizes, itertools.repeat(7)):
        if not rest:
            break
        wire += encoder.encode(rest[:size])
        rest = rest[size:]
    wire += encoder.finish()
    assert wire.endswith(b".\r\n")
    assert wire.count(b"\r\n.\r\n") == (1 if wire != b".\r\n" else 0)
    assert not has_bare_line_break(wire)
    decoder, content = decode(wire, decode_sizes)
    assert decoder.is_finished
    assert decoder.unused == b""
    assert content == canonicalise(text)


@given(texts)
def test_canonical_text_stays_as_it_is(text):
    canonical = canonicalise(text)
    assert not has_bare_line_break(canonical)
    assert canonicalise(canonical) == canonical


def test_strays_that_balance_each_other_are_seen():
    assert has_bare_line_break(b"a\rb\nc")
    assert not has_bare_line_break(b"a\r\n\r\nb")


def test_r_smtp_9_long_lines_are_measured_over_chunks():
    wire = b"short\r\n" + b"x" * 2000 + b"\r\nshort\r\n.\r\n"
    decoder, content = decode(wire, [100] * 40)
    assert content == wire[:-3]
    assert decoder.line_octets == 2000


def test_a_slow_sender_costs_linear_work():
    """The decoder looks at no more than it held back and what came: five octets a step, however long the text."""
    decoder = DotDecoder()
    for octet in b"\r\n." * 300:
        decoder.feed(bytes([octet]))
        assert len(decoder._held) <= 4
