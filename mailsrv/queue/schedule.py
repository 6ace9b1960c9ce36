"""Who is served next: fair between destinations, whatever waits behind each of them.

The schedule knows of each destination only how it has fared and when something is next due
(:class:`~mailsrv.queue.lane.Lane`); messages stay in the store until their destination's turn comes, then a few
are leased ahead. It does no I/O and keeps no timer: it is told the time and asked for the next step.

* Destinations with something to do stand in a ring; each turn gives one attempt or one take.
* Running attempts are bounded altogether. One that runs for long no longer counts (up to a bound of
  their own), so destinations that accept and never greet cannot fill the server.
* A destination that is down costs one probe each interval, however much waits for it and however many
  workers there are (:class:`~mailsrv.queue.shared_downs.SharedDowns`). What waits there is looked through now
  and then, for delay notices and what is too old.

What it is told may be out of date (other workers take from the same queue). A wrong guess costs an empty
take, after which the store is asked for the truth.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from mailsrv.interfaces.queue import AT_ONCE, Consignment, Destination, DestinationState
from mailsrv.queue.lane import Attempt, Contact, Lane, Purpose, TakeOrder
from mailsrv.queue.retry import backoff_seconds
from mailsrv.queue.settings import ScheduleSettings
from mailsrv.queue.shared_downs import SharedDowns

REVIEW_MESSAGES = 100
_REVIEW_PACE_SECONDS = 0.02
"""A message: a million that wait for a dead destination take a hundredth of the processor, and some hours a round."""
_FLUSHED_PROBE_SECONDS = 60.0
_AFTER_OTHERS_SECONDS = 5.0
"""So much later than the worker whose turn it is, the others would probe."""
_RECHECK_SECONDS = 1.0
"""Where the store says something is due and gives nothing: another worker is about to take it."""


class Schedule:
    """``jittered`` varies a time span a little at random; ``downs`` is what several workers share."""

    def __init__(
        self, settings: ScheduleSettings, jittered: Callable[[float], float], downs: SharedDowns | None = None
    ) -> None:
        self._settings = settings
        self._downs = downs
        self._jittered = jittered
        self._lanes: dict[Destination, Lane] = {}
        self._idle: dict[Destination, None] = {}
        """Remembered without mail, longest ago first."""
        self._ring: deque[Lane] = deque()
        self._timers: list[tuple[float, int, Lane]] = []
        self._numbers = itertools.count()
        self._running: dict[Attempt, None] = {}
        """Those that count, oldest first."""
        self._stalled = 0
        self.leased = 0
        """Messages taken and not yet released."""

    def __len__(self) -> int:
        """Destinations known."""
        return len(self._lanes)

    @property
    def attempts(self) -> int:
        """Running."""
        return len(self._running) + self._stalled

    # What happens outside

    def learn(self, states: Iterable[DestinationState]) -> None:
        """Mail waits."""
        for state in states:
            if state.waiting and state.next_due < math.inf:
                lane = self.due(state.destination, state.next_due)
                if not lane.is_taking:
                    lane.expected = state.waiting

    def due(self, destination: Destination, at: float) -> Lane:
        """Something is due for a destination at that time."""
        lane = self._lanes.get(destination)
        if lane is None:
            lane = self._lanes[destination] = Lane(destination, float(self._settings.first_concurrency))
        elif self._idle:
            self._idle.pop(destination, None)
        lane.expected = 0
        if at <= AT_ONCE and lane.is_down:
            # An administrator knows better. Once a minute: what is flushed stays so until its turn comes.
            lane.probe_at = min(lane.probe_at, lane.failed_at + _FLUSHED_PROBE_SECONDS)
            self._list(lane)
        if at < lane.next_due:
            lane.next_due = at
            self._list(lane)
        return lane

    def took(self, order: TakeOrder, consignments: Sequence[Consignment], now: float) -> bool:
        """What a take for attempts or a review gave. True: it was less than there might be, ask for the state."""
        lane = self._take_over(order)
        self.leased += len(consignments)
        if order.purpose is Purpose.ATTEMPT and consignments:
            if lane.leased is None:
                lane.leased = deque()
            lane.leased.extend(consignments)
            lane.taken_at = now
        expected, lane.expected = lane.expected, 0
        is_short = len(consignments) < order.messages
        if is_short:
            lane.was_empty = not consignments
            lane.next_due = math.inf
            if expected and sum(len(each.recipients) for each in consignments) >= expected:
                is_short = False  # it was all there is
        self._list(lane)
        return is_short

    def take_failed(self, order: TakeOrder) -> None:
        """The store has trouble."""
        self._list(self._take_over(order))

    def _take_over(self, order: TakeOrder) -> Lane:
        lane = self._lanes[order.destination]
        lane.is_taking = False
        return lane

    def reviewed(self, order: TakeOrder, messages: int, now: float) -> None:
        """So many messages that a review took have been dealt with."""
        lane = self._lanes.get(order.destination)
        if lane is not None and lane.is_down:
            is_whole = messages < order.messages
            lane.review_at = now + (self._settings.review_seconds if is_whole else messages * _REVIEW_PACE_SECONDS)
            self._list(lane)

    def told(self, state: DestinationState, now: float) -> None:
        """The answer to the question for the state."""
        if state.next_due == math.inf:
            return
        lane = self._lanes.get(state.destination)
        if lane is not None and lane.was_empty and state.next_due <= now:
            self.due(state.destination, now + _RECHECK_SECONDS)
        else:
            self.due(state.destination, state.next_due)

    def ended(self, attempt: Attempt, contact: Contact, now: float) -> Sequence[Consignment]:
        """An attempt is over (its message stays leased until :meth:`released`). Gives what is to be given back
        to the store, because its destination is down.
        """
        if attempt.is_stalled:
            self._stalled -= 1
        else:
            del self._running[attempt]
        lane, settings = attempt.lane, self._settings
        lane.active -= 1
        self._list(lane)
        if contact is Contact.UP:
            if self._downs is not None and lane.shared_until:
                self._downs.clear(lane.destination)
                lane.shared_until = 0.0
            lane.went_up(settings.first_concurrency, settings.max_concurrency)
        elif contact is Contact.DOWN:
            if lane.contacts != attempt.contacts_before:
                lane.halve()
            elif attempt.is_probe or not lane.is_down:
                return self._went_down(lane, now)
        return ()

    def _went_down(self, lane: Lane, now: float) -> Sequence[Consignment]:
        settings = self._settings
        lane.failures += 1
        lane.failed_at = now
        interval = backoff_seconds(settings.first_probe_seconds, settings.longest_probe_seconds, lane.failures)
        lane.probe_at = now + self._jittered(interval)
        if self._downs is not None:
            lane.shared_until = self._downs.note(lane.destination, lane.probe_at, lane.failures)
        if lane.review_at == math.inf:
            lane.review_at = now + settings.review_seconds
        return self._give_up(lane, now)

    def _is_down_elsewhere(self, lane: Lane, now: float) -> bool:
        """Whether another worker found nobody there, or is about to look; then that is known here, too."""
        settings = self._settings
        # An administrator knows better than all workers.
        if self._downs is None or lane.next_due <= AT_ONCE:
            return False
        known = self._downs.find(lane.destination, now, 2 * settings.longest_probe_seconds)
        if known is None or known.until <= lane.shared_until:
            return False
        lane.shared_until = known.until
        lane.failures, lane.failed_at = max(lane.failures, known.failures), now
        lane.probe_at = known.until + self._jittered(_AFTER_OTHERS_SECONDS)
        if lane.review_at == math.inf:
            lane.review_at = now + settings.review_seconds
        return True

    def _claim(self, lane: Lane, now: float) -> None:
        """The next probe is ours."""
        if self._downs is not None:
            settings = self._settings
            interval = backoff_seconds(settings.first_probe_seconds, settings.longest_probe_seconds, lane.failures + 1)
            lane.shared_until = self._downs.note(lane.destination, now + interval, lane.failures)

    def _give_up(self, lane: Lane, now: float) -> Sequence[Consignment]:
        returned = tuple(lane.leased or ())
        lane.leased = None
        self.leased -= len(returned)
        if returned:
            lane.expected = 0
            lane.next_due = min(lane.next_due, now)
        return returned

    def excess(self, order: TakeOrder, now: float) -> Sequence[Consignment]:
        """What :meth:`took` brought for a destination that went down meanwhile, to be given back."""
        lane = self._lanes[order.destination]
        return self._give_up(lane, now) if lane.is_down and order.messages > 1 else ()

    def released(self, messages: int = 1) -> None:
        """So many messages are settled."""
        self.leased -= messages

    def drain(self) -> Sequence[Consignment]:
        """All that is leased and not started, for the end."""
        returned: list[Consignment] = []
        for lane in self._lanes.values():
            returned.extend(lane.leased or ())
            lane.leased = None
        self.leased -= len(returned)
        return returned

    def probe_at(self, destination: Destination) -> float:
        """When a destination is tried again; 0 where it is not down."""
        lane = self._lanes.get(destination)
        return lane.probe_at if lane is not None and lane.is_down else 0.0

    # What is to be done

    def next_step(self, now: float) -> Attempt | TakeOrder | None:
        """The next attempt to start or take to make; None: nothing before :meth:`wake_at` or news."""
        timers, ring = self._timers, self._ring
        while timers and timers[0][0] <= now:
            at, _, lane = heapq.heappop(timers)
            if at == lane.timer_at:
                lane.timer_at = math.inf
                self._list(lane)
        while ring:
            if len(self._running) >= self._settings.max_attempts and not self._stall(now):
                return None
            lane = ring.popleft()
            step = self._step_of(lane, now)
            if step is not None:
                ring.append(lane)
                return step
            lane.is_listed = False
            self._rest(lane, now)
        return None

    def _step_of(self, lane: Lane, now: float) -> Attempt | TakeOrder | None:
        limit = lane.limit(now)
        leased = lane.leased
        waiting = len(leased) if leased else 0
        if leased and lane.active < limit:
            attempt = Attempt(lane, leased.popleft(), now, lane.is_down, lane.contacts)
            lane.active += 1
            self._running[attempt] = None
            return attempt
        if lane.is_taking or lane.next_due > now:
            return None
        room = self._settings.max_leased - self.leased
        if room <= 0:
            return None
        if limit and not (lane.active or waiting) and self._is_down_elsewhere(lane, now):
            limit = 0
        if not lane.failures:
            if waiting * 2 >= limit:
                return None
            return self._order(lane, min(2 * limit - waiting, room), Purpose.ATTEMPT)
        if limit and not lane.active:
            self._claim(lane, now)
            return self._order(lane, 1, Purpose.ATTEMPT)
        if not limit and lane.review_at <= now:
            return self._order(lane, min(REVIEW_MESSAGES, room), Purpose.REVIEW)
        return None

    def _order(self, lane: Lane, messages: int, purpose: Purpose) -> TakeOrder:
        lane.is_taking = True
        return TakeOrder(lane.destination, messages, purpose)

    def _list(self, lane: Lane) -> None:
        if not lane.is_listed:
            lane.is_listed = True
            self._ring.append(lane)

    def _rest(self, lane: Lane, now: float) -> None:
        """It has nothing to do now: set its timer, or forget it."""
        at = lane.next_due
        if at == math.inf:
            if lane.is_idle:
                self._remember(lane)
            return
        if lane.failures:
            at = max(at, min(lane.probe_at, lane.review_at))
        if at <= now:
            # It waits for a place, which an event of its own will bring, or for room, which any may bring.
            if lane.active or lane.is_taking or lane.leased:
                return
            at = now + _RECHECK_SECONDS
        if at < lane.timer_at:
            lane.timer_at = at
            heapq.heappush(self._timers, (at, next(self._numbers), lane))

    def _remember(self, lane: Lane) -> None:
        idle, destination = self._idle, lane.destination
        if self._lanes.get(destination) is not lane:
            return  # forgotten already; only a timer of it was left
        if not lane.failures and lane.window == self._settings.first_concurrency:
            del self._lanes[destination]
            return
        idle[destination] = None
        if len(idle) > self._settings.remembered_destinations:
            oldest = next(iter(idle))
            del idle[oldest]
            del self._lanes[oldest]

    def _stall(self, now: float) -> bool:
        """Let attempts that run for long no longer count; whether there is room now."""
        settings, running = self._settings, self._running
        while running and self._stalled < settings.max_stalled_attempts:
            oldest = next(iter(running))
            if oldest.started_at + settings.stalled_after_seconds > now:
                break
            oldest.is_stalled = True
            self._stalled += 1
            del running[oldest]
        return len(running) < settings.max_attempts

    def wake_at(self) -> float:
        """When :meth:`next_step` is to be asked again even without news; infinity: not before news."""
        at = self._timers[0][0] if self._timers else math.inf
        if self._ring and self._running and self._stalled < self._settings.max_stalled_attempts:
            at = min(at, next(iter(self._running)).started_at + self._settings.stalled_after_seconds)
        return at
