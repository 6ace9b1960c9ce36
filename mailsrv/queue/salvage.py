"""A damaged database of the queue: what can be read goes into a new one, the old one is kept.

It works on a copy. Where the first page is damaged it is made anew, for the schema and the places of its tables are
always the same. A table is read from both ends up to the damage, and what lies between several damaged
places is looked for by halving. What belongs together and is only there in part:

=============================  =========================================================================
lost                           what is done
=============================  =========================================================================
a recipient                    its message goes on for the others
all of them, or the message    its content is set aside (``corrupt/``)
the name of a destination      the recipient is routed anew (destination ``local``)
counts                         are counted anew
=============================  =========================================================================

The journal still holds what came in lately: whoever applies it does so again after a replacement.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import apsw
from attrs import define
from twisted.logger import Logger

from mailsrv.disk import sync_directory
from mailsrv.interfaces.queue import LOCAL
from mailsrv.queue.content import CORRUPT
from mailsrv.queue.gate import finish_replacement, salvaged_path
from mailsrv.queue.schema import APPLICATION_ID, OFFSET_BITS, VERSION, empty_queue

DAMAGED = (apsw.CorruptError, apsw.NotADBError, apsw.FormatError)
"""What SQLite says of a file that is not what it wrote."""
_PAGE = 4096
_HEADER = 100
_LARGEST = (1 << 63) - 1
_DEEPEST = 10
"""How often the gap between two damaged places is halved."""
_AT_ONCE = 1000
_UNREADABLE = (apsw.Error, UnicodeDecodeError)
_TABLES = (
    ("segment", "number"),
    ("tombstone", "id"),
    ("destination", "id"),
    ("message", "id"),
    ("recipient", "message"),
    ("event", "message"),
    ("worker", "run"),
    ("queue", "id"),
)
_MEND = """
DELETE FROM recipient WHERE message NOT IN (SELECT id FROM message);
DELETE FROM message WHERE id NOT IN (SELECT message FROM recipient);
DELETE FROM event WHERE message NOT IN (SELECT id FROM message);
UPDATE message SET owed=(SELECT count(*) FROM recipient WHERE message=message.id AND state<>3);
UPDATE message SET finished_at=CASE WHEN owed>0 THEN NULL ELSE coalesce(finished_at, :now) END;
INSERT INTO destination(name, waiting, wake) SELECT :local, 0, 0 WHERE
  EXISTS(SELECT 1 FROM recipient WHERE destination NOT IN (SELECT id FROM destination))
  AND NOT EXISTS(SELECT 1 FROM destination WHERE name=:local);
UPDATE recipient SET destination=(SELECT id FROM destination WHERE name=:local)
  WHERE destination NOT IN (SELECT id FROM destination);
UPDATE destination SET wake=:wake,
  waiting=(SELECT count(*) FROM recipient WHERE destination=destination.id AND state=0);
INSERT OR REPLACE INTO queue VALUES(0,
  (SELECT count(*) FROM message WHERE owed>0),
  (SELECT coalesce(sum(size), 0) FROM message WHERE owed>0),
  (SELECT count(*) FROM message WHERE owed<=0),
  :wake, :segment)
