"""Rows of the index as values."""

# ruff: noqa: S608 (only names of columns and numbers of ours are put into statements; values are bound)

from __future__ import annotations

from typing import Any, NamedTuple

import apsw
from attrs import define, field

UID_MASK = 0xFFFFFFFF
LAST_UID = 0xFFFFFFFE
"""The greatest UID given (RFC 9051 2.3.1.1: 32 bits; the last number stays unused for UIDNEXT)."""

_COLUMNS = (
    "id, name, directory, uid_validity, uid_next, uid_reserved, mod_seq, mod_seq_reserved, run_id, messages, unseen,"
    " deleted, octets, recent_uid, special_use, keywords, new_mtime, cur_mtime, is_settled, forgotten_mod_seq"
)
_BY_NAME = f"SELECT {_COLUMNS} FROM mailbox WHERE name = ?"
_BY_ID = f"SELECT {_COLUMNS} FROM mailbox WHERE id = ?"
_ALL = f"SELECT {_COLUMNS} FROM mailbox ORDER BY name"
_INSERT = f"INSERT INTO mailbox({_COLUMNS}) VALUES({', '.join('?' * 20)})"
_UPDATE = (
    "UPDATE mailbox SET directory=?2, uid_validity=?3, uid_next=?4, uid_reserved=?5, mod_seq=?6,"
    " mod_seq_reserved=?7, run_id=?8, messages=?9, unseen=?10, deleted=?11, octets=?12, recent_uid=?13,"
    " special_use=?14, keywords=?15, new_mtime=?16, cur_mtime=?17, is_settled=?18, forgotten_mod_seq=?19 WHERE id=?1"
)
_RENAME = "UPDATE mailbox SET name = ?2 WHERE id = ?1"


@define(eq=False)
class MailboxRow:
    """A mailbox. Mutable: a transaction changes it and writes it back."""

    id: int
    name: str
    directory: str
    """Maildir++ folder below the account's; "" for INBOX."""
    uid_validity: int
    uid_next: int
    uid_reserved: int
    """UIDs below are reserved by ``run_id``, durably."""
    mod_seq: int
    mod_seq_reserved: int
    run_id: bytes
    messages: int = 0
    unseen: int = 0
    deleted: int = 0
    octets: int = 0
    recent_uid: int = 1
    special_use: str = ""
    keywords: str = ""
    """All ever used, in the order of first use, joined by spaces."""
    new_mtime: int = 0
    cur_mtime: int = 0
    is_settled: int = 0
    """Whether the folder was listed when its time stamps were old enough to be believed."""
    forgotten_mod_seq: int = 0
    """Expunges up to this mod-sequence have no tombstone any more."""
    operation_mod_seq: int = field(default=0, init=False)
    """The mod-sequence of the operation in progress; 0 before its first change."""

    @property
    def first_id(self) -> int:
        return self.id << 32

    @property
    def last_id(self) -> int:
        return self.id << 32 | UID_MASK

    def values(self) -> tuple[Any, ...]:
        return (
            self.id,
            self.name,
            self.directory,
            self.uid_validity,
            self.uid_next,
            self.uid_reserved,
            self.mod_seq,
            self.mod_seq_reserved,
            self.run_id,
            self.messages,
            self.unseen,
            self.deleted,
            self.octets,
            self.recent_uid,
            self.special_use,
            self.keywords,
            self.new_mtime,
            self.cur_mtime,
            self.is_settled,
            self.forgotten_mod_seq,
        )

    def known_keywords(self) -> list[str]:
        return self.keywords.split(" ") if self.keywords else []


def mailbox_by_name(connection: apsw.Connection, name: str) -> MailboxRow | None:
    """The row of that name."""
    found = connection.execute(_BY_NAME, (name,)).fetchone()
    return MailboxRow(*found) if found else None


def mailbox_by_id(connection: apsw.Connection, mailbox_id: int) -> MailboxRow | None:
    """The row of that number."""
    found = connection.execute(_BY_ID, (mailbox_id,)).fetchone()
    return MailboxRow(*found) if found else None


def all_mailboxes(connection: apsw.Connection) -> list[MailboxRow]:
    """Every row, by name."""
    return [MailboxRow(*found) for found in connection.execute(_ALL)]


def insert_mailbox(connection: apsw.Connection, row: MailboxRow) -> None:
    """A new row."""
    connection.execute(_INSERT, row.values())


def update_mailbox(connection: apsw.Connection, row: MailboxRow) -> None:
    """Write a row back, all but its name: SQLite would write the page of the index of names each time."""
    mailbox_id, _, *others = row.values()
    connection.execute(_UPDATE, (mailbox_id, *others))


def rename_mailbox(connection: apsw.Connection, row: MailboxRow) -> None:
    """Write back the row's name."""
    connection.execute(_RENAME, (row.id, row.name))


class MessageRow(NamedTuple):
    """A message's changing part."""

    id: int
    mod_seq: int
    flags: int
    keywords: str
    size: int
    stored: int
    file: str
    delivery_key: bytes | None
    recipient: str


MESSAGE_COLUMNS = "id, mod_seq, flags, keywords, size, stored, file, delivery_key, recipient"
INSERT_MESSAGE = f"INSERT INTO message({MESSAGE_COLUMNS}) VALUES(?,?,?,?,?,?,?,?,?)"

SUMMARY_COLUMNS = (
    "id, size, internal_date, date_offset, header_octets, imap_envelope, body_structure, body, cached_fields,"
    " sent_day, email_id"
)
INSERT_SUMMARY = f"INSERT INTO summary({SUMMARY_COLUMNS}) VALUES(?,?,?,?,?,?,?,?,?,?,?)"


class SummaryRow(NamedTuple):
    """A message's unchanging part; the structure is None until it is asked for (adopted messages)."""

    id: int
    size: int
    internal_date: int
    date_offset: int
    header_octets: int
    imap_envelope: bytes | None
    body_structure: bytes | None
    body: bytes | None
    cached_fields: bytes | None
    sent_day: int
    email_id: str


class Tombstone(NamedTuple):
    """A message that is gone: who had its key, and which file has to go."""

    id: int
    mod_seq: int
    directory: str
    file: str
    delivery_key: bytes | None
    is_unlinked: int


INSERT_TOMBSTONE = (
    "INSERT OR REPLACE INTO tombstone(id, mod_seq, directory, file, delivery_key, is_unlinked) VALUES(?,?,?,?,?,?)"
)
