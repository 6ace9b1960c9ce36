"""The address value and its grammar (RFC 5321 4.1.2, RFC 6531), and R-INJ-1: what fails it never becomes text."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.address import (
    Address,
    AddressError,
    ScannedPath,
    format_unicode_domain,
    parse_domain,
    parse_forward_path,
    parse_mailbox,
    parse_reverse_path,
    scan_forward_path,
    scan_reverse_path,
)
from mailsrv.status import BAD_RECIPIENT_SYNTAX
from tests.linear import assert_linear, cpu_seconds

GOOD = {
    "alice@example.test": ("alice", "example.test"),
    "Alice@EXAMPLE.Test": ("Alice", "example.test"),
    "a.b-c+tag@sub.example.test": ("a.b-c+tag", "sub.example.test"),
    "!#$%&'*+-/=?^_`{|}~@x": ("!#$%&'*+-/=?^_`{|}~", "x"),
    '"a b"@x.y': ("a b", "x.y"),
    '"a@b"@x.y': ("a@b", "x.y"),
    r'"a\"\\b"@x.y': ('a"\\b', "x.y"),
    '"plain"@x.y': ("plain", "x.y"),
    "a@[192.0.2.1]": ("a", "[192.0.2.1]"),
    "a@[IPv6:2001:DB8:0:0::1]": ("a", "[ipv6:2001:db8::1]"),
    "jürgen@bücher.example": ("jürgen", "xn--bcher-kva.example"),
    "a@BÜCHER.example": ("a", "xn--bcher-kva.example"),
    "a@xn--bcher-kva.example": ("a", "xn--bcher-kva.example"),
    "用户@例子.测试": ("用户", "xn--fsqu00a.xn--0zwm56d"),
    "user%other@example.test": ("user%other", "example.test"),
    "host!user@example.test": ("host!user", "example.test"),
    "x" * 64 + "@y": ("x" * 64, "y"),
}
BAD = [
    "",
    "@",
    "a",
    "a@",
    "@b",
    "a@b@c",
    ".a@b",
    "a.@b",
    "a..b@c",
    "a b@c",
    '"a"b@c',
    '"a@c',
    '""@c',
    "a@b..c",
    "a@.b",
    "a@b.",
    "a@-b",
    "a@b-",
    "a@b_c",
    "a@" + "x" * 64,
    "a@[1.2.3]",
    "a@[1.2.3.4",
    "a@[1.2.3.4]x",
    "a@[IPv6:1.2.3.4]",
    "a@[IPv6:fe80::1%eth0]",
    "a@[tag:x]",
    "a@xn--",
    "a@xn--a-ecp.ru-\u2028",
    "a@b\u3002\u3002c",
    "a(comment)@b",
    "a@b(comment)",
    "<a@b>",
    "x" * 65 + "@y",
    "ü" * 33 + "@y",
    "x" * 60 + "@" + "y." * 97 + "y",
    "a\r\nRCPT TO:<b>@c",
    "a\0@c",
    '"a\rb"@c',
    '"a\nb"@c',
    '"a\tb"@c',
    '"a\x7f"@c',
    "a\x85b@c",
    "a\u2028b@c",
    "a\u202eb@c",
    "a\ud800@c",
    "a@c\n",
    "a@c\r\n",
    " a@c",
    "a@c ",
]


@pytest.mark.parametrize(("text", "expected"), GOOD.items())
def test_mailboxes_are_read(text, expected):
    address = parse_mailbox(text)
    assert (address.local_part, address.domain) == expected
    assert parse_mailbox(str(address)) == address
    assert parse_forward_path(f"<{text}>") == address
    assert parse_reverse_path(f"<{text}>") == address


@pytest.mark.parametrize("text", BAD)
def test_r_inj_1_what_fails_the_grammar_is_an_error(text):
    for parse, wrapped in ((parse_mailbox, text), (parse_forward_path, f"<{text}>"), (parse_reverse_path, f"<{text}>")):
        if (wrapped, parse) == ("<>", parse_reverse_path):
            continue
        with pytest.raises(AddressError) as refused:
            parse(wrapped)
        assert refused.value.status == BAD_RECIPIENT_SYNTAX
        assert refused.value.text.isascii()


@pytest.mark.parametrize(
    ("local_part", "domain"),
    [
        ("", "x"),
        ("a\n", "x"),
        ("a", "x\n"),
        ("a", "-x"),
        ("a", ""),
        ("a" * 65, "x"),
        ("a\0", "x"),
        ("a", "x y"),
        ("a", ".."),
    ],
)
def test_r_inj_1_no_address_can_be_made_from_it_either(local_part, domain):
    with pytest.raises(AddressError):
        Address(local_part, domain)


def test_source_routes_are_dropped():
    assert str(parse_forward_path("<@one.example,@two.example:joe@three.example>")) == "joe@three.example"
    assert str(parse_reverse_path("<@[192.0.2.1]:joe@three.example>")) == "joe@three.example"
    for broken in [
        "<@one.example>",
        "<@one.example:>",
        "<@one.example,joe@x>",
        "<@:joe@x>",
        "<@a,@b,@:j@x>",
        "<@a..b:j@x>",
    ]:
        with pytest.raises(AddressError):
            parse_forward_path(broken)


def test_the_null_reverse_path():
    assert parse_reverse_path("<>") is None
    assert scan_reverse_path("<> SIZE=1") == ScannedPath(None, 2)
    with pytest.raises(AddressError):
        parse_forward_path("<>")


@pytest.mark.parametrize("text", ["<Postmaster>", "<postmaster>", "<POSTMASTER>"])
def test_postmaster_needs_no_domain(text):
    address = parse_forward_path(text)
    assert (address.local_part, address.domain, str(address)) == ("postmaster", "", "postmaster")
    with pytest.raises(AddressError):
        parse_reverse_path(text)


def test_scanning_says_where_the_path_ended():
    text = 'FROM:<"a >b"@x.y> SIZE=3'
    scanned = scan_reverse_path(text, 5)
    assert scanned.address == Address("a >b", "x.y")
    assert text[scanned.end :] == " SIZE=3"
    assert scan_forward_path("<Postmaster> X") == (Address("postmaster", ""), 12)


def test_subaddresses():
    assert Address("alice+tag", "x").split_subaddress() == (Address("alice", "x"), "tag")
    assert Address("alice+a+b", "x").split_subaddress() == (Address("alice", "x"), "a+b")
    assert Address("alice-tag", "x").split_subaddress("-") == (Address("alice", "x"), "tag")
    for whole in ["alice", "+tag"]:
        assert Address(whole, "x").split_subaddress() == (Address(whole, "x"), "")
    assert Address("alice+tag", "x").split_subaddress("") == (Address("alice+tag", "x"), "")


def test_domains_have_one_form():
    address = Address("a", "BÜCHER.Example")
    assert address == Address("a", "xn--bcher-kva.example")
    assert address.ascii_domain == "xn--bcher-kva.example"
    assert address.unicode_domain == "bücher.example"
    assert address.is_ascii
    assert not Address("ä", "x").is_ascii
    assert format_unicode_domain("example.test") == "example.test"
    assert parse_domain("[IPV6:::1]") == "[ipv6:::1]"
    assert Address("a", "[::ffff:1]".replace("::ffff:1", "192.0.2.9")).is_address_literal


def test_addresses_can_be_sorted():
    assert sorted([Address("b", "x"), Address("a", "y"), Address("a", "x")])[0] == Address("a", "x")


@given(st.text(max_size=70), st.sampled_from(["example.test", "[192.0.2.1]", "bücher.example"]))
def test_every_address_survives_being_written_and_read(local_part, domain):
    try:
        address = Address(local_part, domain)
    except AddressError:
        return
    text = str(address)
    assert not set(text) & set("\r\n\0\x85\u2028")
    assert parse_mailbox(text) == address
    assert parse_forward_path(f"<{text}>") == address


@given(st.text(alphabet='ab@<>".,:[]\\% \t\r\n\0ü-+', max_size=30))
def test_no_other_error_than_the_declared_one(text):
    for parse in (parse_mailbox, parse_forward_path, parse_reverse_path):
        try:
            address = parse(text)
        except AddressError:
            continue
        assert address is None or parse_mailbox(str(address)) == address or not address.domain


@pytest.mark.parametrize(
    "make",
    [
        lambda n: "<" + "@a," * n + "@a:x@y>",
        lambda n: "<" + "a." * n + "@x>",
        lambda n: '<"' + "\\a" * n + '"@x>',
        lambda n: '<"' + "\\" * n,
        lambda n: "<a@" + "b." * n + ">",
        lambda n: "<a@" + "ü." * n + ">",
    ],
)
def test_work_grows_no_faster_than_input(make):
    def parse(text: str) -> None:
        for _ in range(5):
            with contextlib.suppress(AddressError):
                parse_forward_path(text)

    texts = {count: make(count) for count in (4000, 8000)}
    assert_linear(lambda count: cpu_seconds(lambda: parse(texts[count])), 4000)
