"""EXPUNGE, and what POP3 removes: tombstones first, files after the commit (R-DUR-3)."""

# ruff: noqa: S608 (only names of columns and numbers of ours are put into statements; values are bound)

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import cast

import apsw

from mailsrv.interfaces.mailbox import Uid
from mailsrv.store.index.rows import MESSAGE_COLUMNS, UID_MASK, MessageRow, Tombstone
from mailsrv.store.index.transaction import Transaction
from mailsrv.store.maildir import filename, layout
from mailsrv.store.operation.selection import selected
from mailsrv.store.view import DELETED

_MARKED = f"SELECT {MESSAGE_COLUMNS} FROM message WHERE id BETWEEN ? AND ? AND flags & {DELETED} ORDER BY id"


def expunge(transaction: Transaction, mailbox_id: int, uids: Sequence[int] | None) -> list[Uid]:
    """Remove what has \\Deleted, among ``uids`` where given."""
    row = transaction.mailbox_by_id(mailbox_id)
    if uids is None:
        if not row.deleted:
            return []
        rows = transaction.connection.execute(_MARKED, (row.first_id, row.last_id))
        marked = [MessageRow(*found) for found in rows]
    else:
        marked = [message for message in selected(transaction, row, uids) if message.flags & DELETED]
    return _remove(transaction, mailbox_id, marked)


def delete_messages(transaction: Transaction, mailbox_id: int, uids: Sequence[int]) -> list[Uid]:
    """Remove these, whatever their flags."""
    row = transaction.mailbox_by_id(mailbox_id)
    return _remove(transaction, mailbox_id, selected(transaction, row, uids))


def _remove(transaction: Transaction, mailbox_id: int, messages: list[MessageRow]) -> list[Uid]:
    if messages:
        transaction.remove_messages(transaction.mailbox_by_id(mailbox_id), messages, is_unlinked=False)
    return [Uid(message.id & UID_MASK) for message in messages]


def purge_tombstones(transaction: Transaction, live_segments: frozenset[bytes]) -> int:
    """Forget expunged messages that nothing can bring back; how many.

    Their files are gone durably (looked at and synced here), and no journal slot can hold their
    key any more. Who asks for changes from before is answered from what is there.
    """
    connection = transaction.connection
    purged: list[tuple[int]] = []
    forgotten: dict[int, int] = {}
    gone: dict[str, dict[str, list[str]]] = {}
    found = connection.execute(
        "SELECT id, mod_seq, directory, file, delivery_key, is_unlinked FROM tombstone"
    ).fetchall()
    for tombstone_id, mod_seq, directory, file, key, is_unlinked in cast(list[Tombstone], found):
        if key is not None and key[:16] in live_segments:
            continue
        if not is_unlinked and not _is_gone(transaction, tombstone_id >> 32, directory, file, listings=gone):
            continue
        purged.append((tombstone_id,))
        mailbox_id = tombstone_id >> 32
        forgotten[mailbox_id] = max(forgotten.get(mailbox_id, 0), mod_seq)
    connection.executemany("DELETE FROM tombstone WHERE id = ?", purged)
    for mailbox_id, mod_seq in forgotten.items():
        connection.execute(
            "UPDATE mailbox SET forgotten_mod_seq = max(forgotten_mod_seq, ?) WHERE id = ?", (mod_seq, mailbox_id)
        )
    return len(purged)


def _is_gone(
    transaction: Transaction, mailbox_id: int, directory: str, file: str, *, listings: dict[str, dict[str, list[str]]]
) -> bool:
    """Whether the file is gone for good; a leftover is unlinked after the commit and counts the next time.

    So is another attempt at the same delivery, which a crash cut off and no scan has come upon.
    """
    path = layout.join(transaction.root, directory)
    listed = listings.get(directory)
    if listed is None:
        listed = listings[directory] = {}
        for base, name in layout.list_messages(transaction.disk, path).items():
            listed.setdefault(_identity(base), []).append(name)
        for part in (filename.NEW, filename.CUR):
            if transaction.disk.status(f"{path}/{part}") is not None:
                transaction.disk.sync_directory(f"{path}/{part}")
    names = listed.get(_identity(filename.base_of(file)), [])
    names = [name for name in names if not _has_row(transaction, mailbox_id, name)]
    if names:
        # The message may have been expunged, or moved, in this very transaction, which may yet fail.
        transaction.after(lambda: _unlink(transaction, path, names))
    return not names


def _unlink(transaction: Transaction, path: str, names: list[str]) -> None:
    for name in names:
        with contextlib.suppress(OSError):
            transaction.disk.unlink(f"{path}/{name}")


def _has_row(transaction: Transaction, mailbox_id: int, file: str) -> bool:
    """Whether another program has made a message of it again."""
    found = transaction.connection.execute(
        "SELECT 1 FROM message WHERE id BETWEEN ? AND ? AND file = ?",
        (mailbox_id << 32, mailbox_id << 32 | UID_MASK, file),
    )
    return found.fetchone() is not None


def _identity(base: str) -> str:
    """What all attempts at one delivery have in common; a file of another name stands for itself."""
    token = filename.parse_base(base).token
    return token if token is not None and token[0] == "K" else base


def count_tombstones(connection: apsw.Connection) -> int:
    """How many there are."""
    found = connection.execute("SELECT count(*) FROM tombstone").fetchone()
    return int(found[0]) if found is not None else 0
