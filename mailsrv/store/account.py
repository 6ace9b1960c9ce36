"""The files of an account: where they are, and the connections to its index.

An :class:`Account` belongs to threads. Its writer connection is used under ``lock``; its reader
under ``reader_lock``, which the reactor takes only if it is free. Opening is late: the first use makes
what is missing, sets aside an index that is damaged, and finishes what a crash left half done.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import apsw
from twisted.logger import Logger

from mailsrv.address import Address
from mailsrv.disk.database_file import rewrite_log
from mailsrv.store.index import reservation
from mailsrv.store.index.connection import (
    DamagedIndex,
    make_index,
    open_connection,
    sync_index,
)
from mailsrv.store.index.rows import mailbox_by_name
from mailsrv.store.index.schema import FILE, VERSION, prepare
from mailsrv.store.index.transaction import Transaction
from mailsrv.store.maildir.layout import is_begun, make_missing
from mailsrv.store.maildir.names import account_path
from mailsrv.store.rebuild import finish_intents, populate, redo_intents

if TYPE_CHECKING:
    from mailsrv.store.account_table import AccountTable


class Account:
    """One account's mail on disk. Not for the reactor thread, except ``try_reader``."""

    _log = Logger()

    def __init__(self, table: AccountTable, address: Address) -> None:
        self.address = address
        self.name = str(address)
        self.root = account_path(table.settings.path, address)
        self.lock = threading.RLock()
        self.reader_lock = threading.Lock()
        self.generation = 0
        """Another number means another index: what was read from the earlier one is void."""
        self.run_known: dict[str, int] = {}
        """Mailbox name → messages that still fit into the range reserved, as last seen here."""
        self.disk = table.disk
        self._table = table
        self._writer: apsw.Connection | None = None
        self._reader: apsw.Connection | None = None
        self._inode = 0
        self._is_full = True
        """How the writer commits now: ``begin`` sets it, and nothing else begins a transaction of an open account."""
        self._is_name_durable = False
        self._is_damaged = False
        self.is_log_doubtful = False
        """Whether what is in the index's log may be in the cache only, and would never reach the disk."""

    @property
    def index_path(self) -> str:
        return f"{self.root}/{FILE}"

    @property
    def is_open(self) -> bool:
        return self._writer is not None

    def writer(self) -> apsw.Connection:
        """The writer's connection, opened (and the account made) where needed. ``lock`` is held."""
        writer = self._writer
        if writer is not None:
            if self._is_in_place():
                return writer
            # Somebody put another account in the place of this one.
            self._log.warn("the index of {account} was replaced", account=self.name)
            self.close()
        return self._open()

    def _open(self) -> apsw.Connection:
        table = self._table
        try:
            if self._is_damaged:
                raise DamagedIndex("it was found damaged in use")
            connection = self._open_once()
        except (apsw.CorruptError, apsw.NotADBError, DamagedIndex) as error:
            aside = f"{self.index_path}.damaged-{int(time.time())}"
            self._log.error(
                "the index of {account} is damaged ({error}); it was set aside as {aside} and is rebuilt from the mail",
                account=self.name,
                error=str(error),
                aside=aside,
            )
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(self.index_path + suffix, aside + suffix)
            self._is_damaged = False
            connection = self._open_once()
        self._writer = connection
        self._is_full = True
        self._inode = os.stat(self.index_path).st_ino
        # It may be another file than it was.
        self._is_name_durable = False
        # The descriptor has to be there before what is written is lost, to be told.
        table.disk.watch_file_system(self.root)
        self.generation += 1
        self.run_known = {}
        table.opened(self)
        return connection

    def _open_once(self) -> apsw.Connection:
        table = self._table
        was_there = True
        try:
            connection = open_connection(self.index_path, table.settings.busy_seconds)
        except apsw.CantOpenError:
            was_there = False
            table.touch(make_missing(table.disk, self.root))
            table.check_file_system(self.root)
            make_index(self.index_path)
            connection = open_connection(self.index_path, table.settings.busy_seconds)
        try:
            version = connection.pragma("user_version")
            if version != VERSION or connection.execute("SELECT 1 FROM account").fetchone() is None:
                self._prepare(connection, was_there=was_there)
            if connection.execute("SELECT 1 FROM intent LIMIT 1").fetchone() is not None:
                finish_intents(self.transaction(connection))
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: apsw.Connection, *, was_there: bool) -> None:
        """Bring the tables up to date, and fill new ones.

        A new account has nothing to lose: should a crash take it, its mail is in the journal and
        it is made again with greater UIDVALIDITYs. So only what holds mail already is made durably.
        """
        is_new = not is_begun(self._table.disk, self.root)
        if is_new:
            connection.execute("PRAGMA synchronous=NORMAL")
        try:
            transaction = self.transaction(connection, is_durable=not is_new)
            try:
                prepare(connection)
                # Another worker may have been quicker.
                if connection.execute("SELECT 1 FROM account").fetchone() is None:
                    populate(transaction, is_unborn=was_there)
                transaction.commit()
            except BaseException:
                transaction.roll_back()
                raise
        finally:
            if is_new:
                connection.execute("PRAGMA synchronous=FULL")
        self._table.touch({self.root, *transaction.touched})

    def transaction(self, connection: apsw.Connection, *, is_durable: bool = True) -> Transaction:
        """Begin a transaction on the writer's connection."""
        table = self._table
        return Transaction(connection, table.disk, self.root, table.settings, table.run_id, is_durable=is_durable)

    def begin(self, *, is_durable: bool = True) -> Transaction:
        """Begin a transaction; ``lock`` is held. If it is durable, so is the account's own name by its commit."""
        connection = self.writer()
        if is_durable and not self._is_name_durable:
            connection = self._make_name_durable(connection)
        if self.is_log_doubtful:
            rewrite_log(connection, os.path.join(os.path.realpath(self.root), FILE))
            self.is_log_doubtful = False
        if is_durable != self._is_full:
            connection.execute("PRAGMA synchronous=FULL" if is_durable else "PRAGMA synchronous=NORMAL")
            self._is_full = is_durable
        transaction = self.transaction(connection, is_durable=is_durable)
        try:
            if transaction.connection.execute("SELECT 1 FROM intent LIMIT 1").fetchone() is not None:
                # Another worker stopped between a commit and what follows it.
                redo_intents(transaction)
            if is_durable and not self._is_name_durable:
                transaction.connection.execute("UPDATE account SET is_name_durable = 1")
                self._is_name_durable = True
        except BaseException:
            transaction.roll_back()
            raise
        return transaction

    def _make_name_durable(self, connection: apsw.Connection) -> apsw.Connection:
        """An account first made by a delivery has files and directories that only a checkpoint would sync.

        Answers with the writer's connection, which may be a new one: closing any descriptor of a
        database drops this process's locks on it, so SQLite must have let go before we sync it.
        """
        found = connection.execute("SELECT is_name_durable FROM account").fetchone()
        if found is None or found[0]:
            self._is_name_durable = True
            return connection
        self.close()
        sync_index(self.index_path)
        directory = self.root
        for _ in range(3):
            self.disk.sync_directory(directory)
            directory = os.path.dirname(directory)
        return self.writer()

    def room(self, name: str) -> int:
        """Messages that still fit into the range reserved in a mailbox; ``lock`` is held, the index open."""
        known = self.run_known.get(name)
        if known is None:
            row = mailbox_by_name(self.writer(), name)
            known = reservation.room(row, self._table.run_id) if row is not None else 0
            self.run_known[name] = known
        return known

    @contextlib.contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """A read transaction on the reader's connection, opened where needed. In a thread."""
        # Locks are taken in this order only: lock, then reader_lock.
        while True:
            self._open_reader()
            with self.reader_lock:
                # Another thread may have closed it since.
                reader: apsw.Connection | None = self._reader
                if reader is None:
                    continue
                reader.execute("BEGIN")
                try:
                    yield reader
                finally:
                    reader.execute("ROLLBACK")
                return

    def _open_reader(self) -> None:
        if self._reader is None or not self._is_in_place():
            with self.lock:
                self.writer()
                with self.reader_lock:
                    if self._reader is None:
                        self._reader = open_connection(self.index_path, self._table.settings.busy_seconds)

    def try_reader(self) -> apsw.Connection | None:
        """The reader, where it is open and free: then ``reader_lock`` is taken and must be released."""
        if self._reader is None or not self.reader_lock.acquire(blocking=False):
            return None
        if self._reader is None or not self._is_in_place():
            self.reader_lock.release()
            return None
        return self._reader

    def _is_in_place(self) -> bool:
        try:
            return os.stat(self.index_path).st_ino == self._inode
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Let go of both connections. In a thread; waits for whoever uses them."""
        with self.lock:
            with self.reader_lock:
                reader, self._reader = self._reader, None
                if reader is not None:
                    reader.close()
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.close()
                self._table.closed(self)

    def found_damaged(self) -> None:
        """An operation met a damaged index: it is rebuilt at the next use. ``lock`` is held."""
        self._is_damaged = True
        self.is_log_doubtful = False
        self.close()

    def commit_failed(self, error: BaseException) -> None:
        """A transaction ended with this. ``lock`` is held."""
        if isinstance(error, apsw.CorruptError):
            self.found_damaged()
        elif isinstance(error, apsw.IOError):
            # What others committed before, without a sync, may be lost with it (R-DUR-4).
            self.is_log_doubtful = True

    def close_if_free(self) -> bool:
        """Close, unless somebody is at work."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            if not self.reader_lock.acquire(blocking=False):
                return False
            self.reader_lock.release()
            self.close()
            return True
        finally:
            self.lock.release()

    def give_back(self) -> None:
        """At a clean end: return what is reserved and not used."""
        with self.lock:
            connection = self._writer
            if connection is None:
                return
            run_id = self._table.run_id
            transaction = self.begin()
            try:
                for row in transaction.mailboxes():
                    if row.run_id == run_id and (
                        row.uid_reserved > row.uid_next or row.mod_seq_reserved > row.mod_seq + 1
                    ):
                        reservation.give_back(row)
                        transaction.save(row)
                transaction.commit()
            except BaseException:
                transaction.roll_back()
                raise
            self.run_known = {}
