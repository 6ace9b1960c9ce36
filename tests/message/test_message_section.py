"""BODY[] and BINARY[] sections (RFC 9051 6.4.5.1, RFC 3516)."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailsrv.message import (
    Part,
    Section,
    SectionKind,
    UnknownEncoding,
    binary_octets,
    locate,
    parse_section,
    scan,
    section_octets,
)

MESSAGE = (
    b"Subject: outer\r\nTo: x\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n"
    b"preamble\r\n"
    b"--o\r\nContent-Type: text/plain\r\n\r\none\r\n"
    b"--o\r\nContent-Type: message/rfc822\r\n\r\n"
    b"Subject: inner\r\nContent-Type: multipart/alternative; boundary=i\r\n\r\n"
    b"--i\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\ndHdv\r\nLW9uZQ==\r\n"
    b"--i\r\n\r\ntwo-two\r\n--i--\r\n"
    b"--o\r\nContent-Type: message/rfc822\r\n\r\nSubject: single\r\n\r\nthree\r\n"
    b"--o\r\nContent-Transfer-Encoding: x-odd\r\n\r\nfour\r\n"
    b"--o--\r\nepilogue\r\n"
)
SECOND = MESSAGE[
    MESSAGE.index(b"Subject: inner") : MESSAGE.index(b"\r\n--o\r\nContent-Type: message/rfc822\r\n\r\nSubject: single")
]


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (b"", MESSAGE),
        (b"HEADER", MESSAGE[: MESSAGE.index(b"preamble")]),
        (b"TEXT", MESSAGE[MESSAGE.index(b"preamble") :]),
        (b"HEADER.FIELDS (SUBJECT from)", b"Subject: outer\r\n\r\n"),
        (b'header.fields.not ("Subject" Content-Type)', b"To: x\r\n\r\n"),
        (b"1", b"one"),
        (b"1.MIME", b"Content-Type: text/plain\r\n\r\n"),
        (b"1.HEADER", None),
        (b"1.TEXT", None),
        (b"1.1", None),
        (b"2", SECOND),
        (b"2.MIME", b"Content-Type: message/rfc822\r\n\r\n"),
        (b"2.HEADER", b"Subject: inner\r\nContent-Type: multipart/alternative; boundary=i\r\n\r\n"),
        (b"2.TEXT", SECOND[SECOND.index(b"--i") :]),
        (b"2.HEADER.FIELDS (Subject)", b"Subject: inner\r\n\r\n"),
        (b"2.HEADER.FIELDS.NOT (Content-Type)", b"Subject: inner\r\n\r\n"),
        (b"2.1", b"dHdv\r\nLW9uZQ=="),
        (b"2.1.MIME", b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n"),
        (b"2.2", b"two-two"),
        (b"2.2.MIME", b"\r\n"),
        (b"2.3", None),
        (b"2.1.1", None),
        (b"3.1", b"three"),
        (b"3.1.MIME", b"Subject: single\r\n\r\n"),
        (b"3.2", None),
        (b"3.1.1", None),
        (b"3.TEXT", b"three"),
        (b"4", b"four"),
        (b"5", None),
    ],
)
def test_sections(section, expected):
    parsed = parse_section(section)
    assert parsed is not None
    assert section_octets(MESSAGE, scan(MESSAGE), parsed) == expected


@pytest.mark.parametrize(
    "section",
    [
        *(b"0", b"1.0", b".1", b"1.", b"1..2", b"MIME", b"1TEXT", b".TEXT", b"HEADER.FIELDS", b"HEADER.FIELDS ()"),
        *(b"TEXT (a)", b"HEADER (a)", b"1.FOO", b"9999999999", b"1 ", b"HEADER.FIELDS (a", b".".join([b"1"] * 500)),
    ],
)
def test_what_is_no_section(section):
    assert parse_section(section) is None


def test_a_message_without_parts_has_one():
    octets = b"Subject: x\r\n\r\nbody"
    structure = scan(octets)
    for path, expected in (((1,), b"body"), ((2,), None), ((1, 1), None)):
        assert section_octets(octets, structure, Section(path)) == expected
    assert section_octets(octets, structure, Section((1,), SectionKind.MIME)) == b"Subject: x\r\n\r\n"


def test_a_message_that_is_nothing_but_an_attached_message():
    octets = b"Content-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\nbody"
    structure = scan(octets)
    assert section_octets(octets, structure, Section((1,))) == b"Subject: in\r\n\r\nbody"
    assert section_octets(octets, structure, Section((1,), SectionKind.HEADER)) == b"Subject: in\r\n\r\n"
    assert section_octets(octets, structure, Section((1, 1))) == b"body"


def test_a_slice_is_located_without_reading_it():
    located = locate(scan(MESSAGE), Section((1,)))
    assert located is not None
    assert (located.offset, located.length, located.is_composed) == (MESSAGE.index(b"one"), 3, False)
    part = located.partial(1, 10)
    assert (part.offset, part.length) == (MESSAGE.index(b"one") + 1, 2)
    assert located.partial(7, 10).length == 0


def test_a_composed_section_needs_its_slice():
    located = locate(scan(MESSAGE), Section((), SectionKind.HEADER_FIELDS, frozenset({b"to"})))
    assert located is not None
    assert located.is_composed
    assert located.compose(MESSAGE[located.offset : located.offset + located.length]) == b"To: x\r\n\r\n"
    assert (
        section_octets(MESSAGE, scan(MESSAGE), Section((), SectionKind.HEADER_FIELDS, frozenset({b"to"})), (1, 3))
        == b"o: "
    )


def test_binary():
    structure = scan(MESSAGE)
    assert binary_octets(MESSAGE, structure, (2, 1)) == b"two-one"
    assert binary_octets(MESSAGE, structure, (2, 2)) == b"two-two"
    assert binary_octets(MESSAGE, structure, (9,)) is None
    assert binary_octets(MESSAGE, structure, ()) == MESSAGE
    with pytest.raises(UnknownEncoding):
        binary_octets(MESSAGE, structure, (4,))


def test_binary_of_quoted_printable():
    octets = b"Content-Transfer-Encoding: QUOTED-PRINTABLE\r\n\r\na=3Db =\r\nc=C3=BC=\r\n"
    assert binary_octets(octets, scan(octets), (1,)) == b"a=b c\xc3\xbc"


def test_every_part_of_the_samples_can_be_addressed():
    for path in (Path(__file__).parent.parent / "messages").glob("*.eml"):
        octets = path.read_bytes()
        structure = scan(octets)
        left: list[tuple[tuple[int, ...], Part]] = [((), structure.root)]
        while left:
            numbers, part = left.pop()
            whole = part.is_message
            if part.is_attached_message:
                assert structure.part_at(numbers) is part
                part = part.children[0]
            for number, child in enumerate(part.children, 1):
                assert structure.part_at((*numbers, number)) is child
                left.append(((*numbers, number), child))
            if not part.children and (whole or part.is_message):
                assert structure.part_at((*numbers, 1)) is part
