"""Sections of one message, read from its content as they are sent.

Only what is asked for is read, in pieces; the message as a whole is taken into memory only to
find its parts, and what was found is kept for the next time. A literal's length is sent
before its octets, so if they cannot be read after that the connection is given up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from twisted.logger import Logger

from mailsrv.errors import MailError, Unavailable
from mailsrv.imap.errors import CommandRefused, PeerGone
from mailsrv.imap.fetch.items import SectionForm, SectionItem
from mailsrv.imap.fetch.row_cache import MailboxKey
from mailsrv.interfaces.content import IContent
from mailsrv.interfaces.mailbox import MessageSummary
from mailsrv.message import (
    LocatedSection,
    MessageStructure,
    SectionKind,
    UnknownEncoding,
    decode_part,
    locate,
    scan,
)

if TYPE_CHECKING:
    from mailsrv.imap.session import Session

_AT_HAND = 65536
_PIECE = 262144
_COMPOSED = frozenset({SectionKind.HEADER_FIELDS, SectionKind.HEADER_FIELDS_NOT})
_log = Logger()


@frozen(eq=False)
class OpenMessage:
    """A message at hand: what the index knows of it, and its octets."""

    summary: MessageSummary
    content: IContent
    mailbox: MailboxKey


@frozen
class Prepared:
    """A section whose length is known: its octets, or where they are in the message."""

    label: bytes
    octets: bytes | None = None
    located: LocatedSection | None = None
    value: bytes | None = None
    """A ready value (NIL, a number)."""
    is_binary: bool = False


async def prepare(session: Session, message: OpenMessage, item: SectionItem) -> Prepared:
    """Find a section. Raises UnknownEncoding, Unavailable, before anything of the row is sent."""
    located = await _locate(session, message, item)
    if located is None:
        return Prepared(item.label, value=b"0" if item.form is SectionForm.DECODED_SIZE else b"NIL")
    if item.form is not SectionForm.OCTETS:
        return await _prepare_decoded(session, message, item, located)
    if located.is_composed:
        octets = located.compose(await _read(message, located.offset, located.length))
        if item.partial is not None:
            octets = octets[item.partial[0] : item.partial[0] + item.partial[1]]
        return Prepared(item.label, octets)
    if item.partial is not None:
        located = located.partial(*item.partial)
    if located.length <= _AT_HAND:
        return Prepared(item.label, await _read(message, located.offset, located.length))
    return Prepared(item.label, located=located)


async def _locate(session: Session, message: OpenMessage, item: SectionItem) -> LocatedSection | None:
    section, summary = item.section, message.summary
    size = message.content.size
    if not section.path:
        header = min(summary.header_octets, size)
        if section.kind is SectionKind.WHOLE:
            return LocatedSection(0, size)
        if section.kind is SectionKind.HEADER:
            return LocatedSection(0, header)
        if section.kind is SectionKind.TEXT:
            return LocatedSection(header, size - header)
        if section.kind in _COMPOSED:
            negate = section.kind is SectionKind.HEADER_FIELDS_NOT
            return LocatedSection(0, header, section.names, is_composed=True, negate=negate)
    return locate(await structure_of(session, message), section)


async def structure_of(session: Session, message: OpenMessage) -> MessageStructure:
    """The parts of a message, scanned if nobody did so lately."""
    cache = session.services.row_cache
    known = cache.structure(message.mailbox, message.summary.uid)
    if known is not None:
        return known
    octets = await whole(session, message)
    structure = await session.peer.compute(len(octets), lambda: scan(octets))
    cache.keep_structure(message.mailbox, message.summary.uid, structure)
    return structure


async def whole(session: Session, message: OpenMessage) -> bytes:
    """All octets of a message, within the bound on what is taken into memory."""
    if message.content.octets is not None:
        return message.content.octets
    if message.content.size > session.services.settings.section_octets:
        raise CommandRefused("The message is too large to be looked into", code=b"LIMIT")
    return await _read(message, 0, message.content.size)


async def _read(message: OpenMessage, offset: int, length: int) -> bytes:
    octets = message.content.octets
    if octets is not None:
        return octets[offset : offset + length]
    read = await message.content.read(offset, length) if length else b""
    if len(read) != length:
        raise Unavailable("The message cannot be read", cause=f"{len(read)} of {length} octets at {offset}")
    return read


async def _prepare_decoded(
    session: Session, message: OpenMessage, item: SectionItem, located: LocatedSection
) -> Prepared:
    """BINARY and BINARY.SIZE (RFC 3516 4.2, 4.3)."""
    octets = await _read(message, located.offset, located.length)
    if item.section.path:
        part = (await structure_of(session, message)).part_at(item.section.path)
        if part is not None:
            try:
                octets = await session.peer.compute(len(octets), lambda: decode_part(octets, part))
            except UnknownEncoding as error:
                raise CommandRefused(error.text, code=b"UNKNOWN-CTE") from None
    if item.form is SectionForm.DECODED_SIZE:
        return Prepared(item.label, value=b"%d" % len(octets))
    if item.partial is not None:
        octets = octets[item.partial[0] : item.partial[0] + item.partial[1]]
    return Prepared(item.label, octets, is_binary=b"\0" in octets)


def send_ready(session: Session, prepared: Prepared) -> bool:
    """Send a section that is at hand; False where it has to be read piece by piece."""
    if prepared.value is not None:
        session.send(prepared.label + b" " + prepared.value)
        return True
    octets = prepared.octets
    if octets is None:
        return False
    if prepared.is_binary:
        session.send(b"%b ~{%d}\r\n" % (prepared.label, len(octets)))
    else:
        session.send(b"%b {%d}\r\n" % (prepared.label, len(octets)))
        octets = _without_nul(octets)
    session.send(octets)
    return True


async def send_in_pieces(session: Session, message: OpenMessage, prepared: Prepared) -> None:
    """Send a large section as fast as the peer takes it."""
    located = prepared.located
    if located is None:
        return
    session.send(b"%b {%d}\r\n" % (prepared.label, located.length))
    offset, end = located.offset, located.offset + located.length
    unsent = 0
    while offset < end:
        try:
            piece = await _read(message, offset, min(_PIECE, end - offset))
        except MailError as error:
            _log.error(
                "{connection}: a message ended in the middle: {error}",
                connection=session.peer.connection_id,
                error=str(error),
            )
            raise PeerGone from None
        session.send(_without_nul(piece))
        offset += len(piece)
        unsent += len(piece)
        if unsent >= session.services.settings.output_slice_octets:
            unsent = 0
            await session.breathe()


def _without_nul(octets: bytes) -> bytes:
    """No literal may carry NUL (RFC 3501 9, CHAR8); 0x80 stands for it, as sizes must not change."""
    return octets.replace(b"\0", b"\x80") if b"\0" in octets else octets
