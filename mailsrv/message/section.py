"""Body sections: what ``BODY[…]``, ``BINARY[…]`` and ``BINARY.SIZE[…]`` name in a message (RFC 9051 6.4.5.1, RFC 3516).

Nearly every section is a slice of the message, so :func:`locate` answers with offsets and the
caller reads just that much of the file. HEADER.FIELDS is composed from a slice; BINARY is
decoded from one.
"""

from __future__ import annotations

import enum
import re

from attrs import evolve, frozen

from mailsrv.errors import MailError
from mailsrv.message.decoding import decode_body
from mailsrv.message.fields import Octets, select_fields
from mailsrv.message.structure import MessageStructure, Part
from mailsrv.status import BAD_ARGUMENTS

_DEEPEST_PATH = 200
_SECTION = re.compile(
    rb"(?P<path>[1-9][0-9]{0,8}(?:\.[1-9][0-9]{0,8})*)?"
    rb"(?:(?P<dot>\.)?(?P<kind>HEADER\.FIELDS(?:\.NOT)?|HEADER|TEXT|MIME)(?: \((?P<names>[^()\r\n]*)\))?)?",
    re.IGNORECASE,
)


class SectionKind(enum.Enum):
    """``section-msgtext`` and ``section-text``, or the whole of what the part numbers lead to."""

    WHOLE = ""
    HEADER = "HEADER"
    HEADER_FIELDS = "HEADER.FIELDS"
    HEADER_FIELDS_NOT = "HEADER.FIELDS.NOT"
    TEXT = "TEXT"
    MIME = "MIME"


@frozen
class Section:
    """A section specification. ``names`` (lower case) only with the two HEADER.FIELDS kinds."""

    path: tuple[int, ...] = ()
    kind: SectionKind = SectionKind.WHOLE
    names: frozenset[bytes] = frozenset()


class UnknownEncoding(MailError):
    """``NO [UNKNOWN-CTE]``: BINARY of a part whose transfer encoding cannot be decoded (RFC 3516 4.3)."""

    def __init__(self, encoding: bytes) -> None:
        super().__init__(BAD_ARGUMENTS, "Unknown content transfer encoding", cause=repr(encoding[:40]))


@frozen
class LocatedSection:
    """Where a section is: ``length`` octets from ``offset``; if ``is_composed``, only after :meth:`compose`."""

    offset: int
    length: int
    names: frozenset[bytes] = frozenset()
    is_composed: bool = False
    negate: bool = False

    def compose(self, slice_octets: bytes) -> bytes:
        """The section's octets from those of the slice."""
        if not self.is_composed:
            return slice_octets
        return select_fields(slice_octets, self.names, negate=self.negate)

    def partial(self, first: int, count: int) -> LocatedSection:
        """``<first.count>`` of a section that is not composed; past its end it is empty."""
        offset = min(first, self.length)
        return evolve(self, offset=self.offset + offset, length=min(count, self.length - offset))


def parse_section(text: bytes) -> Section | None:
    """A ``section-spec`` (what stands between the brackets), or None if it is none."""
    match = _SECTION.fullmatch(text)
    if match is None:
        return None
    path = tuple(int(number) for number in match["path"].split(b".")) if match["path"] else ()
    kind = SectionKind((match["kind"] or b"").upper().decode("ascii"))
    names = frozenset(name.strip(b'"').lower() for name in (match["names"] or b"").split())
    takes_names = kind in (SectionKind.HEADER_FIELDS, SectionKind.HEADER_FIELDS_NOT)
    if (
        len(path) > _DEEPEST_PATH
        or (kind is not SectionKind.WHOLE and bool(path) != bool(match["dot"]))
        or (kind is SectionKind.MIME and not path)
        or takes_names != bool(names)
        or (match["names"] is not None and not takes_names)
    ):
        return None
    return Section(path, kind, names)


def locate(structure: MessageStructure, section: Section) -> LocatedSection | None:
    """Where the section is, or None where the message has no such part (then it is sent as NIL)."""
    part = structure.part_at(section.path)
    if part is None:
        return None
    kind = section.kind
    if kind is SectionKind.WHOLE:
        start = part.body_start if section.path else part.header_start
        return LocatedSection(start, part.end - start)
    if kind is SectionKind.MIME:
        return LocatedSection(part.header_start, part.body_start - part.header_start)
    message = _message_of(part, section.path)
    if message is None:
        return None
    if kind is SectionKind.TEXT:
        return LocatedSection(message.body_start, message.end - message.body_start)
    return LocatedSection(
        message.header_start,
        message.body_start - message.header_start,
        section.names,
        is_composed=kind is not SectionKind.HEADER,
        negate=kind is SectionKind.HEADER_FIELDS_NOT,
    )


def _message_of(part: Part, path: tuple[int, ...]) -> Part | None:
    """The message that HEADER and TEXT behind a path speak of: the whole, or an attached one."""
    if not path:
        return part
    return part.children[0] if part.is_attached_message else None


def section_octets(
    octets: Octets, structure: MessageStructure, section: Section, partial: tuple[int, int] | None = None
) -> bytes | None:
    """The octets of a section of a message at hand; None where there is no such part."""
    located = locate(structure, section)
    if located is None:
        return None
    if partial is not None and not located.is_composed:
        located = located.partial(*partial)
        partial = None
    composed = located.compose(octets[located.offset : located.offset + located.length])
    return composed if partial is None else composed[partial[0] : partial[0] + partial[1]]


def binary_octets(octets: Octets, structure: MessageStructure, path: tuple[int, ...]) -> bytes | None:
    """``BINARY[path]``: the part's body without its transfer encoding; None where there is no such part.

    Raises :class:`UnknownEncoding`. Without a path it is the whole message, as it stands. The
    length of the answer is what ``BINARY.SIZE`` tells; both decode, so use a thread for large parts.
    """
    part = structure.part_at(path)
    if part is None:
        return None
    if not path:
        return octets[:]
    return decode_part(octets[part.body_start : part.end], part)


def decode_part(body: bytes, part: Part) -> bytes:
    """A part's body, as read from the message, without its transfer encoding. Raises :class:`UnknownEncoding`."""
    if part.is_multipart:
        return body
    decoded = decode_body(body, part.encoding)
    if decoded is None:
        raise UnknownEncoding(part.encoding)
    return decoded
