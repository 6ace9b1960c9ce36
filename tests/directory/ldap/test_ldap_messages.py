"""Messages against ldap3, which speaks the whole of LDAP; and what no server should send."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ldap3.operation.search import compile_filter, parse_filter
from ldap3.utils.asn1 import decode_message_fast, encode

from mailsrv.directory.ldap import messages
from mailsrv.directory.ldap.filters import all_of, any_of, equal, in_chain, negated
from mailsrv.directory.ldap.messages import MessageError, Outcome, tlv

WRITTEN = (
    "(a=b)",
    "(a=*)",
    "(a=x*)",
    "(a=*x)",
    "(a=x*y*z)",
    "(a=*\\2a*)",
    "(a>=5)",
    "(a<=5)",
    "(a~=5)",
    "(!(a=b))",
    "(&(a=b)(|(c=d)(e=f))(!(g=*)))",
    "(a;lang-de=b)",
    "(1.2.3=b)",
    "(userAccountControl:1.2.840.113556.1.4.803:=2)",
    "(cn:dn:2.4.6=x)",
)


def octets_by_ldap3(text: str) -> bytes:
    # A SET OF within BER has no order; ldap3 leaves ours.
    octets: bytes = encode(compile_filter(parse_filter(text, None, True, True, None, False).elements[0]))
    return octets


@pytest.mark.parametrize("text", WRITTEN[:14])
def test_filters_are_written_as_ldap3_writes_them(text):
    assert messages.encode_filter(text) == octets_by_ldap3(text)


VALUES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
FILTERS = st.recursive(
    st.one_of(
        st.builds(equal, st.sampled_from(["uid", "mail", "cn;lang-en"]), st.one_of(VALUES, st.binary(min_size=1))),
        st.builds(in_chain, st.just("memberOf"), VALUES),
    ),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map(all_of),
        st.lists(inner, min_size=1, max_size=4).map(any_of),
        inner.map(negated),
    ),
    max_leaves=12,
)


@given(FILTERS)
def test_r_inj_3_what_the_builder_makes_is_written_as_it_is_meant(made):
    assert messages.encode_filter(made.text) == octets_by_ldap3(made.text)


def test_filters_may_have_space_between_them_and_extended_matches_their_parts():
    assert messages.encode_filter("\n(&\n  (a=b)\n  (c=d) )\n") == messages.encode_filter("(&(a=b)(c=d))")
    made = messages.encode_filter("(cn:dn:2.4.6:=x)")
    assert made == tlv(0xA9, tlv(0x81, b"2.4.6") + tlv(0x82, b"cn") + tlv(0x83, b"x") + tlv(0x84, b"\xff"))


@pytest.mark.parametrize(
    "text",
    ["", "a=b", "(a=b", "(a=b))", "(a=b)(c=d)", "(!(a=b)(c=d))", "(:=x)", "(a=\\2)", "(a=\\zz)", "(a=x\\)", "(?(a=b))"],
)
def test_what_is_no_filter(text):
    with pytest.raises(ValueError, match=r"."):
        messages.encode_filter(text)


def test_filters_within_filters_have_an_end():
    with pytest.raises(ValueError, match="within"):
        messages.encode_filter("(&" * 100 + ")" * 100)


def test_r_auth_1_a_bind_without_name_or_password_cannot_be_written():
    for dn, password in (("", b"x"), ("cn=x", b"")):
        with pytest.raises(ValueError, match="name and a password"):
            messages.bind_request(1, dn, password)
    assert decode_message_fast_number(messages.bind_request(77, "cn=x", b"y")) == 77


def decode_message_fast_number(octets: bytes) -> int:
    return messages.read_message(octets).number


@given(
    dn=st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
    values=st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True),
        st.lists(st.binary(max_size=300), min_size=1, max_size=8),
        max_size=8,
    ),
    number=st.integers(1, 2**31 - 1),
)
def test_entries_are_read_as_ldap3_reads_them(dn, values, number):
    attributes = b"".join(
        tlv(0x30, tlv(4, name.encode()) + tlv(0x31, b"".join(tlv(4, value) for value in each)))
        for name, each in values.items()
    )
    entry = tlv(4, dn.encode()) + tlv(0x30, attributes)
    octets = tlv(0x30, tlv(2, number.to_bytes(5, "big").lstrip(b"\0").rjust(5, b"\0")) + tlv(0x64, entry))
    assert messages.message_size(octets[:6], 1 << 30) == len(octets)
    message = messages.read_message(octets)
    assert (message.number, message.tag) == (number, messages.SEARCH_ENTRY)
    assert messages.read_entry(message.content) == (dn, {name: tuple(each) for name, each in values.items()})
    by_ldap3 = decode_message_fast(octets)
    assert by_ldap3["messageID"] == number
    assert bytes(by_ldap3["payload"][0][3]) == dn.encode()


def test_an_attribute_that_comes_in_a_hundred_thousand_pieces_takes_no_longer_for_it():
    piece = tlv(0x30, tlv(4, b"mail") + tlv(0x31, tlv(4, b"x")))
    began = time.process_time()
    _, values = messages.read_entry(tlv(4, b"uid=a") + tlv(0x30, piece * 100_000))
    assert len(values["mail"]) == 100_000
    assert time.process_time() - began < 2.0


READERS = (
    messages.read_message,
    messages.read_entry,
    messages.read_outcome,
    messages.read_response_name,
    messages.read_page_cookie,
)


@given(octets=st.one_of(st.binary(max_size=200), st.binary(max_size=100).map(lambda inner: tlv(0x30, inner))))
def test_any_octets_are_read_or_refused(octets):
    for read in READERS:
        try:
            read(octets)
        except MessageError:
            continue


@given(data=st.data())
def test_a_message_that_was_cut_or_changed_is_read_or_refused(data):
    cookie = tlv(0x30, tlv(2, b"\0") + tlv(4, b"cookie"))
    control = tlv(0x30, tlv(4, messages.PAGED_RESULTS) + tlv(4, cookie))
    done = tlv(0x65, tlv(0x0A, b"\0") + tlv(4, b"") + tlv(4, b"fine"))
    octets = bytearray(tlv(0x30, tlv(2, b"\x05") + done + tlv(0xA0, control)))
    whole = messages.read_message(bytes(octets))
    assert messages.read_outcome(whole.content) == Outcome(0, "fine")
    assert messages.read_page_cookie(whole.controls) == b"cookie"
    octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = messages.read_message(bytes(octets[: data.draw(st.integers(0, len(octets)))]))
        messages.read_outcome(found.content)
        messages.read_page_cookie(found.controls)
    except MessageError:
        pass


@pytest.mark.parametrize("head", [b"HTTP/1.1", b"\x30\x80", b"\x30\x85\0\0\0\0\1", b"\x30\x84\x7f\xff\xff\xff"])
def test_a_size_that_cannot_be_is_refused_before_anything_more_is_read(head):
    with pytest.raises(MessageError):
        messages.message_size(head, 1 << 20)


def test_a_size_that_is_not_all_there_is_waited_for():
    assert messages.message_size(b"", 100) is None
    assert messages.message_size(b"\x30", 100) is None
    assert messages.message_size(b"\x30\x82\x01", 1000) is None
    assert messages.message_size(b"\x30\x82\x01\x00", 1000) == 260
