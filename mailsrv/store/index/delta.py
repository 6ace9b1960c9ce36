"""What a mailbox has that is newer than a mod-sequence: how readers learn of changes (DESIGN decision 10)."""

# ruff: noqa: S608 (only names of columns and numbers of ours are put into statements; values are bound)

from __future__ import annotations

from typing import cast

import apsw
from attrs import frozen

from mailsrv.store.index.rows import UID_MASK

ChangedRow = tuple[int, int, int, str]
"""uid, mod-sequence, flag bits, keywords."""

_HEAD = "SELECT uid_next, mod_seq, forgotten_mod_seq, name, keywords, uid_validity, directory FROM mailbox WHERE id = ?"
_CHANGED = (
    f"SELECT id & {UID_MASK}, mod_seq, flags, keywords FROM message WHERE id >> 32 = ? AND mod_seq > ? ORDER BY id"
)
_ALL = f"SELECT id & {UID_MASK}, mod_seq, flags, keywords FROM message WHERE id BETWEEN ? AND ? ORDER BY id"
_VANISHED = f"SELECT id & {UID_MASK} FROM tombstone WHERE id BETWEEN ? AND ? AND mod_seq > ?"


@frozen
class Delta:
    """The news. ``is_whole``: the rows are all there are, whatever was known before."""

    mailbox_id: int
    mod_seq: int
    uid_next: int
    name: str = ""
    rows: tuple[ChangedRow, ...] | list[ChangedRow] = ()
    vanished: tuple[int, ...] | list[int] = ()
    keywords: str = ""
    uid_validity: int = 0
    directory: str = ""
    is_whole: bool = False
    is_gone: bool = False


def read_delta(connection: apsw.Connection, mailbox_id: int, since: int) -> Delta:
    """What is newer than ``since``; everything where ``since`` is 0 or further back than tombstones reach.

    Several statements: call it inside a transaction.
    """
    head = connection.execute(_HEAD, (mailbox_id,)).fetchone()
    if head is None:
        return Delta(mailbox_id, since, 0, is_gone=True)
    uid_next, mod_seq, forgotten, name, keywords, uid_validity, directory = head
    first, last = mailbox_id << 32, mailbox_id << 32 | UID_MASK
    if since and mod_seq <= since:
        return Delta(mailbox_id, mod_seq, uid_next, name, (), (), keywords, uid_validity, directory)
    if since and since >= forgotten:
        rows = cast(list[ChangedRow], connection.execute(_CHANGED, (mailbox_id, since)).fetchall())
        vanished = [uid for (uid,) in connection.execute(_VANISHED, (first, last, since))]
        return Delta(mailbox_id, mod_seq, uid_next, name, rows, vanished, keywords, uid_validity, directory)
    rows = cast(list[ChangedRow], connection.execute(_ALL, (first, last)).fetchall())
    return Delta(mailbox_id, mod_seq, uid_next, name, rows, (), keywords, uid_validity, directory, is_whole=True)


def is_small(connection: apsw.Connection, mailbox_id: int, since: int, limit: int) -> bool:
    """Whether :func:`read_delta` would answer with at most ``limit`` changed messages."""
    found = connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM message WHERE id >> 32 = ? AND mod_seq > ? LIMIT ?)",
        (mailbox_id, since, limit + 1),
    ).fetchone()
    return found is not None and found[0] <= limit
