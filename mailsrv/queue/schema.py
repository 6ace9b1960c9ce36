"""The tables of the queue's database, and the file it is in.

An id of a message is its place in the journal: ``segment.number << 28 | offset + delivery number``. So
the message that a replay puts into the queue again, after a power cut took the end of the log, has the
id it had before, and a settlement that another record holds for it still means it. The number of a
segment is committed durably before the first id is made of it.

A recipient that has ended stays as the history of its message until that is forgotten. Its ``due`` is
then the time it ended, its ``owner`` means nothing.
"""

from __future__ import annotations

import enum
import functools
import os

import apsw

from mailsrv.disk import RealDisk, create_whole, sync_directory
from mailsrv.disk.database_file import empty_database
from mailsrv.interfaces.queue import Ending

FILE = "queue.db"
APPLICATION_ID = 0x6D737271
VERSION = 1
OFFSET_BITS = 28
"""Of the offset in a segment, in an id; a longer segment is several numbers."""


class RecipientState(enum.IntEnum):
    """Where a recipient stands."""

    WAITING = 0
    LEASED = 1
    HELD = 2
    ENDED = 3
    LEASED_THEN_HELD = 4
    """An attempt is under way; it will be held when that is over."""


class Place(enum.IntEnum):
    """Where the content of a message is."""

    JOURNAL = 0
    """In a live segment, and perhaps in the memory of the process that took it in."""
    FILE = 1
    CORRUPT = 2
    """Damaged; what there is of it lies in the folder of that name."""


ENDINGS = (Ending.DELIVERED, Ending.BOUNCED, Ending.EXPIRED, Ending.DROPPED)
"""By the number in the database."""

_CREATE = """
CREATE TABLE queue(
  id INTEGER PRIMARY KEY CHECK(id = 0),
  messages INTEGER NOT NULL,
  octets INTEGER NOT NULL,
  finished INTEGER NOT NULL,
  wake INTEGER NOT NULL,
  last_segment INTEGER NOT NULL);
INSERT INTO queue VALUES(0, 0, 0, 0, 0, 0);
CREATE TABLE worker(run INTEGER NOT NULL, number INTEGER NOT NULL, PRIMARY KEY(run, number)) WITHOUT ROWID;
CREATE TABLE segment(
  number INTEGER PRIMARY KEY,
  segment_id BLOB NOT NULL,
  part INTEGER NOT NULL,
  UNIQUE(segment_id, part));
CREATE TABLE tombstone(id INTEGER PRIMARY KEY);
CREATE TABLE destination(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  waiting INTEGER NOT NULL,
  wake INTEGER NOT NULL);
CREATE INDEX destination_wake ON destination(wake);
CREATE TABLE message(
  id INTEGER PRIMARY KEY,
  delivery INTEGER NOT NULL,
  transaction_id TEXT NOT NULL,
  reverse_path TEXT,
  parameters BLOB NOT NULL,
  account TEXT NOT NULL,
  accepted_at REAL NOT NULL,
  size INTEGER NOT NULL,
  skipped INTEGER NOT NULL,
  place INTEGER NOT NULL,
  checksum BLOB,
  owed INTEGER NOT NULL,
  finished_at REAL);
CREATE INDEX message_finished ON message(finished_at) WHERE finished_at IS NOT NULL;
CREATE TABLE recipient(
  message INTEGER NOT NULL,
  number INTEGER NOT NULL,
  address TEXT NOT NULL,
  destination INTEGER NOT NULL,
  notify INTEGER NOT NULL,
  original TEXT NOT NULL,
  state INTEGER NOT NULL,
  due REAL NOT NULL,
  rank INTEGER NOT NULL,
  sender INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  is_delay_told INTEGER NOT NULL,
  owner INTEGER NOT NULL,
  lease_until REAL NOT NULL,
  ending INTEGER,
  reply TEXT NOT NULL,
  PRIMARY KEY(message, number)) WITHOUT ROWID;
CREATE INDEX recipient_due ON recipient(destination, rank, due) WHERE state = 0;
CREATE INDEX recipient_sender ON recipient(destination, rank, sender, due) WHERE state = 0;
CREATE INDEX recipient_lease ON recipient(lease_until) WHERE state IN (1, 4);
CREATE TABLE event(
  message INTEGER NOT NULL,
  number INTEGER NOT NULL,
  at REAL NOT NULL,
  recipient INTEGER,
  text TEXT NOT NULL,
  PRIMARY KEY(message, number)) WITHOUT ROWID;
"""


@functools.cache
def empty_queue() -> bytes:
    """A database file without any message."""
    return empty_database(_prepare)


def _prepare(connection: apsw.Connection) -> None:
    connection.execute(_CREATE)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={VERSION}")


def make_database(path: str) -> None:
    """A new, empty queue, unless there is one; it and its name are durable. Raises OSError."""
    if os.path.lexists(path):
        return
    create_whole(RealDisk(), path, empty_queue())
    sync_directory(os.path.dirname(path))
