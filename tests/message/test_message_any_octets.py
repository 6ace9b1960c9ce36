"""Whatever octets a message is made of: no error, nothing lost, bounded and well-formed answers (R-MIME-1)."""

from __future__ import annotations

import inspect
import mmap
import sys
import tempfile
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailsrv.message import (
    MessageLimits,
    Section,
    SectionKind,
    TextSearch,
    UnknownEncoding,
    binary_octets,
    count_received,
    decode_header,
    fold_text,
    header_addresses,
    iterate_fields,
    iterate_text,
    locate,
    parse_addresses,
    parse_date,
    parse_internal_date,
    parse_search_date,
    parse_section,
    read_header,
    scan,
    section_octets,
    select_fields,
    sent_day,
    summarise,
    summarise_with_structure,
)
from tests.message.corpus import messages
from tests.message.imap_data import check_body, check_envelope, read_data

LINES = st.sampled_from(
    [
        b"Content-Type: multipart/mixed; boundary=b\r\n",
        b'Content-Type: multipart/digest; boundary="bb"\r\n',
        b"Content-Type: message/rfc822\r\n",
        b"Content-Type: text/plain; charset*0*=utf-8''; charset*1=x; charset\r\n",
        b'content-type : TEXT/html; a="\\"\n',
        b"Content-Transfer-Encoding: base64\r\n",
        b'Content-Disposition: attachment; filename*=utf-8\'\'%41; filename="a\\"b\xff"\r\n',
        b"Content-Language: de,, en\r\n",
        b"Content-MD5: x\0y\r\n",
        b'From: a@b, (c(d) e) "f\\" <@r,@s:g@h>, Group: i, j@k;;\r\n',
        b"To: <\r\n",
        b"Date: Wed, 17 Jul 1996 02:44:25 -0700 (x)\r\n",
        b"Subject: =?utf-8?q?a?= =?utf-8?b?YQ=?=\r\n\t folded\r\n",
        b"Received: x\r\n",
        b"From someone Thu Jan  1 00:00:00 1970\n",
        b"no field\r\n",
        b" continuation\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"--b\r\n",
        b"--bb\r\n",
        b"--b--\r\n",
        b"--bb--  \n",
        b"--b",
        b"\0\xff\xfe",
        b"QUJD\r\n",
        b"text = \r\n",
    ]
)
MESSAGES = st.one_of(
    st.binary(max_size=300), st.lists(st.one_of(LINES, st.binary(max_size=20)), max_size=40).map(b"".join)
)
FEW = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def check(octets: bytes, limits: MessageLimits | None = None) -> None:
    summary, structure = summarise_with_structure(octets, limits or MessageLimits())
    check_envelope(read_data(summary.imap_envelope))
    check_body(read_data(summary.body), is_extended=False)
    check_body(read_data(summary.body_structure), is_extended=True)
    size = len(octets)
    assert summary.size_octets == size
    assert 0 <= summary.header_octets <= size
    # From may stand three times in an envelope, and one octet may need an entry of its own.
    assert len(summary.imap_envelope) + len(summary.body) + len(summary.body_structure) < 100 * size + 1_000
    assert len(summary.cached_fields) <= 8192
    for part in structure.parts:
        assert 0 <= part.header_start <= part.body_start <= part.end <= size
        end = part.body_start
        for child in part.children:
            assert end <= child.header_start
            end = child.end
        assert end <= part.end
    header = section_octets(octets, structure, Section((), SectionKind.HEADER))
    text = section_octets(octets, structure, Section((), SectionKind.TEXT))
    assert header is not None
    assert text is not None
    assert header + text == octets


@given(MESSAGES)
@FEW
def test_r_mime_1_any_octets_are_a_message(octets):
    check(octets)


@given(MESSAGES, st.integers(0, 3), st.integers(1, 4))
@FEW
def test_r_mime_1_with_tiny_limits(octets, nesting, parts):
    check(
        octets,
        MessageLimits(
            nesting=nesting,
            parts=parts,
            boundary_octets=1,
            parameters=1,
            header_octets=30,
            field_octets=10,
            fields=2,
            addresses=1,
        ),
    )


@given(st.lists(LINES, max_size=12).map(b"".join))
@settings(max_examples=40, deadline=None)
def test_every_prefix_is_a_message(octets):
    for length in range(len(octets)):
        check(octets[:length])


