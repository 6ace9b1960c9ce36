"""The thread that works on the queue's database for the reactor, and how it shares its transactions.

What waits in its inbox when it gets there is one transaction, with one sync where anything of it has to be
durable; answers go back in one call. A batch that fails is taken apart, so that only the guilty one fails.
While much mail leaves, results that nobody is in a hurry for gather a moment before they are given to the
thread, together: a transaction costs more than all else that is done for a message here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import apsw
from attrs import field, frozen
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.disk.failure import as_mail_error
from mailsrv.errors import MailError, Unavailable
from mailsrv.journal.worker import ICallFromThread, IWorker, WorkerFactory
from mailsrv.queue.database import QueueDatabase
from mailsrv.queue.salvage import DAMAGED


class IQueueReactor(ICallFromThread, Protocol):
    """What the queue needs of the reactor."""

    def callLater(self, delay: float, function: Callable[..., object], /, *arguments: object) -> object: ...


_PACE_HALF_LIFE = 0.1
_BUSY_PACE = 15.0
"""About a hundred results a second."""
_MOST_GATHERED = 64


@frozen(eq=False)
class Job:
    """Something for the database thread."""

    function: Callable[[], Any]
    waiter: Deferred[Any] | None = None
    is_durable: bool = False
    is_transaction: bool = field(default=True)
    """False: it only reads, or makes transactions of its own."""


Results = list[tuple[Deferred[Any], Any]]


class DatabaseThread:
    """See the module. ``idle`` is called in the thread after every batch; it says when it wants to be called again.

    ``gather_seconds`` (0: never) is how long results gather, ``seconds`` a clock that is never set.
    ``db``, ``told`` and ``after_commit`` belong to the thread.
    """

    _log = Logger()

    def __init__(
        self,
        worker_factory: WorkerFactory[Any],
        reactor: IQueueReactor,
        idle: Callable[[QueueDatabase], float],
        *,
        gather_seconds: float = 0.0,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reactor = reactor
        self._idle = idle
        self._gather_seconds = gather_seconds
        self._seconds = seconds
        self._gathered: list[Job] = []
        # Results of late, old ones counting less and less.
        self._pace = self._paced_at = 0.0
        self.worker: IWorker[Job | list[Job]] = worker_factory("queue-database", self._handle)
        self.db: QueueDatabase | None = None
        self.told = 0
        """Mail that came to wait up to this wake number is known to the process."""
        self._is_stopped = False
        self.after_commit: list[Callable[[], object]] = []
        """What to do when the transaction under way is over, and well."""

    def ask(self, function: Callable[[], Any]) -> Deferred[Any]:
        """Its answer; not in a transaction. Fails with MailError."""
        return self._post(function, is_durable=False, is_transaction=False)

    def change(self, function: Callable[[], Any], *, is_durable: bool) -> Deferred[Any]:
        """The same in a transaction; fires when that is committed."""
        return self._post(function, is_durable=is_durable, is_transaction=True)

    def change_soon(self, function: Callable[[], Any]) -> Deferred[Any]:
        """As a durable ``change``; where many come, within a moment, or with whatever else is asked before."""
        if self._is_stopped or not self._is_busy():
            return self.change(function, is_durable=True)
        waiter: Deferred[Any] = Deferred()
        gathered = self._gathered
        gathered.append(Job(function, waiter, True, True))
        if len(gathered) == 1:
            self._reactor.callLater(self._gather_seconds, self._hand_over, gathered)
        elif len(gathered) >= _MOST_GATHERED:
            self._hand_over(gathered)
        return waiter

    def _is_busy(self) -> bool:
        if not self._gather_seconds:
            return False
        now = self._seconds()
        self._pace = self._pace * 0.5 ** ((now - self._paced_at) / _PACE_HALF_LIFE) + 1.0
        self._paced_at = now
        return self._pace >= _BUSY_PACE

    def _hand_over(self, gathered: list[Job]) -> None:
        """Unless that was done before."""
        if gathered and gathered is self._gathered:
            self._gathered = []
            self.worker.post(gathered)

    def post(self, function: Callable[[], Any]) -> None:
        """As ``ask``, and nobody waits. From any thread."""
        self.worker.post(Job(function, is_transaction=False))

    def _post(self, function: Callable[[], Any], *, is_durable: bool, is_transaction: bool) -> Deferred[Any]:
        if self._is_stopped:
            return fail(Unavailable(cause="the queue has stopped"))
        waiter: Deferred[Any] = Deferred()
        self._hand_over(self._gathered)
        self.worker.post(Job(function, waiter, is_durable, is_transaction))
        return waiter

    def stop(self) -> None:
        """Do what was asked before, then end; whoever asks later is refused."""
        self._is_stopped = True
        self._hand_over(self._gathered)
        self.worker.stop()

    def open_database(self) -> QueueDatabase:
        """In the thread. Raises Unavailable where it is not open."""
        if self.db is None:
            raise Unavailable(cause="the queue is not open")
        return self.db

    # -- in the thread ----------------------------------------------------------------

    def _handle(self, items: list[Job | list[Job]]) -> float | None:
        """One batch (a handler of :class:`~mailsrv.journal.worker.IWorker`)."""
        jobs: list[Job] = []
        for item in items:
            if isinstance(item, list):
                jobs += item
            else:
                jobs.append(item)
        results: Results = []
        together = [job for job in jobs if job.is_transaction]
        if together:
            self._run_all(together, results)
        for job in jobs:
            if not job.is_transaction:
                self._run_alone(job, results)
        if results:
            self._reactor.callFromThread(answer, results)
        return None if self.db is None else self._idle(self.db)

    def _run_all(self, jobs: list[Job], results: Results) -> None:
        try:
            values = self._run_together(jobs)
        except Exception as error:
            mail_error = self._as_mail_error(error)
            # Trouble with the disk is everybody's; anything else may be that of one alone.
            if len(jobs) > 1 and not isinstance(error, MailError | OSError | apsw.Error):
                for job in jobs:
                    self._run_all([job], results)
                return
            results += [(job.waiter, Failure(mail_error)) for job in jobs if job.waiter is not None]
            return
        results += [(job.waiter, value) for job, value in zip(jobs, values, strict=True) if job.waiter is not None]

    def _run_together(self, jobs: list[Job]) -> list[Any]:
        self.after_commit = []
        db = self.open_database()
        with db.transaction(is_durable=any(job.is_durable for job in jobs)):
            is_up_to_date = db.wake_number() == self.told
            values = [job.function() for job in jobs]
        if is_up_to_date and db.committed_wake:
            # What came to wait by our own doing is no news to us.
            self.told = db.committed_wake
        for function in self.after_commit:
            function()
        return values

    def _run_alone(self, job: Job, results: Results) -> None:
        try:
            if self.db is not None:
                self.db.follow()
            value = job.function()
        except Exception as error:
            if isinstance(error, DAMAGED) and self.db is not None:
                self.db.mend(error)
            value = Failure(self._as_mail_error(error))
        if job.waiter is not None:
            results.append((job.waiter, value))

    def _as_mail_error(self, error: Exception) -> MailError:
        if not isinstance(error, MailError | OSError | apsw.Error):
            self._log.failure("the queue met an error of ours")
        elif not isinstance(error, MailError):
            self._log.error("the queue cannot work: {error}", log_alarm="queue", error=repr(error))
        return as_mail_error(error)


def answer(results: Sequence[tuple[Deferred[Any], Any]]) -> None:
    """In the reactor thread."""
    for waiter, value in results:
        if isinstance(value, Failure):
            waiter.errback(value)
        else:
            waiter.callback(value)
