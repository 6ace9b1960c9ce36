"""The IMAP BODY and BODYSTRUCTURE of a message, ready to send (RFC 9051 7.5.2, 9 ``body``).

Parts are written children first, without recursion. Names of types and encodings are sent in
lower case, values as they stand in the message.
"""

from __future__ import annotations

from mailsrv.message.fields import unfold
from mailsrv.message.imap_envelope import format_envelope
from mailsrv.message.imap_strings import NIL, format_nstring, format_string
from mailsrv.message.parameters import format_parameters, parse_disposition, parse_languages
from mailsrv.message.settings import DEFAULT_LIMITS, MessageLimits
from mailsrv.message.structure import Fields, MessageStructure, Part

CONTENT_FIELD_NAMES = frozenset(
    {
        b"content-type",
        b"content-transfer-encoding",
        b"content-disposition",
        b"content-id",
        b"content-description",
        b"content-md5",
        b"content-language",
        b"content-location",
    }
)


def format_body_structures(structure: MessageStructure, limits: MessageLimits = DEFAULT_LIMITS) -> tuple[bytes, bytes]:
    """(BODY without extension data, BODYSTRUCTURE with it)."""
    bodies = [b""] * len(structure.parts)
    extended = [b""] * len(structure.parts)
    for part in reversed(structure.parts):
        index = part.index
        if part.is_multipart:
            children = [child.index for child in part.children]
            subtype = format_string(part.content_type.subtype)
            bodies[index] = b"(%b %b)" % (b"".join([bodies[child] for child in children]), subtype)
            extended[index] = b"(%b %b %b%b)" % (
                b"".join([extended[child] for child in children]),
                subtype,
                format_parameters(part.content_type.parameters),
                _extension(part.fields, limits),
            )
            for child in children:  # bounds what is held at once where multiparts nest deeply
                bodies[child] = extended[child] = b""
        elif part.is_attached_message:
            message = part.children[0]
            envelope = format_envelope(message.fields, limits)
            start = _basic(part)
            bodies[index] = b"(%b %b %b %d)" % (start, envelope, bodies[message.index], part.lines)
            extended[index] = b"(%b %b %b %d %b%b)" % (
                start,
                envelope,
                extended[message.index],
                part.lines,
                _text(part.fields, b"content-md5"),
                _extension(part.fields, limits),
            )
            bodies[message.index] = extended[message.index] = b""
        else:
            start = _basic(part)
            if part.is_text:
                start = b"%b %d" % (start, part.lines)
            bodies[index] = b"(%b)" % start
            extended[index] = b"(%b %b%b)" % (
                start,
                _text(part.fields, b"content-md5"),
                _extension(part.fields, limits),
            )
    return bodies[0], extended[0]


def _basic(part: Part) -> bytes:
    """``type subtype`` and ``body-fields``: parameters, id, description, encoding, octets."""
    return b"%b %b %b %b %d" % (
        part.content_type.imap_prefix,
        _text(part.fields, b"content-id"),
        _text(part.fields, b"content-description"),
        format_string(part.encoding),
        part.end - part.body_start,
    )


def _text(fields: Fields, name: bytes) -> bytes:
    bodies = fields.get(name)
    return NIL if bodies is None else format_string(unfold(bodies[0]))


def _extension(fields: Fields, limits: MessageLimits) -> bytes:
    """Disposition, language and location, each with a space before it."""
    disposition = NIL
    bodies = fields.get(b"content-disposition")
    if bodies is not None:
        parsed = parse_disposition(bodies[0], limits.parameters)
        if parsed is not None:
            disposition = b"(%b %b)" % (format_string(parsed.value), format_parameters(parsed.parameters))
    bodies = fields.get(b"content-language")
    tags = parse_languages(bodies[0])[: limits.parameters] if bodies is not None else []
    if len(tags) > 1:
        language = b"(%b)" % b" ".join([format_string(tag) for tag in tags])
    else:
        language = format_nstring(tags[0] if tags else None)
    return b" %b %b %b" % (disposition, language, _text(fields, b"content-location"))
