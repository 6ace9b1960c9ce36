"""What the queue forgets, and when: messages that left, keys the journal will not replay any more, stray files.

A message whose journal segment is still live leaves its id behind (a tombstone) when it is forgotten: a
replay of the segment must not queue it again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from mailsrv.disk import IDisk
from mailsrv.errors import MailError
from mailsrv.queue.content import ContentFolder
from mailsrv.queue.database import QueueDatabase
from mailsrv.queue.schema import OFFSET_BITS
from mailsrv.queue.settings import StorageSettings

LiveSegments = Callable[[], frozenset[bytes]]
_AT_ONCE = 1000
_DAY = 86400.0
_MANY_DESTINATIONS = 50_000
_YOUNG_NS = 3600 * 10**9
_log = Logger()


def forget_finished(db: QueueDatabase, settings: StorageSettings, live_segments: LiveSegments, now: float) -> bool:
    """Some of the messages that left long enough ago; whether there are more. Raises apsw.Error."""
    (finished,) = db.row("SELECT finished FROM queue")
    rows: list[Any] = db.connection.execute(
        "SELECT id, finished_at FROM message INDEXED BY message_finished "
        "WHERE finished_at IS NOT NULL ORDER BY finished_at LIMIT ?",
        (_AT_ONCE,),
    ).fetchall()
    limit = now - settings.history_days * _DAY
    surplus = max(0, finished - settings.history_messages)
    ids: list[int] = [row[0] for at, row in enumerate(rows) if at < surplus or row[1] <= limit]
    if not ids:
        return False
    live = _live_numbers(db, live_segments)
    if live is None:
        return False
    with db.transaction(is_durable=False) as connection:
        gone = 0
        for message in ids:
            connection.execute("DELETE FROM message WHERE id=? AND owed<=0", (message,))
            if not connection.changes():
                continue
            gone += 1
            connection.execute("DELETE FROM recipient WHERE message=?", (message,))
            connection.execute("DELETE FROM event WHERE message=?", (message,))
            if message >> OFFSET_BITS in live:
                connection.execute("INSERT OR IGNORE INTO tombstone VALUES(?)", (message,))
        db.count_messages(0, 0, -gone)
    return len(ids) == _AT_ONCE


def forget_segments(db: QueueDatabase, live_segments: LiveSegments) -> None:
    """Tombstones and numbers of segments that are history. Raises apsw.Error."""
    known: list[Any] = [row[0] for row in db.connection.execute("SELECT number FROM segment")]
    live = _live_numbers(db, live_segments)
    if live is None:
        return
    history = [number for number in known if number not in live]
    if not history:
        return
    with db.transaction(is_durable=False) as connection:
        for number in history:
            first = number << OFFSET_BITS
            both = (first, first + (1 << OFFSET_BITS) - 1)
            connection.execute("DELETE FROM tombstone WHERE id BETWEEN ? AND ?", both)
            # Settled before their message came, and it never came.
            connection.execute(
                "DELETE FROM recipient WHERE message BETWEEN ? AND ? AND message NOT IN (SELECT id FROM message)", both
            )
            # One whose mail is still read from the journal keeps its number until that has a file.
            connection.execute("DELETE FROM segment WHERE number=?", (number,))


def _live_numbers(db: QueueDatabase, live_segments: LiveSegments) -> set[int] | None:
    """Numbers of the segments that may be replayed; None where that is not known now."""
    rows: list[Any] = db.connection.execute("SELECT number, segment_id FROM segment").fetchall()
    try:
        live = live_segments()
    except MailError as error:
        _log.warn("the queue forgets nothing now: {error}", error=str(error))
        return None
    return {row[0] for row in rows if row[1] in live}


def forget_destinations(db: QueueDatabase) -> None:
    """Those no message has anything to do with any more, where there are many. Raises apsw.Error."""
    (count,) = db.row("SELECT count(*) FROM destination")
    if count < _MANY_DESTINATIONS:
        return
    with db.transaction(is_durable=False) as connection:
        connection.execute(
            "DELETE FROM destination WHERE waiting=0 AND id NOT IN (SELECT DISTINCT destination FROM recipient)"
        )


def sweep_content(db: QueueDatabase, disk: IDisk, content: ContentFolder, is_stopped: Callable[[], bool]) -> int:
    """Remove files nobody is owed any more, left by a crash; how many. Takes its time. Raises OSError, apsw.Error.

    Young files are left alone: the message may be on its way into the database.
    """
    removed = 0
    if disk.status(content.directory) is None:
        return 0
    young = time.time_ns() - _YOUNG_NS
    for folder in disk.list_directory(content.directory):
        if is_stopped():
            break
        if not folder.is_directory:
            continue
        directory = os.path.join(content.directory, folder.name)
        for entry in disk.list_directory(directory):
            if is_stopped():
                return removed
            if entry.name.isdecimal() and _is_owed(db, int(entry.name)):
                continue
            path = os.path.join(directory, entry.name)
            status = disk.status(path)
            if status is not None and status.changed_ns < young and not entry.is_directory:
                disk.unlink(path)
                removed += 1
        # The server has better things to do while it starts.
        time.sleep(0.02)
    return removed


def _is_owed(db: QueueDatabase, message: int) -> bool:
    row = db.row("SELECT owed FROM message WHERE id=?", (message,))
    return row is not None and row[0] > 0