"""
_log = Logger()


@define
class Salvaged:
    """What was found."""

    messages: int = 0
    """Still owed to somebody."""
    recipients: int = 0
    """They are owed to."""
    lost: int = 0
    """Rows that are known to have been there."""
    set_aside: int = 0
    """Files of content nobody knows the envelope of."""


def is_sound(connection: apsw.Connection) -> bool:
    """Whether the whole of the database can be read. Takes its time."""
    try:
        return connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    except DAMAGED:
        return False


def replace_damaged(path: str, reason: str) -> Salvaged:
    """Salvage ``path`` and put the result in its place. Nobody else may use it meanwhile.

    Raises OSError and apsw.Error: then everything is as before.
    """
    _log.critical(
        "{path} is damaged and what can be read of it goes into a new one: {reason}",
        log_alarm="queue-corrupt",
        path=path,
        reason=reason,
    )
    new = f"{path}.new"
    with tempfile.TemporaryDirectory(prefix="salvage-", dir=os.path.dirname(path)) as scratch:
        copy = os.path.join(scratch, "queue.db")
        for part in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(path + part, copy + part)
        _remove(new)
        try:
            found = _salvage(copy, new)
            os.rename(new, salvaged_path(path))
        finally:
            _remove(new)
    sync_directory(os.path.dirname(path))
    finish_replacement(path)
    found.set_aside = _set_aside_strays(path)
    _log.critical(
        "{messages} messages for {recipients} recipients were salvaged, {lost} rows are lost; "
        "{set_aside} files without an envelope and the damaged database are in {folder}",
        log_alarm="queue-corrupt",
        messages=found.messages,
        recipients=found.recipients,
        lost=found.lost,
        set_aside=found.set_aside,
        folder=os.path.join(os.path.dirname(path), CORRUPT),
    )
    return found


def _remove(path: str) -> None:
    for part in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + part)


def _salvage(copy: str, new: str) -> Salvaged:
    source = _open_copy(copy)
    with open(new, "xb", opener=lambda name, flags: os.open(name, flags | os.O_CLOEXEC, 0o600)) as file:
        file.write(empty_queue())
    target = apsw.Connection(new, flags=apsw.SQLITE_OPEN_READWRITE)
    found = Salvaged()
    try:
        # A power cut before it has its name leaves nothing of it.
        target.execute("PRAGMA synchronous=OFF; BEGIN")
        if source is not None:
            for table, key in _TABLES:
                _Copying(source, target, table, key).run()
            source.close()
        _mend(target, found)
        target.execute("COMMIT")
    finally:
        target.close()
    descriptor = os.open(new, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return found


def _mend(target: apsw.Connection, found: Salvaged) -> None:
    """Make it whole in itself."""
    promised = _number(target, "SELECT total(owed) FROM message")
    known: Any = target.execute("SELECT wake, last_segment FROM queue").fetchone()
    last = max(
        _number(target, "SELECT max(number) FROM segment"),
        _number(target, "SELECT max(id) FROM message") >> OFFSET_BITS,
        _number(target, "SELECT max(id) FROM tombstone") >> OFFSET_BITS,
        _number(target, "SELECT max(message) FROM recipient") >> OFFSET_BITS,
    )
    found.lost = _number(target, "SELECT count(*) FROM recipient WHERE message NOT IN (SELECT id FROM message)")
    # Beyond every number a worker may have seen, and every one that may have been given away.
    wake, segment = (known[0] + 1, max(known[1], last)) if known[0] else (time.time_ns(), last + 1000)
    values = {"now": time.time(), "local": str(LOCAL), "wake": wake, "segment": segment}
    for statement in _MEND.split(";"):
        target.execute(statement, {name: value for name, value in values.items() if f":{name}" in statement})
    found.messages = _number(target, "SELECT messages FROM queue")
    found.recipients = _number(target, "SELECT total(owed) FROM message")
    found.lost += max(0, promised - found.recipients)


def _number(connection: apsw.Connection, sql: str) -> int:
    row: Any = connection.execute(sql).fetchone()
    return int(row[0] or 0)


def _open_copy(path: str) -> apsw.Connection | None:
    """The copy, readable as far as it can be made so; None where nothing is left of it."""
    if not os.path.exists(path) or os.path.getsize(path) < _PAGE:
        return None
    for makes_first_page in (False, True):
        if makes_first_page:
            _write_first_page(path)
        else:
            _complete(path)
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            if schema_of(connection) == _own_schema():
                return connection
        except _UNREADABLE as error:
            _log.debug("the copy of the queue cannot be opened: {error}", error=str(error))
        connection.close()
    return None


def schema_of(connection: apsw.Connection) -> list[Any]:
    """Raises apsw.Error and UnicodeDecodeError."""
    sql = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema ORDER BY rowid"
    return connection.execute(sql).fetchall()


def _own_schema() -> list[Any]:
    connection = apsw.Connection(":memory:")
    octets = bytearray(empty_queue())
    # A database in memory has no log.
    octets[18:20] = b"\x01\x01"
    connection.deserialize("main", bytes(octets))
    found = schema_of(connection)
    connection.close()
    return found


def is_ours(connection: apsw.Connection) -> bool:
    """Whether it is a queue as this version makes it; not where it was written by a later one."""
    return (
        connection.pragma("application_id") == APPLICATION_ID
        and connection.pragma("user_version") == VERSION
        and schema_of(connection) == _own_schema()
    )


def _complete(path: str) -> None:
    """Pages that were cut off are there again, as zeros: what is before them can be read."""
    with open(path, "r+b") as file:
        pages = int.from_bytes(file.read(_HEADER)[28:32], "big")
        size = file.seek(0, os.SEEK_END)
        if size < pages * _PAGE <= size + (1 << 34):
            file.truncate(pages * _PAGE)


def _write_first_page(path: str) -> None:
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        pages = -(-size // _PAGE)
        file.truncate(pages * _PAGE)
        page = bytearray(empty_queue()[:_PAGE])
        # Number of pages, believed because the two change counters agree; no free ones.
        page[24:28] = page[92:96] = (1).to_bytes(4, "big")
        page[28:32] = pages.to_bytes(4, "big")
        page[32:40] = bytes(8)
        file.seek(0)
        file.write(page)


class _Copying:
    """One table, by ranges of the first column of its key."""

    def __init__(self, source: apsw.Connection, target: apsw.Connection, table: str, key: str) -> None:
        columns = _number(target, f"SELECT count(*) FROM pragma_table_info('{table}')")  # noqa: S608
        where = f"FROM {table} WHERE {key} BETWEEN ? AND ? ORDER BY {key}"
        self._forward = f"SELECT {key}, * {where}"
        self._backward = f"SELECT {key}, * {where} DESC"
        self._verb = f"INSERT OR {'REPLACE' if table == 'queue' else 'IGNORE'} INTO {table} VALUES"
        self._insert = f"{self._verb}({','.join('?' * columns)})"
        self._source = source
        self._target = target

    def run(self) -> None:
        self._copy(-_LARGEST - 1, _LARGEST, 0)

    def _copy(self, low: int, high: int, depth: int) -> None:
        last, is_whole = self._read(self._forward, low, high, low)
        if is_whole:
            return
        first, is_whole = self._read(self._backward, last, high, high)
        if is_whole or first - last < 2 or depth >= _DEEPEST:
            return
        middle = (last + first) // 2
        self._copy(last, middle, depth + 1)
        self._copy(middle, first, depth + 1)

    def _read(self, sql: str, low: int, high: int, at: int) -> tuple[int, bool]:
        """As far as it goes: the key it came to, and whether that is the end."""
        rows: list[Sequence[Any]] = []
        try:
            for row in self._source.execute(sql, (low, high)):
                if isinstance(row[0], int):
                    at = row[0]
                    rows.append(row[1:])
                if len(rows) >= _AT_ONCE:
                    self._put(rows)
                    rows = []
        except _UNREADABLE:
            return at, False
        finally:
            self._put(rows)
        return at, True

    def _put(self, rows: list[Sequence[Any]]) -> None:
        for row in rows:
            # What is no row of ours (a NULL where none may be) is left where it is.
            with contextlib.suppress(apsw.ConstraintError, apsw.MismatchError):
                self._target.execute(self._insert, tuple(row))


def _set_aside_strays(path: str) -> int:
    """Content nobody is owed according to the new database: its envelope is lost, it is not."""
    directory = os.path.dirname(path)
    content, corrupt = os.path.join(directory, "content"), os.path.join(directory, CORRUPT)
    if not os.path.isdir(content):
        return 0
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        owed = {str(row[0]) for row in connection.execute("SELECT id FROM message WHERE owed>0")}
    finally:
        connection.close()
    moved = 0
    for folder in os.scandir(content):
        if not folder.is_dir(follow_symlinks=False):
            continue
        for file in list(os.scandir(folder.path)):
            if file.name not in owed:
                os.rename(file.path, os.path.join(corrupt, file.name))
                moved += 1
    sync_directory(corrupt)
    return moved
