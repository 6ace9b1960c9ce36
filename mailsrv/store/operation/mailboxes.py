"""CREATE, DELETE, RENAME, SUBSCRIBE.

A mailbox's folder is made when its first message comes. Folders are renamed and removed after
the commit, under an intent that is redone should the server stop in between.
"""

# ruff: noqa: S608 (only names of columns and numbers of ours are put into statements; values are bound)

from __future__ import annotations

import contextlib

import apsw

from mailsrv.interfaces.mailbox import (
    InvalidMailboxName,
    LimitReached,
    MailboxExists,
    MailboxInfo,
    MailboxInUse,
    NoSuchMailbox,
    SpecialUse,
)
from mailsrv.store.index.rows import MESSAGE_COLUMNS, MessageRow
from mailsrv.store.index.transaction import Transaction
from mailsrv.store.mailbox_name import (
    INBOX,
    checked_name,
    checked_subscription,
    is_inferior,
    list_order,
    parents,
    renamed,
)
from mailsrv.store.maildir.names import directory_name
from mailsrv.store.maildir.uidlist import write_subscriptions
from mailsrv.store.operation.copying import copy_rows
from mailsrv.store.rebuild import finish_intents

_SPECIAL_USES = {use.value: use for use in SpecialUse}


def read_list(connection: apsw.Connection) -> list[MailboxInfo]:
    """Everything LIST and LSUB may speak of."""
    rows = {
        name: (mailbox_id, use)
        for mailbox_id, name, use in connection.execute("SELECT id, name, special_use FROM mailbox")
    }
    subscribed = {name for (name,) in connection.execute("SELECT name FROM subscription")}
    names = set(rows)
    for name in rows:
        names.update(parents(name))
    listed = []
    for name in sorted(names | subscribed, key=list_order):
        mailbox_id, use = rows.get(name, (0, ""))
        listed.append(
            MailboxInfo(
                name=name,
                mailbox_id=mailbox_id,
                is_selectable=name in rows,
                is_subscribed=name in subscribed,
                exists=name in names,
                special_use=_SPECIAL_USES.get(use),
            )
        )
    return listed


def create(transaction: Transaction, name: str, special_use: SpecialUse | None) -> None:
    """With the parents it needs: they exist by its name."""
    name = checked_name(name, transaction.settings)
    directory_name(name)
    if transaction.find_mailbox(name) is not None:
        raise MailboxExists
    row = transaction.add_mailbox(name, special_use.value if special_use is not None else "")
    # A folder another program made, not yet seen, brings its messages along at the first look.
    row.new_mtime = -1
    transaction.save(row)


def delete(transaction: Transaction, name: str) -> None:
    """Rows now, the folder after the commit. Keys of deliveries are kept: a replay must not bring them back."""
    if name == INBOX:
        raise MailboxInUse("INBOX cannot be deleted")
    row = transaction.find_mailbox(name)
    connection = transaction.connection
    if row is None:
        if any(is_inferior(other.name, name) for other in transaction.mailboxes()):
            raise MailboxInUse("It has inferior mailboxes")
        raise NoSuchMailbox
    transaction.flush()
    both = (row.first_id, row.last_id)
    connection.execute("UPDATE tombstone SET is_unlinked = 1 WHERE id BETWEEN ? AND ?", both)
    connection.execute(
        "INSERT OR REPLACE INTO tombstone SELECT id, mod_seq, '', '', delivery_key, 1 FROM message"
        " WHERE id BETWEEN ? AND ? AND delivery_key IS NOT NULL",
        both,
    )
    connection.execute("DELETE FROM message WHERE id BETWEEN ? AND ?", both)
    connection.execute("DELETE FROM summary WHERE id BETWEEN ? AND ?", both)
    connection.execute("DELETE FROM mailbox WHERE id = ?", (row.id,))
    _intend(transaction, "delete", row.id, row.directory, "")
    transaction.forget(row)
    transaction.list_changed()


def rename(transaction: Transaction, old: str, new: str) -> None:
    """With inferior mailboxes and subscriptions; INBOX gives its messages and stays (RFC 3501 6.3.5)."""
    new = checked_name(new, transaction.settings)
    if transaction.find_mailbox(new) is not None:
        raise MailboxExists
    if old == INBOX:
        _empty_inbox(transaction, new)
        return
    moving = [row for row in transaction.mailboxes() if row.name == old or is_inferior(row.name, old)]
    if not moving:
        raise NoSuchMailbox
    if is_inferior(new, old):
        raise InvalidMailboxName("A mailbox cannot be moved below itself")
    targets = [checked_name(renamed(row.name, old, new), transaction.settings) for row in moving]
    directories = [directory_name(target) for target in targets]
    if any(transaction.find_mailbox(target) is not None for target in targets):
        raise MailboxExists
    for row, target, directory in zip(moving, targets, directories, strict=True):
        transaction.renamed(row, target)
        transaction.save(row)
        transaction.changed[row.id] = row.mod_seq
        _intend(transaction, "rename", row.id, row.directory, directory)
    connection = transaction.connection
    for name in [str(found[0]) for found in connection.execute("SELECT name FROM subscription")]:
        if name == old or is_inferior(name, old):
            connection.execute("DELETE FROM subscription WHERE name = ?", (name,))
            connection.execute("INSERT OR IGNORE INTO subscription VALUES(?)", (renamed(name, old, new),))
    transaction.list_changed()


def _empty_inbox(transaction: Transaction, new: str) -> None:
    target = transaction.add_mailbox(new)
    inbox = transaction.mailbox(INBOX)
    transaction.flush()
    rows = transaction.connection.execute(
        f"SELECT {MESSAGE_COLUMNS} FROM message WHERE id BETWEEN ? AND ? ORDER BY id", (inbox.first_id, inbox.last_id)
    )
    copy_rows(transaction, inbox, target, [MessageRow(*found) for found in rows], is_move=True)


def _intend(transaction: Transaction, kind: str, mailbox_id: int, source: str, target: str) -> None:
    transaction.connection.execute(
        "INSERT INTO intent(kind, mailbox_id, source, target) VALUES(?,?,?,?)", (kind, mailbox_id, source, target)
    )
    if not transaction.has_intents:
        transaction.has_intents = True
        transaction.after(lambda: finish_intents(transaction.successor()))


def subscribe(transaction: Transaction, name: str, *, subscribed: bool) -> None:
    """SUBSCRIBE needs no mailbox of that name (RFC 9051 6.3.7)."""
    connection = transaction.connection
    if subscribed:
        name = checked_subscription(name, transaction.settings)
        found = connection.execute("SELECT count(*) FROM subscription").fetchone()
        if found is not None and found[0] >= transaction.settings.subscription_count:
            raise LimitReached("Too many subscriptions")
        connection.execute("INSERT OR IGNORE INTO subscription VALUES(?)", (name,))
    else:
        connection.execute("DELETE FROM subscription WHERE name = ?", (name,))
    names = [found[0] for found in connection.execute("SELECT name FROM subscription ORDER BY name")]
    transaction.after(lambda: _write_subscriptions(transaction, names))
    transaction.list_changed()


def _write_subscriptions(transaction: Transaction, names: list[str]) -> None:
    with contextlib.suppress(OSError):
        write_subscriptions(transaction.disk, transaction.root, names)
