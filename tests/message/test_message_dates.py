"""Dates in messages and in IMAP commands (RFC 5322 3.3, 4.3; RFC 9051 9)."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.message import (
    format_date,
    format_internal_date,
    parse_date,
    parse_internal_date,
    parse_search_date,
    sent_day,
    sent_day_of,
)

MOMENT = 837_596_665  # 1996-07-17 09:44:25 UTC


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"Wed, 17 Jul 1996 02:44:25 -0700", (MOMENT, -420)),
        (b" 17 Jul 1996 02:44:25 -0700\r\n", (MOMENT, -420)),
        (b"Wed, 17 Jul 1996 02:44:25 -0700 (PDT)", (MOMENT, -420)),
        (b"Wed, 17 Jul 1996 02:44:25 PDT", (MOMENT, -420)),
        (b"Wed (x), 17 (y) July\r\n 96 02:44:25 (z) -0700", (MOMENT, -420)),
        (b"Wed, 17-Jul-1996 09.44.25 GMT", (MOMENT, 0)),
        (b"Wed, 17 Jul 1996 09:44:25", (MOMENT, 0)),
        (b"Wed, 17 Jul 1996 09:44:25 Z", (MOMENT, 0)),
        (b"Wed, 17 Jul 1996 09:44 UT", (MOMENT - 25, 0)),
        (b"Wed, 17 Jul 1996 11:44:25 GMT+0200", (MOMENT, 120)),
        (b"Wed, 17 Jul 1996 15:14:25 +05:30", (MOMENT, 330)),
        (b"Wed Jul 17 09:44:25 1996", (MOMENT, 0)),
        (b" Wed Jul 17 02:44:25 PDT 1996", (MOMENT, -420)),
        (b"1996-07-17T09:44:25Z", (MOMENT, 0)),
        (b"1996-07-17 02:44:25.123-0700", (MOMENT, -420)),
        (b"17 Jul 096 09:44:25 GMT", (MOMENT, 0)),
        (b"Mi, 17 Jul 1996 09:44:25 +0000", (MOMENT, 0)),
        (b"Thu, 1 Jan 70 00:00:00 GMT", (0, 0)),
        (b"Wed, 17 Jul 1996 02 : 44 (x) :25 -0700", (MOMENT, -420)),
        (b"Sat, 31 Dec 2016 23:59:60 +0000", (1_483_228_800, 0)),
        (b"Wed, 17 Jul 1996 09:44:25 +9999", (MOMENT, 0)),
    ],
)
def test_reading(body, expected):
    assert parse_date(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"yesterday",
        b"32 Jul 1996 00:00:00 GMT",
        b"30 Feb 1996 00:00:00 GMT",
        b"17 Foo 1996 00:00:00 GMT",
        b"17 Jul 1996",
        b"17 Jul 1996 25:00:00 GMT",
        b"17 Jul 1996 00:61:00 GMT",
        b"0 Jan 0 0:0:0",
        b"\xff\0" * 500,
    ],
)
def test_garbage_is_no_date(body):
    assert parse_date(body) is None
    assert sent_day(body) == -1


def test_sent_day_disregards_time_and_zone():
    expected = (date(1996, 7, 17) - date(1970, 1, 1)).days
    for time in (b"00:00:01 +1200", b"23:59:59 -1100", b"23:59:60 +0000", b"24:00 GMT"):
        assert sent_day(b"17 Jul 1996 " + time) == expected
    assert parse_search_date(b"17-Jul-1996") == expected
    assert parse_search_date(b'"17-jul-1996"') == expected


def test_days_before_1970_stay_in_order_and_are_not_the_day_of_none():
    days = [
        sent_day(body + b" 23:00:00 -0800") for body in (b"1 Jan 1900", b"30 Dec 1969", b"31 Dec 1969", b"1 Jan 1970")
    ]
    assert days == sorted(set(days))
    assert -1 not in days
    assert days[2:] == [sent_day_of(-1), sent_day_of(0)]


def test_search_dates():
    assert parse_search_date(b"1-Feb-1994") == (date(1994, 2, 1) - date(1970, 1, 1)).days
    for wrong in (b"", b"30-Feb-1994", b"1-Foo-1994", b"1 Feb 1994", b"1-Feb-94"):
        assert parse_search_date(wrong) is None


def test_writing():
    assert format_date(MOMENT, -420) == b"Wed, 17 Jul 1996 02:44:25 -0700"
    assert format_internal_date(MOMENT, -420) == b'"17-Jul-1996 02:44:25 -0700"'
    assert format_internal_date(0, 0) == b'" 1-Jan-1970 00:00:00 +0000"'
    assert format_date(0, 330) == b"Thu, 01 Jan 1970 05:30:00 +0530"


def test_internal_dates():
    assert parse_internal_date(b"17-Jul-1996 02:44:25 -0700") == (MOMENT, -420)
    assert parse_internal_date(b'" 1-Jan-1970 00:00:00 +0000"') == (0, 0)
    for wrong in (b"", b"17-Jul-1996", b"31-Jun-1996 00:00:00 +0000", b"17-Jul-1996 24:00:00 +0000"):
        assert parse_internal_date(wrong) is None


@pytest.mark.parametrize("zone", [b"+9999", b"-2400", b"+0060"])
def test_zones_that_are_none_are_refused_for_they_could_not_be_told_again(zone):
    assert parse_internal_date(b"17-Jul-1996 02:44:25 " + zone) is None


@given(st.integers(-(10**10), 10**11), st.integers(-14 * 60, 14 * 60))
def test_what_is_written_is_read(seconds, offset):
    assert parse_date(format_date(seconds, offset)) == (seconds, offset)
    assert parse_internal_date(format_internal_date(seconds, offset)) == (seconds, offset)


@given(st.integers(-(10**20), 10**20), st.integers(-(10**6), 10**6))
def test_any_number_can_be_written(seconds, offset):
    assert format_date(seconds, offset)
    assert format_internal_date(seconds, offset)
