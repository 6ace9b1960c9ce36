"""MIME header values with parameters: Content-Type and Content-Disposition (RFC 2045 5.1, RFC 2183, RFC 2231).

Reads what mail programs write: comments, missing quotes, quotes that are never closed, empty
parameters. Continuations of RFC 2231 are joined; a value with a character set keeps that form and
the name its ``*``, since that is how clients find it in BODYSTRUCTURE.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import islice
from urllib.parse import quote_from_bytes, unquote_to_bytes

from attrs import frozen

from mailsrv.message.charsets import decode_octets
from mailsrv.message.fields import unfold
from mailsrv.message.imap_strings import NIL, format_string
from mailsrv.message.quoted_string import QUOTED_TEXT
from mailsrv.message.settings import DEFAULT_LIMITS

Parameters = tuple[tuple[bytes, bytes], ...]
"""(name in lower case, value) in the order of the field."""

_COMMENT_NESTING = 100
_LONGEST_MEMORISED = 80

_MEDIA_TYPE = re.compile(rb'([^\x00-\x20/;()",=\x7f]{1,127})[ \t]*/[ \t]*([^\x00-\x20/;()",=\x7f]{1,127})')
_VALUE = re.compile(rb'[^\x00-\x20;()",=\x7f]{1,127}')
_PARAMETER = re.compile(
    rb'[;\x00-\x20]*+([^\x00-\x20=;"\x7f]++)[ \t]*+=[ \t]*+(?:"(' + QUOTED_TEXT + rb')"|([^;]*+))', re.DOTALL
)
_CHARSET = re.compile(rb"[^\x00-\x20,\x7f]*+")
_TO_NEXT = re.compile(rb"[^;]*+;?")
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_COMMENT_TOKEN = re.compile(rb'[()]|\\.|"' + QUOTED_TEXT + rb'"?', re.DOTALL)
# RFC 2231 7: attribute = attribute-char* [ section ] [ "*" ]
_SECTIONED = re.compile(rb"([^*]+)(?:\*([0-9]{1,4}))?(\*)?")
_CHARSET_FORM = re.compile(rb"([^']*+)'([^']*+)'(.*)", re.DOTALL)


@frozen
class ContentType:
    """A Content-Type, names in lower case."""

    media_type: bytes
    subtype: bytes
    parameters: Parameters
    imap_prefix: bytes
    """``"type" "subtype" (parameters)`` ready to send."""

    def parameter(self, name: bytes) -> bytes | None:
        """The first parameter of that name (lower case) as it stands; without one, what its extended form says."""
        found = next((value for key, value in self.parameters if key == name), None)
        if found is None:
            extended = next((value for key, value in self.parameters if key == name + b"*"), None)
            return None if extended is None else decode_extended(extended).encode("utf-8")
        return found


@frozen
class Disposition:
    """A Content-Disposition, names in lower case."""

    value: bytes
    parameters: Parameters


def content_type(media_type: bytes, subtype: bytes, parameters: Parameters) -> ContentType:
    """A :class:`ContentType` with its IMAP form."""
    prefix = b"%b %b %b" % (format_string(media_type), format_string(subtype), format_parameters(parameters))
    return ContentType(media_type, subtype, parameters, prefix)


def format_parameters(parameters: Parameters) -> bytes:
    """``body-fld-param`` (RFC 9051 9)."""
    if not parameters:
        return NIL
    return b"(%b)" % b" ".join([b"%b %b" % (format_string(name), format_string(value)) for name, value in parameters])


def parse_content_type(body: bytes, limit: int = DEFAULT_LIMITS.parameters) -> ContentType | None:
    """A Content-Type field body, or None where it names no type (RFC 2045 5.2 then wants the default)."""
    if len(body) <= _LONGEST_MEMORISED and b"oundary" not in body:
        return _memorised_content_type(body, limit)
    return _content_type(body, limit)


def _content_type(body: bytes, limit: int) -> ContentType | None:
    text = _without_comments(unfold(body))
    match = _MEDIA_TYPE.match(text)
    if match is None:
        return None
    return content_type(match[1].lower(), match[2].lower(), _parameters(text, match.end(), limit))


_memorised_content_type = lru_cache(maxsize=512)(_content_type)


def parse_disposition(body: bytes, limit: int = DEFAULT_LIMITS.parameters) -> Disposition | None:
    """A Content-Disposition field body, or None where it is empty."""
    text = _without_comments(unfold(body))
    match = _VALUE.match(text)
    if match is None:
        return None
    return Disposition(match[0].lower(), _parameters(text, match.end(), limit))


def parse_token(body: bytes) -> bytes | None:
    """The one word of fields such as Content-Transfer-Encoding, in lower case."""
    match = _VALUE.match(_without_comments(unfold(body)))
    return None if match is None else match[0].lower()


def parse_languages(body: bytes) -> list[bytes]:
    """The tags of a Content-Language field (RFC 3282)."""
    text = _without_comments(unfold(body))
    return [tag for tag in (part.strip() for part in text.split(b",")) if tag]


def _without_comments(text: bytes) -> bytes:
    if b"(" not in text:
        return text
    kept: list[bytes] = []
    depth = 0
    position = 0
    for match in _COMMENT_TOKEN.finditer(text):
        octet = match[0]
        if octet == b"(":
            if not depth:
                kept.append(text[position : match.start()])
            depth += 1
            if depth > _COMMENT_NESTING:
                break
        elif octet == b")" and depth:
            depth -= 1
            position = match.end()
    if not depth:
        kept.append(text[position:])
    return b" ".join(kept).strip()


def _parameters(text: bytes, position: int, limit: int) -> Parameters:
    found: list[tuple[bytes, bytes]] = []
    is_sectioned = False
    length = len(text)
    if position < length:  # whatever else stands before the first semicolon is passed over
        match = _TO_NEXT.match(text, position)
        position = length if match is None else match.end()
    while position < length and len(found) < limit:
        match = _PARAMETER.match(text, position)
        if match is None:
            skipped = _TO_NEXT.match(text, position)
            if skipped is None:
                break
            position = max(skipped.end(), position + 1)
            continue
        name, quoted, bare = match.groups()
        if quoted is not None:
            value = _ESCAPE.sub(rb"\1", quoted) if b"\\" in quoted else quoted
        else:
            value = bare.strip().removeprefix(b'"')
        name = name.lower()
        if name == b"charset" and quoted is None:
            value = _first_word(value)
        is_sectioned = is_sectioned or b"*" in name
        found.append((name, value))
        position = match.end()
        if quoted is not None and position < length:
            skipped = _TO_NEXT.match(text, position)
            position = length if skipped is None else skipped.end()
    return tuple(_joined_sections(found) if is_sectioned else found)


def _first_word(value: bytes) -> bytes:
    """A file's name may have spaces in it, quoted or not; behind that of a character set a semicolon was forgotten."""
    match = _CHARSET.match(value.strip())
    return value if match is None else match[0]


