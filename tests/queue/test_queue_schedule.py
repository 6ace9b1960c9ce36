"""Who is served next: fairness, windows, back-off, and what a million waiting messages cost."""

from __future__ import annotations

import heapq
import itertools
import math
import tracemalloc
from collections import Counter

import pytest
from attrs import evolve

from mailsrv.address import Address
from mailsrv.interfaces.envelope import DeliverBy, EnvelopeParameters, Notify
from mailsrv.interfaces.queue import (
    AT_ONCE,
    Consignment,
    Destination,
    DestinationState,
    QueuedRecipient,
    QueueEntry,
    Transport,
)
from mailsrv.queue.lane import Attempt, Contact, Purpose, TakeOrder
from mailsrv.queue.retry import NEVER, RetryTimes, backoff_seconds
from mailsrv.queue.schedule import Schedule
from mailsrv.queue.settings import RetrySettings, ScheduleSettings

NOW = 1000.0
ENTRY = QueueEntry(1, "T1", Address("alice", "example.test"), EnvelopeParameters(), "", NOW, 100)
BOB = QueuedRecipient(1, Address("bob", "example.org"))


def mx(number: int = 0) -> Destination:
    return Destination(Transport.MX, f"d{number}.example")


class Store:
    """Counts of what is due, and time: a discrete simulation around a schedule."""

    def __init__(self, settings: ScheduleSettings | None = None) -> None:
        self.schedule = Schedule(settings or ScheduleSettings(), lambda seconds: seconds)
        self.waiting: Counter[Destination] = Counter()
        self.now = NOW
        self.events: list[tuple[float, int, Attempt, Contact]] = []
        self.numbers = itertools.count()
        self.started: list[tuple[float, Destination]] = []
        self.finished: dict[Destination, float] = {}
        self.most_active: Counter[Destination] = Counter()
        self.reviews = 0
        self.later: dict[Destination, tuple[float, int]] = {}
        """Looked through, and not to be taken before that time."""
        self.dead: set[Destination] = set()
        self.seconds_of_healthy = 0.5

    def enqueue(self, destination: Destination, messages: int) -> None:
        self.waiting[destination] += messages
        self.schedule.learn([DestinationState(destination, self.waiting[destination], self.now)])

    def pump(self) -> None:
        while (step := self.schedule.next_step(self.now)) is not None:
            if isinstance(step, TakeOrder):
                self.take(step)
            else:
                self.start(step)

    def take(self, order: TakeOrder) -> None:
        destination = order.destination
        until, later = self.later.get(destination, (math.inf, 0))
        if until <= self.now:
            self.waiting[destination] += later
            until, later = self.later[destination] = (math.inf, 0)
        count = min(order.messages, self.waiting[destination])
        self.waiting[destination] -= count
        consignments = [Consignment(ENTRY, destination, (BOB,))] * count
        if self.schedule.took(order, consignments, self.now):
            due = self.now if self.waiting[destination] else until
            self.schedule.told(DestinationState(destination, self.waiting[destination], due), self.now)
        if order.purpose is Purpose.REVIEW:
            self.reviews += count
            probe_at = self.schedule.probe_at(destination)
            self.later[destination] = (probe_at, later + count)
            self.schedule.due(destination, probe_at)
            self.schedule.released(count)
            self.schedule.reviewed(order, count, self.now)
        else:
            self.give_back(self.schedule.excess(order, self.now))

    def give_back(self, consignments) -> None:
        for consignment in consignments:
            self.waiting[consignment.destination] += 1

    def start(self, attempt: Attempt) -> None:
        destination = attempt.lane.destination
        self.started.append((self.now, destination))
        self.most_active[destination] = max(self.most_active[destination], attempt.lane.active)
        if destination in self.dead:
            event = (self.now + 300.0, next(self.numbers), attempt, Contact.DOWN)
        else:
            event = (self.now + self.seconds_of_healthy, next(self.numbers), attempt, Contact.UP)
        heapq.heappush(self.events, event)

    def run(self, until: float = math.inf) -> None:
        self.pump()
        while True:
            at = min(self.events[0][0] if self.events else math.inf, self.schedule.wake_at())
            if at > until or at == math.inf:
                return
            self.now = max(self.now, at)
            while self.events and self.events[0][0] <= self.now:
                _, _, attempt, contact = heapq.heappop(self.events)
                destination = attempt.lane.destination
                self.give_back(self.schedule.ended(attempt, contact, self.now))
                self.schedule.released()
                if contact is Contact.DOWN:
                    self.waiting[destination] += 1
                    self.schedule.due(destination, self.now)
                else:
                    self.finished[destination] = self.now
            self.pump()


def test_the_window_opens_by_one_for_each_windowful_of_successes_up_to_its_bound():
    store = Store()
    store.enqueue(mx(), 200)
    store.run()
    assert store.most_active[mx()] == 10
    at_once = Counter(at for at, _ in store.started)
    assert at_once[NOW] == 2
    assert at_once[NOW + 0.5] <= 3
    assert sum(at_once.values()) == 200


