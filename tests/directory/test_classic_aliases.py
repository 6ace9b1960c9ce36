"""Aliases in the form of /etc/aliases: lines, includes, and what never runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from mailsrv.address import Address
from mailsrv.directory.classic_aliases import (
    INCLUDE_LIMIT,
    AliasEntry,
    ClassicAliases,
    parse_classic_aliases,
    parse_include,
)
from mailsrv.directory.watched_file import FileWatching
from mailsrv.errors import Unavailable
from mailsrv.interfaces.directory import IDirectory
from tests.contracts.directory import ALICE, BOB, RunAtOnce


def names(octets: bytes, domain: str = "example.test"):
    parsed = parse_classic_aliases(octets, domain)
    return {name: [str(target) for target in entry.targets] for name, entry in parsed.value.items()}


def test_names_continuations_quotes_and_comments():
    assert names(
        b"# system aliases\nPostmaster: root\nroot:\talice,\n\tbob@example.org ,\n  # a comment within\n"
        b'  carol\n"two words": "d e"@example.org, alice\n"quo\\"ted": alice\n\nself: \\self\n'
    ) == {
        "postmaster": ["root@example.test"],
        "root": ["alice@example.test", "bob@example.org", "carol@example.test"],
        'quo"ted': ["alice@example.test"],
        "self": ["self@example.test"],
    }


def test_quoted_names_and_targets():
    assert names(b'"two words": "o neill", alice@example.org\n') == {
        "two words": ['"o neill"@example.test', "alice@example.org"]
    }


@pytest.mark.parametrize(
    ("line", "targets"),
    [
        ("x: |/bin/sh", None),
        ('x: "|/bin/sh -c \\"id\\""', None),
        ("x: /var/mail/alice", None),
        ("x: /dev/null", None),
        ("x: alice, |/bin/sh, /tmp/x, bob", ["alice@example.test", "bob@example.test"]),
        ('x: "|sh, alice", bob', ["bob@example.test"]),
        ("x: :include:relative", None),
        ("x: @example.org", None),
        ("x: al\0ice", None),
    ],
)
def test_r_inj_1_commands_and_files_are_passed_over_with_a_line(line, targets):
    parsed = parse_classic_aliases(line.encode() + b"\ny: bob\n", "example.test")
    assert {problem.line for problem in parsed.problems} == {1}
    found = parsed.value.get("x")
    assert ([str(target) for target in found.targets] if found else None) == targets
    assert "y" in parsed.value


@pytest.mark.parametrize("line", ["x", "x:", 'x: "open', ": alice", "x@example.test: alice", '"x: alice', 'x: a"b"'])
def test_lines_that_are_none(line):
    parsed = parse_classic_aliases(b"one: bob\n" + line.encode() + b"\ntwo: bob\n", "example.test")
    assert set(parsed.value) == {"one", "two"}
    assert {problem.line for problem in parsed.problems} == {2}


def test_the_first_of_two_counts_and_names_need_a_domain():
    parsed = parse_classic_aliases(b"a: x@b.test\nA: y@b.test\nb: c\n", "")
    assert parsed.value == {"a": AliasEntry((Address("x", "b.test"),))}
    assert [problem.line for problem in parsed.problems] == [2, 3, 3]


def test_includes_are_bounded():
    lines = b"".join(b"n%d: :include:/x/%d\n" % (number, number) for number in range(INCLUDE_LIMIT + 3))
    assert len(parse_classic_aliases(lines, "example.test").value) == INCLUDE_LIMIT


def test_included_files_hold_addresses_only():
    parsed = parse_include(b'# staff\nalice, bob\n"|sh"\n:include:/x\n\xff\ncarol@example.org\n"open', "example.test")
    assert [str(each) for each in parsed.value] == ["alice@example.test", "bob@example.test", "carol@example.org"]
    assert [problem.line for problem in parsed.problems] == [3, 4, 5, 7]


@given(st.binary(max_size=200))
def test_any_octets_parse(octets):
    for parse in (parse_classic_aliases, parse_include):
        parse(octets, "example.test")


@given(st.lists(st.sampled_from([b'"', b"\\", b",", b" ", b"a", b":", b"\n", b"|", b"/", b"@b.test"]), max_size=30))
def test_any_mixture_parses(pieces):
    parsed = parse_classic_aliases(b"x: " + b"".join(pieces), "example.test")
    assert all(entry.targets or entry.includes for entry in parsed.value.values())


class House:
    def __init__(self, tmp_path, text, **options):
        self.path = tmp_path / "aliases"
        self.path.write_text(text)
        self.clock = Clock()
        watching = FileWatching(self.clock, RunAtOnce())
        self.directory = ClassicAliases(str(self.path), watching, default_domain="example.test", **options)

    def find(self, address):
        answers: list = []
        self.directory.find_alias(address).addBoth(answers.append)
        return answers[0]


def test_it_is_for_all_domains_or_for_one(tmp_path):
    house = House(tmp_path, "root: alice\n")
    verifyObject(IDirectory, house.directory)
    assert house.find(Address("Root", "example.test")) == house.find(Address("root", "other.test")) == (ALICE,)
    assert house.find(ALICE) is None
    one = House(tmp_path, "root: alice\n", domain="other.test")
    assert one.find(Address("root", "other.test")) == (Address("alice", "other.test"),)
    assert one.find(Address("root", "example.test")) is None


def test_included_files_are_followed(tmp_path):
    included = tmp_path / "staff"
    included.write_text("bob\n")
    house = House(tmp_path, f"staff: alice, :include:{included}\nonly: :include:{included}\n")
    staff = Address("staff", "example.test")
    assert house.find(staff) == (ALICE, BOB)
    included.write_text("carol@example.org\n")
    house.clock.advance(1)
    assert house.find(staff) == (ALICE, Address("carol", "example.org"))
    included.write_text("# nobody\n")
    house.clock.advance(1)
    assert house.find(staff) == (ALICE,)
    assert house.find(Address("only", "example.test")).check(Unavailable)


def test_r_auth_7_an_include_that_cannot_be_read_is_unavailable(tmp_path):
    house = House(tmp_path, f"staff: alice, :include:{tmp_path}/gone\nroot: alice\n")
    assert house.find(Address("staff", "example.test")).check(Unavailable)
    assert house.find(Address("root", "example.test")) == (ALICE,)
