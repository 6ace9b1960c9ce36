"""An account's index from nothing: for a new account, for an existing Maildir, after a loss (R-DUR-8).

File names tell UIDs, delivery keys and flags; ``mailsrv-mailbox`` (or ``dovecot-uidlist``) the
UIDVALIDITY. What was told before the loss and left no file is jumped over. Also here: redoing
what a crash interrupted between two commits (RENAME and DELETE of folders).
"""

from __future__ import annotations

from typing import Any, cast

import apsw

from mailsrv.disk import IDisk
from mailsrv.interfaces.journal import DeliveryKey
from mailsrv.store.adopt import adopt
from mailsrv.store.index import reservation
from mailsrv.store.index.rows import MailboxRow
from mailsrv.store.index.transaction import Transaction
from mailsrv.store.mailbox_name import INBOX, INITIAL_MAILBOXES
from mailsrv.store.maildir import filename, layout, uidlist
from mailsrv.store.maildir.names import directory_name, mailbox_name


def populate(transaction: Transaction, *, is_unborn: bool = False) -> None:
    """Fill new tables: the usual mailboxes, and whatever the folder holds already.

    ``is_unborn``: the index was there and empty, so a power cut came before its first durable commit.
    """
    disk, root = transaction.disk, transaction.root
    transaction.connection.execute("INSERT INTO account VALUES(0, 0, 0, 1, 0, 0)")
    uses = {name: use.value if use is not None else "" for name, use in INITIAL_MAILBOXES}
    names = set(uses)
    is_new = not layout.is_begun(disk, root)
    found = {} if is_new else find_mailboxes(transaction)
    for name in [*uses, *sorted(found.keys() - names)]:
        path = found.get(name)
        identity = layout.read_identity(disk, path) if path is not None else None
        row = transaction.add_mailbox(
            name,
            identity.special_use if identity is not None else uses.get(name, ""),
            uid_validity=identity.uid_validity if identity is not None else 0,
        )
        if path is not None:
            _take_in(transaction, row, path, was_ours=identity is not None, is_unborn=is_unborn)
        elif name == INBOX:
            reservation.reserve(row, transaction.settings.reservation)
        transaction.save(row)
    transaction.flush()
    subscribed = set(uses) if is_new else uidlist.read_subscriptions(disk, root) or set(uses)
    transaction.connection.executemany(
        "INSERT OR IGNORE INTO subscription VALUES(?)", [(name,) for name in sorted(subscribed)]
    )


def find_mailboxes(transaction: Transaction) -> dict[str, str]:
    """Name → path of every Maildir++ folder there is; one whose name is no mailbox name is left alone."""
    disk, root = transaction.disk, transaction.root
    found = {INBOX: root}
    for entry in disk.list_directory(root):
        if entry.is_directory and entry.name[0] == ".":
            name = mailbox_name(entry.name)
            if name is not None and layout.is_begun(disk, f"{root}/{entry.name}"):
                found[name] = f"{root}/{entry.name}"
    return found


def _take_in(transaction: Transaction, row: MailboxRow, path: str, *, was_ours: bool, is_unborn: bool) -> None:
    """A mailbox's messages; UIDs are kept where names (or ``dovecot-uidlist``) tell them."""
    disk = transaction.disk
    listed = layout.list_readable_messages(disk, path)
    if is_unborn:
        # No COPY or MOVE was ever committed: what one left is for the next scan to judge.
        listed = {base: file for base, file in listed.items() if _source_of(base) is None}
    times = layout.modified_times(disk, path)
    if not was_ours:
        told = uidlist.read_uidlist(disk, path)
        if told is not None:
            row.uid_validity = told.uid_validity
            transaction.connection.execute(
                "UPDATE account SET last_uid_validity = max(last_uid_validity, ?)", (told.uid_validity,)
            )
            listed = uidlist.with_uids(disk, path, listed, told)
            row.uid_next = max(row.uid_next, told.uid_next)
        layout.write_identity(disk, path, layout.Identity(row.uid_validity, row.special_use))
    if listed:
        adopt(transaction, row, list(listed.values()), keep_uids=True)
    if was_ours:
        # Messages that came and went left no trace: neither their UIDs nor their mod-sequences may return.
        reservation.jump(row, transaction.settings.recovery_jump)
    row.new_mtime, row.cur_mtime = times


def _source_of(base: str) -> DeliveryKey | None:
    return filename.source_key_of(filename.parse_base(base).token)


def finish_intents(transaction: Transaction) -> None:
    """Redo what stands written down as intended, and strike it out. Ends the transaction."""
    try:
        redo_intents(transaction)
        transaction.commit()
    except BaseException:
        transaction.roll_back()
        raise


def redo_intents(transaction: Transaction) -> None:
    """Each can be done twice."""
    disk, root = transaction.disk, transaction.root
    rows = transaction.connection.execute("SELECT id, kind, mailbox_id, source, target FROM intent ORDER BY id")
    found: list[tuple[int, str, int, str, str]] = cast(Any, rows.fetchall())
    for intent_id, kind, mailbox_id, source, target in found:
        is_moved = True
        if kind == "delete":
            layout.remove_mailbox(disk, layout.join(root, source))
        elif kind == "rename":
            if disk.status(f"{root}/{source}") is not None:
                if disk.status(f"{root}/{target}") is None:
                    disk.rename(f"{root}/{source}", f"{root}/{target}")
                else:
                    # Another program has a folder of that name: ours stays where it is, under its new name.
                    is_moved = False
            if is_moved:
                transaction.connection.execute("UPDATE mailbox SET directory = ? WHERE id = ?", (target, mailbox_id))
        transaction.to_sync.add(root)
        transaction.connection.execute("DELETE FROM intent WHERE id = ?", (intent_id,))


def discover(transaction: Transaction) -> int:
    """Mailboxes whose folder another program made; how many. Their messages come at the first look."""
    count = 0
    known = {row.directory for row in transaction.mailboxes()}
    for name in sorted(find_mailboxes(transaction)):
        # The folder of one that was renamed and could not take it along is no other mailbox.
        if transaction.find_mailbox(name) is None and directory_name(name) not in known:
            row = transaction.add_mailbox(name)
            row.new_mtime = -1
            transaction.save(row)
            count += 1
    return count


def has_undiscovered(connection: apsw.Connection, disk: IDisk, root: str) -> bool:
    """Whether there are folders of mailboxes that the index does not know."""
    known = {directory for (directory,) in connection.execute("SELECT directory FROM mailbox")}
    return any(
        entry.is_directory
        and entry.name[0] == "."
        and entry.name not in known
        and mailbox_name(entry.name) is not None
        and layout.is_begun(disk, f"{root}/{entry.name}")
        for entry in disk.list_directory(root)
    )
