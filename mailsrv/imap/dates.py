"""Dates as IMAP writes them (RFC 3501 section 9: `date`, `date-time`)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from mailsrv.imap.errors import BadCommand
from mailsrv.imap.grammar import Cursor
from mailsrv.message.dates import parse_internal_date, parse_search_date

_MONTHS = (b"", b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST, _LATEST = -62_135_596_800, 253_402_300_799

# date = date-text / DQUOTE date-text DQUOTE
_DATE = re.compile(rb'("?)(\d{1,2}-[A-Za-z]{3}-\d{4})\1')
# date-time = DQUOTE date-day-fixed "-" date-month "-" date-year SP time SP zone DQUOTE
_DATE_TIME = re.compile(rb'"[ \d]\d-[A-Za-z]{3}-\d{4} \d\d:\d\d:\d\d [+-]\d{4}"')


def parse_date(cursor: Cursor) -> int:
    """A `date`, as days since 1970-01-01."""
    found = _DATE.match(cursor.octets, cursor.position)
    if found is None:
        raise BadCommand("Expected a date such as 1-Feb-1994")
    cursor.position = found.end()
    day = parse_search_date(found.group(2))
    if day is None:
        raise BadCommand("There is no such day")
    return day


def parse_date_time(cursor: Cursor) -> tuple[int, int]:
    """A `date-time`, as seconds since the epoch and the zone's offset in minutes."""
    found = _DATE_TIME.match(cursor.octets, cursor.position)
    if found is None:
        raise BadCommand('Expected a date and time such as "17-Jul-1996 02:44:25 -0700"')
    cursor.position = found.end()
    moment = parse_internal_date(found.group())
    if moment is None:
        raise BadCommand("There is no such date and time")
    return moment


def format_date_time(seconds: int, offset_minutes: int) -> bytes:
    """INTERNALDATE's value, in quotes. Days and zones are kept, as it stands in every row of a long answer."""
    day, second = divmod(min(max(seconds + offset_minutes * 60, _EARLIEST), _LATEST), 86400)
    return b"%b%02d:%02d:%02d %b" % (
        _format_day(day),
        second // 3600,
        second // 60 % 60,
        second % 60,
        _format_zone(offset_minutes),
    )


@lru_cache(maxsize=8192)
def _format_day(day: int) -> bytes:
    date = _EPOCH + timedelta(days=day)
    return b'"%2d-%b-%04d ' % (date.day, _MONTHS[date.month], date.year)


@lru_cache(maxsize=256)
def _format_zone(offset_minutes: int) -> bytes:
    return b'%b%02d%02d"' % (b"-" if offset_minutes < 0 else b"+", *divmod(abs(offset_minutes), 60))
