"""The queue before threads: bounded, and never in the way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from mailsrv.errors import Unavailable
from mailsrv.threads import ThreadQueue
from tests.contracts.directory import RunAtOnce


def fail() -> int:
    raise KeyError("x")


class Case:
    def __init__(self, limit: int = 3) -> None:
        self.threads = RunAtOnce()
        self.threads.hold = True
        self.queue = ThreadQueue(self.threads, limit, "apples")
        self.answers: list[Any] = []

    def run(self, function: Any = lambda: 1) -> Deferred[Any]:
        answer: Deferred[Any] = self.queue.run(function)
        answer.addBoth(self.answers.append)
        return answer


def test_r_lim_2_at_its_limit_past_it_and_recovered():
    case = Case()
    for _ in range(5):
        case.run()
    assert (case.queue.pending, case.queue.refused) == (3, 2)
    assert [answer.value.cause for answer in case.answers] == ["too many apples wait"] * 2
    assert all(answer.check(Unavailable) for answer in case.answers)
    case.threads.go()
    assert case.answers[2:] == [1, 1, 1]
    assert case.queue.pending == 0
    case.run()
    case.threads.go()
    assert case.answers[-1] == 1


def test_what_is_raised_comes_out():
    case = Case()
    case.run(fail)
    case.threads.go()
    assert case.answers[0].check(KeyError)


@pytest.mark.parametrize("function", [lambda: 1, fail])
def test_who_has_gone_is_told_nothing_and_counts_until_the_thread_is_done(function):
    case = Case()
    case.run(function).cancel()
    given_up = case.queue.run(function)
    given_up.addErrback(case.answers.append)
    given_up.errback(Unavailable())
    assert case.queue.pending == 2
    assert len(case.answers) == 2
    case.threads.go()
    assert case.queue.pending == 0
    assert len(case.answers) == 2


def test_another_limit_holds_at_once():
    case = Case(1)
    case.run()
    case.run()
    case.queue.limit = 2
    case.run()
    assert (case.queue.pending, case.queue.refused) == (2, 1)


@given(st.lists(st.booleans(), max_size=50))
def test_no_more_than_the_limit_whatever_happens(begins):
    case = Case(4)
    for begin in begins:
        if begin:
            case.run()
        else:
            case.threads.go()
        assert 0 <= case.queue.pending <= 4
    case.threads.go()
    assert case.queue.pending == 0
    assert len(case.answers) == sum(begins)
