"""Opening the index: the one place where its connections are made and their pragmas set.

Every connection commits with ``synchronous=FULL``; only an apply lowers its own
(:class:`~mailsrv.store.apply.StoreApplier`). SQLite before 3.51.3 can corrupt a WAL database with
several writing processes and is refused, as are network file systems (RELIABILITY 8.4).
"""

from __future__ import annotations

import functools
import os

import apsw

from mailsrv.disk import IDisk, RealDisk, create_whole
from mailsrv.disk.database_file import empty_database
from mailsrv.store.index.schema import prepare

LOWEST_SQLITE = (3, 51, 3)
NETWORK_FILE_SYSTEMS = frozenset({"nfs", "cifs"})
_CACHE_KIB = 1024


class UnsuitableSystem(Exception):
    """This machine cannot hold an index safely; the text says why."""


class DamagedIndex(Exception):
    """The file is no index of ours: an empty one, as a power cut can leave it."""


def check_sqlite() -> None:
    """Refuse a SQLite with the WAL-reset bug."""
    found = tuple(map(int, apsw.sqlite_lib_version().split(".")))
    if found < LOWEST_SQLITE:
        raise UnsuitableSystem(f"SQLite {apsw.sqlite_lib_version()} is too old; 3.51.3 or later is needed")


def check_file_system(disk: IDisk, path: str) -> None:
    """Refuse a network file system: WAL needs shared memory."""
    kind = disk.file_system_type(path)
    if kind in NETWORK_FILE_SYSTEMS:
        raise UnsuitableSystem(f"{path} is on {kind}, where an index cannot be kept")


@functools.cache
def _template() -> bytes:
    """An index without anything in it."""
    return empty_database(prepare)


def make_index(path: str) -> None:
    """A new, empty index, unless somebody was quicker. Raises OSError.

    There is never an empty file that would pass for a damaged one. The name is not durable yet, and what is
    committed to it is in its WAL (``Account.begin``).
    """
    create_whole(RealDisk(), path, _template())


def sync_index(path: str) -> None:
    """The database file itself is on disk; its WAL is SQLite's business."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def open_connection(path: str, busy_seconds: float) -> apsw.Connection:
    """A connection to an existing index. Raises :class:`apsw.Error`, :class:`apsw.CantOpenError` where it is missing.

    SQLite gives -wal and -shm the mode of the database, 0600. It refuses symbolic links anywhere in a path; only
    the file itself must be none, the administrator may well have put the mail elsewhere.
    """
    directory, name = os.path.split(path)
    connection = apsw.Connection(
        os.path.join(os.path.realpath(directory), name),
        flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW,
        statementcachesize=60,
    )
    connection.set_busy_timeout(int(busy_seconds * 1000))
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    try:
        connection.execute(_PRAGMAS)
        if connection.pragma("journal_mode") != "wal":
            raise DamagedIndex("it is not in WAL mode")
        if connection.pragma("synchronous") != 2:
            raise UnsuitableSystem("SQLite does not keep synchronous=FULL")
    except BaseException:
        connection.close()
        raise
    return connection


_PRAGMAS = f"PRAGMA synchronous=FULL; PRAGMA cache_size=-{_CACHE_KIB}; PRAGMA temp_store=MEMORY"
