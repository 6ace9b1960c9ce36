"""Terminals, names, dates, sequence sets and patterns: values in, values out; and octets that mean nothing."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailsrv.errors import MailError
from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.command.table import COMMANDS
from mailsrv.imap.dates import format_date_time, parse_date, parse_date_time
from mailsrv.imap.errors import BadCommand, CommandRefused
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.names import decode_name, encode_name, format_name, parse_name
from mailsrv.imap.pattern import Pattern, compile_pattern
from mailsrv.imap.sequence_set import SequenceSet, format_sequence_set, match_sequence_set
from mailsrv.imap.settings import ImapSettings
from mailsrv.message.dates import format_internal_date


@pytest.mark.parametrize(
    ("octets", "value"),
    [
        (b"atom", b"atom"),
        (b"a]b", b"a]b"),
        (b'"quo\\"ted \\\\"', b'quo"ted \\'),
        (b"{3}\r\na b", b"a b"),
        (b"{0+}\r\n", b""),
        ('"grün"'.encode(), "grün".encode()),
    ],
)
def test_an_astring_is_read_in_all_its_forms(octets, value):
    cursor = Cursor(octets)
    assert cursor.astring() == value
    assert cursor.at_end()


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"(",
        b'"open',
        b'"bad \\n"',
        b'"\xff"',
        b"{3}\r\nab",
        b"{3}ab",
        b"{1}\r\n\0",
        b'"\x01"',
        b"{1}\r\n\x1b",
    ],
)
def test_r_ctl_1_what_is_no_astring_is_refused(octets):
    with pytest.raises(BadCommand):
        Cursor(octets).astring()


def test_parentheses_are_counted():
    cursor = Cursor(b"((((", depth_limit=3)
    for _ in range(3):
        cursor.open_parenthesis()
    with pytest.raises(BadCommand):
        cursor.open_parenthesis()


# Names


@pytest.mark.parametrize(
    ("name", "octets"),
    [
        ("INBOX", b"INBOX"),
        ("a&b", b"a&-b"),
        ("Entwürfe", b"Entw&APw-rfe"),
        ("~peter/mail/台北/日本語", b"~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
        ("\U0001f600", b"&2D3eAA-"),
    ],
)
def test_names_in_modified_utf7(name, octets):
    assert encode_name(name) == octets
    assert decode_name(octets) == name


@pytest.mark.parametrize(
    "octets",
    [
        b"&",
        b"a&b",
        b"&AGE-",
        b"&U,BTFw",
        b"&ZeVnLIqe-&U,BTFw-",
        b"&APw=-",
        b"\xc3\xbc",
        b"&2D0-",
        b"&A-",
        b"&APx-",
        b"a\xff",
    ],
)
def test_each_name_has_one_spelling_only(octets):
    with pytest.raises(ValueError, match=r"."):
        decode_name(octets)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_every_name_comes_back(name):
    assert decode_name(encode_name(name)) == name


@given(st.binary(max_size=30))
def test_octets_are_a_name_or_refused(octets):
    try:
        name = decode_name(octets)
    except ValueError:
        return
    assert encode_name(name) == octets


def test_inbox_in_any_case_and_controls():
    assert parse_name(b"iNboX", is_utf8=False) == "INBOX"
    assert parse_name(b"inbox/Sub", is_utf8=False) == "INBOX/Sub"
    assert parse_name(b"Inboxes", is_utf8=False) == "Inboxes"
    assert parse_name("grün".encode(), is_utf8=True) == "grün"
    for octets in (b"&AAo-", b"&AIU-"):
        with pytest.raises(CommandRefused):
            parse_name(octets, is_utf8=False)
    assert format_name('a"b\\c', is_utf8=False) == b'"a\\"b\\\\c"'
    assert format_name("ü", is_utf8=True) == '"ü"'.encode()


# Sequence sets


def _whole_set(octets):
    cursor = Cursor(octets)
    cursor.sequence_set()
    cursor.end()


def test_sets_are_resolved():
    found, end = match_sequence_set(b"4:2,7,*,9:* ", 0)
    assert end == 11
    assert found.resolve(10) == [(2, 4), (7, 7), (9, 10)]
    assert SequenceSet(((559, 0),)).resolve(500) == [(500, 559)]
    for bad in (b"", b"0", b"1,", b",1", b"1:", b"4294967296", b"a"):
        with pytest.raises(BadCommand):
            _whole_set(bad)


@given(st.lists(st.integers(1, 60)))
def test_a_formatted_set_means_its_numbers(numbers):
    ordered = sorted(set(numbers))
    text = format_sequence_set(ordered)
    if not ordered:
        assert text == b""
        return
    ranges = match_sequence_set(text, 0)[0].resolve(1)
    assert [n for low, high in ranges for n in range(low, high + 1)] == ordered


# Dates


def test_dates():
    assert parse_date(Cursor(b"2-Jan-1970")) == 1
    assert parse_date(Cursor(b'"02-jan-1970"')) == 1
    assert parse_date_time(Cursor(b'" 1-Jan-1970 01:00:10 +0100"')) == (10, 60)
    for bad in (b"31-Feb-2020", b"x", b'"1-Jan-1970', b"1-Foo-1970"):
        with pytest.raises(BadCommand):
            parse_date(Cursor(bad))
    for bad in (b'"1-Jan-1970 01:00:10 +0100"', b'" 1-Jan-1970 25:00:10 +0100"', b'" 1-Jan-1970 01:00:10"'):
        with pytest.raises(BadCommand):
            parse_date_time(Cursor(bad))


@given(st.integers(-(10**11), 10**12), st.integers(-1439, 1439))
@example(0, 0)
def test_internal_dates_are_as_the_message_package_writes_them(seconds, offset):
    assert format_date_time(seconds, offset) == format_internal_date(seconds, offset)


# Patterns


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*", ["INBOX", "a/b"], []),
        ("%", ["INBOX", "a"], ["a/b"]),
        ("a/%", ["a/b"], ["a", "a/b/c"]),
        ("a*c", ["ac", "a/b/c"], ["acd"]),
        ("in*", ["INBOX", "INBOX/x", "in/x"], ["Inner"]),
        ("inbox", ["INBOX"], ["inboxes"]),
        ("%/b%", ["a/b", "a/bc"], ["b", "a/c/b"]),
        ("", [""], ["a"]),
        ("a%%*%b", ["ab", "a/b", "axb"], ["a"]),
    ],
)
def test_patterns(pattern, yes, no):
    compiled = compile_pattern("", pattern)
    for name in yes:
        assert compiled.matches(name), name
    for name in no:
        assert not compiled.matches(name), name


def naive(pattern: str, name: str) -> bool:
    if not pattern:
        return not name
    head, rest = pattern[0], pattern[1:]
    if head in "*%":
        return any(
            naive(rest, name[count:]) for count in range(len(name) + 1) if head == "*" or "/" not in name[:count]
        )
    return bool(name) and name[0] == head and naive(rest, name[1:])


@given(st.text("ab/*%", max_size=8), st.text("ab/", max_size=10))
def test_patterns_against_the_definition(pattern, name):
    assert Pattern(pattern).matches(name) == naive(pattern, name)


class Counted(str):
    """A name that counts how often its characters are looked at."""

    looked = 0

    def __iter__(self):
        for character in str.__iter__(self):
            Counted.looked += 1
            yield character


def test_r_imap_2_a_pattern_looks_at_each_character_once():
    Counted.looked = 0
    name = Counted("a" * 1000 + "b")
    for text in ("%a" * 1000, "*a" * 999 + "%", "%" * 2000):
        Pattern(text).matches(name)
    assert Counted.looked <= 3 * len(name)


# Whole commands


_WORDS = b"( ) 1:* FLAGS BODY[ ] NOT OR UID RETURN CHARSET INBOX * % <0.1> MODSEQ \\Seen ~{1} BINARY[1]".split()
WORDS = st.sampled_from([*_WORDS, b"(CHANGEDSINCE 1)", b"RETURN (", b"BODY[HEADER.FIELDS (a)]"])
LITERALS = st.sampled_from([b" ", b'"', b"{3}\r\nabc", b"{2+}\r\nab", b"\0"])


@settings(max_examples=400)
@given(
    st.sampled_from(sorted(COMMANDS)),
    st.lists(st.one_of(WORDS, LITERALS, st.binary(max_size=6)), max_size=14),
    st.booleans(),
)
def test_r_imap_1_any_command_is_read_or_refused(name, pieces, is_uid):
    """Invariant: nothing but a MailError is raised, and its text is one line of ASCII."""
    refusal = None
    cursor = Cursor(b" " + b"".join(pieces), depth_limit=8)
    try:
        COMMANDS[name].parse(cursor, ParseContext(ImapSettings(), is_uid))
        cursor.end()
    except MailError as error:
        refusal = error.text
    assert refusal is None or (refusal.isascii() and refusal.isprintable())


def test_r_imap_1_deep_nesting_needs_no_stack():
    for text in (b"(" * 60_000, b"NOT " * 15_000, b"OR " * 20_000):
        with pytest.raises(BadCommand):
            COMMANDS[b"SEARCH"].parse(Cursor(b" " + text, depth_limit=50), ParseContext(ImapSettings()))
