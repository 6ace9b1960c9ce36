"""The data items of FETCH (RFC 3501 6.4.5; BINARY RFC 3516; MODSEQ RFC 7162), typed, and how they are read."""

from __future__ import annotations

import enum
import re

from attrs import evolve, frozen

from mailsrv.imap.errors import BadCommand
from mailsrv.imap.grammar import Cursor
from mailsrv.message import Section, SectionKind, parse_section
from mailsrv.message.imap_strings import format_string


class Attribute(enum.Enum):
    """Items that are one value of a message."""

    FLAGS = b"FLAGS"
    UID = b"UID"
    MODSEQ = b"MODSEQ"
    INTERNALDATE = b"INTERNALDATE"
    RFC822_SIZE = b"RFC822.SIZE"
    ENVELOPE = b"ENVELOPE"
    BODY = b"BODY"
    BODYSTRUCTURE = b"BODYSTRUCTURE"


class SectionForm(enum.Enum):
    """What is told of a section."""

    OCTETS = enum.auto()
    """As it stands: BODY[…], RFC822, RFC822.HEADER, RFC822.TEXT."""
    DECODED = enum.auto()
    """Without its transfer encoding: BINARY[…]."""
    DECODED_SIZE = enum.auto()
    """BINARY.SIZE[…]."""


@frozen
class SectionItem:
    """A section of the message. ``label`` is its name in the response."""

    label: bytes
    section: Section
    form: SectionForm = SectionForm.OCTETS
    partial: tuple[int, int] | None = None
    sets_seen: bool = False


FetchItem = Attribute | SectionItem

_FAST = (Attribute.FLAGS, Attribute.INTERNALDATE, Attribute.RFC822_SIZE)
# "ALL" / "FULL" / "FAST", alone
_MACROS = {
    b"FAST": _FAST,
    b"ALL": (*_FAST, Attribute.ENVELOPE),
    b"FULL": (*_FAST, Attribute.ENVELOPE, Attribute.BODY),
}
_ATTRIBUTES = {attribute.value: attribute for attribute in Attribute}
_RFC822 = {
    b"RFC822": SectionItem(b"RFC822", Section(), sets_seen=True),
    b"RFC822.HEADER": SectionItem(b"RFC822.HEADER", Section((), SectionKind.HEADER)),
    b"RFC822.TEXT": SectionItem(b"RFC822.TEXT", Section((), SectionKind.TEXT), sets_seen=True),
}
# what stands between the brackets, up to a list of field names
_SECTION = re.compile(rb"[A-Za-z0-9.]*")
_BINARY_SECTION = re.compile(rb"(?:[1-9]\d{0,8}(?:\.[1-9]\d{0,8})*)?\Z")
# a field name that can stand unquoted between the brackets
_UNQUOTED_NAME = re.compile(rb"[!#$&'+-Z^-z|}~]++\Z")
_FIELD_NAME_OCTETS = 256
_FIELD_NAMES_MAX = 200
_ITEMS_MAX = 200


def parse_items(cursor: Cursor) -> tuple[FetchItem, ...]:
    """``"ALL" / "FULL" / "FAST" / fetch-att / "(" fetch-att *(SP fetch-att) ")"``"""
    if not cursor.skip(b"("):
        start = cursor.position
        word = cursor.word()
        if word in _MACROS:
            return _MACROS[word]
        cursor.position = start
        return (_parse_item(cursor),)
    items: dict[FetchItem, None] = {}
    while True:
        items[_parse_item(cursor)] = None
        if not cursor.skip(b" "):
            break
    cursor.expect(b")")
    if len(items) > _ITEMS_MAX:
        raise BadCommand("Too many items", code=b"LIMIT")
    return tuple(items)


def _parse_item(cursor: Cursor) -> FetchItem:
    word = cursor.word()
    if cursor.looking_at(b"["):
        return _parse_section_item(cursor, word)
    attribute = _ATTRIBUTES.get(word)
    if attribute is not None:
        return attribute
    if word in _RFC822:
        return _RFC822[word]
    raise BadCommand("Unknown item to fetch")


def _parse_section_item(cursor: Cursor, word: bytes) -> SectionItem:
    cursor.expect(b"[")
    if word in (b"BODY", b"BODY.PEEK"):
        text, section = _parse_section(cursor)
        form, name = SectionForm.OCTETS, b"BODY"
    elif word in (b"BINARY", b"BINARY.PEEK", b"BINARY.SIZE"):
        text = _simple_text(cursor)
        if not _BINARY_SECTION.match(text):
            raise BadCommand("Not a section of BINARY")
        section = parse_section(text)
        form = SectionForm.DECODED_SIZE if word == b"BINARY.SIZE" else SectionForm.DECODED
        name = b"BINARY.SIZE" if word == b"BINARY.SIZE" else b"BINARY"
    else:
        raise BadCommand("Unknown item to fetch")
    cursor.expect(b"]")
    if section is None:
        raise BadCommand("No such kind of section")
    partial = None
    label = name + b"[" + text + b"]"
    if form is not SectionForm.DECODED_SIZE and cursor.skip(b"<"):
        first = cursor.number()
        cursor.expect(b".")
        partial = (first, cursor.nz_number())
        cursor.expect(b">")
        label += b"<%d>" % first
    return SectionItem(label, section, form, partial, sets_seen=word in (b"BODY", b"BINARY"))


def _simple_text(cursor: Cursor) -> bytes:
    found = _SECTION.match(cursor.octets, cursor.position)
    if found is None:
        raise BadCommand("Expected a section")
    cursor.position = found.end()
    return found.group().upper()


def _parse_section(cursor: Cursor) -> tuple[bytes, Section | None]:
    """section-spec: how it is told in the response, the names of its header-list in upper case, and what it means"""
    text = _simple_text(cursor)
    if not cursor.skip(b" ("):
        return text, parse_section(text)
    names: dict[bytes, None] = {}
    while True:
        name = cursor.astring()
        if len(name) > _FIELD_NAME_OCTETS:
            raise BadCommand("Field name too long", code=b"LIMIT")
        names[name.upper()] = None
        if not cursor.skip(b" "):
            break
    cursor.expect(b")")
    if len(names) > _FIELD_NAMES_MAX:
        raise BadCommand("Too many field names", code=b"LIMIT")
    section = parse_section(text + b" (X)")
    if section is not None:
        section = evolve(section, names=frozenset(name.lower() for name in names))
    listed = b" ".join([name if _UNQUOTED_NAME.match(name) else format_string(name) for name in names])
    return text + b" (" + listed + b")", section
