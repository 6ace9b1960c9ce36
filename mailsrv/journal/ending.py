"""How a journal ends: what was accepted is finished, one thread after the other, and then the threads are.

::

    spool ─▶ commit ─▶ apply: last tries ─▶ commit: their notes, and no more records ─▶ apply: what it touched
      ─▶ keeper: a last checkpoint ─▶ reactor ─▶ commit ─▶ apply ─▶ keeper: the slot is free ─▶ reactor

Each step is posted by the one before, so that whatever a thread posted until then is handled first.
"""

from __future__ import annotations

from collections.abc import Callable

from mailsrv.journal.answers import Answers, IJournalReactor
from mailsrv.journal.keeper import Touched
from mailsrv.journal.stages import Stages, Threads


class Ending:
    """One stop; ``ended`` is called in the reactor thread."""

    def __init__(
        self,
        threads: Threads,
        stages: Stages,
        answers: Answers,
        reactor: IJournalReactor,
        ended: Callable[[], None],
    ) -> None:
        self._threads = threads
        self._stages = stages
        self._answers = answers
        self._reactor = reactor
        self._ended = ended

    def begin(self) -> None:
        """Nothing is accepted any more."""
        # Large messages that are being finished come first, then what was committed, then its notes.
        threads = self._threads
        threads.spool[0].post(lambda: threads.commit.post(lambda: threads.apply.post(self._try_again)))

    def _try_again(self) -> None:
        self._stages.apply.retry(at_once=True)
        self._threads.commit.post(self._close_segment)

    def _close_segment(self) -> None:
        self._stages.slot.close_current()
        self._threads.apply.post(self._ask_applier)

    def _ask_applier(self) -> None:
        touched = self._stages.keeper.ask_touched()
        self._threads.keeper.post(lambda: self._stop_keeper(touched))

    def _stop_keeper(self, touched: Touched | Exception) -> None:
        self._stages.keeper.stop(touched)
        self._reactor.callFromThread(self._stop_threads)

    def _stop_threads(self) -> None:
        self._answers.stop_timer()
        threads = self._threads
        for worker in threads.spool:
            worker.stop()
        threads.commit.post(self._stop_apply)
        threads.commit.stop()

    def _stop_apply(self) -> None:
        self._threads.apply.post(lambda: self._threads.keeper.post(self._let_go))
        self._threads.apply.stop()

    def _let_go(self) -> None:
        """The last thing any of the threads does."""
        self._stages.slot.close()
        self._threads.keeper.stop()
        self._reactor.callFromThread(self._ended)
