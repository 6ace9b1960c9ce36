"""Taking in what other programs did to a mailbox's folder (RELIABILITY 8.2).

Runs inside the account's write transaction, so no worker's half-done delivery or copy is ever
seen. Files are matched by the part of their name before the colon:

* known, under the recorded name: nothing; where the index has newer flags the name follows.
* known, under another name: another program changed flags; the difference between the recorded
  and the present name is merged into the index's flags.
* expunged here: the unlink was lost in a crash; it is done again (R-DUR-3). What went by itself, and is back, is new.
* unknown and named for a delivery that the journal still holds: left to its replay.
* unknown and named for a delivery that has a row under another name whose file is there, or that was
  expunged: what an apply left behind that a crash cut off before its commit; it is removed.
* unknown and named for a copy that no row and no tombstone knows, its source being there: a COPY or MOVE
  that a crash cut off before its commit; it is removed.
* any other: a new message (R-DUR-2), never changed in place; only its name gets a ``U=``.
* named with octets that are no UTF-8: renamed first.
* missing in two listings, one after the other: expunged by another program.

How a new message is taken in stands in :mod:`mailsrv.store.adopt`.
"""

# ruff: noqa: S608 (only names of columns and numbers of ours are put into statements; values are bound)

from __future__ import annotations

import contextlib
import enum
from collections.abc import Collection, Iterator
from typing import cast

from attrs import define
from twisted.logger import Logger

from mailsrv.disk import FileStatus
from mailsrv.interfaces.journal import DeliveryKey
from mailsrv.store.adopt import adopt
from mailsrv.store.index.rows import MESSAGE_COLUMNS, MailboxRow, MessageRow
from mailsrv.store.index.transaction import Transaction
from mailsrv.store.maildir import filename, keywords, layout

_log = Logger()
_HOUR_NS = 3_600_000_000_000


@define
class Scanned:
    """What a scan found; for the log and the administrator."""

    adopted: int = 0
    vanished: int = 0
    merged: int = 0
    removed: int = 0


def is_scan_due(row: MailboxRow, times: tuple[int, int], now_ns: int, settle_ns: int, *, thorough: bool) -> bool:
    """Whether the folder may hold something the index does not know.

    ``thorough`` (at SELECT): a folder recorded while its stamps were fresh is looked at once more,
    for a change in the same tick leaves no trace.
    """
    if times != (row.new_mtime, row.cur_mtime):
        return True
    return thorough and not row.is_settled and now_ns - max(times) > settle_ns


def scan(transaction: Transaction, row: MailboxRow, now_ns: int, live_segments: frozenset[bytes] | None) -> Scanned:
    """Compare folder and index, and make the index right."""
    disk, path = transaction.disk, transaction.path(row)
    transaction.flush()
    times = layout.modified_times(disk, path)
    listed = layout.list_readable_messages(disk, path)
    known = {filename.base_of(message.file): message for message in _messages(transaction, row)}
    found = Scanned()
    missing = known.keys() - listed.keys()
    if missing:
        # A file renamed while the folder was read can be missed: only a second miss counts.
        again = layout.list_readable_messages(disk, path)
        listed.update((base, again[base]) for base in missing & again.keys())
        missing -= again.keys()
    _merge(transaction, row, known, listed, found)
    fresh = _sort_out(transaction, row, listed, known.keys(), found=found, live_segments=live_segments)
    if missing:
        gone = [known[base] for base in sorted(missing)]
        transaction.remove_messages(row, gone, is_unlinked=True)
        found.vanished = len(gone)
    if fresh:
        found.adopted = adopt(transaction, row, fresh)
    layout.clean_temporary(disk, path, now_ns - int(transaction.settings.temporary_file_hours * _HOUR_NS))
    # The stamps were taken before the listing: what came later shows in a later stamp. Our own
    # renames of adopted files do too, and cost one more look.
    row.new_mtime, row.cur_mtime = times
    row.is_settled = int(now_ns - max(times) > transaction.settings.settle_seconds * 1e9)
    transaction.save(row)
    if found.adopted or found.vanished or found.removed:
        _log.info(
            "{mailbox}: {adopted} messages came and {vanished} went by other programs",
            mailbox=path,
            adopted=found.adopted,
            vanished=found.vanished,
        )
    return found


