"""A limit that moves: when it is told of, and how often the reactor's timer is touched."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from mailsrv.wire.deadline import Deadline


class Limited:
    def __init__(self) -> None:
        self.clock = Clock()
        self.passed: list[float] = []
        self.deadline = Deadline(self.clock, lambda: self.passed.append(self.clock.seconds()))


@pytest.fixture
def limited() -> Limited:
    return Limited()


def test_it_is_told_of_once(limited: Limited) -> None:
    limited.deadline.set(10)
    limited.clock.pump([9, 1, 10, 10])
    assert limited.passed == [10]
    assert limited.clock.getDelayedCalls() == []


def test_a_later_limit_leaves_the_timer_alone_until_it_fires(limited: Limited) -> None:
    limited.deadline.set(10)
    [timer] = limited.clock.getDelayedCalls()
    for _ in range(9):
        limited.clock.advance(1)
        limited.deadline.set(10)
    assert limited.clock.getDelayedCalls() == [timer]
    assert timer.getTime() == 10
    limited.clock.advance(1)
    assert limited.passed == []
    limited.clock.advance(9)
    assert limited.passed == [19]


def test_an_earlier_limit_moves_it(limited: Limited) -> None:
    limited.deadline.set(10)
    limited.deadline.set(2)
    assert len(limited.clock.getDelayedCalls()) == 1
    limited.clock.advance(2)
    assert limited.passed == [2]


def test_what_is_lifted_or_stopped_is_not_told_of(limited: Limited) -> None:
    limited.deadline.set(10)
    limited.deadline.lift()
    limited.clock.advance(20)
    assert limited.passed == []
    limited.deadline.set(10)
    limited.deadline.stop()
    limited.deadline.stop()
    assert limited.clock.getDelayedCalls() == []


def test_it_can_be_set_again_when_it_is_told_of(limited: Limited) -> None:
    again = Deadline(limited.clock, lambda: again.set(3) if limited.clock.seconds() < 5 else limited.passed.append(1))
    again.set(3)
    limited.clock.pump([3, 3])
    assert limited.passed == [1]
