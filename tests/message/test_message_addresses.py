"""Address lists (RFC 5322 3.4, 4.4) as ENVELOPE has them (RFC 9051 7.5.2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.address import Address
from mailsrv.message import header_addresses, parse_addresses
from mailsrv.message.addresses import GROUP_END, EnvelopeAddress


def person(mailbox: bytes, host: bytes, name: bytes | None = None, adl: bytes | None = None) -> EnvelopeAddress:
    return EnvelopeAddress(name, adl, mailbox, host)


AB = person(b"a", b"b.test")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", []),
        (b" \r\n ", []),
        (b",,;,", []),
        (b"a@b.test", [AB]),
        (b"<a@b.test>", [AB]),
        (b" a@b.test , a@b.test", [AB, AB]),
        (b"N <a@b.test>", [person(b"a", b"b.test", b"N")]),
        (b"N  M\r\n\tO <a@b.test>", [person(b"a", b"b.test", b"N M O")]),
        (b'"N" <a@b.test>', [person(b"a", b"b.test", b"N")]),
        (b'"N, \\"M\\"" <a@b.test>', [person(b"a", b"b.test", b'N, "M"')]),
        (b'"" <a@b.test>', [AB]),
        (b'N "M" O. <a@b.test>', [person(b"a", b"b.test", b"N M O.")]),
        (b"a@b.test (N (M) O)", [person(b"a", b"b.test", b"N (M) O")]),
        (b"(x) N (y) <a@b.test> (z)", [person(b"a", b"b.test", b"N")]),
        (b"<a@b.test> (N)", [person(b"a", b"b.test", b"N")]),
        (b"<@r.test,@s.test:a@b.test>", [person(b"a", b"b.test", None, b"@r.test,@s.test")]),
        (b'"a b"@b.test', [person(b"a b", b"b.test")]),
        (b'"a@c"@b.test', [person(b"a@c", b"b.test")]),
        (b"a . c @ b . test", [person(b"a.c", b"b.test")]),
        (b"a@[192.0.2.1]", [person(b"a", b"[192.0.2.1]")]),
        (b"a@[IPv6:2001:db8::1], a@b.test", [person(b"a", b"[IPv6:2001:db8::1]"), AB]),
        (b"G:;", [EnvelopeAddress(None, None, b"G", None), GROUP_END]),
        (b"G H: a@b.test,N <a@b.test>; , a@b.test", None),
        (b"G: a@b.test", [EnvelopeAddress(None, None, b"G", None), AB, GROUP_END]),
        (b"postmaster", [person(b"postmaster", b"")]),
        (b"a@b.test <a@b.test>", [person(b"a", b"b.test", b"a@b.test")]),
        (b"a@b.test; a@b.test", [AB, AB]),
        (b"<a@b.test", [AB]),
        (b"a@b.test>, a@b.test", [AB, AB]),
        (b"<a@b.test> <a@b.test>", [AB, AB]),
        (b"N <a@b.test> M <a@b.test>", [person(b"a", b"b.test", b"N M"), AB]),
        (b"<<a@b.test>>, a@b.test", [AB, AB]),
        (b"<@r.test>, a@b.test", [person(b"", b"r.test"), AB]),
        (b"<>", []),
        (b"N <>", [person(b"", b"", b"N")]),
        (b"<N <a@b.test>", None),
        ("Jü <jü@b.test>".encode(), [person("jü".encode(), b"b.test", "Jü".encode())]),
        (b"=?utf-8?q?J=C3=BC?= <a@b.test>", [person(b"a", b"b.test", b"=?utf-8?q?J=C3=BC?=")]),
    ],
)
def test_reading(body, expected):
    found = parse_addresses(body)
    if expected is not None:
        assert found == expected
    else:
        assert AB in found or person(b"a", b"b.test>") in found


def test_groups_are_marked_by_their_begin_and_end():
    found = parse_addresses(b"G H: a@b.test,N <a@b.test>; , a@b.test")
    assert found == [
        EnvelopeAddress(None, None, b"G H", None),
        AB,
        person(b"a", b"b.test", b"N"),
        GROUP_END,
        AB,
    ]


def test_a_cut_group_is_closed():
    found = parse_addresses(b"G: " + b"a@b.test, " * 50, 10)
    assert found[0].mailbox == b"G"
    assert found[-1] == GROUP_END
    assert len(found) <= 11


def test_valid_addresses_only():
    body = b'N <A.b@Example.TEST>, (c) bad, x@-bad-, G: c@d.test; \xff@d.test, "q q"@d.test'
    assert header_addresses(body) == [
        Address("A.b", "example.test"),
        Address("c", "d.test"),
        Address("q q", "d.test"),
    ]


def test_a_second_address_behind_a_comment_is_seen():
    assert header_addresses(b"a@b.test (x, <evil@d.test>) , c@d.test") == [
        Address("a", "b.test"),
        Address("c", "d.test"),
    ]


ATOMS = st.text("abcXYZ019!#$%&'*+-/=?^_`{|}~", min_size=1, max_size=8)
NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f"), max_size=12)


@given(st.lists(st.tuples(NAMES, ATOMS, st.sampled_from(["example.test", "a.b.test"])), max_size=6), st.booleans())
def test_well_formed_lists_come_back(people, folded):
    quoted = [name.replace("\\", "\\\\").replace('"', '\\"') for name, _, _ in people]
    texts = [f'"{name}" <{local}@{host}>' for name, (_, local, host) in zip(quoted, people, strict=True)]
    body = (",\r\n " if folded else ",").join(texts).encode()
    expected = [(name.encode() or None, None, local.encode(), host.encode()) for name, local, host in people]
    assert [tuple(entry) for entry in parse_addresses(body)] == expected