def _messages(transaction: Transaction, row: MailboxRow) -> list[MessageRow]:
    rows = transaction.connection.execute(
        f"SELECT {MESSAGE_COLUMNS} FROM message WHERE id BETWEEN ? AND ?", (row.first_id, row.last_id)
    )
    return [MessageRow(*found) for found in rows]


def _merge(
    transaction: Transaction,
    row: MailboxRow,
    known: dict[str, MessageRow],
    listed: dict[str, str],
    found: Scanned,
) -> None:
    """Names that are not the recorded ones: flags by another program, or our own rename not yet recorded."""
    names: list[tuple[str, int]] = []
    flags: list[tuple[int, str, int, int]] = []
    meanings = row.known_keywords()
    for base, message in known.items():
        file = listed.get(base)
        if file is None or file == message.file:
            continue
        names.append((file, message.id))
        before, now = filename.info_of(message.file), filename.info_of(file)
        bits, words = merged_flags(message, before, now, meanings)
        if (bits, words) != (message.flags, message.keywords):
            transaction.count_flags(row, message.flags, bits)
            transaction.learn_keywords(row, words)
            flags.append((bits, words, transaction.mod_seq(row), message.id))
    connection = transaction.connection
    connection.executemany("UPDATE message SET file = ? WHERE id = ?", names)
    connection.executemany("UPDATE message SET flags = ?, keywords = ?, mod_seq = ? WHERE id = ?", flags)
    found.merged = len(flags)


def merged_flags(message: MessageRow, before: str, now: str, meanings: list[str]) -> tuple[int, str]:
    """The index's flags with the difference between two names applied."""
    bits_before, bits_now = filename.bits_of(before), filename.bits_of(now)
    bits = (message.flags | (bits_now & ~bits_before)) & ~(bits_before & ~bits_now)
    letters_before, letters_now = set(filename.keyword_letters(before)), set(filename.keyword_letters(now))
    if letters_before == letters_now:
        return bits, message.keywords
    words = set(message.keywords.split(" ")) if message.keywords else set()
    words |= set(keywords.keywords_of("".join(sorted(letters_now - letters_before)), meanings).split())
    words -= set(keywords.keywords_of("".join(sorted(letters_before - letters_now)), meanings).split())
    return bits, " ".join(sorted(words))


def _sort_out(
    transaction: Transaction,
    row: MailboxRow,
    listed: dict[str, str],
    known: Collection[str],
    *,
    found: Scanned,
    live_segments: frozenset[bytes] | None,
) -> list[str]:
    """Of the files without a row, those that are new messages."""
    unknown = [base for base in listed if base not in known]
    if not unknown:
        return []
    path = transaction.path(row)
    expunged = {
        filename.base_of(file)
        for (file,) in transaction.connection.execute(
            "SELECT file FROM tombstone WHERE id BETWEEN ? AND ? AND is_unlinked = 0", (row.first_id, row.last_id)
        )
    }
    sources = _Sources(transaction)
    fresh = []
    for base in unknown:
        token = filename.parse_base(base).token
        key = filename.key_of(token)
        if base in expunged:
            # Resurrected by a crash.
            fate = _Fate.DELIVERED
        elif key is not None:
            fate = _fate(transaction, base, key, live_segments)
        elif token is not None and token[0] == "C":
            fate = _fate_of_copy(transaction, f"{path}/{listed[base]}", token, sources, live_segments=live_segments)
        else:
            fate = _Fate.UNKNOWN
        if fate is _Fate.UNKNOWN:
            fresh.append(listed[base])
        elif fate is _Fate.DELIVERED:
            _remove(transaction, f"{path}/{listed[base]}", found)
    return fresh


class _Fate(enum.Enum):
    """What became of the delivery or copy a file without a row is named for."""

    PENDING = enum.auto()
    """The journal will tell."""
    DELIVERED = enum.auto()
    """The message has another file, or was expunged: this one is left over."""
    UNKNOWN = enum.auto()


def _remove(transaction: Transaction, path: str, found: Scanned) -> None:
    # Not before the commit: what was expunged, or moved, in this very transaction is still there if that fails.
    transaction.after(lambda: _unlink(transaction, path))
    found.removed += 1


