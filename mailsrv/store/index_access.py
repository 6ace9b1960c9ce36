"""An account's index and files, read from the reactor thread: single rows in place, all else in the disk threads.

Errors of SQLite and of the operating system become MailErrors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import apsw
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from mailsrv.disk.failure import as_mail_error
from mailsrv.store.account import Account
from mailsrv.store.account_table import AccountTable
from mailsrv.store.threads import IThreads

T = TypeVar("T")


class IndexAccess:
    """One for all sessions of a process that use the account. Reactor thread only."""

    def __init__(self, table: AccountTable, files: Account, threads: IThreads) -> None:
        self._table = table
        self._files = files
        self._threads = threads

    def in_thread(self, function: Callable[[], T]) -> Deferred[T]:
        """Run in a disk thread; errors become MailErrors."""
        self.used()
        return self._threads.run(function).addErrback(_translate)

    def read(self, function: Callable[[apsw.Connection], T]) -> Deferred[T]:
        """Run a read transaction in a thread."""

        def read() -> T:
            with self._files.reading() as connection:
                return function(connection)

        return self.in_thread(read)

    def read_in_place(self, function: Callable[[apsw.Connection], T]) -> Deferred[T]:
        """A read of single rows: at once where the index is at hand, else in a thread."""
        reader = self._files.try_reader()
        if reader is not None:
            try:
                reader.execute("BEGIN")
                try:
                    result = function(reader)
                finally:
                    reader.execute("ROLLBACK")
            except apsw.Error:
                pass
            except Exception:
                return fail().addErrback(_translate)
            else:
                self.used()
                return succeed(result)
            finally:
                self._files.reader_lock.release()
        return self.read(function)

    def used(self) -> None:
        """The index is in use: it is not the next to be closed."""
        self._table.used(self._files)


def _translate(failure: Failure) -> Failure:
    """SQLite's and the operating system's errors as what a session can answer."""
    if failure.check(apsw.Error, OSError):
        return Failure(as_mail_error(failure.value))  # type: ignore[arg-type]
    return failure
