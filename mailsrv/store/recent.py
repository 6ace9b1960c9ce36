"""Who is told that a message is \\Recent: the first session that selects after it came (RFC 3501 2.3.2)."""

from __future__ import annotations

import apsw

from mailsrv.interfaces.mailbox import Uid
from mailsrv.store.index.rows import MailboxRow
from mailsrv.store.index.transaction import Transaction


def claim_recent(transaction: Transaction, mailbox_id: int) -> Uid:
    """The first UID not yet told; none of those before UIDNEXT is told again. Loss of this is harmless."""
    row = transaction.mailbox_by_id(mailbox_id)
    claimed = row.recent_uid
    if claimed < row.uid_next:
        row.recent_uid = row.uid_next
        transaction.save(row)
    return Uid(claimed)


def count_recent(connection: apsw.Connection, *, row: MailboxRow) -> int:
    """Messages of a mailbox that no session was told of."""
    found = connection.execute(
        "SELECT count(*) FROM message WHERE id BETWEEN ? AND ?", (row.first_id | row.recent_uid, row.last_id)
    ).fetchone()
    return int(found[0]) if found is not None else 0
