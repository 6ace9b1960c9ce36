"""The writes of an account, by the sessions of a process: they wait for each other and go in batches.

Everything asked for during the last commit is one transaction with the next; an operation that fails is taken out of
it again. Open mailboxes have the news, and the bus has the notices, before who asked is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import apsw
from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.disk.failure import as_mail_error
from mailsrv.errors import Unavailable
from mailsrv.interfaces.changes import ChangeNotice
from mailsrv.store.account import Account
from mailsrv.store.account_table import AccountTable
from mailsrv.store.index.delta import Delta, read_delta
from mailsrv.store.index.transaction import Transaction

T = TypeVar("T")
Operation = Callable[[Transaction], Any]


@frozen
class _Waiting:
    operation: Operation
    is_durable: bool
    answer: Deferred[Any]


@frozen
class _Done:
    """What a batch answers: results in order, of its first operations at least, and the news for open mailboxes."""

    results: list[Any]
    deltas: list[Delta]
    notices: list[ChangeNotice]


def _nobody(_delta: Delta) -> None:
    """Who hears of news where no mailbox is open."""


class WriteQueue:
    """One for an account. Reactor thread only.

    ``known`` tells the mod-sequences of the open mailboxes, ``take`` gives them what is newer.
    """

    _log = Logger()

    def __init__(
        self,
        table: AccountTable,
        files: Account,
        in_thread: Callable[[Callable[[], _Done]], Deferred[_Done]],
        *,
        known: Callable[[], dict[int, int]],
        take: Callable[[Delta], None],
    ) -> None:
        self._table = table
        self._files = files
        self._in_thread = in_thread
        self._known = known
        self._take = take
        self._waiting: list[_Waiting] = []
        self._is_writing = False

    def add(self, operation: Callable[[Transaction], T], *, is_durable: bool = True) -> Deferred[T]:
        """Do this in a write transaction; fires when committed, the views having taken the news in."""
        answer: Deferred[T] = Deferred()
        if len(self._waiting) >= self._table.settings.queued_operations:
            answer.errback(Failure(Unavailable(cause="too many changes wait for the disk")))
            return answer
        self._waiting.append(_Waiting(operation, is_durable, answer))
        if not self._is_writing:
            self._write_next()
        return answer

    def end(self) -> None:
        """Nobody has mailboxes open any more, so nobody is to hear of what is still written: they are let go."""
        self._known, self._take = dict, _nobody

    def _write_next(self) -> None:
        count = self._table.settings.batch_operations
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        if not batch:
            return
        self._is_writing = True
        known = self._known()
        done = self._in_thread(partial(self._write_batch, batch, known))
        done.addCallbacks(self._written, self._not_written, callbackArgs=(batch,), errbackArgs=(batch,))

    def _write_batch(self, batch: list[_Waiting], known: dict[int, int]) -> _Done:
        """In a thread."""
        files = self._files
        results: list[Any] = []
        with files.lock:
            transaction = files.begin(is_durable=any(one.is_durable for one in batch))
            connection = transaction.connection
            try:
                for one in batch:
                    transaction.begin_operation()
                    try:
                        result = one.operation(transaction)
                        transaction.end_operation()
                    except Exception as error:
                        transaction.cancel_operation()
                        result = Failure(as_mail_error(error))
                        if isinstance(error, apsw.IOError | apsw.CorruptError | apsw.FullError):
                            raise
                    results.append(result)
                    if transaction.has_intents:
                        # Folders change hands after the commit: nobody may put anything into them before.
                        break
                transaction.commit()
            except BaseException as error:
                transaction.roll_back()
                files.commit_failed(error)
                raise
            self._table.touch(transaction.touched)
            try:
                deltas = self._deltas(connection, transaction.changed, known)
            except apsw.Error:
                # It is committed, and who asked is told so: a second try would do it twice. Views learn by the notices.
                self._log.failure("what is new in {account} could not be read", account=files.name)
                deltas = []
        notices = [ChangeNotice(files.name, mailbox_id, mod_seq) for mailbox_id, mod_seq in transaction.changed.items()]
        if transaction.is_list_changed:
            notices.append(ChangeNotice(files.name, 0, 0))
        return _Done(results, deltas, notices)

    def _deltas(self, connection: apsw.Connection, changed: Iterable[int], known: dict[int, int]) -> list[Delta]:
        wanted = [mailbox_id for mailbox_id in changed if mailbox_id in known]
        if not wanted:
            return []
        connection.execute("BEGIN")
        try:
            return [read_delta(connection, mailbox_id, known[mailbox_id]) for mailbox_id in wanted]
        finally:
            connection.execute("ROLLBACK")

    def _written(self, done: _Done, batch: list[_Waiting]) -> None:
        for delta in done.deltas:
            self._take(delta)
        for notice in done.notices:
            self._table.bus.publish(notice)
        self._is_writing = False
        self._waiting[:0] = batch[len(done.results) :]
        self._write_next()
        for one, result in zip(batch, done.results, strict=False):
            one.answer.callback(result)

    def _not_written(self, failure: Failure, batch: list[_Waiting]) -> None:
        self._is_writing = False
        self._write_next()
        for one in batch:
            one.answer.errback(failure)
