"""The octets of a journal record.

A record is a head and a payload. The head names the record's place (segment id and offset), the
checksum covers head and payload; so a record is only ever read where it was written, in that life
of the segment (R-DUR-6). Everything is typed and length-prefixed (R-INJ-2), integers are big-endian
(:mod:`mailsrv.journal.octets`; for a delivery :mod:`mailsrv.journal.delivery`)::

    head     magic[4] type[1] flags[1] 0[2] length[4] batch[4] offset[8] segment-id[16] crc32[4]
    text     length[2] utf-8
    key      segment-id[16] offset[8] number[4]

What does not fit the grammar to the last octet is a :class:`FormatError`, never a guess.
"""

from __future__ import annotations

import enum
import os
import struct
import zlib
from collections.abc import Sequence

from attrs import frozen

from mailsrv.interfaces.content import Content, FileContent, InlineContent
from mailsrv.interfaces.journal import (
    Applied,
    Delivery,
    DeliveryKey,
    JournaledMessage,
    JournalRecord,
    LocalDelivery,
)
from mailsrv.journal.delivery import decode_delivery, decode_local, encode_delivery, encode_local
from mailsrv.journal.octets import LONG, SHORT, FormatError, Reader, pack_text

_HEAD = struct.Struct(">4sBBHIIQ16s")
_CHECKSUM = struct.Struct(">I")
HEAD_OCTETS = _HEAD.size + _CHECKSUM.size
ID_AT = _HEAD.size - 16
"""Where in the head the segment id stands."""
_MAGIC = b"mjr\x01"

_MESSAGE = struct.Struct(">qhBI")
_FILE = struct.Struct(">QB")
_NOTE = struct.Struct(">16sQIIIQ")
_PLACE = struct.Struct(">16sQ")
_KEY = struct.Struct(">16sQI")
_INLINE, _IN_FILE = 0, 1
_TYPED_DELIVERIES = 2
"""Added to these where deliveries have types: not all of them are local."""


class RecordType(enum.IntEnum):
    """What a record says."""

    DELIVERIES = 1
    """Messages and where they go: what is acknowledged."""
    NOTE = 2
    """Which UIDs the deliveries of a record got and were told."""
    WITHDRAWN = 3
    """The record at this place was refused after all."""
    SETTLED = 4
    """One delivery that needs no replay: it lies in the folder for stuck mail."""
    SEALED = 5
    """A segment that met a disk error counts only up to here; what follows was refused."""


FLAG_WANTS_NOTE = 1


@frozen
class RecordHead:
    """A record's head, as read."""

    type: int
    flags: int
    length: int
    batch: int
    offset: int
    segment_id: bytes
    checksum: int
    checked_octets: bytes

    def covers(self, payload: bytes) -> bool:
        """Whether the checksum is that of this head and ``payload``."""
        return zlib.crc32(payload, zlib.crc32(self.checked_octets)) == self.checksum


@frozen
class Place:
    """Where a record lies."""

    segment_id: bytes
    offset: int


def encode_record(
    kind: RecordType, flags: int, place: tuple[bytes, int], batch: int, payload: Sequence[bytes]
) -> list[bytes]:
    """The buffers to write at ``place`` (segment id, offset)."""
    segment_id, offset = place
    head = _HEAD.pack(_MAGIC, kind, flags, 0, sum(map(len, payload)), batch, offset, segment_id)
    checksum = zlib.crc32(head)
    for part in payload:
        checksum = zlib.crc32(part, checksum)
    return [head + _CHECKSUM.pack(checksum), *payload]


def decode_head(octets: bytes) -> RecordHead | None:
    """None where no record begins."""
    if len(octets) != HEAD_OCTETS or not octets.startswith(_MAGIC):
        return None
    _, kind, flags, zero, length, batch, offset, segment_id = _HEAD.unpack_from(octets)
    if zero:
        return None
    (checksum,) = _CHECKSUM.unpack_from(octets, _HEAD.size)
    return RecordHead(kind, flags, length, batch, offset, segment_id, checksum, octets[: _HEAD.size])


# -- payloads, written -------------------------------------------------------


