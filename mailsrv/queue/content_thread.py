"""Opening what is queued, for the reactor: a thread reads and verifies. What is damaged is set aside, and its
recipients are held.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.coroutines import run_coroutine
from mailsrv.errors import Unavailable
from mailsrv.interfaces.content import IContent
from mailsrv.interfaces.queue import QueueEntry
from mailsrv.journal.lookup import JournalReader
from mailsrv.journal.octets import FormatError
from mailsrv.journal.worker import IWorker, WorkerFactory
from mailsrv.opened_content import LoadedContent
from mailsrv.queue.content import ContentFolder, DamagedContent
from mailsrv.queue.database_thread import DatabaseThread, IQueueReactor, answer
from mailsrv.queue.reading import Where, is_there, look_up, open_message
from mailsrv.queue.settling import hold_damaged

ContentJob = Callable[[], object]


class ContentThread:
    """``database`` tells where a message is; ``journal`` reads what has no file yet."""

    _log = Logger()

    def __init__(
        self,
        content: ContentFolder,
        journal: JournalReader | None,
        database: DatabaseThread,
        reactor: IQueueReactor,
        worker_factory: WorkerFactory[Any],
    ) -> None:
        self._content = content
        self._journal = journal
        self._database = database
        self._reactor = reactor
        self._worker: IWorker[ContentJob] = worker_factory("queue-content", _run_jobs)
        self._is_stopped = False

    def start(self) -> None:
        """Begin to work."""
        self._worker.start()

    def stop(self) -> None:
        """Do what was asked before; whoever asks later is refused."""
        self._is_stopped = True
        self._worker.stop()

    def open(self, entry: QueueEntry) -> Deferred[IContent]:
        """Verified. Fails with Unavailable."""
        fresh = self._content.fresh(entry.id)
        if fresh is not None:
            return succeed(LoadedContent(fresh.octets[fresh.skipped :]))
        return run_coroutine(self._open(entry.id))

    async def _open(self, message: int) -> IContent:
        for _ in range(2):
            where: Where | None = await self._database.ask(lambda: look_up(self._database.open_database(), message))
            if where is None or not is_there(where):
                raise Unavailable(cause=f"message {message} has left the queue or is damaged")
            try:
                opened: IContent = await self._in_thread(
                    partial(open_message, self._content, self._journal, message, where, self._in_thread)
                )
            except FileNotFoundError as error:
                # Between the look and the opening a checkpoint may have given it a file.
                cause = str(error)
            except (DamagedContent, FormatError) as error:
                cause = str(error)
                break
            except OSError as error:
                raise Unavailable(cause=str(error)) from error
            else:
                return opened
        await self._database.change(lambda: self._hold(message, cause), is_durable=True)
        raise Unavailable(cause=f"the content of message {message} is damaged: {cause}")

    def _in_thread(self, function: Callable[[], Any]) -> Deferred[Any]:
        if self._is_stopped:
            return fail(Unavailable(cause="the queue has stopped"))
        waiter: Deferred[Any] = Deferred()

        def job() -> None:
            try:
                value = function()
            except Exception:
                value = Failure()
            self._reactor.callFromThread(answer, [(waiter, value)])

        self._worker.post(job)
        return waiter

    def _hold(self, message: int, cause: str) -> None:
        """In the database thread."""
        hold_damaged(self._database.open_database(), message)
        self._database.after_commit.append(lambda: self._set_aside(message, cause))

    def _set_aside(self, message: int, cause: str) -> None:
        self._log.critical(
            "the content of message {message} of the queue is damaged, its recipients are held: {cause}",
            log_alarm="queue-corrupt",
            message=message,
            cause=cause,
        )
        try:
            self._content.set_aside(message)
        except OSError as error:
            self._log.error("{message} was not set aside: {error}", message=message, error=str(error))


def _run_jobs(jobs: list[ContentJob]) -> None:
    for job in jobs:
        job()