def _unlink(transaction: Transaction, path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        transaction.disk.unlink(path)


class _Sources:
    """Finds the message a copy was made of: the one with the same inode.

    Another link alone tells nothing, for other accounts have links to the messages they got with this one.
    """

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._inodes: dict[int, frozenset[int]] = {}
        """Octets on disk → those of all messages that have as many."""
        self._listed: dict[str, dict[str, str]] = {}

    def has(self, copy: FileStatus) -> bool:
        inodes = self._inodes.get(copy.size)
        if inodes is None:
            inodes = self._inodes[copy.size] = frozenset(self._find(copy.size))
        return copy.inode in inodes

    def _find(self, stored: int) -> Iterator[int]:
        transaction = self._transaction
        disk = transaction.disk
        rows = transaction.connection.execute("SELECT id, file FROM message WHERE stored = ?", (stored,)).fetchall()
        for message_id, file in cast(list[tuple[int, str]], rows):
            home = transaction.path(transaction.mailbox_by_id(message_id >> 32))
            status = disk.status(f"{home}/{file}")
            if status is None:
                listed = self._listed.get(home)
                if listed is None:
                    listed = self._listed[home] = layout.list_messages(disk, home)
                name = listed.get(filename.base_of(file))
                status = disk.status(f"{home}/{name}") if name is not None else None
            if status is not None:
                yield status.inode


def _fate_of_copy(
    transaction: Transaction, path: str, token: str, sources: _Sources, *, live_segments: frozenset[bytes] | None
) -> _Fate:
    """A copy that was never committed is left over if its source is there; one that was is somebody's message."""
    connection = transaction.connection
    for table in ("message", "tombstone"):
        if connection.execute(f"SELECT 1 FROM {table} WHERE instr(file, ?)", (f".{token}.",)).fetchone() is not None:
            # Committed; another program moved or copied it here.
            return _Fate.UNKNOWN
    key = filename.source_key_of(token)
    if key is not None:
        found = connection.execute("SELECT id, file FROM message WHERE delivery_key = ?", (key.to_octets(),)).fetchone()
        if found is not None:
            home = transaction.path(transaction.mailbox_by_id(found[0] >> 32))
            if transaction.disk.status(f"{home}/{found[1]}") is not None:
                return _Fate.DELIVERED
        elif live_segments is None or key.segment_id in live_segments:
            gone = connection.execute("SELECT 1 FROM tombstone WHERE delivery_key = ?", (key.to_octets(),)).fetchone()
            if gone is None:
                return _Fate.PENDING
    status = transaction.disk.status(path)
    if status is None or status.link_count < 2:
        return _Fate.UNKNOWN
    return _Fate.DELIVERED if filename.is_from_elsewhere(token) or sources.has(status) else _Fate.UNKNOWN


def _fate(transaction: Transaction, base: str, key: DeliveryKey, live_segments: frozenset[bytes] | None) -> _Fate:
    """What the index and the journal know of the delivery this file is named for.

    The same key under another base is another attempt at the same delivery. The same base in another
    mailbox was moved or copied there by another program, which keeps names: a new message.
    """
    connection, octets = transaction.connection, key.to_octets()
    # Not an attempt of ours where another program took the file of the row (or of the tombstone) away: one
    # that moves messages and gives them names of its own making.
    present = connection.execute("SELECT id, file FROM message WHERE delivery_key = ?", (octets,)).fetchone()
    if present is not None:
        message_id, file = present
        home = transaction.path(transaction.mailbox_by_id(message_id >> 32))
        is_attempt = filename.base_of(file) != base and transaction.disk.status(f"{home}/{file}") is not None
        return _Fate.DELIVERED if is_attempt else _Fate.UNKNOWN
    gone = connection.execute(
        "SELECT file, is_unlinked FROM tombstone WHERE delivery_key = ? ORDER BY is_unlinked", (octets,)
    ).fetchone()
    if gone is not None:
        file, went_by_itself = gone
        return _Fate.UNKNOWN if went_by_itself or filename.base_of(file) == base else _Fate.DELIVERED
    return _Fate.PENDING if live_segments is None or key.segment_id in live_segments else _Fate.UNKNOWN
