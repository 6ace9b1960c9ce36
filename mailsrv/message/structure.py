"""The tree of a message's body parts, as offsets into its octets.

Made by :func:`mailsrv.message.scanner.scan`, and from then on only read: it may be kept and
shared for as long as the message exists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import define, field

from mailsrv.message.encoded_words import decode_header
from mailsrv.message.fields import unfold
from mailsrv.message.parameters import (
    ContentType,
    Disposition,
    decode_extended,
    parse_disposition,
)

Fields = dict[bytes, list[bytes]]
"""Raw field bodies by name in lower case, in the order of the message."""


@define(eq=False)
class Part:
    """One entity: a message, or a body part. Its octets are ``[header_start:end]``."""

    index: int
    """Place in ``MessageStructure.parts``."""
    header_start: int
    body_start: int
    """Header section, with the empty line that ends it, is ``[header_start:body_start]``."""
    end: int
    """Body is ``[body_start:end]``, without the line end that belongs to a boundary."""
    content_type: ContentType
    """What the part is presented as, defaults and caps taken into account."""
    encoding: bytes
    """Content-Transfer-Encoding in lower case; ``7bit`` where there is none."""
    fields: Fields
    """The fields that ENVELOPE (of messages) and BODYSTRUCTURE are made of."""
    is_message: bool
    """Whether its header section is that of a message: the whole, or what a message/rfc822 part holds."""
    children: list[Part] = field(factory=list)
    """The parts of a multipart; the one message of a message/rfc822 part."""
    lines: int = 0
    """Lines of the body, the last counting without a line end too; only of text and message/rfc822."""

    @property
    def is_multipart(self) -> bool:
        return self.content_type.media_type == b"multipart"

    @property
    def is_text(self) -> bool:
        return self.content_type.media_type == b"text"

    @property
    def is_attached_message(self) -> bool:
        """Whether it is a message/rfc822 part whose message was looked into (its only child)."""
        return self.content_type.media_type == b"message" and bool(self.children)

    @property
    def body_octets(self) -> int:
        return self.end - self.body_start

    def field(self, name: bytes) -> bytes | None:
        """The first of the kept fields of that name (lower case), on one line."""
        bodies = self.fields.get(name)
        return unfold(bodies[0]) if bodies else None

    @property
    def disposition(self) -> Disposition | None:
        """Content-Disposition, if there is one that says something."""
        bodies = self.fields.get(b"content-disposition")
        return parse_disposition(bodies[0]) if bodies else None

    def file_names(self) -> tuple[str, ...]:
        """Every name a client may take for the file: all spellings and duplicates (R-MIME-2)."""
        names: dict[str, None] = {}
        parameters = [pair for pair in self.content_type.parameters if pair[0].startswith(b"name")]
        disposition = self.disposition
        if disposition is not None:
            parameters[:0] = [pair for pair in disposition.parameters if pair[0].startswith(b"filename")]
        for name, value in parameters:
            names[decode_extended(value) if name.endswith(b"*") else decode_header(value)] = None
        return tuple(names)


@define(eq=False)
class MessageStructure:
    """A scanned message."""

    size_octets: int
    parts: Sequence[Part]
    """All parts, each before its children; ``parts[0]`` is the message itself."""

    @property
    def root(self) -> Part:
        return self.parts[0]

    def leaves(self) -> Iterator[Part]:
        """The parts that have no parts."""
        return (part for part in self.parts if not part.children)

    def part_at(self, path: Sequence[int]) -> Part | None:
        """The part with an IMAP part number (RFC 9051 6.4.5.1), or None. ``()`` is the message itself.

        A message that is no multipart has one part, number 1: its own body, so the answer is
        that message's entity.
        """
        part = self.root
        is_whole_message = True
        for number in path:
            if not is_whole_message and part.is_attached_message:
                part, is_whole_message = part.children[0], True
            if part.is_multipart:
                if not 1 <= number <= len(part.children):
                    return None
                part = part.children[number - 1]
            elif number != 1 or not is_whole_message:
                return None
            is_whole_message = False
        return part
