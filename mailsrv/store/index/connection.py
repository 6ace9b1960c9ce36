"""Opening the index: the one place where its connections are made and their pragmas set.

Every connection commits with ``synchronous=FULL``; only an apply lowers its own
(:class:`~mailsrv.store.apply.StoreApplier`). SQLite before 3.51.3 can corrupt a WAL database with
several writing processes and is refused, as are network file systems (RELIABILITY 8.4).
"""

from __future__ import annotations

import contextlib
import os

import apsw

from mailsrv.disk import IDisk
from mailsrv.errors import InsufficientStorage, MailError, Unavailable

LOWEST_SQLITE = (3, 51, 3)
NETWORK_FILE_SYSTEMS = frozenset({"nfs", "cifs"})
_CACHE_KIB = 1024


class UnsuitableSystem(Exception):
    """This machine cannot hold an index safely; the text says why."""


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


def open_connection(path: str, busy_seconds: float) -> apsw.Connection:
    """A connection to an existing or new index. Raises :class:`apsw.Error`, OSError."""
    # SQLite gives -wal and -shm the mode of the database.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    connection = apsw.Connection(
        path, flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW, statementcachesize=60
    )
    connection.set_busy_timeout(int(busy_seconds * 1000))
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.execute(
        f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-{_CACHE_KIB}; PRAGMA temp_store=MEMORY"
    )
    if connection.pragma("synchronous") != 2:
        connection.close()
        raise UnsuitableSystem("SQLite does not keep synchronous=FULL")
    return connection


def as_mail_error(error: Exception) -> MailError:
    """What SQLite's or the operating system's refusal means to a session (R-DUR-5)."""
    if isinstance(error, MailError):
        return error
    if isinstance(error, apsw.FullError) or (isinstance(error, OSError) and error.errno in _NO_ROOM):
        return InsufficientStorage(cause=repr(error))
    return Unavailable(cause=repr(error))


_NO_ROOM = frozenset({28, 122})
"""ENOSPC, EDQUOT."""
