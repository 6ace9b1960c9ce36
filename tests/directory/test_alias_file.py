"""Alias files: their lines, and what is refused in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from mailsrv.address import Address
from mailsrv.directory.alias_file import AliasFile, parse_aliases
from mailsrv.directory.watched_file import FileWatching
from mailsrv.errors import Unavailable
from tests.contracts.directory import ALICE, BOB, STAFF, RunAtOnce


def test_lines_comments_and_continuations():
    parsed = parse_aliases(
        b"# comment\r\nStaff: alice, bob@example.test,\r\n\tcarol@elsewhere.test\n# in between\n\nx@y.test : alice\n",
        "example.test",
    )
    assert parsed.problems == ()
    assert parsed.value == {
        STAFF: (ALICE, BOB, Address("carol", "elsewhere.test")),
        Address("x", "y.test"): (ALICE,),
    }


@pytest.mark.parametrize(
    "line",
    [
        "staff",
        "staff:",
        "staff: ,",
        ": alice",
        "@example.test: alice",
        "staff: |/bin/sh",
        'staff: "|sh -c x"',
        "staff: /var/mail/alice",
        "staff: :include:/etc/passwd",
        "staff: <alice@example.test>",
        "staff: \\alice",
        "staff: alice bob",
        "staff: alice@exam ple.test",
        "st\0aff: alice",
        "staff: alice, |x",
    ],
)
def test_r_inj_1_what_is_no_address_is_refused_with_its_line(line: str):
    parsed = parse_aliases(b"one: bob\n" + line.encode() + b"\ntwo: bob\n", "example.test")
    assert [problem.line for problem in parsed.problems] == [2]
    assert len(parsed.value) == 2


def test_the_first_of_two_counts():
    parsed = parse_aliases(b"a@b.test: x@b.test\n\xff@b.test: x@b.test\nA@B.test: y@b.test", "")
    assert parsed.value == {Address("a", "b.test"): (Address("x", "b.test"),)}
    assert [problem.line for problem in parsed.problems] == [2, 3]


@given(st.binary(max_size=200))
def test_any_octets_parse(octets: bytes):
    parsed = parse_aliases(octets, "example.test")
    assert all(parsed.value.values())


def test_it_follows_its_file(tmp_path):
    path = tmp_path / "aliases"
    path.write_text("staff: alice\n")
    clock = Clock()
    directory = AliasFile(str(path), FileWatching(clock, RunAtOnce()), default_domain="example.test")
    assert directory.find_alias(STAFF).result == (ALICE,)
    path.write_text("staff: bob\n")
    clock.advance(1)
    assert directory.find_alias(STAFF).result == (BOB,)
    path.unlink()
    clock.advance(1)
    failures: list = []
    directory.find_alias(STAFF).addErrback(failures.append)
    assert failures[0].check(Unavailable)
