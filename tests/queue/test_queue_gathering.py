"""Results of a busy queue gather for a moment, and are one transaction."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from twisted.internet.task import Clock

from mailsrv.errors import Unavailable
from mailsrv.queue.database_thread import DatabaseThread, Job


class Inbox:
    """A worker that does nothing."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.is_stopped = False

    def start(self) -> None: ...

    def stop(self) -> None:
        self.is_stopped = True

    def set_linger(self, seconds: float) -> None: ...

    def post(self, item: Any) -> None:
        assert not self.is_stopped
        self.items.append(item)

    def jobs(self) -> list[Job]:
        flat: list[Job] = []
        for item in self.items:
            flat += item if isinstance(item, list) else [item]
        return flat


class Reactor(Clock):
    """Nothing comes from threads here."""

    def callFromThread(self, function: Callable[..., object], /, *arguments: object) -> None:
        raise AssertionError


class House:
    def __init__(self, gather_seconds: float = 0.01) -> None:
        self.clock = Reactor()
        self.inbox = Inbox()
        self.thread = DatabaseThread(
            lambda _name, _handler: self.inbox,
            self.clock,
            lambda _db: 1.0,
            gather_seconds=gather_seconds,
            seconds=self.clock.seconds,
        )
        self.asked: list[Callable[[], Any]] = []

    def settle(self, count: int) -> None:
        for _ in range(count):
            job = partial(int, len(self.asked))
            self.asked.append(job)
            self.thread.change_soon(job)

    def make_busy(self) -> None:
        self.settle(30)
        self.clock.advance(0.01)
        self.inbox.items.clear()
        self.asked.clear()


def test_few_results_are_written_at_once():
    house = House()
    for _ in range(100):
        house.settle(1)
        house.clock.advance(0.05)
    assert [job.function for job in house.inbox.jobs()] == house.asked
    assert not any(isinstance(item, list) for item in house.inbox.items)


def test_many_results_gather_for_a_moment_and_no_longer():
    house = House()
    house.make_busy()
    house.settle(10)
    assert not house.inbox.items
    house.clock.advance(0.01)
    assert len(house.inbox.items) == 1
    assert [job.function for job in house.inbox.jobs()] == house.asked
    assert all(job.is_durable and job.is_transaction for job in house.inbox.jobs())
    house.clock.advance(1)
    house.settle(1)
    assert len(house.inbox.items) == 2


def test_they_go_with_what_is_asked_meanwhile_and_before_it():
    house = House()
    house.make_busy()
    house.settle(3)
    house.thread.change(list, is_durable=False)
    house.settle(2)
    house.clock.advance(0.01)
    assert [job.function for job in house.inbox.jobs()] == [*house.asked[:3], list, *house.asked[3:]]


def test_no_more_than_so_many_gather():
    house = House()
    house.make_busy()
    house.settle(64)
    assert len(house.inbox.jobs()) == 64


def test_none_is_forgotten_at_the_stop():
    house = House()
    house.make_busy()
    house.settle(3)
    house.thread.stop()
    assert len(house.inbox.jobs()) == 3
    refused: list[Any] = []
    house.thread.change_soon(list).addErrback(refused.append)
    refused[0].trap(Unavailable)
    house.clock.advance(1)
    assert len(house.inbox.jobs()) == 3


@pytest.mark.parametrize("count", [1, 100])
def test_with_no_time_to_gather_nothing_waits(count):
    house = House(gather_seconds=0.0)
    house.settle(count)
    assert len(house.inbox.jobs()) == count
