"""The queue at work: takes what is due, has it carried, and makes durable what came of it.

A thin shell: :class:`~mailsrv.queue.schedule.Schedule` says what to do next, an
:class:`~mailsrv.interfaces.queue.ITransportAgent` carries a consignment, :class:`~mailsrv.queue.conclusion.Concluding`
says what its outcomes mean, :class:`~mailsrv.queue.recording.Recording` writes that down.

Mail that was just accepted for a destination with nothing to do starts at once: the store tells of it,
no timer is waited for. The end of an attempt is one line of the log for each recipient. Each worker process
runs one; they share the store, and what one has leased no other gets.
"""

from __future__ import annotations

import math
import random as random_numbers
from collections.abc import Callable, Iterable, Mapping, Sequence

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.coroutines import fires_within, run_coroutine
from mailsrv.interfaces.journal import IJournal
from mailsrv.interfaces.queue import (
    AttemptOutcome,
    Consignment,
    Destination,
    DestinationState,
    IQueueStore,
    ITransportAgent,
    Postponed,
    Transport,
)
from mailsrv.queue.bounce import Notices
from mailsrv.queue.conclusion import Concluding, Conclusion, all_declined, contact_of
from mailsrv.queue.lane import Attempt, Contact, Purpose, TakeOrder
from mailsrv.queue.news import DestinationNews
from mailsrv.queue.recording import Recording
from mailsrv.queue.retry import RetryTimes
from mailsrv.queue.schedule import Schedule
from mailsrv.queue.settings import QueueSettings
from mailsrv.queue.shared_downs import SharedDowns
from mailsrv.status import SYSTEM_ERROR, EnhancedStatus

_STEPS_AT_A_TIME = 100
"""Then others in the reactor thread have their turn."""
_LEASE_PATIENCE_SECONDS = 600.0
"""What waited longer than this behind a slow attempt is given back and taken anew: a lease does not last for ever."""
_LAST_WRITE_SECONDS = 2.0
"""For the results of attempts that were given up at the stop."""
_NO_AGENT = EnhancedStatus(4, 3, 5)


