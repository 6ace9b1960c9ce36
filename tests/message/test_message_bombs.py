"""Hostile messages: twice the input, about twice the time (R-MIME-1, R-BOMB-1).

What matters is that nothing is quadratic. Where a limit of RELIABILITY 7.1 cuts the work off, the ratio is smaller
still.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from mailsrv.message import (
    MessageLimits,
    TextSearch,
    decode_header,
    format_field,
    header_addresses,
    parse_addresses,
    scan,
    summarise,
)
from mailsrv.message.parameters import parse_content_type
from tests.linear import assert_linear, cpu_seconds

UNLIMITED = MessageLimits(
    nesting=1_000_000,
    parts=1_000_000,
    boundary_octets=1_000_000,
    parameters=1_000_000,
    header_octets=1_000_000_000,
    field_octets=1_000_000_000,
    fields=1_000_000_000,
    addresses=1_000_000,
)
MIXED = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"


def nested_multiparts(count: int) -> bytes:
    return b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(count))


def nested_same_boundary(count: int) -> bytes:
    return (MIXED + b"--b\r\n") * count


def nested_messages(count: int) -> bytes:
    return b"Content-Type: message/rfc822\r\n\r\n" * count


def many_parts(count: int) -> bytes:
    return MIXED + b"--b\r\n\r\nx\r\n" * count


def many_digest_parts(count: int) -> bytes:
    return b"Content-Type: multipart/digest; boundary=b\r\n\r\n" + b"--b\r\n\r\nTo: x\r\n\r\n" * count


def false_boundaries(count: int) -> bytes:
    return MIXED + b"--b\r\n\r\n" + b"--bx\r\n" * count


def parentheses(count: int) -> bytes:
    return b"From: " + b"(" * count + b"\r\nContent-Type: text/plain " + b"(" * count + b"\r\n\r\n"


def balanced_parentheses(count: int) -> bytes:
    return b"From: " + b"(" * count + b")" * count + b"\r\n\r\n"


def long_header_line(count: int) -> bytes:
    return b"Subject: " + b"x" * count + b"\r\n\r\n"


def long_folded_field(count: int) -> bytes:
    return b"To: " + b"\r\n a@b," * count + b"\r\n\r\n"


def many_to_fields(count: int) -> bytes:
    return b"To: a@b\r\n" * count + b"\r\n"


def continued_parameters(count: int) -> bytes:
    sections = b"".join(b"; name*%d*=%%41" % n for n in range(count))
    return b"Content-Type: text/plain" + sections + b"\r\n\r\n"


def unclosed_quotes(count: int) -> bytes:
    quotes = b'"\\' * count
    return b"From: " + quotes + b"\r\nContent-Type: text/plain; x=" + quotes + b"; " + quotes + b"\r\n\r\n"


def unclosed_angles(count: int) -> bytes:
    return b"From: " + b"<a@b <" * count + b"\r\n\r\n"


def no_empty_line(count: int) -> bytes:
    return b"To: x\r\n" + b"no field\r\n" * count


def encoded_words(count: int) -> bytes:
    return b"Subject: " + b"=?utf-8?q?a?= =?x" * count + b"\r\n\r\n"


def specials(count: int) -> bytes:
    return b"From: " + b"<@,;:\\.[]" * count + b"\r\n\r\n"


GENERATORS: dict[Callable[[int], bytes], int] = {
    nested_multiparts: 60,
    nested_same_boundary: 400,
    nested_messages: 400,
    many_parts: 3_000,
    many_digest_parts: 2_000,
    false_boundaries: 5_000,
    parentheses: 30_000,
    balanced_parentheses: 30_000,
    long_header_line: 500_000,
    long_folded_field: 10_000,
    many_to_fields: 10_000,
    continued_parameters: 4_000,
    unclosed_quotes: 10_000,
    unclosed_angles: 5_000,
    no_empty_line: 30_000,
    encoded_words: 5_000,
    specials: 4_000,
}


def check_doubling(work: Callable[[bytes], object], generator: Callable[[int], bytes], count: int) -> None:
    octets = {size: generator(size) for size in (count, 2 * count)}
    assert_linear(lambda size: cpu_seconds(lambda: work(octets[size])), count)


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda each: each.__name__)
def test_r_mime_1_time_is_linear(generator):
    check_doubling(summarise, generator, GENERATORS[generator])


@pytest.mark.slow
@pytest.mark.parametrize(
    "generator",
    [each for each in GENERATORS if each not in (nested_multiparts, nested_messages)],
    ids=lambda each: each.__name__,
)
def test_r_mime_1_time_is_linear_without_the_limits(generator):
    check_doubling(lambda octets: summarise(octets, UNLIMITED), generator, GENERATORS[generator])


@pytest.mark.slow
def test_readers_of_one_field_are_linear():
    search = TextSearch("nowhere")
    for generator in (parentheses, unclosed_quotes, encoded_words, specials, unclosed_angles, continued_parameters):
        count = GENERATORS[generator]
        check_doubling(lambda octets: parse_addresses(octets, 10**9), generator, count)
        check_doubling(lambda octets: parse_content_type(octets, 10**9), generator, count)
        check_doubling(decode_header, generator, count)
        check_doubling(search.is_in_field, generator, count)
        check_doubling(lambda octets: format_field(b"X", octets.replace(b"\r\n", b" ")[:900]), generator, count)


def test_r_bomb_1_sizes_of_the_requirement():
    """10,000 nested parts, 100,000 parts, 100,000 parentheses, a 1 MiB header line, 100,000 To fields."""
    for octets in (
        nested_multiparts(10_000),
        nested_messages(10_000),
        many_parts(100_000),
        parentheses(100_000),
        long_header_line(1 << 20),
        many_to_fields(100_000),
        continued_parameters(100_000),
    ):
        summary = summarise(octets)
        assert summary.size_octets == len(octets)
        assert len(summary.body_structure) < 4 * len(octets)


def test_nesting_limit():
    deepest = 0
    structure = scan(nested_multiparts(1_000))
    part = structure.root
    while part.children:
        part = part.children[0]
        deepest += 1
    assert deepest == MessageLimits().nesting
    assert (part.content_type.media_type, part.content_type.subtype) == (b"text", b"plain")
    assert part.end == structure.size_octets


@pytest.mark.parametrize(("parts", "expected"), [(9_998, 9_999), (9_999, 10_000), (10_000, 10_000), (20_000, 10_000)])
def test_part_limit_keeps_the_rest_as_one_part(parts, expected):
    octets = many_parts(parts) + b"--b--\r\n"
    structure = scan(octets)
    assert len(structure.parts) == expected
    if parts > 9_999:
        last = structure.parts[-1]
        assert last.end == len(octets)
        assert octets[last.body_start : last.end].endswith(b"x\r\n--b--\r\n")


def test_part_limit_while_deep_inside():
    structure = scan(nested_multiparts(50) + b"\r\n\r\nx\r\n--b49" * 20_000)
    assert len(structure.parts) <= MessageLimits().parts + MessageLimits().nesting


@pytest.mark.parametrize(("length", "is_multipart"), [(256, True), (257, False)])
def test_boundary_limit(length, is_multipart):
    boundary = b"b" * length
    octets = b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n--%b\r\n\r\nx\r\n--%b--\r\n" % ((boundary,) * 3)
    assert scan(octets).root.is_multipart is is_multipart


@pytest.mark.parametrize(("count", "expected"), [(1_000, 1_000), (1_001, 1_000)])
def test_parameter_limit(count, expected):
    octets = b"Content-Type: text/plain" + b"; x=y" * count + b"\r\n\r\n"
    assert len(scan(octets).root.content_type.parameters) == expected


@pytest.mark.parametrize("count", [1_999, 2_000, 2_001, 50_000])
def test_address_limit(count):
    assert len(parse_addresses(b"a@b.test, " * count)) == min(count, 2_000)
    assert len(header_addresses(b"(c) a@b.test, " * count)) == min(count, 2_000)
    several = (b"To: " + b"a@b," * 700 + b"\r\n") * (count // 700)
    assert summarise(several + b"\r\n").imap_envelope.count(b'"a"') <= 2_000


def test_a_message_with_a_huge_header_keeps_its_body():
    octets = b"Content-Type: text/html\r\n" + b"X-Junk: " + b"x" * (1 << 20) + b"\r\nSubject: late\r\n\r\nbody"
    summary = summarise(octets)
    assert octets[summary.header_octets :] == b"body"
    assert b'"html"' in summary.body_structure
    assert b"late" not in summary.imap_envelope


def test_attached_messages_past_the_budget_have_an_empty_envelope():
    attached = b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: s\r\nTo: " + b"a@b.test, " * 500 + b"\r\n\r\n\r\n"
    octets = MIXED + attached * 5
    structure = summarise(octets, MessageLimits(interpreted_octets=50_000)).body_structure
    assert structure.count(b'"a"') == 3 * 500
    assert structure.count(b'"rfc822"') == 3
    assert summarise(octets).body_structure.count(b'"a"') == 5 * 500


@pytest.mark.slow
def test_r_bomb_1_attached_messages_full_of_address_fields():
    attached = b"--b\r\nContent-Type: message/rfc822\r\n\r\nTo: %b\r\n\r\n\r\n"
    limits = MessageLimits(interpreted_octets=500_000)
    for hostile in (b"<," * 30_000, b'"<;' * 20_000, b"()" * 30_000, b"a@" * 30_000):
        once, many = (
            min(cpu_seconds(partial(summarise, MIXED + attached % hostile * times, limits)) for _ in range(5))
            for times in (20, 200)
        )
        assert many < 4 * once + 0.1
