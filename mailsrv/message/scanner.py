"""Finding the parts of a message in one pass over its octets (RFC 2045, RFC 2046 5.1).

No recursion, no copy of a body, no line by line: boundaries are found with ``find``, and an inner
multipart is only ever searched up to the next boundary of the one around it. Nothing a message
contains makes this fail. What breaks MIME, or lies past a limit, becomes an opaque
``text/plain`` part, so that it can still be seen:

* a multipart without a usable boundary, or whose boundary never occurs;
* nesting, parts and work past :class:`~mailsrv.message.settings.MessageLimits`.

Past ``interpreted_octets`` the header fields of further parts and attached messages are not
looked at: such parts are plain text, and the ENVELOPE of such messages is empty.

A message/rfc822 part that is encoded with base64 or quoted-printable (RFC 2046 5.2.1 forbids it)
is presented as application/octet-stream. message/global is not looked into: clients of
IMAP4rev1 do not expect an envelope there.
"""

from __future__ import annotations

import re
from itertools import pairwise

from attrs import define, field

from mailsrv.message.body_structure import CONTENT_FIELD_NAMES
from mailsrv.message.fields import FieldRow, Octets, field_body, read_header
from mailsrv.message.imap_envelope import ADDRESS_FIELD_NAMES, ENVELOPE_FIELD_NAMES
from mailsrv.message.parameters import ContentType, content_type, parse_content_type, parse_token
from mailsrv.message.settings import DEFAULT_LIMITS, MessageLimits
from mailsrv.message.structure import Fields, MessageStructure, Part

TEXT_PLAIN = content_type(b"text", b"plain", ((b"charset", b"us-ascii"),))
MESSAGE_RFC822 = content_type(b"message", b"rfc822", ())

_MESSAGE_FIELD_NAMES = CONTENT_FIELD_NAMES | ENVELOPE_FIELD_NAMES
_NO_FIELD_NAMES: frozenset[bytes] = frozenset()
_ADDRESS_COST = 4
# What may follow the boundary in a delimiter line: "--" if it closes, then transport-padding.
_DELIMITER_END = re.compile(rb"(--)?[ \t]*+\r?(?:\n|\Z)")
# Misspelt names of no encoding at all ("8-bit", "none") are common and hide nothing.
_REAL_ENCODINGS = frozenset({b"base64", b"quoted-printable", b"uuencode", b"x-uuencode", b"x-uue"})
_COUNTED_AT_ONCE = 1 << 20

# Searching for boundaries may cost this many times the message's length (one pass for each level
# of a usual message is far below it), and a line that only looks like a boundary this much.
_SEARCH_FACTOR = 16
_SEARCH_ALLOWANCE = 32 << 20
_FALSE_BOUNDARY_COST = 256


@define(eq=False)
class _Multipart:
    """A multipart whose parts are being found."""

    part: Part
    delimiter: bytes
    depth: int
    end: int
    position: int
    """Where to look for the next delimiter."""
    part_start: int = -1
    """Where the part begins that the next delimiter ends; -1 before the first."""


def scan(octets: Octets, limits: MessageLimits = DEFAULT_LIMITS) -> MessageStructure:
    """The tree of a message. Time is linear in its length; never raises."""
    return Scanner(octets, limits).scan()


