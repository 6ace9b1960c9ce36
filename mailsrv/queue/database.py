"""One connection to the queue's database, and its transactions.

A transaction gathers what it changed in the counts (messages, octets, waiting recipients of each
destination) and writes that once, at its end. ``wake`` numbers the moments at which mail came to wait:
a destination that bears a higher number than a process has seen is news to it.

Durable transactions are synced before they are over (``synchronous=FULL``); the others are what the
journal holds as well, or what does no harm when it is lost (leases).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import apsw
from twisted.logger import Logger

from mailsrv.disk.database_file import rewrite_log
from mailsrv.errors import MailError, Unavailable
from mailsrv.queue.gate import Gate, finish_replacement, salvaged_path
from mailsrv.queue.salvage import DAMAGED, is_ours, is_sound, replace_damaged
from mailsrv.queue.schema import APPLICATION_ID, FILE, OFFSET_BITS, VERSION, make_database

_CACHE_KIB = 16 * 1024
_LOWEST_SQLITE = (3, 51, 3)
"""Before, a WAL database with several writing processes can be corrupted."""
_MOST_CACHED = 50_000
_REPLACEMENT_PAUSE_SECONDS = 30.0
"""After an attempt to replace a damaged database, whatever came of it."""


class QueueDatabase:
    """A connection. For one thread at a time; ``lock`` is shared by all connections of the process."""

    _log = Logger()

    def __init__(
        self,
        directory: str,
        lock: threading.Lock,
        busy_seconds: float,
        *,
        log_pages: int = 4000,
        replaces_damaged: bool = False,
    ) -> None:
        """Opens or makes it. Raises OSError, apsw.Error and Unavailable.

        ``replaces_damaged``: where it cannot be read, now or later, what can be salvaged takes its place.
        """
        if tuple(map(int, apsw.sqlite_lib_version().split("."))) < _LOWEST_SQLITE:
            raise Unavailable(cause=f"SQLite {apsw.sqlite_lib_version()} is too old for the queue")
        self._path = path = os.path.join(os.path.realpath(directory), FILE)
        self.directory = directory
        self._lock = lock
        self._busy_seconds = busy_seconds
        self._log_pages = log_pages
        self._replaces_damaged = replaces_damaged
        self._next_replacement = 0.0
        self._wants_rewrite = False
        self.generation = 0
        """How often another database has taken its place."""
        self._gate = gate = Gate(path)
        try:
            if os.path.lexists(salvaged_path(path)):
                with gate.alone():
                    if os.path.lexists(salvaged_path(path)):
                        finish_replacement(path)
            with gate.shared():
                make_database(path)
            try:
                with gate.shared():
                    self.connection = self._connect()
            except DAMAGED as error:
                if not replaces_damaged:
                    raise
                gate.note()
                self._replace(error)
        except BaseException:
            gate.close()
            raise
        self._forget_names()
        self._begin()

    def _connect(self) -> apsw.Connection:
        """Raises a member of DAMAGED, other apsw.Error, OSError, and Unavailable where a later version wrote it."""
        path = self._path
        self._gate.note()
        connection = apsw.Connection(
            path, flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW, statementcachesize=100
        )
        try:
            connection.set_busy_timeout(int(self._busy_seconds * 1000))
            connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}; PRAGMA temp_store=MEMORY")
            connection.execute(f"PRAGMA wal_autocheckpoint={self._log_pages}; PRAGMA synchronous=NORMAL")
            version = connection.pragma("user_version")
            if connection.pragma("application_id") == APPLICATION_ID and version > VERSION:
                text = f"{path} was written by a later version of mailsrv (its number is {version}, ours {VERSION})"
                raise Unavailable(text, cause=text)
            try:
                has_our_schema = connection.pragma("journal_mode") == "wal" and is_ours(connection)
            except (apsw.SQLError, UnicodeDecodeError):
                has_our_schema = False
            if not has_our_schema:
                raise apsw.CorruptError(f"{path} is no queue any more")
        except BaseException:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.close()
            raise
        self._is_full_sync = False
        return connection

    def _forget_names(self) -> None:
        self._destinations: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._segments: dict[tuple[bytes, int], int] = {}

    # -- damage -----------------------------------------------------------------------

    def follow(self) -> None:
        """Turn to the database that has taken the place of ours. Not in a transaction. Raises as the opening."""
        if self._gate.is_replaced:
            self._turn()

    def _turn(self) -> None:
        # Ours may have the last connection to the old one: it must not tidy up after it, by name.
        self.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self.connection.close()
        self.connection = self._connect()
        self._forget_names()
        self.generation += 1

    def check(self) -> None:
        """Read all of it, and replace it where that cannot be done. Raises OSError and apsw.Error."""
        if not is_sound(self.connection):
            self.mend(apsw.CorruptError("it cannot be read as a whole"))

    def mend(self, error: BaseException) -> None:
        """After one of DAMAGED, outside of a transaction: what can be read goes into a new one. Never fails."""
        with self._lock:
            self._mend(error)

    def _mend(self, error: BaseException) -> None:
        if not self._replaces_damaged or time.monotonic() < self._next_replacement:
            return
        self._next_replacement = time.monotonic() + _REPLACEMENT_PAUSE_SECONDS
        try:
            with self._gate.alone():
                if not self._gate.is_replaced:
                    replace_damaged(self._path, repr(error))
                self._turn()
        except (OSError, apsw.Error, MailError) as trouble:
            self._log.critical(
                "the damaged queue could not be replaced: {error}", log_alarm="queue-corrupt", error=repr(trouble)
            )

    def _replace(self, error: BaseException) -> None:
        """At the opening: nothing is open yet. Raises as the opening."""
        with self._gate.alone():
            if not self._gate.is_replaced:
                replace_damaged(self._path, repr(error))
            self.connection = self._connect()

    def _begin(self) -> None:
        self._waiting: dict[int, int] = {}
        self._woken: set[int] = set()
        self._messages = self._octets = self._finished = 0
        self.committed_wake = 0
        """What this transaction made the wake number; 0: it left it."""

    def close(self) -> None:
        """Safe to call twice."""
        self.connection.close()
        self._gate.close()

    def row(self, sql: str, arguments: tuple[Any, ...] = ()) -> Any:
        """The first row, or None."""
        return self.connection.execute(sql, arguments).fetchone()

    # -- transactions -------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self, *, is_durable: bool) -> Iterator[apsw.Connection]:
        """Raises apsw.Error; then nothing has happened."""
        with self._lock:
            try:
                with self._gate.shared():
                    self.follow()
                    with self._transaction(is_durable=is_durable) as connection:
                        yield connection
            except DAMAGED as error:
                self._mend(error)
                raise

    @contextlib.contextmanager
    def _transaction(self, *, is_durable: bool) -> Iterator[apsw.Connection]:
        connection = self.connection
        if self._wants_rewrite:
            rewrite_log(connection, self._path)
            self._wants_rewrite = False
        if is_durable is not self._is_full_sync:
            connection.execute(f"PRAGMA synchronous={'FULL' if is_durable else 'NORMAL'}")
            self._is_full_sync = is_durable
        connection.execute("BEGIN IMMEDIATE")
        self._begin()
        try:
            yield connection
            self._write_counts()
            connection.execute("COMMIT")
        except BaseException as error:
            # After a failed sync others' pages of the log may be lost as well, and the kernel says so once (R-DUR-4).
            self._wants_rewrite = self._wants_rewrite or isinstance(error, apsw.IOError)
            # A full disk may have rolled it back already.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            # Rows they name may be gone with it.
            self._destinations.clear()
            self._names.clear()
            self._segments.clear()
            raise

    def _write_counts(self) -> None:
        connection = self.connection
        is_changed = self._messages or self._octets or self._finished
        if not (is_changed or self._woken or self._waiting):
            return
        wake = 0
        if is_changed or self._woken:
            ((wake,),) = connection.execute(
                "UPDATE queue SET messages=messages+?, octets=octets+?, finished=finished+?, wake=wake+? "
                "RETURNING wake",
                (self._messages, self._octets, self._finished, bool(self._woken)),
            )
            self.committed_wake = wake
        for destination in self._woken:
            self._waiting.setdefault(destination, 0)
        for destination, count in self._waiting.items():
            if destination in self._woken:
                sql = "UPDATE destination SET waiting=waiting+?, wake=? WHERE id=?"
                connection.execute(sql, (count, wake, destination))
            elif count:
                connection.execute("UPDATE destination SET waiting=waiting+? WHERE id=?", (count, destination))
            else:
                continue
            if not connection.changes():
                # Forgotten while this process still knew its number.
                name = self._names[destination]
                connection.execute("INSERT INTO destination VALUES(?, ?, ?, ?)", (destination, name, count, wake))

    # -- counts of the transaction under way -----------------------------------------

    def count_waiting(self, destination: int, change: int, *, is_news: bool) -> None:
        """So many recipients more (or less) wait; ``is_news``: other workers are to look."""
        self._waiting[destination] = self._waiting.get(destination, 0) + change
        if is_news:
            self._woken.add(destination)

    def count_messages(self, change: int, octets: int, finished: int = 0) -> None:
        """In the queue and remembered."""
        self._messages += change
        self._octets += octets
        self._finished += finished

    # -- names and numbers -----------------------------------------------------------

    def destination_id(self, name: str) -> int:
        """Made where there is none. In a transaction."""
        found = self._destinations.get(name)
        if found is not None:
            return found
        row = self.row("SELECT id FROM destination WHERE name=?", (name,))
        if row is None:
            row = self.row("INSERT INTO destination(name, waiting, wake) VALUES(?, 0, 0) RETURNING id", (name,))
        self._remember(row[0], name)
        return int(row[0])

    def known_destination(self, name: str) -> int | None:
        """None where nothing waits for it. Always asked anew: it may have been forgotten and made again."""
        row = self.row("SELECT id FROM destination WHERE name=?", (name,))
        if row is None:
            return None
        self._remember(row[0], name)
        return int(row[0])

    def _remember(self, number: int, name: str) -> None:
        if len(self._destinations) >= _MOST_CACHED:
            self._destinations.clear()
            self._names.clear()
        self._destinations[name] = number
        self._names[number] = name

    def destination_name(self, number: int) -> str:
        """The inverse; also remembers it for this transaction. "" where there is none."""
        name = self._names.get(number)
        if name is None:
            row = self.row("SELECT name FROM destination WHERE id=?", (number,))
            if row is None:
                return ""
            name = str(row[0])
            self._remember(number, name)
        return name

    def message_id(self, segment_id: bytes, offset: int, number: int) -> int:
        """The id of a message by its delivery key. Not in a transaction: it may need one of its own."""
        at = offset + number
        part, rest = at >> OFFSET_BITS, at & ((1 << OFFSET_BITS) - 1)
        found = self._segments.get((segment_id, part))
        if found is None:
            found = self._segment_number(segment_id, part)
            if len(self._segments) > 1000:
                self._segments.clear()
            self._segments[segment_id, part] = found
        return found << OFFSET_BITS | rest

    def _segment_number(self, segment_id: bytes, part: int) -> int:
        sql = "SELECT number FROM segment WHERE segment_id=? AND part=?"
        row = self.row(sql, (segment_id, part))
        if row is None:
            # Durable before an id is made of it: what is settled later has to mean the same message.
            with self.transaction(is_durable=True) as connection:
                row = self.row(sql, (segment_id, part))
                if row is None:
                    row = self.row("UPDATE queue SET last_segment=last_segment+1 RETURNING last_segment")
                    connection.execute("INSERT INTO segment VALUES(?, ?, ?)", (row[0], segment_id, part))
        return int(row[0])

    def segment_of(self, message_id: int) -> tuple[bytes, int] | None:
        """Segment id and offset plus delivery number; None where the journal has long forgotten it."""
        row = self.row("SELECT segment_id, part FROM segment WHERE number=?", (message_id >> OFFSET_BITS,))
        if row is None:
            return None
        return row[0], row[1] << OFFSET_BITS | message_id & ((1 << OFFSET_BITS) - 1)

    def wake_number(self) -> int:
        """The latest."""
        ((wake,),) = self.connection.execute("SELECT wake FROM queue")
        return int(wake)

    def rewrite(self) -> None:
        """Whatever may not have reached the disk is written to it again, elsewhere: from the log into the database.

        After a failed sync the kernel holds octets it will not write, and says so once only (R-DUR-4).
        Raises apsw.Error and OSError.
        """
        with self._lock, self._gate.shared():
            self.follow()
            rewrite_log(self.connection, self._path)
