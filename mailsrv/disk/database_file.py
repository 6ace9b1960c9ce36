"""Database files, which SQLite does not open through an :class:`~mailsrv.disk.IDisk`: how a new one comes to be.

It is made in memory and written as any file: there is never an empty one that would pass for a damaged one, none
whose tables or whose mode somebody has yet to make, and it is far cheaper to write than to execute.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable

import apsw

from mailsrv.disk.interface import opened
from mailsrv.disk.real import RealDisk


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


def create_whole(path: str, octets: bytes) -> None:
    """A new file of the operating system's with these octets; nothing happens where the name is taken.

    They are synced before it has its name: after a power cut there is a whole file or none. The name itself is
    not durable yet.
    """
    disk = RealDisk()
    temporary = f"{path}.{os.getpid()}-{threading.get_ident()}.new"
    try:
        with opened(disk.open_or_create(temporary)) as file:
            file.truncate(0)
            file.write(0, [octets])
            file.sync()
        with contextlib.suppress(FileExistsError):
            disk.link(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(temporary)
