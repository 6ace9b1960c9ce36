"""Dates of mail: the Date field (RFC 5322 3.3, 4.3), INTERNALDATE and search dates of IMAP (RFC 9051 9).

A moment is (seconds since 1970, offset of the writer's zone in minutes). Reading is tolerant and
answers None where nothing sensible can be read; it never raises.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

_MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAY_NAMES = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = {name.lower().encode(): number for number, name in enumerate(_MONTH_NAMES, 1)}
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_SECONDS_PER_DAY = 86_400
_LONGEST_DATE_OCTETS = 256

# RFC 5322 4.3: the named zones; military letters and unknown names mean -0000.
_ZONES = {
    b"edt": -240,
    b"est": -300,
    b"cdt": -300,
    b"cst": -360,
    b"mdt": -360,
    b"mst": -420,
    b"pdt": -420,
    b"pst": -480,
    # Not in the RFC, but written by mail software all the same.
    b"cet": 60,
    b"cest": 120,
    b"met": 60,
    b"mest": 120,
    b"bst": 60,
    b"eet": 120,
    b"eest": 180,
    b"msk": 180,
    b"jst": 540,
}

_COLON = rb"[ \t]*[:.][ \t]*"  # obs-hour, obs-minute: white space around them
_TIME = rb"(\d{1,2})" + _COLON + rb"(\d{1,2})(?:" + _COLON + rb"(\d{1,2})(?:[.,]\d{1,9})?)?"
_ZONE = rb"(?:[ \t]*(?:(?:GMT|UTC|UT)?([+-])(\d{1,2}):?(\d{2})|([A-Za-z]{1,5}+)(?![A-Za-z])))?"
# [ day-of-week "," ] day month year hour:minute[:second] zone
_RFC5322 = re.compile(
    rb"[^\d]{0,40}?(\d{1,2})[ \t.-]+([A-Za-z]{3})[A-Za-z]{0,6}\.?[ \t,-]*(\d{2,4})[ \t,]+" + _TIME + _ZONE
)
# Wed Jul 17 02:44:25 [zone] 1996
_ASCTIME = re.compile(
    rb"[A-Za-z]{0,9}[ \t,]*([A-Za-z]{3})[A-Za-z]{0,6}[ \t]+(\d{1,2}),?[ \t]+" + _TIME + _ZONE + rb"[ \t]+(\d{4})"
)
_ISO8601 = re.compile(rb"[ \t]*(\d{4})-(\d{2})-(\d{2})[T \t]" + _TIME + _ZONE)
_COMMENT = re.compile(rb"\([^()]*+\)")
_LINE_ENDS = bytes.maketrans(b"\r\n\0", b"   ")

# date-time = DQUOTE date-day-fixed "-" date-month "-" date-year SP time SP zone DQUOTE
_INTERNAL_DATE = re.compile(
    rb'"?([ \d]\d)-([A-Za-z]{3})-(\d{4}) (\d{2}):(\d{2}):(\d{2}) ([+-])(\d{2})(\d{2})"?', re.ASCII
)
_SEARCH_DATE = re.compile(rb'"?(\d{1,2})-([A-Za-z]{3})-(\d{4})"?', re.ASCII)


def parse_date(body: bytes) -> tuple[int, int] | None:
    """The moment a Date field body tells, or None.

    Two-digit years as in RFC 5322 4.3, obsolete zones, comments, missing seconds and a missing
    zone (taken as UTC) are read, also asctime's order and ISO 8601.
    """
    found = _parse_date(body[:_LONGEST_DATE_OCTETS].strip())
    return None if found is None else found[:2]


@lru_cache(maxsize=64)
def _parse_date(text: bytes) -> tuple[int, int, int] | None:
    """The moment, and the day as it is written."""
    civil = _civil_date(text)
    if civil is None:
        return None
    (year, month, day), (hour, minute, second), offset = civil
    try:
        days = date(year, month, day).toordinal() - _EPOCH_ORDINAL
    except ValueError:
        return None
    if hour > 24 or minute > 59 or second > 60:
        return None
    return days * _SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - offset * 60, offset, days


_Civil = tuple[tuple[int, int, int], tuple[int, int, int], int]


def _civil_date(text: bytes) -> _Civil | None:
    if b"(" in text:
        text = _COMMENT.sub(b" ", text)
    if b"\n" in text or b"\r" in text or b"\0" in text:
        text = text.translate(_LINE_ENDS)
    match = _RFC5322.match(text)
    if match is not None:
        day, month_name, year = match.group(1, 2, 3)
        month = _MONTHS.get(month_name.lower(), 0)
        return (_full_year(year), month, int(day)), _time_of(match, 4), _offset_of(match, 7)
    match = _ISO8601.match(text)
    if match is not None:
        return (int(match[1]), int(match[2]), int(match[3])), _time_of(match, 4), _offset_of(match, 7)
    match = _ASCTIME.match(text)
    if match is not None:
        month = _MONTHS.get(match[1].lower(), 0)
        return (int(match[10]), month, int(match[2])), _time_of(match, 3), _offset_of(match, 6)
    return None


def _time_of(match: re.Match[bytes], group: int) -> tuple[int, int, int]:
    return int(match[group]), int(match[group + 1]), int(match[group + 2] or 0)


def _offset_of(match: re.Match[bytes], group: int) -> int:
    sign, hours, minutes, name = match.group(group, group + 1, group + 2, group + 3)
    if sign is not None:
        offset = int(hours) * 60 + int(minutes)
        if offset >= 24 * 60:
            return 0
        return -offset if sign == b"-" else offset
    return _ZONES.get(name.lower(), 0) if name is not None else 0


def _full_year(digits: bytes) -> int:
    year = int(digits)
    if len(digits) == 2:
        return year + (2000 if year < 50 else 1900)
    if len(digits) == 3:
        return year + 1900
    return year


def sent_day(body: bytes) -> int:
    """The :func:`sent_day_of` a Date field, time and zone disregarded (SENTSINCE, RFC 9051 6.4.4); -1 without."""
    found = _parse_date(body[:_LONGEST_DATE_OCTETS].strip())
    return -1 if found is None else sent_day_of(found[2])


def sent_day_of(day: int) -> int:
    """Days since 1970-01-01, one less for those before: in the same order, and none is -1."""
    return day if day >= 0 else day - 1


def _local(seconds: int, offset_minutes: int) -> datetime:
    """The moment in its own zone; moments no calendar of ours holds are moved to its ends."""
    shifted = min(max(seconds + offset_minutes * 60, -62_135_596_800), 253_402_300_799)
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=shifted)


def _format_zone(offset_minutes: int) -> str:
    sign = "-" if offset_minutes < 0 else "+"
    return "{}{:02d}{:02d}".format(sign, *divmod(abs(offset_minutes), 60))


@functools.lru_cache(maxsize=64)
def format_date(seconds: int, offset_minutes: int = 0) -> bytes:
    """``date-time`` of RFC 5322 3.3: ``Wed, 17 Jul 1996 02:44:25 -0700``."""
    at = _local(seconds, offset_minutes)
    text = (
        f"{_DAY_NAMES[at.weekday()]}, {at.day:02d} {_MONTH_NAMES[at.month - 1]} {at.year:04d}"
        f" {at:%H:%M:%S} {_format_zone(offset_minutes)}"
    )
    return text.encode("ascii")


def format_internal_date(seconds: int, offset_minutes: int = 0) -> bytes:
    """``date-time`` of RFC 9051 9, quotes and all: ``"17-Jul-1996 02:44:25 -0700"``."""
    at = _local(seconds, offset_minutes)
    text = f'"{at.day:2d}-{_MONTH_NAMES[at.month - 1]}-{at.year:04d} {at:%H:%M:%S} {_format_zone(offset_minutes)}"'
    return text.encode("ascii")


def parse_internal_date(text: bytes) -> tuple[int, int] | None:
    """The moment an IMAP ``date-time`` (APPEND) tells, with or without its quotes, or None."""
    match = _INTERNAL_DATE.fullmatch(text)
    if match is None:
        return None
    day, month_name, year, hour, minute, second, sign, zone_hours, zone_minutes = match.groups()
    offset = int(zone_hours) * 60 + int(zone_minutes)
    if int(zone_hours) > 23 or int(zone_minutes) > 59:
        return None
    if sign == b"-":
        offset = -offset
    try:
        at = datetime(
            int(year), _MONTHS.get(month_name.lower(), 0), int(day), int(hour), int(minute), int(second), tzinfo=UTC
        )
    except ValueError:
        return None
    return round((at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) - offset * 60, offset


def parse_search_date(text: bytes) -> int | None:
    """Days since 1970-01-01 of an IMAP ``date`` (``1-Feb-1994``, quoted or not), or None."""
    match = _SEARCH_DATE.fullmatch(text)
    if match is None:
        return None
    try:
        return date(int(match[3]), _MONTHS.get(match[2].lower(), 0), int(match[1])).toordinal() - _EPOCH_ORDINAL
    except ValueError:
        return None
