"""Header sections and their fields, by octet offsets (RFC 5322 2.2, 3.6.8, 4.5.8).

Accepts what real mail contains: spaces before the colon, lines that are no field, an mbox ``From ``
line in front, bare LF, a missing empty line. Nothing is rewritten: fields are the octets as they
stand, with their folding and their line end.

A header section ends at the first empty line. Where lines that are no field stand directly
before that line, the empty line that should have ended the header was lost: the header then ends
before them and they begin the body, as mail software commonly reads such messages. So a text
without any header has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from mmap import mmap

from attrs import frozen

from mailsrv.message.settings import DEFAULT_LIMITS, MessageLimits

Octets = bytes | mmap
"""What a message is read from. Slices of both are ``bytes``; both have ``find``."""

FieldRow = tuple[bytes, bytes, bytes]
"""(field as it stands, its name as spelt, b"") or (b"", b"", a line that is no field)."""

# field-name = 1*ftext; obs-optional = field-name *WSP ":" unstructured CRLF (RFC 5322 3.6.8, 4.5.8).
# The last group takes a line that is none. Together the matches tile the section.
_ROWS = re.compile(
    rb"(([!-9;-~]{1,256}+)[ \t]*+:[^\n]*+(?:\n[ \t][^\n]*+)*\n?)"
    rb"|([^\n]*+\n|[^\n]++)"
)
_EMPTY_LINE = re.compile(rb"\n\r?\n")
_FOLD = re.compile(rb"\r?\n(?=[ \t])")
_UNSAFE_LINE_OCTETS = bytes.maketrans(b"\r\n", b"  ")
_FINDALL_OCTETS = 8_192

EMPTY_LINE = b"\r\n"


@frozen
class HeaderField:
    """One field of a header section."""

    name: bytes
    """As spelt in the message."""
    body: bytes
    """Everything after the colon as it stands, without the final line end."""
    start: int
    """Offset of the field in the section."""
    end: int
    """Offset behind its line end."""

    @property
    def unfolded(self) -> bytes:
        """The body on one line."""
        return unfold(self.body)


@frozen
class HeaderSection:
    """The header section of a message or body part."""

    rows: list[FieldRow]
    """Its lines as far as the limits let them be interpreted."""
    body_start: int
    """Offset in the message where the body begins, whatever the limits."""


def unfold(body: bytes) -> bytes:
    """A field body on one line (RFC 5322 2.2.3), without NUL and without white space at its ends."""
    if b"\n" in body:
        body = _FOLD.sub(b"", body)
    body = body.strip(b" \t\r\n")
    if b"\n" in body or b"\r" in body or b"\0" in body:
        body = body.translate(_UNSAFE_LINE_OCTETS, b"\0")
    return body


def unfold_all(header: bytes) -> bytes:
    """A header section with every field on one line."""
    return _FOLD.sub(b"", header)


def field_body(row: FieldRow) -> bytes:
    """What stands after the colon in a row that is a field."""
    raw = row[0]
    return raw[raw.index(b":", len(row[1])) + 1 :]


def read_header(octets: Octets, start: int, end: int, limits: MessageLimits = DEFAULT_LIMITS) -> HeaderSection:
    """The header section that begins at ``start`` of an entity that ends at ``end``. Never raises."""
    opening = octets[start : min(start + 2, end)]
    if opening[:1] == b"\n":
        return HeaderSection([], start + 1)
    if opening == b"\r\n":
        return HeaderSection([], start + 2)
    empty_line = _EMPTY_LINE.search(octets, start, end)
    fields_end, body_start = (end, end) if empty_line is None else (empty_line.start() + 1, empty_line.end())
    length = fields_end - start
    if length <= _FINDALL_OCTETS:
        rows: list[FieldRow] = _ROWS.findall(octets[start:fields_end])
    else:
        rows = _bounded_rows(octets[start : start + min(length, limits.header_octets)], limits)
        if sum(len(row[0]) + len(row[2]) for row in rows) < length:
            return HeaderSection(rows, body_start)
    if rows and not rows[-1][1]:
        lost = _lost_lines(rows)
        if lost:
            return HeaderSection(rows, fields_end - lost)
    return HeaderSection(rows, body_start)


def _bounded_rows(section: bytes, limits: MessageLimits) -> list[FieldRow]:
    return [
        (match[1] or b"", match[2] or b"", match[3] or b"") for match in islice(_ROWS.finditer(section), limits.fields)
    ]


def _lost_lines(rows: list[FieldRow]) -> int:
    """Takes the lines that are body text off the end of ``rows``; how many octets they were."""
    lost = 0
    while rows and not rows[-1][1]:
        if len(rows) == 1 and is_mbox_from_line(rows[0][2]):
            break
        lost += len(rows.pop()[2])
    return lost


def is_mbox_from_line(line: bytes) -> bool:
    """Whether this is the line an mbox file puts before a message."""
    return line.startswith((b"From ", b">From "))


def iterate_fields(header: bytes) -> Iterator[HeaderField]:
    """The fields of a header section in order, duplicates and all; lines that are no field are passed over.

    Not bounded: give it at most what one is prepared to read.
    """
    for match in _ROWS.finditer(header):
        name = match[2]
        if name:
            raw = match[1]
            body = raw[raw.index(b":", len(name)) + 1 :]
            body = body.removesuffix(b"\n").removesuffix(b"\r")
            yield HeaderField(name, body, match.start(), match.end())


def first_field(header: bytes, name: bytes) -> HeaderField | None:
    """The first field of that name (lower case), if any."""
    return next((found for found in iterate_fields(header) if found.name.lower() == name), None)


def select_fields(header: bytes, names: frozenset[bytes], *, negate: bool = False) -> bytes:
    """What HEADER.FIELDS, or with ``negate`` HEADER.FIELDS.NOT, sends (RFC 9051 6.4.5.1), with the final empty line.

    ``names`` are in lower case. ``header`` is a header section, or the cached fields of a message.
    Lines that are no field belong to neither answer.
    """
    rows: list[FieldRow] = _ROWS.findall(header)
    if negate:
        chosen = [row[0] for row in rows if row[1] and row[1].lower() not in names]
    else:
        chosen = [row[0] for row in rows if row[1] and row[1].lower() in names]
    if chosen and not chosen[-1].endswith(b"\n"):
        chosen.append(EMPTY_LINE)
    chosen.append(EMPTY_LINE)
    return b"".join(chosen)
