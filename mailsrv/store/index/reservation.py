"""UIDs and mod-sequences from ranges reserved by durable commits (DESIGN 5.5, RELIABILITY 8.5).

A mailbox row names the server run that reserved up to ``uid_reserved`` and ``mod_seq_reserved``.
Within the range a commit need not be durable before its numbers are told. A process of another
run cannot know what was told and lost, so it goes on above the range. A number that was ever told
therefore never names anything else.
"""

from __future__ import annotations

from mailsrv.interfaces.mailbox import LimitReached
from mailsrv.store.index.rows import LAST_UID, MailboxRow


def enter_run(row: MailboxRow, run_id: bytes) -> bool:
    """Skip what another run may have told; whether the row changed (then the commit must be durable)."""
    if row.run_id == run_id:
        return False
    if row.uid_reserved > row.uid_next or row.mod_seq_reserved > row.mod_seq + 1:
        row.uid_next = max(row.uid_next, row.uid_reserved)
        # The gap in UIDs is news: whoever asks since an earlier mod-sequence is told a later one.
        row.mod_seq = max(row.mod_seq + 1, row.mod_seq_reserved)
    row.run_id = run_id
    row.uid_reserved = row.uid_next
    row.mod_seq_reserved = row.mod_seq + 1
    return True


def room(row: MailboxRow, run_id: bytes) -> int:
    """How many new messages, in one operation each, fit into the range."""
    if row.run_id != run_id:
        return 0
    return max(0, min(row.uid_reserved - row.uid_next, row.mod_seq_reserved - row.mod_seq - 1))


def reserve(row: MailboxRow, count: int) -> None:
    """Extend the range by ``count`` beyond what is used. The commit must be durable."""
    row.uid_reserved = max(row.uid_reserved, min(row.uid_next + count, LAST_UID + 1))
    row.mod_seq_reserved = max(row.mod_seq_reserved, row.mod_seq + 1 + count)


def cover(row: MailboxRow) -> None:
    """After a durable operation that went beyond the range: what is used is reserved."""
    row.uid_reserved = max(row.uid_reserved, row.uid_next)
    row.mod_seq_reserved = max(row.mod_seq_reserved, row.mod_seq + 1)


def give_back(row: MailboxRow) -> None:
    """At a clean end: nothing is reserved beyond what is used. The commit must be durable."""
    row.uid_reserved = row.uid_next
    row.mod_seq_reserved = row.mod_seq + 1


def take_uid(row: MailboxRow) -> int:
    """The next UID."""
    uid = row.uid_next
    if uid > LAST_UID:
        raise LimitReached("This mailbox has no UIDs left; move its messages to a new one")
    row.uid_next = uid + 1
    return uid


def jump(row: MailboxRow, distance: int, above_uid: int = 0) -> None:
    """After doubt: go on further than anything that can have been told (RELIABILITY 8.5.4)."""
    row.uid_next = min(max(row.uid_next, row.uid_reserved, above_uid + 1) + distance, LAST_UID + 1)
    row.mod_seq = max(row.mod_seq, row.mod_seq_reserved) + distance
    row.uid_reserved = row.uid_next
    row.mod_seq_reserved = row.mod_seq + 1
