"""Database files, which SQLite does not open through an :class:`~mailsrv.disk.IDisk`: how a new one comes to be.

It is made in memory and written as any file: there is never an empty one that would pass for a damaged one, none
whose tables or whose mode somebody has yet to make, and it is far cheaper to write than to execute.
"""

from __future__ import annotations

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