class QueueRunner(Service):
    """Serves the queue. ``random`` gives numbers from 0 up to 1; ``downs`` is what several workers share."""

    _log = Logger()

    def __init__(
        self,
        settings: QueueSettings,
        store: IQueueStore,
        journal: IJournal,
        agents: Mapping[Transport, ITransportAgent],
        notices: Notices,
        *,
        clock: IReactorTime,
        random: Callable[[], float] = random_numbers.random,
        downs: SharedDowns | None = None,
    ) -> None:
        self._settings = settings.schedule
        self._store = store
        self._agents = agents
        self._clock = clock
        times = RetryTimes(settings.retry, random)
        self._concluding = Concluding(times)
        self._schedule = Schedule(settings.schedule, times.jittered, downs)
        self._recording = Recording(
            store,
            journal,
            notices,
            clock,
            retry_seconds=settings.schedule.store_retry_seconds,
            recovered=self._recovered,
        )
        self._news = DestinationNews(
            store,
            clock,
            self._enqueued,
            resync_seconds=settings.schedule.resync_seconds,
            retry_seconds=settings.schedule.store_retry_seconds,
        )
        self._timer: IDelayedCall | None = None
        self._timer_at = math.inf
        self._is_pumping = False
        self._paused_until = 0.0
        self._attempts: dict[Attempt, Deferred[Sequence[AttemptOutcome]]] = {}
        self._unfinished = 0
        """Takes and conclusions under way."""
        self._is_stopping = False
        self._quiet: Deferred[None] | None = None
        """Fires when nothing is under way any more."""

    @property
    def attempts(self) -> int:
        """Running attempts."""
        return len(self._attempts)

    def in_hand(self) -> list[int]:
        """The messages that are being sent, or whose results could not be written yet."""
        return [*(attempt.consignment.entry.id for attempt in self._attempts), *self._recording.waiting]

    @property
    def leased(self) -> int:
        """Messages leased."""
        return self._schedule.leased

    # Start and news

    def startService(self) -> None:
        super().startService()
        self._news.start()

    def _enqueued(self, states: Iterable[DestinationState]) -> None:
        self._schedule.learn(states)
        self._pump()

    def _recovered(self) -> None:
        self._log.info("The queue takes results again")
        self._pump()

    # What is next

    def _pump(self) -> None:
        """Do all that can be done now, and set the timer for what can be done later."""
        if not self.running or self._is_pumping or self._is_stopping or self._recording.has_trouble:
            return
        now = self._clock.seconds()
        if now < self._paused_until:
            self._wake_at(self._paused_until)
            return
        self._is_pumping = True
        try:
            steps = 0
            while steps < _STEPS_AT_A_TIME and not self._recording.has_trouble:
                step = self._schedule.next_step(now)
                if step is None:
                    break
                steps += 1
                if isinstance(step, TakeOrder):
                    self._take(step, now)
                else:
                    self._start(step, now)
        finally:
            self._is_pumping = False
        self._wake_at(now if steps == _STEPS_AT_A_TIME else self._schedule.wake_at())

    def _wake_at(self, at: float) -> None:
        timer = self._timer
        if timer is not None:
            if self._timer_at == at:
                return
            timer.cancel()
            self._timer = None
        if at < math.inf:
            self._timer_at = at
            self._timer = self._clock.callLater(max(0.0, at - self._clock.seconds()), self._woken)

    def _woken(self) -> None:
        self._timer = None
        self._pump()

    # Taking

    def _take(self, order: TakeOrder, now: float) -> None:
        self._unfinished += 1
        recipients = self._settings.recipients_per_transaction
        self._store.take(order.destination, now, order.messages, recipients).addCallbacks(
            self._took, self._take_failed, (order,), {}, (order,)
        ).addErrback(self._bug)

    def _took(self, consignments: Sequence[Consignment], order: TakeOrder) -> None:
        self._unfinished -= 1
        schedule, now = self._schedule, self._clock.seconds()
        if self._is_stopping:
            schedule.took(order, (), now)
            self._give_back(consignments)
            self._look_quiet()
            return
        if schedule.took(order, consignments, now):
            self._store.state(order.destination).addCallbacks(
                self._told, self._state_failed, (), {}, (order.destination,)
            )
        if order.purpose is Purpose.REVIEW:
            self._review(order, consignments)
        else:
            self._give_back(schedule.excess(order, now))
        self._pump()

    def _take_failed(self, failure: Failure, order: TakeOrder) -> None:
        self._unfinished -= 1
        self._schedule.take_failed(order)
        self._log.warn(
            "Nothing can be taken for {destination}: {error}",
            destination=str(order.destination),
            error=failure.getErrorMessage(),
        )
        self._paused_until = self._clock.seconds() + self._settings.store_retry_seconds
        self._pump()
        self._look_quiet()

    def _told(self, state: DestinationState) -> None:
        self._schedule.told(state, self._clock.seconds())
        self._pump()

    def _state_failed(self, failure: Failure, destination: Destination) -> None:
        self._log.warn(
            "When {destination} is due cannot be read: {error}",
            destination=str(destination),
            error=failure.getErrorMessage(),
        )
        self._schedule.due(destination, self._clock.seconds() + self._settings.store_retry_seconds)
        self._pump()

    def _give_back(self, consignments: Iterable[Consignment]) -> None:
        for consignment in consignments:
            self._store.give_back(consignment)

    # Attempts

    def _start(self, attempt: Attempt, now: float) -> None:
        consignment = attempt.consignment
        if now - attempt.lane.taken_at > _LEASE_PATIENCE_SECONDS:
            self._schedule.released()
            self._give_back((consignment, *self._schedule.ended(attempt, Contact.UNKNOWN, now)))
            self._schedule.due(consignment.destination, now)
            return
        if self._concluding.is_over(consignment.entry, now):
            self._finish(attempt, Contact.UNKNOWN, self._concluding.review(consignment, now, now))
            return
        agent = self._agents.get(consignment.destination.transport)
        if agent is None:
            reply = f"No mail is carried by {consignment.destination.transport.value} here"
            self._attempted(all_declined(consignment, _NO_AGENT, reply), attempt)
            return
        try:
            running = agent.attempt(consignment)
        except Exception:
            running = fail()
        self._attempts[attempt] = running
        running.addCallbacks(self._attempted, self._attempt_failed, (attempt,), {}, (attempt,)).addErrback(self._bug)

    def _attempt_failed(self, failure: Failure, attempt: Attempt) -> None:
        """An agent's error: its recipients are tried again later. Given up at the stop: as if never begun."""
        consignment = attempt.consignment
        if failure.check(CancelledError) and self._is_stopping:
            self._schedule.ended(attempt, Contact.UNKNOWN, self._clock.seconds())
            self._schedule.released()
            self._give_back((consignment,))
            return
        self._log.failure(
            "{transaction_id}: the attempt for {destination}",
            failure=failure,
            transaction_id=consignment.entry.transaction_id,
            destination=str(consignment.destination),
        )
        self._attempted(all_declined(consignment, SYSTEM_ERROR, "Internal error"), attempt)

    def _attempted(self, outcomes: Sequence[AttemptOutcome], attempt: Attempt) -> None:
        self._attempts.pop(attempt, None)
        now = self._clock.seconds()
        self._finish(attempt, contact_of(outcomes), self._concluding.attempt(attempt.consignment, outcomes, now))
        self._pump()

    def _finish(self, attempt: Attempt, contact: Contact, conclusion: Conclusion) -> None:
        returned = self._schedule.ended(attempt, contact, self._clock.seconds())
        if returned:
            self._give_back(returned)
        self._conclude(conclusion, attempt.consignment.destination)

    def _conclude(self, conclusion: Conclusion, destination: Destination) -> Deferred[None]:
        self._unfinished += 1
        self._log_lines(conclusion, destination)
        return (
            self._recording.record(conclusion)
            .addCallback(self._recorded, conclusion, destination)
            .addErrback(self._bug)
        )

    def _recorded(self, _: None, conclusion: Conclusion, destination: Destination) -> None:
        self._unfinished -= 1
        schedule = self._schedule
        schedule.released()
        is_due = False
        for settlement in conclusion.settlements:
            if isinstance(settlement, Postponed):
                schedule.due(settlement.destination or destination, settlement.until)
                is_due = True
        if self._is_stopping:
            self._look_quiet()
        elif is_due or schedule.leased + 1 == self._settings.max_leased:
            self._pump()

    def _log_lines(self, conclusion: Conclusion, destination: Destination) -> None:
        entry = conclusion.entry
        delay = round(self._clock.seconds() - entry.accepted_at, 1)
        for line in conclusion.lines:
            self._log.info(
                "{transaction_id}: to=<{recipient}> destination={destination} host={host} delay={delay} "
                "status={status} uncertain={uncertain} reply={reply}",
                transaction_id=entry.transaction_id,
                recipient=str(line.recipient.address),
                destination=str(destination),
                host=line.host,
                delay=delay,
                status=line.status,
                uncertain=line.is_uncertain,
                reply=line.reply,
            )

    def _bug(self, failure: Failure) -> None:
        self._log.failure("In the queue", failure=failure)

    # Reviews

    def _review(self, order: TakeOrder, consignments: Sequence[Consignment]) -> None:
        """Look at the age of what waits for a destination that is down."""
        run_coroutine(self._review_all(order, consignments)).addErrback(self._bug)

    async def _review_all(self, order: TakeOrder, consignments: Sequence[Consignment]) -> None:
        now, destination = self._clock.seconds(), order.destination
        until = max(now, self._schedule.probe_at(destination))
        concluded = [
            self._conclude(self._concluding.review(consignment, now, until), destination)
            for consignment in consignments
        ]
        for each in concluded:
            await each
        self._schedule.reviewed(order, len(consignments), self._clock.seconds())
        self._pump()

    # Stop

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return run_coroutine(self._stop())

    async def _stop(self) -> None:
        """Nothing new; what runs may end, for so long; what was leased and not begun is given back."""
        if self._is_stopping:
            return
        self._is_stopping = True
        self._news.stop()
        self._wake_at(math.inf)
        self._give_back(self._schedule.drain())
        for agent in {id(agent): agent for agent in self._agents.values()}.values():
            agent.stop().addErrback(self._bug)
        await self._quiet_within(self._settings.stop_seconds)
        for attempt, running in list(self._attempts.items()):
            # Whoever is slower than that is tried again; a peer that took the message meanwhile gets it twice.
            self._log.warn(
                "{transaction_id}: the attempt for {destination} is given up, for the server stops",
                transaction_id=attempt.consignment.entry.transaction_id,
                destination=str(attempt.consignment.destination),
            )
            self._attempts.pop(attempt, None)
            running.cancel()
        await self._quiet_within(_LAST_WRITE_SECONDS)
        if self._unfinished:
            self._log.error("{count} results could not be written before the stop", count=self._unfinished)

    async def _quiet_within(self, seconds: float) -> None:
        """Wait until nothing is under way, but not for longer than that."""
        if self._is_busy:
            self._quiet = Deferred()
            await fires_within(self._quiet, seconds, self._clock)

    @property
    def _is_busy(self) -> bool:
        return bool(self._attempts or self._unfinished)

    def _look_quiet(self) -> None:
        quiet = self._quiet
        if quiet is not None and not quiet.called and not self._is_busy:
            quiet.callback(None)
