"""One message out of the journal, of whichever slot, by its delivery key: for reading only, by any process.

A worker may be given mail from the queue that another one took in a moment ago: its octets then lie in
that one's segment. A segment that is given a new life meanwhile is noticed by its id and the checksum.
"""

from __future__ import annotations

import os

from mailsrv.disk import IDisk, opened
from mailsrv.interfaces.journal import DeliveryKey, JournaledMessage
from mailsrv.journal.format import HEAD_OCTETS, RecordType, decode_deliveries, decode_head
from mailsrv.journal.segment import read_segment_id
from mailsrv.journal.slot import slot_directories


class JournalReader:
    """Finds messages. For one thread."""

    def __init__(self, disk: IDisk, directory: str) -> None:
        """``directory`` is ``state_dir/journal``."""
        self._disk = disk
        self._directory = directory
        self._paths: dict[bytes, str] = {}

    def message(self, segment_id: bytes, offset: int, number: int) -> JournaledMessage | None:
        """That of delivery ``number``; None where the journal has it no more. Raises OSError and FormatError."""
        key = DeliveryKey(segment_id, offset, number)
        path = self._paths.get(segment_id)
        found = None if path is None else self._read(path, key)
        if found is None:
            self._look_for_segments()
            path = self._paths.get(segment_id)
            found = None if path is None else self._read(path, key)
        return found

    def _look_for_segments(self) -> None:
        self._paths = {}
        if self._disk.status(self._directory) is None:
            return
        for slot in slot_directories(self._disk, self._directory):
            for entry in self._disk.list_directory(slot):
                if not entry.name.endswith(".segment"):
                    continue
                path = os.path.join(slot, entry.name)
                try:
                    with opened(self._disk.open(path)) as file:
                        segment_id = read_segment_id(file)
                except FileNotFoundError:
                    continue
                if segment_id is not None:
                    self._paths[segment_id] = path

    def _read(self, path: str, key: DeliveryKey) -> JournaledMessage | None:
        try:
            file = self._disk.open(path)
        except FileNotFoundError:
            return None
        with opened(file):
            head = decode_head(file.read(key.offset, HEAD_OCTETS))
            if head is None or (head.segment_id, head.offset, head.type) != (
                key.segment_id,
                key.offset,
                RecordType.DELIVERIES,
            ):
                return None
            # The record may be of an earlier life of the file: then the segment's own id is another one.
            payload = file.read(key.offset + HEAD_OCTETS, head.length)
            if len(payload) != head.length or not head.covers(payload) or read_segment_id(file) != key.segment_id:
                return None
        record = decode_deliveries(payload, os.path.join(os.path.dirname(path), "spool"))
        before = 0
        for message in record.messages:
            before += len(message.deliveries)
            if key.number < before:
                return message
        return None
