"""Delivery status notifications: their form, and that nothing that is quoted can break it."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.address import Address
from mailsrv.message.delivery_status import (
    Action,
    DeliveryReport,
    ReportedRecipient,
    ReturnedContent,
    format_report,
    header_section,
    one_line,
)
from mailsrv.status import EnhancedStatus

ORIGINAL = b"From: alice@example.test\r\nMessage-ID: <one@example.test>\r\nSubject: Lunch\r\n\r\nAt noon?\r\n"
BOB = ReportedRecipient(
    Address("bob", "example.org"),
    Action.FAILED,
    EnhancedStatus(5, 1, 1),
    "550 5.1.1 No such user",
    "mx.example.org",
    original_recipient="rfc822;Bob+x@example.org",
    last_attempt=1_000_000,
)
REPORT = DeliveryReport(
    reporting_mta="mail.example.test",
    author=Address("postmaster", "example.test"),
    to=Address("alice", "example.test"),
    recipients=(BOB,),
    report_id="N1",
    date=1_000_100,
    transaction_id="T1",
    arrival=999_000,
    returned=ReturnedContent(ORIGINAL, is_complete=True),
    envelope_id="QQ314159",
)


def parse(report: DeliveryReport) -> EmailMessage:
    octets = format_report(report).octets
    assert octets.count(b"\n") == octets.count(b"\r") == octets.count(b"\r\n")
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def fields_of(report: DeliveryReport) -> list[list[tuple[str, str]]]:
    """The blocks of the machine's part: the message's fields first."""
    octets = format_report(report).octets
    boundary = octets.split(b'boundary="')[1].split(b'"')[0]
    part = octets.split(b"\r\n--" + boundary)[2]
    blocks = part.split(b"\r\n\r\n", 1)[1].split(b"\r\n\r\n")
    parsed = [email.message_from_bytes(block + b"\r\n", policy=email.policy.default) for block in blocks]
    assert not any(block.defects or block.get_payload() for block in parsed)
    return [[(name, str(value)) for name, value in block.items()] for block in parsed]


def test_the_form_of_a_report():
    message = parse(REPORT)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert [part.get_content_type() for part in message.iter_parts()] == [
        "text/plain",
        "message/delivery-status",
        "message/rfc822",
    ]
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["To"] == "alice@example.test"
    assert message["In-Reply-To"] == "<one@example.test>"
    assert message["Subject"] == "Delivery failed: bob@example.org"
    assert message["Message-ID"] == "<N1@mail.example.test>"
    assert not message.defects


def test_the_fields_for_programs():
    assert fields_of(REPORT) == [
        [
            ("Original-Envelope-Id", "QQ314159"),
            ("Reporting-MTA", "dns; mail.example.test"),
            ("Arrival-Date", "Mon, 12 Jan 1970 13:30:00 +0000"),
        ],
        [
            ("Original-Recipient", "rfc822; Bob+x@example.org"),
            ("Final-Recipient", "rfc822; bob@example.org"),
            ("Action", "failed"),
            ("Status", "5.1.1"),
            ("Remote-MTA", "dns; mx.example.org"),
            ("Diagnostic-Code", "smtp; 550 5.1.1 No such user"),
            ("Last-Attempt-Date", "Mon, 12 Jan 1970 13:46:40 +0000"),
        ],
    ]


def test_the_words_for_people_say_what_happened_to_whom_why_and_what_to_do():
    text = next(parse(REPORT).iter_parts()).get_content()
    for words in (
        "could not be delivered",
        "<bob@example.org>",
        "mx.example.org answered",
        "550 5.1.1 No such user",
        "does not exist there",
        "Check the address for typing errors",
        "T1",
    ):
        assert words in text
    assert max(map(len, text.split("\n"))) <= 78


@pytest.mark.parametrize("endpoint", ["unix:/run/lists/lmtp.sock", "tcp:127.0.0.1:24"])
@pytest.mark.parametrize("action", [Action.FAILED, Action.DELIVERED])
def test_where_an_lmtp_server_of_ours_listens_is_told_nobody(endpoint, action):
    report = evolve(REPORT, recipients=(evolve(BOB, host=endpoint, action=action),))
    fields = dict(fields_of(report)[1])
    assert "Remote-MTA" not in fields
    assert fields["Diagnostic-Code"] == "smtp; 550 5.1.1 No such user"
    assert endpoint.encode() not in format_report(report).octets


def test_a_delay_says_until_when_it_is_tried():
    delayed = evolve(BOB, action=Action.DELAYED, status=EnhancedStatus(4, 4, 1), host="", will_retry_until=1_400_000)
    report = evolve(REPORT, recipients=(delayed,), deliver_by=1_000_050)
    fields = dict(fields_of(report)[1])
    assert fields["Will-Retry-Until"] == "Sat, 17 Jan 1970 04:53:20 +0000"
    assert fields["Diagnostic-Code"].startswith("X-Mailsrv; ")
    assert "Remote-MTA" not in fields
    assert dict(fields_of(report)[0])["Deliver-By-Date"] == "Mon, 12 Jan 1970 13:47:30 +0000"
    text = next(parse(report).iter_parts()).get_content()
    assert "need not send it again" in " ".join(text.split())


@pytest.mark.parametrize("action", [Action.DELIVERED, Action.RELAYED, Action.EXPANDED])
def test_successes(action):
    report = evolve(REPORT, recipients=(evolve(BOB, action=action, status=EnhancedStatus(2, 0, 0)),))
    assert dict(fields_of(report)[1])["Action"] == action.value
    assert str(parse(report)["Subject"]).startswith("Delivery report")


def test_headers_only():
    report = evolve(REPORT, returned=ReturnedContent(header_section(ORIGINAL), is_complete=False))
    part = list(parse(report).iter_parts())[2]
    assert part.get_content_type() == "text/rfc822-headers"
    assert b"At noon" not in format_report(report).octets


@pytest.mark.parametrize(
    "content",
    [b"Subject: x\r\n\r\n" + b"y" * 2000 + b"\r\n", b"Subject: x\r\n\r\na\nb\r\n", b"Subject: x\r\n\r\na\0b\r\n"],
)
def test_what_is_no_text_comes_back_as_its_header_section(content):
    report = evolve(REPORT, returned=ReturnedContent(content, is_complete=True))
    part = list(parse(report).iter_parts())[2]
    assert part.get_content_type() == "text/rfc822-headers"


def test_utf8_addresses_have_the_types_that_hold_them():
    recipient = evolve(BOB, address=Address("böb", "example.org"), original_recipient="utf-8;böb@example.org")
    report = evolve(
        REPORT, recipients=(recipient,), returned=ReturnedContent(ORIGINAL, True, is_internationalized=True)
    )
    written = format_report(report)
    assert written.is_8bit
    assert not written.is_internationalized
    assert b"Final-Recipient: utf-8; b\xc3\xb6b@example.org" in written.octets
    assert b"Original-Recipient: utf-8; b\xc3\xb6b@example.org" in written.octets
    kinds = [part.get_content_type() for part in parse(report).iter_parts()]
    assert kinds == ["text/plain", "message/global-delivery-status", "message/global"]


def test_a_utf8_reverse_path_needs_an_internationalized_notice():
    written = format_report(evolve(REPORT, to=Address("älice", "example.test")))
    assert written.is_internationalized


@pytest.mark.parametrize(
    "evil",
    [
        "550 no\r\nAction: delivered",
        "550 no\n\nFinal-Recipient: rfc822; eve@example.org",
        "550 \0 no",
        "550 \u2028 no",
        "550 " + "x" * 5000,
        "\ud800",
        "",
    ],
)
def test_r_inj_nothing_quoted_can_begin_a_field(evil):
    recipient = evolve(BOB, reply=evil, host=evil, original_recipient=evil)
    report = evolve(REPORT, recipients=(recipient,), envelope_id=evil)
    blocks = fields_of(report)
    assert len(blocks) == 2
    names = [name for name, _ in blocks[1]]
    assert len(names) == len(set(names))
    assert dict(blocks[1])["Action"] == "failed"
    assert not parse(report).defects


@given(st.text(max_size=300), st.text(max_size=300), st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_r_inj_any_text_and_any_content_gives_a_sound_report(reply, original, content):
    recipient = evolve(BOB, reply=reply, host=reply, original_recipient=original)
    report = evolve(
        REPORT, recipients=(recipient,), envelope_id=original, returned=ReturnedContent(content, is_complete=True)
    )
    assert len(fields_of(report)) == 2
    assert len(list(parse(report).iter_parts())) == 3


def test_the_boundary_does_not_stand_in_the_message():
    first = format_report(REPORT).octets
    boundary = first.split(b'boundary="')[1].split(b'"')[0]
    content = b"Subject: x\r\n\r\n--" + boundary + b"--\r\n"
    report = evolve(REPORT, returned=ReturnedContent(content, is_complete=True))
    assert len(list(parse(report).iter_parts())) == 3


def test_one_line_is_bounded_in_octets():
    assert one_line("a\r\nb") == "a b"
    assert len(one_line("ö" * 1000).encode()) <= 512
    assert one_line("\r\n") == ""
