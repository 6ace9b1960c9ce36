"""Database files, which SQLite does not open through an :class:`~mailsrv.disk.IDisk`: how a new one comes to be.

It is made in memory and written as any file: there is never an empty one that would pass for a damaged one, none
whose tables or whose mode somebody has yet to make, and it is far cheaper to write than to execute.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import apsw


def empty_database(prepare: Callable[[apsw.Connection], object]) -> bytes:
    """A database as octets, in WAL mode, with what ``prepare`` makes inside one transaction."""
    connection = apsw.Connection(":memory:")
    connection.execute("PRAGMA page_size=4096; BEGIN")
    prepare(connection)
    connection.execute("COMMIT")
    octets = bytearray(connection.serialize("main"))
    connection.close()
    # File format version numbers, for writing and reading: 2 is WAL.
    octets[18:20] = b"\x02\x02"
    return bytes(octets)


def rewrite_log(connection: apsw.Connection, path: str) -> None:
    """What is only in the log of the database ``path`` goes into the database, and the log is empty after it.

    After a failed sync the kernel holds octets it will not write, and says so once only (R-DUR-4): they are written
    again, elsewhere. Waits for readers; raises apsw.Error and OSError.
    """
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    # SQLite does not sync that. A power cut would leave the part of the log that did reach the disk, and its pages are
    # older than those in the database now. A log has no locks that closing it could drop.
    descriptor = os.open(f"{path}-wal", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
