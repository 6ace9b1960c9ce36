"""Fields a server writes (RFC 5321 4.4, RFC 3848, RFC 5322 2.1.1)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.address import Address
from mailsrv.message import (
    Hop,
    InvalidField,
    TransmissionType,
    count_received,
    format_field,
    format_received,
    format_return_path,
    iterate_fields,
    missing_originator_fields,
    new_message_id,
    transmission_type,
    unfold,
)

HOP = Hop(
    by="mail.example.test",
    transmission=TransmissionType.ESMTPS,
    queue_id="4f2a",
    seconds=837_596_665,
    offset_minutes=-420,
    helo="client.example.test",
    peer_address="192.0.2.7",
    peer_name="host.example.test",
    tls="TLSv1.3 TLS_AES_256_GCM_SHA384",
    recipient=Address("bob", "example.test"),
)


def test_received():
    assert format_received(HOP) == (
        b"Received: from client.example.test (host.example.test [192.0.2.7])\r\n"
        b"\tby mail.example.test with ESMTPS (TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n"
        b"\tid 4f2a\r\n"
        b"\tfor <bob@example.test>;\r\n"
        b"\tWed, 17 Jul 1996 02:44:25 -0700\r\n"
    )


def test_received_of_mail_from_a_socket_and_of_our_own():
    lmtp = Hop("mx", TransmissionType.LMTP, "1", 0, helo="relay")
    assert format_received(lmtp).startswith(b"Received: from relay\r\n\tby mx with LMTP\r\n\tid 1;\r\n\tThu, 01 Jan")
    assert format_received(Hop("mx", TransmissionType.SMTP, "1", 0)).startswith(b"Received: by mx with SMTP\r\n\tid 1;")
    v6 = Hop("mx", TransmissionType.ESMTP, "1", 0, helo="[IPv6:2001:db8::1]", peer_address="2001:db8::1")
    assert b"from [IPv6:2001:db8::1] ([IPv6:2001:db8::1])\r\n" in format_received(v6)


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60), st.text(max_size=400))
def test_r_inj_1_a_peer_cannot_leave_its_place_in_received(helo, name, tls, queue_id):
    hop = Hop("mx", TransmissionType.ESMTP, queue_id, 0, helo=helo, peer_address="192.0.2.7", peer_name=name, tls=tls)
    octets = format_received(hop)
    assert len(list(iterate_fields(octets))) == 1
    assert re.fullmatch(rb"(?:[^\r\n\0]{1,998}\r\n)+", octets)
    assert octets.startswith(b"Received: from ")
    assert octets.endswith(b";\r\n\tThu, 01 Jan 1970 00:00:00 +0000\r\n")


@pytest.mark.parametrize(
    ("how", "keyword"),
    [
        ({"is_extended": False}, "SMTP"),
        ({}, "ESMTP"),
        ({"is_encrypted": True}, "ESMTPS"),
        ({"is_authenticated": True}, "ESMTPA"),
        ({"is_encrypted": True, "is_authenticated": True}, "ESMTPSA"),
        ({"is_utf8": True}, "UTF8SMTP"),
        ({"is_utf8": True, "is_encrypted": True, "is_authenticated": True}, "UTF8SMTPSA"),
        ({"is_lmtp": True}, "LMTP"),
        ({"is_lmtp": True, "is_encrypted": True}, "LMTPS"),
        ({"is_lmtp": True, "is_utf8": True, "is_authenticated": True}, "UTF8LMTPA"),
    ],
)
def test_transmission_types(how, keyword):
    assert transmission_type(**how).value == keyword


def test_return_path():
    assert format_return_path(Address("ann", "example.test")) == b"Return-Path: <ann@example.test>\r\n"
    assert format_return_path(None) == b"Return-Path: <>\r\n"


@pytest.mark.parametrize("value", [b"a\rb", b"a\nb", b"a\0b", b"a\r\nBcc: x"])
def test_r_inj_1_line_ends_in_values_are_refused(value):
    with pytest.raises(InvalidField):
        format_field(b"X", value)


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\r\n", b"\xff", b"x" * 78])
def test_names_that_are_none_are_refused(name):
    with pytest.raises(InvalidField):
        format_field(name, b"x")


def test_a_word_no_line_can_hold_is_refused():
    assert format_field(b"X", b"y" * 995) == b"X: " + b"y" * 995 + b"\r\n"
    with pytest.raises(InvalidField):
        format_field(b"X", b"y" * 996)


@given(st.lists(st.text("ab\t ", max_size=120), max_size=12).map(lambda parts: "x".join(parts).encode()))
def test_folding_is_undone_by_unfolding(value):
    octets = format_field(b"X-Name", value)
    (field,) = iterate_fields(octets)
    assert field.end == len(octets)
    assert unfold(field.body) == value.strip(b" \t")
    lines = octets.split(b"\r\n")[:-1]
    assert all(len(line) <= 998 for line in lines)
    assert all(line.strip() for line in lines)


def test_folding_prefers_78_octets():
    lines = format_field(b"Subject", b"some words " * 40).split(b"\r\n")
    assert all(len(line) <= 78 for line in lines)
    assert len(lines) < 10


def test_message_ids_are_unique_and_valid():
    ids = {new_message_id("mail.example.test") for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(rb"<[0-9a-f]+\.[0-9a-f]{20}@mail\.example\.test>", each) for each in ids)
    assert new_message_id("b\r\nad>", clock=lambda: 1.0).startswith(b"<3e8.")
    assert new_message_id("b\r\nad>").endswith(b"@bad>")


def test_counting_received():
    hops = format_received(HOP) * 51
    assert count_received(hops + b"Subject: x\r\n\r\nReceived: not this\r\n") == 51
    assert count_received(b"") == 0


def test_missing_originator_fields():
    added = missing_originator_fields(b"From: a@b.test\r\n\r\n", "mx.test", 837_596_665, -420)
    fields = list(iterate_fields(added))
    assert [field.name for field in fields] == [b"Date", b"Message-ID"]
    assert fields[0].unfolded == b"Wed, 17 Jul 1996 02:44:25 -0700"
    assert missing_originator_fields(b"DATE: x\r\nMessage-Id : <a@b>\r\n\r\n", "mx.test", 0) == b""