@given(MESSAGES, st.lists(st.integers(1, 3), max_size=4), st.sampled_from(list(SectionKind)))
@FEW
def test_any_section_of_any_message(octets, path, kind):
    structure = scan(octets)
    section = Section(tuple(path), kind, frozenset({b"from", b"subject"}))
    located = locate(structure, section)
    found = section_octets(octets, structure, section)
    assert (located is None) == (found is None)
    if located is not None and found is not None:
        assert 0 <= located.offset <= located.offset + located.length <= len(octets)
        for first, count in ((0, 5), (3, 1000), (10_000, 2)):
            assert section_octets(octets, structure, section, (first, count)) == found[first : first + count]
    with suppress(UnknownEncoding):
        binary_octets(octets, structure, tuple(path))


@given(MESSAGES)
@FEW
def test_fields_tile_the_header_section(octets):
    section = read_header(octets, 0, len(octets))
    rows = b"".join(row[0] + row[2] for row in section.rows)
    assert octets.startswith(rows)
    assert octets[len(rows) : section.body_start] in (b"", b"\r\n", b"\n")
    header = octets[: section.body_start]
    for field in iterate_fields(header):
        raw = header[field.start : field.end]
        assert raw.startswith(field.name)
        assert field.body in raw
    everything = select_fields(header, frozenset(), negate=True)
    assert everything.startswith(b"".join(row[0] for row in section.rows))


@given(st.binary(max_size=120), st.text(max_size=5))
@FEW
def test_small_readers_never_raise(octets, wanted):
    entries = parse_addresses(octets)
    assert len(entries) <= len(octets) + 2
    header_addresses(octets)
    assert "\n" not in decode_header(octets)
    day = sent_day(octets)
    assert (day == -1) or parse_date(octets) is not None
    parse_internal_date(octets)
    parse_search_date(octets)
    parse_section(octets)
    count_received(octets)
    search = TextSearch(wanted)
    search.is_in_field(octets)
    search.is_in_header(octets)


@given(MESSAGES, st.text(min_size=1, max_size=3))
@FEW
def test_search_agrees_with_the_decoded_text(octets, wanted):
    structure = scan(octets)
    search = TextSearch(wanted)
    of_texts = any(fold_text(wanted) in fold_text(text) for text in iterate_text(octets, structure))
    found = search.is_in_body(octets, structure)
    assert found or not of_texts
    assert search.is_in_message(octets, structure) or not found


@given(MESSAGES, st.sampled_from(["a", "e", "xt", "tex", "MIME", "0", "=", "-", "?", "z"]))
@FEW
def test_what_a_look_at_the_octets_rules_out_is_not_there(octets, wanted):
    search, structure = TextSearch(wanted), scan(octets)
    if search.is_ruled_out(octets, with_header=True):
        assert not search.is_in_message(octets, structure)
    if search.is_ruled_out(octets, with_header=False):
        assert not search.is_in_body(octets, structure)


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
@FEW
def test_a_search_of_ascii_folds_all_characters_as_any_other(text, wanted):
    assert TextSearch(wanted).is_in_text(text) is (fold_text(wanted) in fold_text(text))


@given(st.characters(min_codepoint=128, codec="utf-8"))
@FEW
def test_what_characters_fold_to_is_found_by_ascii(character):
    text = f"x{character}y"
    for wanted in {"".join(part) for part in fold_text(text).encode("ascii", "replace").decode().split("?")} - {""}:
        assert TextSearch(wanted).is_in_text(text) is (wanted in fold_text(text))


def test_a_map_of_a_file_gives_the_same_summary():
    for octets in messages(20, 3):
        with tempfile.TemporaryFile() as file:
            file.write(octets)
            file.flush()
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                assert summarise(mapped) == summarise(octets)


def test_r_mime_1_needs_no_stack():
    nested = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(1_000))
    attached = b"Content-Type: message/rfc822\r\n\r\n" * 1_000
    comments = (
        b"From: " + b"(" * 10_000 + b")" * 10_000 + b" a@b\r\nContent-Type: text/plain " + b"(" * 5_000 + b"\r\n\r\n"
    )
    before = sys.getrecursionlimit()
    depth = len(inspect.stack())
    sys.setrecursionlimit(depth + 60)
    try:
        for octets in (nested, attached, comments):
            summarise(octets)
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
def test_bare_line_feeds_change_nothing_but_sizes(line_end):
    for octets in messages(20, 11):
        changed = octets.replace(b"\r\n", line_end)
        structure = scan(changed)
        assert [part.content_type for part in structure.parts] == [part.content_type for part in scan(octets).parts]
        assert [part.lines for part in structure.parts] == [part.lines for part in scan(octets).parts]