def _joined_sections(found: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """RFC 2231 3 and 4: ``name*0*``, ``name*1`` … become one ``name*`` (or ``name``) where the first of them stood."""
    joined: list[tuple[bytes, bytes]] = []
    sections: dict[bytes, dict[int, tuple[bytes, bool]]] = {}
    places: dict[bytes, int] = {}
    for name, value in found:
        match = _SECTIONED.fullmatch(name)
        if match is None or match[2] is None:
            joined.append((name, value))
            continue
        base = match[1]
        if base not in sections:
            sections[base] = {}
            places[base] = len(joined)
            joined.append((base, b""))
        sections[base].setdefault(int(match[2]), (value, match[3] is not None))
    for base, numbered in sections.items():
        joined[places[base]] = _join_sections(base, numbered)
    return joined


def _join_sections(base: bytes, numbered: dict[int, tuple[bytes, bool]]) -> tuple[bytes, bytes]:
    in_order = [numbered[number] for number in islice(sorted(numbered), len(numbered))]
    if not any(is_extended for _, is_extended in in_order):
        return base, b"".join([value for value, _ in in_order])
    pieces = [
        value if is_extended else quote_from_bytes(value, safe="").encode("ascii") for value, is_extended in in_order
    ]
    if not in_order[0][1]:
        pieces.insert(0, b"''")
    return base + b"*", b"".join(pieces)


def decode_extended(value: bytes) -> str:
    """The text of a ``charset'language'%..`` value (RFC 2231 4); tolerant."""
    match = _CHARSET_FORM.match(value)
    if match is None:
        return decode_octets(unquote_to_bytes(value), b"")
    return decode_octets(unquote_to_bytes(match[3]), match[1])