def test_destinations_take_turns():
    store = Store(ScheduleSettings(max_attempts=3))
    for number in range(3):
        store.enqueue(mx(number), 50)
    store.run(NOW + 3)
    counts = Counter(destination for _, destination in store.started)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_the_bound_of_all_attempts_holds():
    store = Store(ScheduleSettings(max_attempts=7))
    for number in range(20):
        store.enqueue(mx(number), 5)
    store.pump()
    assert store.schedule.attempts == 7
    store.run()
    assert len(store.started) == 100


def test_a_failure_amid_successes_halves_the_window():
    store = Store()
    store.enqueue(mx(), 100)
    store.run(NOW + 5)
    attempts = [attempt for _, _, attempt, _ in store.events]
    lane = attempts[0].lane
    assert lane.window == pytest.approx(10, abs=3)
    before = lane.window
    lane.contacts += 1  # another attempt has just succeeded
    assert store.schedule.ended(attempts[0], Contact.DOWN, store.now) == ()
    assert lane.window == before / 2
    assert not lane.is_down


def test_a_destination_that_never_answers_is_probed_once_an_interval_that_doubles():
    store = Store()
    store.dead.add(mx())
    store.enqueue(mx(), 1_000_000)
    store.run(NOW + 20_000)
    times = [at - NOW for at, _ in store.started]
    assert times[:2] == [0, 0]
    # An attempt hangs for 300 seconds here; then it waits 300, 600, 1200, … seconds.
    assert times[2:] == [600, 1500, 3000, 5700, 9600, 13_500, 17_400]
    assert store.schedule.leased <= 1
    assert store.waiting[mx()] + store.later[mx()][1] >= 999_998


def test_a_destination_that_comes_back_is_served_at_once():
    store = Store()
    store.dead.add(mx())
    store.enqueue(mx(), 100)
    store.run(NOW + 590)
    store.dead.clear()
    store.run(NOW + 650)
    assert not store.waiting[mx()]


def test_what_an_administrator_flushes_is_tried_now_though_the_destination_was_down():
    store = Store()
    store.dead.add(mx())
    store.enqueue(mx(), 3)
    store.run(NOW + 5000)
    probes = len(store.started)
    store.dead.clear()
    store.later.clear()
    store.waiting[mx()] = 3
    store.schedule.learn([DestinationState(mx(), 3, AT_ONCE)])
    store.run(store.now + 65)
    assert len(store.started) == probes + 3


def test_fresh_mail_for_a_dead_destination_waits_for_the_probe():
    store = Store()
    store.dead.add(mx())
    store.enqueue(mx(), 2)
    store.run(NOW + 400)
    store.enqueue(mx(), 1)
    store.run(NOW + 590)
    assert len(store.started) == 2


def test_what_waits_for_a_dead_destination_is_looked_through_in_portions():
    store = Store(ScheduleSettings(review_seconds=1000))
    store.dead.add(mx())
    store.enqueue(mx(), 250)
    store.run(NOW + 1400)
    assert store.reviews >= 249


@pytest.mark.parametrize("max_attempts", [100, 1000])
def test_a_hundred_destinations_that_never_greet_do_not_slow_the_other_nine_hundred(max_attempts):
    """Head-of-line blocking: the healthy ones end in the same simulated time with and without the others."""
    ends = []
    for stalling in (0, 100):
        store = Store(ScheduleSettings(max_attempts=max_attempts, stalled_after_seconds=0.1))
        store.dead = {mx(number) for number in range(stalling)}
        for number in range(1000):
            if number >= 100 or stalling:
                store.enqueue(mx(number), 10)
        store.run(NOW + 290)
        assert len(store.finished) == 900
        assert not any(store.waiting[mx(number)] for number in range(100, 1000))
        ends.append(max(store.finished.values()) - NOW)
    assert ends[1] <= ends[0] * 1.05 + 0.2


def test_a_million_messages_for_a_dead_destination_cost_nothing():
    schedule = Schedule(ScheduleSettings(), lambda seconds: seconds)
    tracemalloc.start()
    schedule.learn([DestinationState(mx(), 1_000_000, NOW)])
    steps = 0
    while schedule.next_step(NOW) is not None:
        steps += 1
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert steps == 1
    assert used < 20_000


def test_a_destination_without_mail_is_forgotten_unless_it_has_something_to_remember():
    store = Store(ScheduleSettings(remembered_destinations=5))
    store.dead = {mx(number) for number in range(20)}
    for number in range(40):
        store.enqueue(mx(number), 1)
    store.run(NOW + 299)
    assert len(store.schedule) == 20 + 5  # those that answered have a wider window; five of them are remembered
    assert store.schedule.probe_at(mx(30)) == 0.0


