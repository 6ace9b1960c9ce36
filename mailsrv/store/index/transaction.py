"""One write transaction of an account: rows in hand, files made, and what has to happen around the commit.

The order of things (DESIGN 5.6)::

    BEGIN IMMEDIATE
      operations: rows change, files are linked or renamed into place
      directories that must be durable are synced
    COMMIT                   (FULL, except where only deliveries were applied)
      files of expunged messages are unlinked

A transaction that fails takes the files it made away again. Operations of several sessions share
a transaction, each in a savepoint of its own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable

import apsw
from twisted.logger import Logger

from mailsrv.disk import IDisk
from mailsrv.interfaces.mailbox import LimitReached, MailboxExists, NoSuchMailbox
from mailsrv.store.index import reservation
from mailsrv.store.index.folder_times import FolderTimes
from mailsrv.store.index.rows import (
    INSERT_MESSAGE,
    INSERT_SUMMARY,
    INSERT_TOMBSTONE,
    MailboxRow,
    MessageRow,
    SummaryRow,
    Tombstone,
    all_mailboxes,
    insert_mailbox,
    mailbox_by_id,
    mailbox_by_name,
    rename_mailbox,
    update_mailbox,
)
from mailsrv.store.maildir import keywords as keyword_file
from mailsrv.store.maildir import layout
from mailsrv.store.maildir.filename import base_of
from mailsrv.store.maildir.names import directory_name
from mailsrv.store.settings import StoreSettings
from mailsrv.store.view import DELETED, SEEN


class Transaction:
    """Begun; ends with ``commit`` or ``roll_back``. The account's lock is held throughout."""

    _log = Logger()

    def __init__(
        self,
        connection: apsw.Connection,
        disk: IDisk,
        root: str,
        settings: StoreSettings,
        run_id: bytes,
        *,
        is_durable: bool = True,
    ) -> None:
        self.connection = connection
        self.disk = disk
        self.root = root
        self.settings = settings
        self.run_id = run_id
        self.is_durable = is_durable
        self.changed: dict[int, int] = {}
        """Mailbox id → its mod-sequence, of all mailboxes changed."""
        self.is_list_changed = False
        self.has_intents = False
        """Whether folders are to be renamed or removed after the commit."""
        self.touched: set[str] = set()
        """Directories written: for the checkpoint."""
        self.to_sync: set[str] = set()
        """Directories to sync before the commit."""
        self._by_name: dict[str, MailboxRow] = {}
        self._by_id: dict[int, MailboxRow] = {}
        self._times = FolderTimes(disk, root)
        self._dirty: set[int] = set()
        self._undo: list[str] = []
        self._after: list[Callable[[], None]] = []
        self._messages: list[MessageRow] = []
        self._summaries: list[SummaryRow] = []
        self._operation_start: tuple[int, int, dict[int, int], bool] = (0, 0, {}, False)
        connection.execute("BEGIN IMMEDIATE")

    def successor(self) -> Transaction:
        """Another transaction, begun after this one's commit."""
        return Transaction(
            self.connection, self.disk, self.root, self.settings, self.run_id, is_durable=self.is_durable
        )

    # Mailboxes

    def mailbox(self, name: str) -> MailboxRow:
        """The mailbox of that name; raises NoSuchMailbox."""
        row = self.find_mailbox(name)
        if row is None:
            raise NoSuchMailbox
        return row

    def find_mailbox(self, name: str) -> MailboxRow | None:
        row = self._by_name.get(name)
        if row is None:
            row = mailbox_by_name(self.connection, name)
            if row is not None:
                row = self._hold(row)
        return row

    def mailbox_by_id(self, mailbox_id: int) -> MailboxRow:
        """The mailbox, whatever it is called now; raises NoSuchMailbox."""
        row = self._by_id.get(mailbox_id)
        if row is None:
            row = mailbox_by_id(self.connection, mailbox_id)
            if row is None:
                raise NoSuchMailbox
            row = self._hold(row)
        return row

    def mailboxes(self) -> list[MailboxRow]:
        """All of them."""
        return [self._hold(row) for row in all_mailboxes(self.connection)]

    def _hold(self, row: MailboxRow) -> MailboxRow:
        held = self._by_id.get(row.id)
        if held is not None:
            return held
        self._by_id[row.id] = self._by_name[row.name] = row
        return row

    def add_mailbox(self, name: str, special_use: str = "", *, uid_validity: int = 0) -> MailboxRow:
        """A new mailbox with a UIDVALIDITY greater than any this account had (RELIABILITY 8.5.5)."""
        connection = self.connection
        count, last_validity, last_id = connection.execute(
            "SELECT (SELECT count(*) FROM mailbox), last_uid_validity, last_mailbox_id FROM account"
        ).fetchone() or (0, 0, 0)
        if count >= self.settings.mailbox_count:
            raise LimitReached("Too many mailboxes")
        directory = directory_name(name)
        if connection.execute("SELECT 1 FROM mailbox WHERE directory = ?", (directory,)).fetchone() is not None:
            # One that was renamed and could not take its folder along.
            raise MailboxExists("The folder of that name belongs to another mailbox")
        validity = uid_validity or max(int(time.time()), last_validity + 1)
        row = MailboxRow(
            id=last_id + 1,
            name=name,
            directory=directory,
            uid_validity=validity,
            uid_next=1,
            uid_reserved=1,
            mod_seq=1,
            mod_seq_reserved=2,
            run_id=self.run_id,
            special_use=special_use,
        )
        connection.execute(
            "UPDATE account SET last_uid_validity = max(last_uid_validity, ?), last_mailbox_id = ?", (validity, row.id)
        )
        insert_mailbox(connection, row)
        self._by_id[row.id] = self._by_name[name] = row
        self.list_changed()
        return row

    def list_changed(self) -> None:
        """The list of mailboxes is another one."""
        self.connection.execute("UPDATE account SET list_version = list_version + 1")
        self.is_list_changed = True

    def forget(self, row: MailboxRow) -> None:
        """The row was deleted."""
        self._by_id.pop(row.id, None)
        self._by_name.pop(row.name, None)
        self._times.forget(row)
        self.changed[row.id] = row.mod_seq + 1

    def renamed(self, row: MailboxRow, name: str) -> None:
        self._by_name.pop(row.name, None)
        row.name = name
        rename_mailbox(self.connection, row)
        self._by_name[name] = row

    def path(self, row: MailboxRow) -> str:
        """Where its messages are."""
        return layout.join(self.root, row.directory)

    # Numbers

    def mod_seq(self, row: MailboxRow) -> int:
        """The mod-sequence of this operation's changes in the mailbox."""
        if not row.operation_mod_seq:
            if row.run_id != self.run_id:
                reservation.enter_run(row, self.run_id)
            row.mod_seq += 1
            row.operation_mod_seq = row.mod_seq
            self.changed[row.id] = row.mod_seq
            self._dirty.add(row.id)
        return row.operation_mod_seq

    def take_uid(self, row: MailboxRow) -> int:
        """A new UID."""
        if row.run_id != self.run_id:
            reservation.enter_run(row, self.run_id)
        return reservation.take_uid(row)

    # Messages

    def add_message(self, row: MailboxRow, message: MessageRow, summary: SummaryRow) -> None:
        """Insert a message and count it."""
        self._messages.append(message)
        self._summaries.append(summary)
        row.messages += 1
        row.octets += message.size
        if not message.flags & SEEN:
            row.unseen += 1
        if message.flags & DELETED:
            row.deleted += 1

    def count_flags(self, row: MailboxRow, before: int, after: int) -> None:
        """Keep the counters right over a change of flags."""
        change = before ^ after
        if change & SEEN:
            row.unseen += -1 if after & SEEN else 1
        if change & DELETED:
            row.deleted += 1 if after & DELETED else -1

    def remove_messages(self, row: MailboxRow, messages: Iterable[MessageRow], *, is_unlinked: bool) -> None:
        """Delete rows, leaving tombstones that name the files (R-DUR-3); they are unlinked after the commit."""
        self.flush_messages()
        mod_seq = self.mod_seq(row)
        tombstones = []
        for message in messages:
            tombstones.append(
                Tombstone(message.id, mod_seq, row.directory, message.file, message.delivery_key, int(is_unlinked))
            )
            row.messages -= 1
            row.octets -= message.size
            if not message.flags & SEEN:
                row.unseen -= 1
            if message.flags & DELETED:
                row.deleted -= 1
        if not tombstones:
            return
        keys = [(tombstone.id,) for tombstone in tombstones]
        self.connection.executemany("DELETE FROM message WHERE id = ?", keys)
        self.connection.executemany("DELETE FROM summary WHERE id = ?", keys)
        self.connection.executemany(INSERT_TOMBSTONE, tombstones)
        if not is_unlinked:
            self.will_write(row)
            path = self.path(row)
            self.after(lambda: self._unlink(path, tombstones))

    def _unlink(self, path: str, tombstones: list[Tombstone]) -> None:
        """What cannot be unlinked now is again when the mailbox is scanned."""
        missing: list[Tombstone] = []
        for tombstone in tombstones:
            try:
                self.disk.unlink(f"{path}/{tombstone.file}")
            except FileNotFoundError:
                missing.append(tombstone)
            except OSError as error:
                self._log.warn("could not remove the file of an expunged message: {error}", error=error)
        if missing:
            # Another program, or a rename of ours not yet recorded, gave it another name.
            listed = layout.list_messages(self.disk, path)
            for tombstone in missing:
                name = listed.get(base_of(tombstone.file))
                if name is not None:
                    with contextlib.suppress(OSError):
                        self.disk.unlink(f"{path}/{name}")

    def flush_messages(self) -> None:
        """Write the rows gathered by ``add_message``."""
        if self._messages:
            self.connection.executemany(INSERT_MESSAGE, self._messages)
            self.connection.executemany(INSERT_SUMMARY, self._summaries)
            self._messages, self._summaries = [], []

    def learn_keywords(self, row: MailboxRow, keywords: str) -> None:
        """Remember the keywords of a message as used in the mailbox."""
        if not keywords:
            return
        known = row.known_keywords()
        new = [keyword for keyword in keywords.split(" ") if keyword not in known]
        if new:
            known += new
            row.keywords = " ".join(known)
            if len(known) - len(new) < 26:
                path, first = self.path(row), known[:26]
                self.after(lambda: self._write_keywords(path, first))

    def _write_keywords(self, path: str, known: list[str]) -> None:
        with contextlib.suppress(OSError):
            keyword_file.write_keywords(self.disk, path, known)

    # Files

    def will_write(self, row: MailboxRow) -> None:
        """Call before the first change of names in the mailbox's folder."""
        self._times.will_write(row)

    def make_mailbox(self, row: MailboxRow) -> None:
        """The folder, where it is missing."""
        path = self.path(row)
        self.touched.update(
            layout.make_mailbox(
                self.disk, path, layout.Identity(row.uid_validity, row.special_use), is_inbox=not row.directory
            )
        )
        self.touched.update((f"{path}/new", f"{path}/cur"))

    def undo(self, path: str) -> None:
        """Unlink ``path`` should the transaction fail."""
        self._undo.append(path)

    def after(self, action: Callable[[], None]) -> None:
        """Do this once the commit is done."""
        self._after.append(action)

    # Its end

    def begin_operation(self) -> None:
        """A savepoint; what comes is one operation with mod-sequences of its own."""
        for row in self._by_id.values():
            row.operation_mod_seq = 0
        self._operation_start = (len(self._undo), len(self._after), dict(self.changed), self.is_list_changed)
        self.connection.execute("SAVEPOINT operation")

    def end_operation(self) -> None:
        """Keep what the operation did."""
        self.flush()
        self.connection.execute("RELEASE operation")

    def cancel_operation(self) -> None:
        """Take back what the operation did; others are not concerned."""
        self._messages, self._summaries = [], []
        self._by_id, self._by_name = {}, {}
        self._times.clear()
        self._dirty.clear()
        undo, after, self.changed, self.is_list_changed = self._operation_start
        # An operation with intents is the last one of a transaction.
        self.has_intents = False
        self._unlink_made(self._undo[undo:])
        del self._undo[undo:], self._after[after:]
        self.connection.execute("ROLLBACK TO operation; RELEASE operation")

    def flush(self) -> None:
        """Write back every row that was changed."""
        self.flush_messages()
        for mailbox_id in self._dirty:
            row = self._by_id.get(mailbox_id)
            if row is not None:
                if self.is_durable:
                    reservation.cover(row)
                update_mailbox(self.connection, row)
        self._dirty.clear()

    def save(self, row: MailboxRow) -> None:
        """Write the row back at the end of the operation, changed in something that is no message change."""
        self._dirty.add(row.id)

    def commit(self) -> None:
        """Sync what must be, commit, then unlink. Raises what kept it from committing; then nothing was done."""
        try:
            for directory in self.to_sync:
                self.disk.sync_directory(directory)
            self._dirty.update(self._times.record())
            self.flush()
            self._commit()
        except BaseException:
            self.roll_back()
            raise
        for action in self._after:
            try:
                action()
            except Exception:
                # What was committed is true; what could not be done after it is done at the next open or scan.
                self._log.failure("something to be done after a commit failed")
        if self._after:
            self._times.record_later(self.connection, is_durable=self.is_durable)

    def _commit(self) -> None:
        try:
            self.connection.execute("COMMIT")
        except apsw.IOError:
            # It may be in the log whole, and unsynced: whoever reads the log after a crash takes it for done. So what
            # it names stays; where it was not done, the next scan finds out.
            self._undo = []
            raise

    def roll_back(self) -> None:
        """Nothing happened: files made go, rows stay as they were."""
        if self.connection.in_transaction:
            with contextlib.suppress(apsw.Error):
                self.connection.execute("ROLLBACK")
        self._unlink_made(self._undo)
        self._undo = []

    def _unlink_made(self, paths: list[str]) -> None:
        for path in paths:
            with contextlib.suppress(OSError):
                self.disk.unlink(path)
