"""A mailbox's view, read from the index: what every session of a process that opens it first waits for."""

# ruff: noqa: S608 (only names of columns and numbers of ours are put into statements; values are bound)

from __future__ import annotations

import apsw

from mailsrv.store.index.rows import UID_MASK, MailboxRow
from mailsrv.store.view import MailboxView


def load_view(connection: apsw.Connection, row: MailboxRow, change_log_entries: int) -> MailboxView:
    """A new view of everything in the mailbox. In a thread, inside a read transaction."""
    view = MailboxView(change_log_entries)
    view.learn_keywords(row.known_keywords())
    view.load(
        connection.execute(
            f"SELECT id & {UID_MASK}, mod_seq, flags, keywords FROM message WHERE id BETWEEN ? AND ? ORDER BY id",
            (row.first_id, row.last_id),
        )
    )
    view.highest_mod_seq = row.mod_seq
    view.uid_next = row.uid_next
    return view
