"""Coroutines that may end at once: the same answers as with Twisted's own way. And waiting for time."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.coroutines import fires_within, pause, run_coroutine


async def _sum(*parts: Deferred[int]) -> int:
    total = 0
    for part in parts:
        total += await part
    return total


class RunCoroutineTests(SynchronousTestCase):
    """What the Deferred says, whenever the answers come."""

    def test_ends_at_once(self) -> None:
        """Nothing that is awaited has to be waited for."""
        assert self.successResultOf(run_coroutine(_sum(succeed(1), succeed(2)))) == 3

    def test_fails_at_once(self) -> None:
        """An exception is the Deferred's, also where it was another's first."""
        self.failureResultOf(run_coroutine(_sum(succeed(1), fail(KeyError("a")))), KeyError)
        assert self.flushLoggedErrors(KeyError) == []

    def test_waits(self) -> None:
        """Every Deferred that fires later is waited for, the first too."""
        first: Deferred[int] = Deferred()
        second: Deferred[int] = Deferred()
        answer = run_coroutine(_sum(first, succeed(10), second))
        self.assertNoResult(answer)
        first.callback(1)
        self.assertNoResult(answer)
        second.callback(100)
        assert self.successResultOf(answer) == 111

    def test_waits_for_a_failure(self) -> None:
        """What fails later raises where it is awaited."""
        late: Deferred[int] = Deferred()
        answer = run_coroutine(_sum(late))
        late.errback(KeyError("a"))
        self.failureResultOf(answer, KeyError)

    def test_waits_within(self) -> None:
        """A coroutine within another may be what waits; each of its steps is done once."""
        late: Deferred[int] = Deferred()
        steps: list[Any] = []

        async def outer() -> int:
            steps.append("before")
            result = await _sum(late)
            steps.append("after")
            return result

        answer = run_coroutine(outer())
        late.callback(5)
        assert (self.successResultOf(answer), steps) == (5, ["before", "after"])

    def test_cancels(self) -> None:
        """Giving the answer up gives up what it waits for."""
        late: Deferred[int] = Deferred()
        answer = run_coroutine(_sum(late))
        answer.cancel()
        self.failureResultOf(answer, CancelledError)


def test_a_pause_is_over_in_time():
    clock, over = Clock(), list[None]()
    pause(clock, 5).addCallback(over.append)
    clock.advance(4.9)
    assert over == []
    clock.advance(0.1)
    assert over == [None]


def test_what_fires_in_time_leaves_no_timer_and_what_does_not_can_be_waited_for_again():
    clock, answers, waiting = Clock(), list[bool](), Deferred[str]()
    fires_within(waiting, 5, clock).addCallback(answers.append)
    clock.advance(5)
    assert answers == [False]
    fires_within(waiting, 5, clock).addCallback(answers.append)
    waiting.callback("result")
    assert answers == [False, True]
    assert clock.getDelayedCalls() == []
    assert waiting.result == "result"


def test_a_failure_in_time_is_left_to_who_waits():
    clock, answers, waiting = Clock(), list[bool](), Deferred[str]()
    fires_within(waiting, 5, clock).addCallback(answers.append)
    waiting.errback(ValueError())
    assert answers == [True]
    seen = list[object]()
    waiting.addErrback(seen.append)
    assert len(seen) == 1
