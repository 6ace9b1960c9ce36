"""Header sections as they come (RFC 5322 2.2, 4.5.8)."""

from __future__ import annotations

import pytest

from mailsrv.message import MessageLimits, iterate_fields, read_header, select_fields, unfold
from mailsrv.message.fields import first_field


def header_of(octets: bytes) -> bytes:
    return octets[: read_header(octets, 0, len(octets)).body_start]


@pytest.mark.parametrize(
    ("octets", "header"),
    [
        (b"A: b\r\n\r\nbody", b"A: b\r\n\r\n"),
        (b"A: b\n\nbody\r\n\r\n", b"A: b\n\n"),
        (b"A: b\r\n\nbody", b"A: b\r\n\n"),
        (b"\r\nbody", b"\r\n"),
        (b"\nbody", b"\n"),
        (b"A: b\r\n", b"A: b\r\n"),
        (b"A: b", b"A: b"),
        (b"", b""),
        (b"text\r\n\r\nmore", b""),
        (b"A: b\r\ntext\r\n\r\nmore", b"A: b\r\n"),
        (b"A: b\r\nbroken\r\nC: d\r\n\r\nbody", b"A: b\r\nbroken\r\nC: d\r\n\r\n"),
        (b"From a@b Mon\r\nA: b\r\n\r\nbody", b"From a@b Mon\r\nA: b\r\n\r\n"),
        (b"From a@b Mon\r\n\r\nbody", b"From a@b Mon\r\n\r\n"),
        (b"A: b\r\n \r\n c\r\n\r\nbody", b"A: b\r\n \r\n c\r\n\r\n"),
        (b"A: b\rc\r\n\r\nbody", b"A: b\rc\r\n\r\n"),
    ],
)
def test_where_the_header_ends(octets, header):
    assert header_of(octets) == header


def test_fields_with_offsets_as_they_stand():
    header = b"A : 1\r\nbroken\r\na:2\r\n\t3\r\nX-Long:\n  4\n\r\n"
    fields = list(iterate_fields(header))
    assert [(field.name, field.body) for field in fields] == [
        (b"A", b" 1"),
        (b"a", b"2\r\n\t3"),
        (b"X-Long", b"\n  4"),
    ]
    assert [header[field.start : field.end] for field in fields] == [b"A : 1\r\n", b"a:2\r\n\t3\r\n", b"X-Long:\n  4\n"]
    assert [field.unfolded for field in fields] == [b"1", b"2\t3", b"4"]
    found = first_field(header, b"x-long")
    assert found is not None
    assert found.unfolded == b"4"
    assert first_field(header, b"broken") is None


def test_unfolding_leaves_one_harmless_line():
    assert unfold(b" a\r\n b\n\tc\r\n") == b"a b\tc"
    assert unfold(b" a\rb\0c\nd") == b"a bc d"


def test_selecting_fields():
    header = b"From x Mon\r\nA: 1\r\nB: 2\r\nbroken\r\na: 3\r\n 4\r\n\r\n"
    assert select_fields(header, frozenset({b"a"})) == b"A: 1\r\na: 3\r\n 4\r\n\r\n"
    assert select_fields(header, frozenset({b"a"}), negate=True) == b"B: 2\r\n\r\n"
    assert select_fields(header, frozenset({b"z"})) == b"\r\n"
    assert select_fields(b"A: 1", frozenset({b"a"})) == b"A: 1\r\n\r\n"


@pytest.mark.parametrize(("count", "kept"), [(999, 999), (1_000, 1_000), (1_001, 1_000)])
def test_field_limit_of_a_long_header(count, kept):
    octets = b"Name: some value\r\n" * count + b"\r\nbody"
    section = read_header(octets, 0, len(octets))
    assert len(section.rows) == kept
    assert octets[section.body_start :] == b"body"


def test_names_have_at_most_256_octets():
    assert list(iterate_fields(b"x" * 257 + b": y\r\n")) == []
    assert len(list(iterate_fields(b"x" * 256 + b": y\r\n"))) == 1


def test_field_and_header_octet_limits():
    limits = MessageLimits(header_octets=10_000)
    octets = b"A: " + b"x" * 20_000 + b"\r\nB: c\r\n\r\nbody"
    section = read_header(octets, 0, len(octets), limits)
    assert [row[1] for row in section.rows] == [b"A"]
    assert octets[section.body_start :] == b"body"
