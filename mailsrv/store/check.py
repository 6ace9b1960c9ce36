"""Whether an account's index and files agree (RELIABILITY 8.5.7): for tests and for the administrator.

Reads only. What a scan would take care of (files another program brought or took) is told apart
from what must never be.
"""

from __future__ import annotations

from collections import Counter

import apsw
from attrs import field, frozen

from mailsrv.disk import IDisk
from mailsrv.store.index.connection import open_connection
from mailsrv.store.index.rows import MESSAGE_COLUMNS, UID_MASK, MailboxRow, MessageRow, all_mailboxes
from mailsrv.store.index.schema import FILE
from mailsrv.store.maildir import filename, layout
from mailsrv.store.view import DELETED, SEEN


@frozen
class AccountReport:
    """What was found, in words. An account is sound if nothing is broken."""

    mailboxes: int = 0
    messages: int = 0
    broken: list[str] = field(factory=list)
    """What must never be."""
    differs: list[str] = field(factory=list)
    """What the next scan puts right."""

    @property
    def is_sound(self) -> bool:
        return not self.broken


def check_account(disk: IDisk, root: str, busy_seconds: float = 5.0) -> AccountReport:
    """Compare index and files below ``root``. Raises :class:`apsw.Error` where there is no index to read."""
    connection = open_connection(f"{root}/{FILE}", busy_seconds)
    try:
        connection.execute("BEGIN")
        report = AccountReport()
        for (line,) in connection.execute("PRAGMA integrity_check"):
            if line != "ok":
                report.broken.append(f"database: {line}")
        rows = all_mailboxes(connection)
        messages = 0
        for row in rows:
            messages += _check_mailbox(connection, disk, root, row, report)
        _check_whole(connection, rows, report)
        return AccountReport(len(rows), messages, report.broken, report.differs)
    finally:
        connection.close()


def _check_mailbox(connection: apsw.Connection, disk: IDisk, root: str, row: MailboxRow, report: AccountReport) -> int:
    both = (row.first_id, row.last_id)
    found = connection.execute(f"SELECT {MESSAGE_COLUMNS} FROM message WHERE id BETWEEN ? AND ?", both)  # noqa: S608
    messages = [MessageRow(*one) for one in found]
    broken = report.broken

    def expect(holds: bool, what: str) -> None:
        if not holds:
            broken.append(f"{row.name}: {what}")

    uids = [message.id & UID_MASK for message in messages]
    expect(max(uids, default=0) < row.uid_next, "a UID at or above UIDNEXT")
    expect(max((one.mod_seq for one in messages), default=0) <= row.mod_seq, "a mod-sequence above the highest")
    expect(row.uid_next <= row.uid_reserved, "UIDs used that are not reserved")
    expect(row.mod_seq < row.mod_seq_reserved, "mod-sequences used that are not reserved")
    counted = (
        len(messages),
        sum(one.size for one in messages),
        sum(not one.flags & SEEN for one in messages),
        sum(bool(one.flags & DELETED) for one in messages),
    )
    expect(counted == (row.messages, row.octets, row.unseen, row.deleted), f"counters are wrong, should be {counted}")
    summaries = {one for (one,) in connection.execute("SELECT id FROM summary WHERE id BETWEEN ? AND ?", both)}
    expect(summaries == {one.id for one in messages}, "messages and summaries do not match")
    graves = {one for (one,) in connection.execute("SELECT id FROM tombstone WHERE id BETWEEN ? AND ?", both)}
    expect(not graves & summaries, "a message that was expunged is there")
    bases = Counter(filename.base_of(one.file) for one in messages)
    expect(all(count == 1 for count in bases.values()), "two messages share a file")
    _check_files(disk, layout.join(root, row.directory), row, messages, report)
    return len(messages)


def _check_files(disk: IDisk, path: str, row: MailboxRow, messages: list[MessageRow], report: AccountReport) -> None:
    listed = layout.list_messages(disk, path)
    for message in messages:
        uid = message.id & UID_MASK
        file = listed.pop(filename.base_of(message.file), None)
        if file is None:
            report.differs.append(f"{row.name}: the file of UID {uid} is gone")
            continue
        status = disk.status(f"{path}/{file}")
        if status is not None and status.size != message.stored:
            report.broken.append(f"{row.name}: UID {uid} has {status.size} octets on disk, not {message.stored}")
        named = filename.parse_base(filename.base_of(file)).uid
        if named is not None and named != uid:
            report.broken.append(f"{row.name}: the file of UID {uid} is named for {named}")
    report.differs.extend(f"{row.name}: {file} is not in the index" for file in listed.values())


def _check_whole(connection: apsw.Connection, rows: list[MailboxRow], report: AccountReport) -> None:
    known = {row.id for row in rows}
    strays = connection.execute("SELECT DISTINCT id >> 32 FROM message").fetchall()
    report.broken.extend(f"messages of a mailbox {one} that is not there" for (one,) in strays if one not in known)
    last = connection.execute("SELECT last_uid_validity, last_mailbox_id FROM account").fetchone()
    if last is None:
        report.broken.append("the account's row is missing")
        return
    if any(row.uid_validity > last[0] or row.id > last[1] for row in rows):
        report.broken.append("a UIDVALIDITY or mailbox number is beyond the last one given")
    shared = connection.execute(
        "SELECT count(*) FROM message JOIN tombstone USING(delivery_key) WHERE delivery_key IS NOT NULL"
    ).fetchone()
    if shared is not None and shared[0]:
        report.broken.append("a delivery is both there and expunged")
