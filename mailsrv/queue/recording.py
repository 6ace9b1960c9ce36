"""Results of attempts on their way to the disk: kept and written again until they are durable.

A result is never forgotten because the disk has trouble: what the next hop has taken must not be sent
again. The recipients stay leased meanwhile, so the number of waiting results is bounded by that of leased
messages. While the *store* has trouble nobody starts an attempt whose result could not be kept; trouble of
the journal alone (no room for a notice) does not keep mail from leaving.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailsrv.coroutines import run_coroutine
from mailsrv.errors import MailError
from mailsrv.interfaces.journal import IJournal
from mailsrv.interfaces.queue import IQueueStore
from mailsrv.queue.bounce import Notices
from mailsrv.queue.conclusion import Conclusion


class Recording:
    """Makes conclusions durable. ``recovered`` is called when the store's trouble is over."""

    _log = Logger()

    def __init__(
        self,
        store: IQueueStore,
        journal: IJournal,
        notices: Notices,
        clock: IReactorTime,
        *,
        retry_seconds: float,
        recovered: Callable[[], None],
    ) -> None:
        self._store = store
        self._journal = journal
        self._notices = notices
        self._clock = clock
        self._retry_seconds = retry_seconds
        self._recovered = recovered
        self._troubled = 0
        """Conclusions the store would not take yet."""
        self.waiting: list[int] = []
        """Messages with a result that could not be written yet."""

    @property
    def has_trouble(self) -> bool:
        """Whether the store lets results wait."""
        return self._troubled > 0

    def record(self, conclusion: Conclusion) -> Deferred[None]:
        """Fires when it is durable, however long that takes."""
        if not (conclusion.bounced or conclusion.expired or conclusion.succeeded or conclusion.delayed):
            # Nearly all: one call of the store.
            if not conclusion.settlements:
                return succeed(None)
            settled = self._store.settle(conclusion.entry, conclusion.settlements)
            return settled.addErrback(lambda failure: run_coroutine(self._settle(conclusion, failure.value)))
        return run_coroutine(self._record(conclusion))

    async def _record(self, conclusion: Conclusion) -> None:
        if conclusion.settlements:
            # First, so that a delay is told at most once.
            await self._settle(conclusion)
        while True:
            try:
                record = await self._notices.ending_record(conclusion)
                if record is not None:
                    await self._journal.commit(record)
                break
            except Exception as error:
                await self._wait(conclusion, error)
        if conclusion.delayed:
            await self._tell_delay(conclusion)

    async def _settle(self, conclusion: Conclusion, error: BaseException | None = None) -> None:
        """Try until it is done; with ``error`` the first try has failed."""
        if error is None:
            try:
                await self._store.settle(conclusion.entry, conclusion.settlements)
                return
            except Exception as trouble:
                error = trouble
        self._troubled += 1
        while error is not None:
            await self._wait(conclusion, error)
            try:
                await self._store.settle(conclusion.entry, conclusion.settlements)
                error = None
            except Exception as trouble:
                error = trouble
        # No "finally": where the process ends meanwhile, nothing has recovered.
        self._troubled -= 1
        if not self._troubled:
            self._recovered()

    async def _tell_delay(self, conclusion: Conclusion) -> None:
        """Once; where there is no room the notice is left out, for mail that waits is not lost."""
        try:
            record = await self._notices.delay_record(conclusion)
            if record is not None:
                await self._journal.commit(record)
        except Exception as error:
            self._warn(conclusion, error, "The delay notice is left out")

    async def _wait(self, conclusion: Conclusion, error: BaseException) -> None:
        self._warn(conclusion, error, "Its result waits to be written")
        self.waiting.append(conclusion.entry.id)
        await deferLater(self._clock, self._retry_seconds)
        self.waiting.remove(conclusion.entry.id)

    def _warn(self, conclusion: Conclusion, error: BaseException, what: str) -> None:
        if isinstance(error, MailError):
            cause = str(error)
        else:
            cause = type(error).__name__
            self._log.error("{transaction_id}: {error!r}", transaction_id=conclusion.entry.transaction_id, error=error)
        self._log.warn(
            "{transaction_id}: {what}: {cause}",
            transaction_id=conclusion.entry.transaction_id,
            what=what,
            cause=cause,
        )
