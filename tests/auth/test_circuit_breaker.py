"""When a server is left alone, and for how long."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from mailsrv.auth.circuit_breaker import CircuitBreaker


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return CircuitBreaker(clock, failures=3, pause_seconds=10)


def test_a_few_failures_in_a_row_open_it(breaker):
    assert [breaker.failed() for _ in range(2)] == [False, False]
    assert breaker.may_try()
    assert breaker.failed()
    assert not breaker.may_try()
    # Answers to what was asked before come in still.
    assert not breaker.failed()


def test_a_success_between_starts_the_count_anew(breaker):
    for _ in range(5):
        breaker.failed()
        breaker.failed()
        assert not breaker.succeeded()
    assert breaker.may_try()


def test_after_the_pause_one_tries(breaker, clock):
    for _ in range(3):
        breaker.failed()
    clock.advance(9.9)
    assert not breaker.may_try()
    clock.advance(0.1)
    assert [breaker.may_try() for _ in range(3)] == [True, False, False]
    breaker.failed()
    assert not breaker.may_try()
    clock.advance(10)
    assert breaker.may_try()
    assert breaker.succeeded()
    assert breaker.may_try()
    assert not breaker.is_open
