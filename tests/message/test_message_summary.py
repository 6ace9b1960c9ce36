"""What the index keeps of a message (RFC 9051 7.5.2)."""

from __future__ import annotations

import attrs

from mailsrv.interfaces.mailbox import MessageSummary
from mailsrv.message import CACHED_FIELD_NAMES, MessageLimits, Summary, select_fields, summarise

PLAIN = (
    b"Received: from a by b; Wed, 17 Jul 1996 02:44:25 -0700\r\n"
    b"Date: Wed, 17 Jul 1996 02:44:25 -0700\r\n"
    b'From: "Terry Gray" <gray@example.test>\r\n'
    b"Subject: Minutes\r\n"
    b"To: imap@example.test\r\n"
    b"Message-ID: <B27397@example.test>\r\n"
    b"\r\n"
    b"one\r\ntwo\r\n"
)


def test_summary_has_the_content_fields_of_the_index():
    of_index = {f.name for f in attrs.fields(MessageSummary)}
    assert {f.name for f in attrs.fields(Summary)} == of_index - {
        "uid",
        "internal_date",
        "date_offset_minutes",
        "email_id",
    }


def test_plain_message():
    summary = summarise(PLAIN)
    person = b'(("Terry Gray" NIL "gray" "example.test"))'
    assert summary == Summary(
        size_octets=len(PLAIN),
        header_octets=PLAIN.index(b"one"),
        imap_envelope=b'("Wed, 17 Jul 1996 02:44:25 -0700" "Minutes" '
        + b" ".join([person] * 3)
        + b' ((NIL NIL "imap" "example.test")) NIL NIL NIL "<B27397@example.test>")',
        body_structure=b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 10 2 NIL NIL NIL NIL)',
        body=b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 10 2)',
        cached_fields=PLAIN[PLAIN.index(b"Date:") : PLAIN.index(b"one") - 2],
        sent_day=9694,
    )


def test_cached_fields_answer_header_fields_like_the_header_itself():
    summary = summarise(PLAIN)
    header = PLAIN[: summary.header_octets]
    for names in (frozenset({b"from", b"to"}), CACHED_FIELD_NAMES, frozenset({b"bcc"})):
        assert select_fields(summary.cached_fields, names) == select_fields(header, names)


def test_too_long_fields_are_not_cached():
    message = b"Subject: " + b"x" * 9000 + b"\r\n" + PLAIN
    assert summarise(message).cached_fields == b""
    assert summarise(message, MessageLimits(cached_fields_octets=10_000)).cached_fields != b""


def test_fields_past_the_limit_make_the_cache_unusable():
    message = b"X: y\r\n" * 5_000 + PLAIN
    assert summarise(message).cached_fields == b""
    assert summarise(message).header_octets == 6 * 5_000 + PLAIN.index(b"one")


def test_empty_message():
    summary = summarise(b"")
    assert summary.imap_envelope == b"(" + b" ".join([b"NIL"] * 10) + b")"
    assert (summary.size_octets, summary.header_octets, summary.sent_day) == (0, 0, -1)
