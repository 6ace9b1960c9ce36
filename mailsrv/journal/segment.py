"""One segment: a file of fixed size, filled with zeros ahead, that records are appended to.

Its first sector names this life of it: a random id (128 bits) and a sequence number that orders
the segments of a slot. Records begin at :data:`FIRST_RECORD`. Giving the segment a new life
rewrites that sector only: what older lives left behind carries another id and is never read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

from attrs import frozen

from mailsrv.disk import IDisk, IDiskFile
from mailsrv.journal.format import HEAD_OCTETS, ID_AT, RecordType, decode_head, encode_record

FIRST_RECORD = 4096
CONTROL_RESERVE = 64 * 1024
"""The end of a segment is kept for notes, withdrawals and seals."""
_SECTOR = 512
_PIECE = 1 << 20
_HEADER = struct.Struct(">8sQ16s")
_CHECKSUM = struct.Struct(">I")
_MAGIC = b"MSJRNL\x00\x01"


@frozen
class StoredRecord:
    """A record as it lies in a segment, its checksum verified."""

    type: int
    flags: int
    batch: int
    offset: int
    end: int
    payload: bytes


def encode_header(segment_id: bytes, sequence: int) -> bytes:
    """The first sector."""
    head = _HEADER.pack(_MAGIC, sequence, segment_id)
    return (head + _CHECKSUM.pack(zlib.crc32(head))).ljust(_SECTOR, b"\0")


def decode_header(sector: bytes) -> tuple[bytes, int] | None:
    """Segment id and sequence number; None where it is no header of ours."""
    if len(sector) < _HEADER.size + _CHECKSUM.size:
        return None
    magic, sequence, segment_id = _HEADER.unpack_from(sector)
    (checksum,) = _CHECKSUM.unpack_from(sector, _HEADER.size)
    if magic != _MAGIC or checksum != zlib.crc32(sector[: _HEADER.size]):
        return None
    return segment_id, sequence


def read_segment_id(file: IDiskFile) -> bytes | None:
    """Which life of a segment this file holds now. Raises OSError."""
    header = decode_header(file.read(0, _HEADER.size + _CHECKSUM.size))
    return header[0] if header is not None else None


class Segment:
    """An open segment."""

    def __init__(self, file: IDiskFile, segment_id: bytes, sequence: int, size: int) -> None:
        self.file = file
        self.path = file.path
        self.segment_id = segment_id
        self.sequence = sequence
        self.size = size
        self.end = FIRST_RECORD
        """Where the next record goes."""
        self.batch = 0
        self._resume: dict[int, int] = {}
        """Where reading goes on behind damaged records."""

    def __repr__(self) -> str:
        return f"<Segment {self.segment_id.hex()} #{self.sequence}>"

    @classmethod
    def initialise(cls, disk: IDisk, path: str, segment_id: bytes, sequence: int, size: int) -> Segment:
        """A new file, complete and synced before it gets the name ``path``. The directory is the caller's to sync."""
        temporary = f"{path}.new"
        file = disk.create(temporary)
        try:
            file.fill(0, size)
            file.write(0, [encode_header(segment_id, sequence)])
            file.sync()
            disk.rename(temporary, path)
        except OSError:
            file.close()
            raise
        file.path = path
        return cls(file, segment_id, sequence, size)

    @classmethod
    def open(cls, disk: IDisk, path: str) -> Segment | None:
        """An existing one; None where the first sector is not one of ours."""
        file = disk.open(path, write=True)
        try:
            # What a killed process had written and not synced may be read now: it must not go
            # away after it was acted upon.
            file.sync()
            sector = file.read(0, _HEADER.size + _CHECKSUM.size)
            size = file.size()
        except OSError:
            file.close()
            raise
        header = decode_header(sector)
        if header is not None:
            return cls(file, *header, size)
        file.close()
        return None

    def renew(self, segment_id: bytes, sequence: int) -> None:
        """Begin a new life: durable when this returns."""
        self.file.write(0, [encode_header(segment_id, sequence)])
        self.file.sync()
        self.segment_id = segment_id
        self.sequence = sequence
        self.end = FIRST_RECORD
        self.batch = 0
        self._resume = {}

    def has_room(self, payload_octets: int, at: int, *, is_control: bool) -> bool:
        """Whether a record with this payload fits at offset ``at``."""
        # A small segment (in tests) keeps less for the end.
        reserve = 0 if is_control else min(CONTROL_RESERVE, self.size // 8)
        return at + HEAD_OCTETS + payload_octets <= self.size - reserve

    def encode(self, kind: RecordType, flags: int, at: int, payload: Sequence[bytes]) -> list[bytes]:
        """The buffers of a record that will be written at ``at``."""
        return encode_record(kind, flags, (self.segment_id, at), self.batch, payload)

    def append(self, buffers: Sequence[bytes]) -> None:
        """Write encoded records at the end and sync. After an OSError this segment takes no more."""
        written = self.file.write(self.end, buffers)
        self.file.sync()
        self.end += written
        self.batch += 1

    def records(self, valid_end: int | None = None) -> Iterator[StoredRecord]:
        """From the first on; ends at the first octets that are no whole record of this life."""
        offset = FIRST_RECORD
        end = self.size if valid_end is None else valid_end
        while True:
            record = self._read_record(offset, end)
            if record is not None:
                yield record
                offset = record.end
            elif offset in self._resume:
                offset = self._resume[offset]
            else:
                return

    def find_damage(self, valid_end: int | None = None) -> int:
        """Places where synced records are no longer whole; ``records`` passes over them from now on."""
        while True:
            end, last_batch = FIRST_RECORD, -1
            for record in self.records(valid_end):
                end, last_batch = record.end, record.batch
            beyond = self._find_beyond(end, last_batch, self.size if valid_end is None else valid_end)
            if beyond is None:
                return len(self._resume)
            self._resume[end] = beyond.offset

    def _find_beyond(self, end: int, last_batch: int, limit: int) -> StoredRecord | None:
        """A whole record behind the first that is not: the sign of a damaged disk.

        What a power cut tears is the last batch. Where a later batch than the one torn lies behind it,
        the torn one had been synced. ``end`` and ``last_batch`` are those of the last whole record.
        """
        offset = end
        while offset < limit:
            piece = self.file.read(offset, _PIECE)
            at = piece.find(self.segment_id)
            while at >= 0:
                start = offset + at - ID_AT
                record = self._read_record(start, limit) if start > end else None
                if record is not None and record.batch > last_batch + 1:
                    return record
                at = piece.find(self.segment_id, at + 1)
            offset += max(1, _PIECE - len(self.segment_id))
        return None

    def _read_record(self, offset: int, limit: int) -> StoredRecord | None:
        head = decode_head(self.file.read(offset, HEAD_OCTETS))
        if head is None or head.segment_id != self.segment_id or head.offset != offset:
            return None
        end = offset + HEAD_OCTETS + head.length
        if end > limit:
            return None
        payload = self.file.read(offset + HEAD_OCTETS, head.length)
        if len(payload) != head.length or not head.covers(payload):
            return None
        return StoredRecord(head.type, head.flags, head.batch, offset, end, payload)

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()