@define(eq=False)
class Scanner:
    """One scan of one message."""

    octets: Octets
    limits: MessageLimits
    header_rows: list[FieldRow] = field(factory=list)
    """The fields of the message's own header section, once scanned."""
    _parts: list[Part] = field(factory=list)
    _open: list[_Multipart] = field(factory=list)
    _work_left: int = 0
    _interpreted_left: int = 0

    def scan(self) -> MessageStructure:
        size = len(self.octets)
        self._work_left = size * _SEARCH_FACTOR + _SEARCH_ALLOWANCE
        self._interpreted_left = self.limits.interpreted_octets
        self._enter(None, 0, size, 0, is_message=True, default=TEXT_PLAIN)
        while self._open:
            self._next_part(self._open[-1])
        _count_lines(self.octets, self._parts)
        return MessageStructure(size, self._parts)

    def _enter(
        self, parent: Part | None, start: int, end: int, depth: int, *, is_message: bool, default: ContentType
    ) -> None:
        """Adds the entity ``[start:end]``, and what attached messages lead to; opens a multipart if it is one."""
        while True:
            header = read_header(self.octets, start, end, self.limits)
            part = self._add(header.rows, start, header.body_start, end, default, is_message=is_message)
            if parent is not None:
                parent.children.append(part)
            else:
                self.header_rows = header.rows
            kind = part.content_type
            if kind.media_type == b"multipart":
                self._open_multipart(part, depth)
            elif kind.media_type == b"message" and kind.subtype == b"rfc822":
                if part.encoding in _REAL_ENCODINGS:
                    part.content_type = content_type(b"application", b"octet-stream", kind.parameters)
                elif depth >= self.limits.nesting or len(self._parts) >= self.limits.parts:
                    part.content_type = TEXT_PLAIN
                else:
                    parent, start, depth, is_message, default = part, header.body_start, depth + 1, True, TEXT_PLAIN
                    continue
            return

    def _add(
        self, rows: list[FieldRow], start: int, body_start: int, end: int, default: ContentType, *, is_message: bool
    ) -> Part:
        wanted = _MESSAGE_FIELD_NAMES if is_message else CONTENT_FIELD_NAMES
        if self._interpreted_left <= 0:
            wanted = _NO_FIELD_NAMES
        fields: Fields = {}
        longest = self.limits.field_octets
        for row in rows:
            name = row[1].lower()
            if name in wanted:
                body = field_body(row)
                if len(body) > longest:
                    body = body[:longest]
                self._interpreted_left -= len(body) * _ADDRESS_COST if name in ADDRESS_FIELD_NAMES else len(body)
                if name in fields:
                    fields[name].append(body)
                else:
                    fields[name] = [body]
        kind = default
        if b"content-type" in fields:
            kind = parse_content_type(fields[b"content-type"][0], self.limits.parameters) or TEXT_PLAIN
        encoding = b"7bit"
        if b"content-transfer-encoding" in fields:
            encoding = parse_token(fields[b"content-transfer-encoding"][0]) or b"7bit"
        part = Part(len(self._parts), start, body_start, end, kind, encoding, fields, is_message)
        self._parts.append(part)
        return part

    def _open_multipart(self, part: Part, depth: int) -> None:
        boundary = part.content_type.parameter(b"boundary")
        boundary = boundary.rstrip(b" \t") if boundary else b""
        if (
            not boundary
            or len(boundary) > self.limits.boundary_octets
            or b"\n" in boundary
            or depth >= self.limits.nesting
            or self._work_left <= 0
        ):
            part.content_type = TEXT_PLAIN
            return
        # The line end before a delimiter belongs to it; the first may directly follow the header.
        opened = _Multipart(part, b"\n--" + boundary, depth, part.end, max(part.body_start - 1, 0))
        first = self._find_delimiter(opened)
        if first is None or first[2]:
            part.content_type = TEXT_PLAIN
            return
        opened.part_start = opened.position = first[1]
        opened.position -= 1
        self._open.append(opened)

    def _find_delimiter(self, opened: _Multipart) -> tuple[int, int, bool] | None:
        """(where the part before it ends, where the next begins, whether it closes) of the next delimiter line."""
        octets, end, delimiter = self.octets, opened.end, opened.delimiter
        position = opened.position
        while self._work_left > 0:
            at = octets.find(delimiter, position, end)
            if at < 0:
                self._work_left -= end - position
                return None
            self._work_left -= at - position
            match = _DELIMITER_END.match(octets, at + len(delimiter), end)
            if match is not None:
                before = at - 1 if at > opened.part.body_start and octets[at - 1 : at] == b"\r" else at
                return before, match.end(), match[1] is not None
            position = at + 1
            self._work_left -= _FALSE_BOUNDARY_COST
        return None

    def _next_part(self, opened: _Multipart) -> None:
        start = opened.part_start
        is_last_allowed = len(self._parts) >= self.limits.parts - 1
        found = None if is_last_allowed else self._find_delimiter(opened)
        if found is None:
            part_end, is_closed = opened.end, True
        else:
            part_end, next_start, is_closed = found
            opened.part_start, opened.position = next_start, next_start - 1
        if is_closed:
            self._open.pop()
        part_end = max(part_end, start)
        if is_last_allowed or self._work_left <= 0:
            # The rest of the multipart, unread, as one part.
            part = self._add([], start, start, part_end, TEXT_PLAIN, is_message=False)
            opened.part.children.append(part)
            return
        is_digest = opened.part.content_type.subtype == b"digest"
        self._enter(
            opened.part,
            start,
            part_end,
            opened.depth + 1,
            is_message=False,
            default=MESSAGE_RFC822 if is_digest else TEXT_PLAIN,
        )


def _count_lines(octets: Octets, parts: list[Part]) -> None:
    """Fills in ``lines`` where IMAP tells them; every octet is looked at once however deep messages nest."""
    counted = [part for part in parts if part.is_text or part.is_attached_message]
    if not any(part.children for part in counted):
        for part in counted:
            part.lines = _count_line_ends(octets, part.body_start, part.end) + _ends_amid_line(octets, part)
        return
    places = sorted({part.body_start for part in counted} | {part.end for part in counted})
    lines_before = {places[0]: 0}
    for earlier, later in pairwise(places):
        lines_before[later] = lines_before[earlier] + _count_line_ends(octets, earlier, later)
    for part in counted:
        part.lines = lines_before[part.end] - lines_before[part.body_start] + _ends_amid_line(octets, part)


def _ends_amid_line(octets: Octets, part: Part) -> int:
    """1 for a last line whose line end is missing, or belongs to the boundary behind it."""
    return part.end > part.body_start and octets[part.end - 1 : part.end] != b"\n"


def _count_line_ends(octets: Octets, start: int, end: int) -> int:
    if isinstance(octets, bytes):
        return octets.count(b"\n", start, end)
    total = 0
    while start < end:
        total += octets[start : min(start + _COUNTED_AT_ONCE, end)].count(b"\n")
        start += _COUNTED_AT_ONCE
    return total