def encode_deliveries(record: JournalRecord) -> list[bytes]:
    """Payload of DELIVERIES, contents as buffers of their own. File content is named by its base name."""
    parts = [pack_text(record.transaction_id) + pack_text(record.reverse_path) + SHORT.pack(len(record.messages))]
    for message in record.messages:
        content = message.content
        is_inline = type(content) is InlineContent
        kind = _INLINE if is_inline else _IN_FILE
        meta: list[bytes] = []
        for delivery in message.deliveries:
            if not isinstance(delivery, LocalDelivery):
                kind += _TYPED_DELIVERIES
                meta = [encode_delivery(each) for each in message.deliveries]
                break
            meta += encode_local(delivery)
        meta.insert(0, _MESSAGE.pack(message.internal_date, message.date_offset_minutes, kind, len(message.deliveries)))
        if isinstance(content, InlineContent):
            meta.append(LONG.pack(len(content.octets)))
            parts += [b"".join(meta), content.octets]
        else:
            meta += [
                pack_text(os.path.basename(content.path)),
                _FILE.pack(content.size, len(content.checksum)),
                content.checksum,
            ]
            parts.append(b"".join(meta))
    return parts


def encode_note(applied: Sequence[Applied]) -> list[bytes]:
    """Payload of NOTE."""
    return [
        b"".join(
            _NOTE.pack(one.key.segment_id, one.key.offset, one.key.number, one.uid_validity, one.uid, one.mod_seq)
            for one in applied
        )
    ]


def encode_place(segment_id: bytes, offset: int) -> list[bytes]:
    """Payload of WITHDRAWN and SEALED."""
    return [_PLACE.pack(segment_id, offset)]


def encode_key(key: DeliveryKey) -> list[bytes]:
    """Payload of SETTLED."""
    return [key.to_octets()]


# -- payloads, read ----------------------------------------------------------


def decode_deliveries(payload: bytes, spool: str) -> JournalRecord:
    """A JournalRecord; file content gets its path in the folder ``spool``."""
    reader = Reader(payload)
    transaction_id = reader.text()
    reverse_path = reader.text()
    (count,) = reader.numbers(SHORT)
    messages = tuple(_decode_message(reader, spool) for _ in range(count))
    reader.end()
    return JournalRecord(messages, transaction_id, reverse_path)


def _decode_message(reader: Reader, spool: str) -> JournaledMessage:
    internal_date, date_offset, kind, count = reader.numbers(_MESSAGE)
    deliveries: tuple[Delivery, ...]
    if kind & _TYPED_DELIVERIES:
        deliveries = tuple([decode_delivery(reader) for _ in range(count)])
        kind -= _TYPED_DELIVERIES
    else:
        deliveries = tuple([decode_local(reader) for _ in range(count)])
    content: Content
    if kind == _INLINE:
        (length,) = reader.numbers(LONG)
        content = InlineContent(reader.take(length))
    elif kind == _IN_FILE:
        name = reader.text()
        if not name or "/" in name or "\0" in name or name in (".", ".."):
            raise FormatError("a file name that leads elsewhere")
        size, length = reader.numbers(_FILE)
        content = FileContent(os.path.join(spool, name), size, reader.take(length))
    else:
        raise FormatError("an unknown kind of content")
    return JournaledMessage(content, deliveries, internal_date, date_offset)


def decode_note(payload: bytes) -> list[Applied]:
    """What was told of the deliveries of one record."""
    reader = Reader(payload)
    notes = []
    while not reader.is_at_end:
        segment_id, offset, number, uid_validity, uid, mod_seq = _NOTE.unpack(reader.take(_NOTE.size))
        notes.append(Applied(DeliveryKey(segment_id, offset, number), uid_validity, uid, mod_seq))
    return notes


def decode_place(payload: bytes) -> Place:
    """Of WITHDRAWN and SEALED."""
    if len(payload) != _PLACE.size:
        raise FormatError("not a place")
    return Place(*_PLACE.unpack(payload))


def decode_key(payload: bytes) -> DeliveryKey:
    """Of SETTLED."""
    if len(payload) != _KEY.size:
        raise FormatError("not a delivery key")
    return DeliveryKey.from_octets(payload)
