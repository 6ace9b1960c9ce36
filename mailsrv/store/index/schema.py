"""The tables of an account's index, and how an older index becomes a newer one.

``message.id`` and ``summary.id`` are ``mailbox_id << 32 | uid``: one range is one mailbox in UID
order, and the id is always given, never SQLite's own choice (RELIABILITY 8.4). What changes
(flags, file name) stands in ``message``, what never does in ``summary``: flags of a mailbox are
read without its structures.
"""

from __future__ import annotations

import apsw

FILE = "mailsrv.index"
APPLICATION_ID = 0x6D737276
VERSION = 1

_CREATE = """
CREATE TABLE account(
  id INTEGER PRIMARY KEY CHECK(id = 0),
  last_uid_validity INTEGER NOT NULL,
  last_mailbox_id INTEGER NOT NULL,
  list_version INTEGER NOT NULL,
  root_mtime INTEGER NOT NULL,
  is_name_durable INTEGER NOT NULL);
CREATE TABLE mailbox(
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  directory TEXT NOT NULL,
  uid_validity INTEGER NOT NULL,
  uid_next INTEGER NOT NULL,
  uid_reserved INTEGER NOT NULL,
  mod_seq INTEGER NOT NULL,
  mod_seq_reserved INTEGER NOT NULL,
  run_id BLOB NOT NULL,
  messages INTEGER NOT NULL,
  unseen INTEGER NOT NULL,
  deleted INTEGER NOT NULL,
  octets INTEGER NOT NULL,
  recent_uid INTEGER NOT NULL,
  special_use TEXT NOT NULL,
  keywords TEXT NOT NULL,
  new_mtime INTEGER NOT NULL,
  cur_mtime INTEGER NOT NULL,
  is_settled INTEGER NOT NULL,
  forgotten_mod_seq INTEGER NOT NULL);
CREATE TABLE message(
  id INTEGER PRIMARY KEY,
  mod_seq INTEGER NOT NULL,
  flags INTEGER NOT NULL,
  keywords TEXT NOT NULL,
  size INTEGER NOT NULL,
  stored INTEGER NOT NULL,
  file TEXT NOT NULL,
  delivery_key BLOB,
  recipient TEXT NOT NULL);
CREATE UNIQUE INDEX message_key ON message(delivery_key) WHERE delivery_key IS NOT NULL;
CREATE INDEX message_change ON message(id >> 32, mod_seq);
CREATE TABLE summary(
  id INTEGER PRIMARY KEY,
  size INTEGER NOT NULL,
  internal_date INTEGER NOT NULL,
  date_offset INTEGER NOT NULL,
  header_octets INTEGER NOT NULL,
  imap_envelope BLOB,
  body_structure BLOB,
  body BLOB,
  cached_fields BLOB,
  sent_day INTEGER NOT NULL,
  email_id TEXT NOT NULL);
CREATE TABLE tombstone(
  id INTEGER PRIMARY KEY,
  mod_seq INTEGER NOT NULL,
  directory TEXT NOT NULL,
  file TEXT NOT NULL,
  delivery_key BLOB,
  is_unlinked INTEGER NOT NULL);
CREATE INDEX tombstone_key ON tombstone(delivery_key) WHERE delivery_key IS NOT NULL;
CREATE TABLE subscription(name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE intent(
  id INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,
  mailbox_id INTEGER NOT NULL,
  source TEXT NOT NULL,
  target TEXT NOT NULL);
"""

_MIGRATIONS: dict[int, str] = {}
"""From a version to the next: SQL. Version 1 is the first."""


class UnknownIndex(Exception):
    """An index of a later version, or a database that is not ours: left alone."""


def prepare(connection: apsw.Connection) -> bool:
    """Make or migrate the tables; True where they were made. Call inside a transaction."""
    version = connection.pragma("user_version")
    if version == 0:
        connection.execute(_CREATE)
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", VERSION)
        return True
    if version > VERSION or connection.pragma("application_id") != APPLICATION_ID:
        raise UnknownIndex(f"an index of version {version}")
    while version < VERSION:
        connection.execute(_MIGRATIONS[version])
        version += 1
        connection.pragma("user_version", version)
    return False
