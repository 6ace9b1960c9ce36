"""The octets of a queued message, wherever they are: in memory, in its file, in the journal of some worker."""

from __future__ import annotations

from typing import Any

from mailsrv.disk import IDisk, opened
from mailsrv.interfaces.content import FileContent, IContent
from mailsrv.journal.lookup import JournalReader
from mailsrv.journal.octets import FormatError
from mailsrv.opened_content import LoadedContent, RunInThread
from mailsrv.queue.content import ContentFolder, DamagedContent
from mailsrv.queue.database import QueueDatabase
from mailsrv.queue.schema import Place

_WHERE = "SELECT place, owed, size, skipped, checksum, delivery FROM message WHERE id=?"
_MOST_HEADER = 64 * 1024

Where = tuple[int, int, int, int, bytes | None, int, tuple[bytes, int] | None]
"""Place, recipients owed, size, octets skipped, checksum, delivery number, and where in the journal."""


def look_up(db: QueueDatabase, message: int) -> Where | None:
    """Where a message is; None where it is not known."""
    row: Any = db.row(_WHERE, (message,))
    return None if row is None else (*row, db.segment_of(message))


def is_there(where: Where | None) -> bool:
    """Whether there can be octets of it."""
    return where is not None and where[1] > 0 and where[0] != Place.CORRUPT


def open_message(
    content: ContentFolder, journal: JournalReader | None, entry_id: int, where: Where, run: RunInThread
) -> IContent:
    """In a thread.

    Raises FileNotFoundError where it is nowhere (it may just have been given a file, or have been
    finished), DamagedContent, FormatError and OSError.
    """
    place, _, size, skipped, checksum, number, segment = where
    if place == Place.FILE:
        return content.open(entry_id, size=size + skipped, skipped=skipped, checksum=checksum or b"", run=run)
    fresh = content.fresh(entry_id)
    if fresh is not None:
        return LoadedContent(fresh.octets[fresh.skipped :])
    octets = _from_journal(journal, segment, number)
    if len(octets) != size + skipped:
        raise DamagedContent("the journal holds something else")
    return LoadedContent(octets[skipped:])


def _from_journal(journal: JournalReader | None, segment: tuple[bytes, int] | None, number: int) -> bytes:
    found = None
    if segment is not None and journal is not None:
        segment_id, at = segment
        found = journal.message(segment_id, at - number, number)
    if found is None or isinstance(found.content, FileContent):
        raise FileNotFoundError("it is neither in the journal nor in a file")
    return found.content.octets


def read_header_section(
    db: QueueDatabase, content: ContentFolder, disk: IDisk, journal_directory: str, message: int
) -> str:
    """For an administrator's eyes: at most 64 KiB of it; "" where it cannot be had. Blocking."""
    where = look_up(db, message)
    if where is None or not is_there(where):
        return ""
    place, skipped = where[0], where[3]
    try:
        if place == Place.FILE:
            with opened(disk.open(content.path(message))) as file:
                octets = file.read(skipped, _MOST_HEADER)
        else:
            octets = _from_journal(JournalReader(disk, journal_directory), where[6], where[5])[skipped:][:_MOST_HEADER]
    except (OSError, FormatError):
        return ""
    return octets.partition(b"\r\n\r\n")[0].decode("utf-8", "replace")
