"""Rows of the messages that a command names."""

# ruff: noqa: S608 (only names of columns and numbers of ours are put into statements; values are bound)

from __future__ import annotations

from collections.abc import Sequence

import apsw

from mailsrv.store.index.rows import MESSAGE_COLUMNS, MailboxRow, MessageRow
from mailsrv.store.index.transaction import Transaction

_RANGE = f"SELECT {MESSAGE_COLUMNS} FROM message WHERE id BETWEEN ? AND ? ORDER BY id"
_ONE = f"SELECT {MESSAGE_COLUMNS} FROM message WHERE id = ?"
_FEW = 16


def selected(transaction: Transaction, row: MailboxRow, uids: Sequence[int]) -> list[MessageRow]:
    """Those of ``uids`` that are there, ascending."""
    transaction.flush_messages()
    return read_messages(transaction.connection, row, uids)


def read_messages(connection: apsw.Connection, row: MailboxRow, uids: Sequence[int]) -> list[MessageRow]:
    """The same from any connection. Many are read as one range."""
    wanted = set(uids)
    if not wanted:
        return []
    if len(wanted) <= _FEW:
        rows = []
        for uid in sorted(wanted):
            found = connection.execute(_ONE, (row.first_id | uid,)).fetchone()
            if found is not None:
                rows.append(MessageRow(*found))
        return rows
    ids = {row.first_id | uid for uid in wanted}
    return [MessageRow(*found) for found in connection.execute(_RANGE, (min(ids), max(ids))) if found[0] in ids]