def test_memory_of_a_waiting_destination_is_small():
    schedule = Schedule(ScheduleSettings(), lambda seconds: seconds)
    destinations = [mx(number) for number in range(2000)]
    tracemalloc.start()
    schedule.learn([DestinationState(each, 1, NOW + 60) for each in destinations])
    assert schedule.next_step(NOW) is None
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / len(destinations) < 700


def test_leases_are_bounded():
    store = Store(ScheduleSettings(max_leased=10))
    store.seconds_of_healthy = 100.0
    for number in range(50):
        store.enqueue(mx(number), 10)
    store.run(NOW + 50)
    assert store.schedule.leased == 10


def test_a_wrong_guess_costs_one_empty_take_a_second():
    schedule = Schedule(ScheduleSettings(), lambda seconds: seconds)
    schedule.due(mx(), NOW)
    order = schedule.next_step(NOW)
    assert isinstance(order, TakeOrder)
    assert schedule.took(order, (), NOW)
    schedule.told(DestinationState(mx(), 1, NOW - 5), NOW)
    assert schedule.next_step(NOW) is None
    assert schedule.wake_at() == NOW + 1
    assert isinstance(schedule.next_step(NOW + 1), TakeOrder)


def test_what_was_taken_for_a_destination_that_went_down_is_given_back():
    schedule = Schedule(ScheduleSettings(), lambda seconds: seconds)
    schedule.due(mx(), NOW)
    first = schedule.next_step(NOW)
    assert isinstance(first, TakeOrder)
    consignment = Consignment(ENTRY, mx(), (BOB,))
    schedule.took(first, [consignment] * first.messages, NOW)
    attempts = [step for step in iter(lambda: schedule.next_step(NOW), None) if isinstance(step, Attempt)]
    assert len(attempts) == 2
    assert len(schedule.ended(attempts[0], Contact.DOWN, NOW)) == 2
    assert schedule.leased == 2
    assert schedule.ended(attempts[1], Contact.DOWN, NOW) == ()
    schedule.released(2)
    assert schedule.leased == 0
    assert schedule.probe_at(mx()) == NOW + 300


# Retry times


def test_intervals_double_up_to_the_longest():
    assert [backoff_seconds(300, 14_400, count) for count in (0, 1, 2, 3, 7, 8, 10_000)] == [
        300, 300, 600, 1200, 14_400, 14_400, 14_400,
    ]  # fmt: skip


@pytest.mark.parametrize(("number", "factor"), [(0.0, 0.9), (0.5, 1.0), (0.999_999, 1.1)])
def test_jitter_is_a_tenth_in_both_directions(number, factor):
    times = RetryTimes(RetrySettings(), lambda: number)
    assert times.next_attempt_at(ENTRY, BOB, 1, NOW) - NOW == pytest.approx(300 * factor, rel=1e-4)


def test_the_last_attempt_is_at_the_end_of_the_messages_life():
    times = RetryTimes(RetrySettings(), lambda: 0.5)
    late = NOW + 432_000 - 100
    assert times.next_attempt_at(ENTRY, BOB, 20, late) == NOW + 432_000


def test_life_begins_with_the_end_of_the_hold():
    times = RetryTimes(RetrySettings(), lambda: 0.5)
    held = evolve(ENTRY, parameters=EnvelopeParameters(hold_until=int(NOW) + 86_400))
    assert times.expires_at(held) == NOW + 86_400 + 432_000


@pytest.mark.parametrize(
    ("account", "notify", "told", "expected"),
    [
        ("", Notify(0), False, NEVER),
        ("alice@example.test", Notify(0), False, NOW + 14_400),
        ("alice@example.test", Notify(0), True, NEVER),
        ("alice@example.test", Notify.FAILURE, False, NEVER),
        ("", Notify.DELAY | Notify.FAILURE, False, NOW + 14_400),
        ("alice@example.test", Notify.NEVER, False, NEVER),
    ],
)
def test_who_is_told_of_a_delay(account, notify, told, expected):
    times = RetryTimes(RetrySettings(), lambda: 0.5)
    recipient = evolve(BOB, notify=notify, is_delay_told=told)
    assert times.delay_notice_at(evolve(ENTRY, account=account), recipient) == expected


def test_the_null_reverse_path_is_never_told_of_a_delay():
    times = RetryTimes(RetrySettings(), lambda: 0.5)
    recipient = evolve(BOB, notify=Notify.DELAY)
    assert times.delay_notice_at(evolve(ENTRY, reverse_path=None), recipient) == NEVER


def test_deadlines_of_deliver_by():
    times = RetryTimes(RetrySettings(), lambda: 0.5)
    returning = evolve(ENTRY, parameters=EnvelopeParameters(deliver_by=DeliverBy(2000, must_return=True)))
    notifying = evolve(ENTRY, parameters=EnvelopeParameters(deliver_by=DeliverBy(2000)))
    assert times.expires_at(returning) == 2000
    assert times.is_past_deadline(returning, 2000)
    assert not times.is_past_deadline(returning, 1999)
    assert not times.is_past_deadline(notifying, 3000)
    assert times.delay_notice_at(notifying, BOB) == 2000
