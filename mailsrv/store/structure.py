"""ENVELOPE, BODYSTRUCTURE and what else the index keeps of a message that never changes.

Deliveries bring it along. For messages adopted from another program it is made when first asked
for, and so is the exact size, whatever the file name claimed (R-SIZE-1).
"""

# ruff: noqa: S608 (only names of columns and numbers of ours are put into statements; values are bound)

from __future__ import annotations

from collections.abc import Sequence

import apsw
from attrs import frozen
from twisted.logger import Logger

from mailsrv.disk import opened
from mailsrv.interfaces.mailbox import MessageSummary
from mailsrv.store.account import Account
from mailsrv.store.content import with_crlf
from mailsrv.store.index.rows import UID_MASK
from mailsrv.store.index.transaction import Transaction
from mailsrv.store.maildir import layout
from mailsrv.store.summary import StoredSummary, stored_summary

_log = Logger()
_COLUMNS = (
    f"id & {UID_MASK}, size, internal_date, date_offset, header_octets, imap_envelope, body_structure, body,"
    " cached_fields, sent_day, email_id"
)
_ONE = f"SELECT {_COLUMNS} FROM summary WHERE id = ?"
_RANGE = f"SELECT {_COLUMNS} FROM summary WHERE id BETWEEN ? AND ?"
_FEW = 8


def read_summaries(connection: apsw.Connection, mailbox_id: int, uids: Sequence[int]) -> list[MessageSummary]:
    """Of those present, ascending. ``imap_envelope`` is None (against its type) where it was not made yet."""
    first = mailbox_id << 32
    if len(uids) <= _FEW:
        found = []
        for uid in uids:
            row = connection.execute(_ONE, (first | uid,)).fetchone()
            if row is not None:
                found.append(MessageSummary(*row))
        return found
    rows = connection.execute(_RANGE, (first | uids[0], first | uids[-1]))
    if uids[-1] - uids[0] + 1 == len(uids):
        return [MessageSummary(*row) for row in rows]
    wanted = set(uids)
    return [MessageSummary(*row) for row in rows if row[0] in wanted]


@frozen
class Structure:
    """What was found in a file."""

    uid: int
    stored: int
    summary: StoredSummary
    is_size_known: bool
    """Whether the index had the right size."""


def make_structures(account: Account, mailbox_id: int, path: str, uids: Sequence[int]) -> list[Structure]:
    """Read and scan these messages (ascending). In a thread, with no lock held."""
    first = mailbox_id << 32
    with account.reading() as reader:
        files = [
            reader.execute(
                f"SELECT id & {UID_MASK}, file, size, stored FROM message WHERE id = ?", (first | uid,)
            ).fetchone()
            for uid in uids
        ]
    made = []
    for row in files:
        if row is None:
            continue
        uid, file, *sizes = row
        try:
            octets = _read(account, path, file)
        except FileNotFoundError:
            continue
        except OSError as error:
            _log.warn(
                "message {uid} of {account} cannot be read: {path}/{file}: {error}",
                uid=uid,
                account=account.name,
                path=path,
                file=file,
                error=str(error),
            )
            continue
        # As the content is served: what was stored with its bare line feeds (BINARYMIME) keeps them.
        size, stored = sizes
        summary = stored_summary(octets if size == stored else with_crlf(octets))
        made.append(Structure(uid, len(octets), summary, sizes == [summary.size_octets, len(octets)]))
    return made


def _read(account: Account, path: str, file: str) -> bytes:
    disk = account.disk
    try:
        with opened(disk.open(f"{path}/{file}")) as source:
            return source.read(0, source.size())
    except FileNotFoundError:
        name = layout.find_file(disk, path, file)
        if name is None:
            raise
        with opened(disk.open(f"{path}/{name}")) as source:
            return source.read(0, source.size())


def store_structures(transaction: Transaction, mailbox_id: int, made: Sequence[Structure]) -> None:
    """Keep them; a size that was wrong is put right."""
    row = transaction.mailbox_by_id(mailbox_id)
    connection = transaction.connection
    for one in made:
        if one.is_size_known:
            continue
        message_id = row.first_id | one.uid
        found = connection.execute("SELECT size FROM message WHERE id = ?", (message_id,)).fetchone()
        if found is not None:
            row.octets += one.summary.size_octets - found[0]
            transaction.save(row)
            connection.execute(
                "UPDATE message SET size = ?, stored = ? WHERE id = ?",
                (one.summary.size_octets, one.stored, message_id),
            )
    connection.executemany(
        "UPDATE summary SET size = ?, header_octets = ?, imap_envelope = ?, body_structure = ?, body = ?,"
        " cached_fields = ?, sent_day = ? WHERE id = ?",
        [
            (
                summary.size_octets,
                summary.header_octets,
                summary.imap_envelope,
                summary.body_structure,
                summary.body,
                summary.cached_fields,
                summary.sent_day,
                row.first_id | one.uid,
            )
            for one in made
            for summary in (one.summary,)
        ],
    )
