"""Whether an entry's user may log in: switched off, locked, expired, by any directory's way to write it; and how.

The server itself refuses the password of such a user in most cases; tokens, certificates and app passwords never
reach it. What cannot be read never opens an account.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable

from mailsrv.directory.ldap.connection import LdapEntry
from mailsrv.directory.ldap.mapping import ExpiryFormat, LdapMapping

_NEVER = frozenset({"", "0", "9223372036854775807"})
_GENERALIZED_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)(?:(\d\d)(\d\d)?)?(?:[.,]\d+)?(Z|[+-]\d{2}(?:\d{2})?)")
_FILETIME_EPOCH = 11_644_473_600
# MS-ADTS 2.2.16, 2.2.17
_ACCOUNT_DISABLED = 0x2
_SMARTCARD_REQUIRED = 0x40000
_LOCKOUT = 0x10
_PASSWORD_EXPIRED = 0x800000


def matches(entry: LdapEntry, rules: Iterable[str]) -> str:
    """The attribute and value of the first rule (``attribute=value``, ``attribute=*``) that holds; "" if none does."""
    for rule in rules:
        name, _, value = rule.partition("=")
        values = [text.lower() for text in entry.texts(name)]
        if values and (value == "*" or value.lower() in values):
            return f"{name} is {values[0] if value == '*' else value}"
    return ""


def objection(entry: LdapEntry, mapping: LdapMapping, now: float) -> str:
    """Why the user may not log in at ``now`` (seconds of the epoch); "" where nothing speaks against it."""
    found = matches(entry, mapping.disabled)
    if found:
        return found
    if _bits(entry, mapping.account_control) & _ACCOUNT_DISABLED:
        return "the account is disabled"
    state = _bits(entry, mapping.account_state)
    if state & _PASSWORD_EXPIRED:
        return "the password has expired"
    if state & _LOCKOUT or (not _has(entry, mapping.account_state) and _is_locked(entry, mapping, now)):
        return "the account is locked"
    end = _end(entry, mapping)
    if end is not None and end <= now:
        return f"the account has expired ({mapping.expires})"
    return ""


def needs_second_factor(entry: LdapEntry, mapping: LdapMapping) -> bool:
    """Whether the directory demands more of the user than a password."""
    return bool(matches(entry, mapping.second_factor) or _bits(entry, mapping.account_control) & _SMARTCARD_REQUIRED)


def _has(entry: LdapEntry, attribute: str) -> bool:
    return bool(attribute and entry.first(attribute))


def _bits(entry: LdapEntry, attribute: str) -> int:
    """A number that is a set of bits, written with a sign; all of them where it is none."""
    text = entry.first(attribute) if attribute else ""
    if not text:
        return 0
    try:
        return int(text)
    except ValueError:
        return -1


def _is_locked(entry: LdapEntry, mapping: LdapMapping, now: float) -> bool:
    """A lock ends by itself without a trace in the entry, which keeps its time until the next log-in."""
    text = entry.first(mapping.locked_since) if mapping.locked_since else ""
    if text in _NEVER:
        return False
    try:
        since = _filetime(text)
    except (ValueError, OverflowError):
        return True
    return not mapping.locked_seconds or now < since + mapping.locked_seconds


def _end(entry: LdapEntry, mapping: LdapMapping) -> float | None:
    """When the account ends, in seconds of the epoch; None: never."""
    text = entry.first(mapping.expires) if mapping.expires else ""
    if text in _NEVER or text.startswith("-"):
        return None
    try:
        if mapping.expires_format is ExpiryFormat.DAYS:
            return int(text) * 86_400.0
        if mapping.expires_format is ExpiryFormat.FILETIME:
            return _filetime(text)
        return _parse_generalized_time(text)
    except (ValueError, OverflowError):
        return 0.0


def _filetime(text: str) -> float:
    return int(text) / 1e7 - _FILETIME_EPOCH


def _parse_generalized_time(text: str) -> float:
    match = _GENERALIZED_TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time")
    year, month, day, hour, minute, second, zone = match.groups()
    if zone == "Z":
        offset = datetime.timedelta()
    else:
        offset = datetime.timedelta(hours=int(zone[1:3]), minutes=int(zone[3:5] or 0)) * (-1 if zone[0] == "-" else 1)
    moment = datetime.datetime(
        int(year), int(month), int(day), int(hour), int(minute or 0), int(second or 0), tzinfo=datetime.timezone(offset)
    )
    return moment.timestamp()
