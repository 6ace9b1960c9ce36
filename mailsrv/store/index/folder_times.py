"""The time stamps of folders as the index has them: by them a mailbox knows that another program changed its folder.

Our own changes move them too. Only where nobody else had changed the folder since we last did may the time stamps after
a change of ours be recorded as ours; otherwise what the other did would go unnoticed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import apsw

from mailsrv.disk import IDisk
from mailsrv.store.index.rows import MailboxRow
from mailsrv.store.maildir import layout


class FolderTimes:
    """Of the folders that one transaction writes to, in the account at ``root``."""

    def __init__(self, disk: IDisk, root: str) -> None:
        self._disk = disk
        self._root = root
        self._ours: dict[int, MailboxRow] = {}
        self._seen: set[int] = set()

    def will_write(self, row: MailboxRow) -> None:
        """Before the first change of names in the mailbox's folder; again, nothing happens."""
        if row.id not in self._seen:
            self._seen.add(row.id)
            if self._modified(row) == (row.new_mtime, row.cur_mtime):
                self._ours[row.id] = row

    def forget(self, row: MailboxRow) -> None:
        """The mailbox is gone."""
        self._seen.discard(row.id)
        self._ours.pop(row.id, None)

    def clear(self) -> None:
        """Nothing was written after all."""
        self._seen.clear()
        self._ours.clear()

    def record(self) -> Iterator[int]:
        """Put the time stamps into the rows; gives the ids of those that differ now."""
        for row, times in self._moved():
            row.new_mtime, row.cur_mtime = times
            row.is_settled = 0
            yield row.id

    def record_later(self, connection: apsw.Connection, *, is_durable: bool) -> None:
        """After the commit and what it unlinked. Loss of this record costs a scan, so it need not be durable.

        ``is_durable``: of the connection's other transactions.
        """
        rows = [(*times, row.id, row.new_mtime, row.cur_mtime) for row, times in self._moved()]
        if not rows:
            return
        with contextlib.suppress(apsw.Error):
            if is_durable:
                connection.execute("PRAGMA synchronous=NORMAL")
            try:
                connection.executemany(
                    "UPDATE mailbox SET new_mtime=?, cur_mtime=?, is_settled=0"
                    " WHERE id=? AND new_mtime=? AND cur_mtime=?",
                    rows,
                )
            finally:
                if is_durable:
                    connection.execute("PRAGMA synchronous=FULL")

    def _moved(self) -> Iterator[tuple[MailboxRow, tuple[int, int]]]:
        for row in self._ours.values():
            times = self._modified(row)
            if times != (row.new_mtime, row.cur_mtime):
                yield row, times

    def _modified(self, row: MailboxRow) -> tuple[int, int]:
        return layout.modified_times(self._disk, layout.join(self._root, row.directory))
