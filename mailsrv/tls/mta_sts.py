"""MTA-STS as text (RFC 8461): the TXT record, the policy file, and which hosts a policy names. No I/O."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable

from attrs import frozen

MAX_PATTERNS = 100
"""More than so many ``mx`` lines are no policy of a domain that wants mail."""
LARGEST_MAX_AGE = 31_557_600
"""RFC 8461 3.2: one year."""

# RFC 8461 3.1: sts-id = %s"id" *WSP "=" *WSP 1*32(ALPHA / DIGIT); extension fields may follow.
_VERSION = re.compile(rb"v[ \t]*=[ \t]*STSv1[ \t]*(?:;|\Z)")
_ID = re.compile(rb"[A-Za-z0-9]{1,32}\Z")
# RFC 8461 3.2: the field name and value of a line; lines end in LF or CRLF.
_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})[ \t]*:[ \t]*(.*?)[ \t]*\Z")
_DIGITS = re.compile(r"[0-9]{1,10}\Z")
_PATTERN = re.compile(r"(?:\*\.)?[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+\Z")


class StsError(ValueError):
    """A policy that is none; the text says why."""


class StsMode(enum.Enum):
    """What a sender does about a host that fails (RFC 8461 5)."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


@frozen
class StsPolicy:
    """A policy; ``max_age`` in seconds, ``patterns`` in lower case."""

    mode: StsMode
    max_age: int
    patterns: tuple[str, ...] = ()


def parse_id(texts: Iterable[bytes]) -> str | None:
    """The ``id`` of the one STS record of ``_mta-sts.DOMAIN``; None without one, or with several (RFC 8461 3.1)."""
    records = [text for text in texts if _VERSION.match(text)]
    if len(records) != 1:
        return None
    found: str | None = None
    for part in records[0].split(b";")[1:]:
        name, equals, value = part.partition(b"=")
        if name.strip(b" \t") != b"id" or not equals:
            continue
        value = value.strip(b" \t")
        if found is not None or not _ID.match(value):
            return None
        found = value.decode("ascii")
    return found


def parse_policy(octets: bytes) -> StsPolicy:
    """RFC 8461 3.2; of fields that stand twice the first counts, but for ``mx``. Raises StsError."""
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StsError("it is not UTF-8") from error
    fields: dict[str, str] = {}
    patterns: list[str] = []
    for line in text.split("\n"):
        match = _FIELD.match(line.removesuffix("\r"))
        if match is None:
            if line.strip():
                raise StsError("it has a line that is no field")
            continue
        name, value = match[1], match[2]
        if name == "mx":
            patterns.append(_parse_pattern(value))
        else:
            fields.setdefault(name, value)
    if fields.get("version") != "STSv1":
        raise StsError("its version is not STSv1")
    try:
        mode = StsMode(fields.get("mode", ""))
    except ValueError as error:
        raise StsError("its mode is none of enforce, testing, none") from error
    max_age = fields.get("max_age", "")
    if not _DIGITS.match(max_age):
        raise StsError("it has no max_age")
    if mode is not StsMode.NONE and not patterns:
        raise StsError("it names no mx")
    if len(patterns) > MAX_PATTERNS:
        raise StsError(f"it names more than {MAX_PATTERNS} mx")
    return StsPolicy(mode, min(int(max_age), LARGEST_MAX_AGE), tuple(dict.fromkeys(patterns)))


def _parse_pattern(value: str) -> str:
    pattern = value.lower().removesuffix(".")
    if len(pattern) > 255 or not _PATTERN.match(pattern):
        raise StsError("it has an mx that is no host name")
    return pattern


def matches_pattern(host: str, patterns: Iterable[str]) -> bool:
    """RFC 8461 4.1: ``*.`` stands for exactly one label. ``host`` in lower case."""
    return any(
        host == pattern or (pattern.startswith("*.") and host.partition(".")[2] == pattern[2:] and "." in host)
        for pattern in patterns
    )


def format_policy(policy: StsPolicy) -> tuple[str, ...]:
    """The lines of a policy, for reports (RFC 8460 4.4) and for people."""
    return (
        "version: STSv1",
        f"mode: {policy.mode.value}",
        *(f"mx: {pattern}" for pattern in policy.patterns),
        f"max_age: {policy.max_age}",
    )
