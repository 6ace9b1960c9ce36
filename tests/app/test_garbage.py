"""The collector of cycles in a process that serves: what it looks at, counted in objects and never by the clock."""

from __future__ import annotations

import gc
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher

from mailsrv.address import Address
from mailsrv.app.garbage import (
    ENOUGH,
    GROWTH_SECONDS,
    IDLE_SECONDS,
    SETTLE_SECONDS,
    YOUNG,
    Collector,
    resident_octets,
    set_apart,
)
from mailsrv.directory.ldap.answers import Answer, AnswerCache
from mailsrv.interfaces.directory import DirectoryUser

_MIB = 1 << 20
_MOST = 7_000
"""Objects in one look: half a millisecond for each thousand, at worst."""


class _Looks:
    """What the collector looked at in each of its runs."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.generations: list[int] = []

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self.generations.append(info["generation"])
            self.sizes.append(sum(len(gc.get_objects(number)) for number in range(info["generation"] + 1)))


class Process:
    """One that serves: its clock, how large it is, and what its collector does."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.octets = 100 * _MIB
        self.collector = Collector(self.clock, 512, lambda: self.octets)
        self.looks = _Looks()

    def remember(self, users: int, entries: int) -> AnswerCache:
        """Users, two thousand a second as a directory answers them, in a cache of so many entries."""
        cache = AnswerCache(clock=self.clock.seconds, seconds=30.0, outage_seconds=86400.0, entries=entries)
        for number in range(users):
            address = Address(f"user{number}", "example.test")
            user = DirectoryUser(address)
            cache.add(address, Answer(user, f"uid=user{number},dc=example,dc=test"))
            if number % 100 == 0:
                self.clock.advance(0.05)
        return cache


@pytest.fixture
def process() -> Iterator[Process]:
    """The test's own process, with its collector set back afterwards."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    serving = Process()
    serving.collector.start()
    gc.callbacks.append(serving.looks)
    try:
        yield serving
    finally:
        gc.callbacks.remove(serving.looks)
        serving.collector.stop()
        gc.set_threshold(*before)


@pytest.fixture
def events() -> Iterator[list[Any]]:
    seen: list[Any] = []
    observer: Any = seen.append
    globalLogPublisher.addObserver(observer)
    yield seen
    globalLogPublisher.removeObserver(observer)


class Knot:
    """Refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def test_what_is_there_before_a_server_is_made_is_not_looked_at_again():
    gc.unfreeze()  # the session has frozen what it read
    set_apart()
    assert gc.get_freeze_count() > 0
    assert gc.get_objects(generation=2) == []


def test_however_many_are_remembered_a_look_is_at_what_came_lately(process: Process):
    cache = process.remember(30_000, entries=30_000)
    assert len(cache) == 30_000
    assert len(process.looks.sizes) > 10
    assert max(process.looks.sizes) <= _MOST


def test_while_a_full_cache_takes_new_for_old_a_look_is_at_what_came_lately(process: Process):
    """As many come as go: the collector alone would wait, and find all of the cache at once."""
    process.remember(20_000, entries=5_000)
    del process.looks.sizes[:]
    cache = process.remember(20_000, entries=5_000)
    assert len(cache) == 5_000
    assert len(process.looks.sizes) >= 2
    assert max(process.looks.sizes) <= _MOST


def test_nothing_old_is_looked_at_however_many_come(process: Process):
    kept: OrderedDict[int, list[object]] = OrderedDict()
    for number in range(300_000):
        kept[number] = []
    assert 2 not in process.looks.generations
    assert max(process.looks.sizes) <= _MOST


def test_an_idle_process_is_not_looked_at(process: Process):
    for _ in range(100):
        process.clock.advance(IDLE_SECONDS)
    assert process.looks.generations.count(1) <= 1  # what the test itself makes


def test_what_came_lately_and_refers_to_itself_is_found(process: Process):
    knots = [Knot() for _ in range(ENOUGH)]
    gone = weakref.ref(knots[0])
    assert gone()
    knots.clear()
    process.clock.advance(IDLE_SECONDS)
    assert not gone()
    for _ in range(2 * YOUNG):
        Knot()
    assert len(process.looks.generations) >= 2


def test_what_a_reload_replaced_is_looked_for_once_it_has_settled(process: Process, events: list[Any]):
    old = Knot()
    gc.collect(1)
    gone = weakref.ref(old)
    process.collector.look_after_reload()
    process.clock.advance(SETTLE_SECONDS - 1.0)
    process.collector.look_after_reload()  # another one: both are seen to together
    del old
    process.clock.advance(SETTLE_SECONDS - 1.0)
    assert gone()
    process.clock.advance(1.0)
    assert not gone()
    assert process.looks.generations.count(2) == 1
    [told] = [event for event in events if "after the reload" in event["log_format"]]
    assert told["found"] >= 1
    assert told["milliseconds"] >= 0
    process.clock.advance(10 * SETTLE_SECONDS)
    assert process.looks.generations.count(2) == 1


def test_a_process_that_grows_too_much_is_looked_through_and_says_so(process: Process, events: list[Any]):
    leak = [Knot() for _ in range(1_000)]
    gc.collect(1)
    gone = weakref.ref(leak[0])
    leak.clear()
    process.octets += 511 * _MIB
    process.clock.advance(GROWTH_SECONDS)
    assert gone()
    assert 2 not in process.looks.generations
    process.octets += _MIB
    process.clock.advance(GROWTH_SECONDS)
    assert not gone()
    [told] = [event for event in events if "has grown" in event["log_format"]]
    assert told["log_level"] is LogLevel.warn
    assert told["grown_mib"] == 512
    assert told["found"] >= 1_000
    assert told["resident_mib"] == 612


def test_growth_is_counted_from_the_last_look(process: Process):
    for _ in range(3):
        process.octets += 512 * _MIB
        process.clock.advance(GROWTH_SECONDS)
    assert process.looks.generations.count(2) == 3
    process.octets += 300 * _MIB
    process.clock.advance(10 * GROWTH_SECONDS)
    assert process.looks.generations.count(2) == 3


def test_growth_is_seen_although_the_size_could_not_be_read_for_a_while(process: Process):
    def unreadable() -> int:
        raise OSError(24, "Too many open files")

    process.octets += 600 * _MIB
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process.collector, "_resident", unreadable)
        process.clock.advance(GROWTH_SECONDS)
    assert 2 not in process.looks.generations
    process.clock.advance(GROWTH_SECONDS)
    assert process.looks.generations.count(2) == 1


def test_where_nobody_knows_the_size_the_rest_works_and_the_log_says_so(events: list[Any]):
    def unknown() -> int:
        raise FileNotFoundError("/proc/self/statm")

    before = gc.get_threshold()
    clock = Clock()
    collector = Collector(clock, 512, unknown)
    try:
        collector.start()
        clock.advance(GROWTH_SECONDS)
    finally:
        collector.stop()
        gc.set_threshold(*before)
    assert [event["log_level"] for event in events] == [LogLevel.warn]
    assert clock.getDelayedCalls() == []


def test_the_size_of_a_process_is_that_of_its_memory():
    assert 10 * _MIB < resident_octets() < 100_000 * _MIB
