"""When a server is left alone, and for how long."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from mailsrv.auth.circuit_breaker import CircuitBreaker, Permission


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return CircuitBreaker(clock, failures=3, pause_seconds=10)


ASK, TRY, WAIT = Permission.ASK, Permission.TRY, Permission.WAIT


def test_a_few_failures_in_a_row_open_it(breaker):
    assert [breaker.failed(ASK) for _ in range(2)] == [False, False]
    assert breaker.permission() is ASK
    assert breaker.failed(ASK)
    assert breaker.permission() is WAIT


def test_a_success_between_starts_the_count_anew(breaker):
    for _ in range(5):
        breaker.failed(ASK)
        breaker.failed(ASK)
        assert not breaker.succeeded()
    assert breaker.permission() is ASK


def test_after_the_pause_one_tries(breaker, clock):
    for _ in range(3):
        breaker.failed(ASK)
    clock.advance(9.9)
    assert breaker.permission() is WAIT
    clock.advance(0.1)
    assert [breaker.permission() for _ in range(3)] == [TRY, WAIT, WAIT]
    breaker.failed(TRY)
    assert breaker.permission() is WAIT
    clock.advance(10)
    assert breaker.permission() is TRY
    assert breaker.succeeded()
    assert breaker.permission() is ASK
    assert not breaker.is_open


def test_what_was_asked_before_the_pause_neither_prolongs_it_nor_ends_the_trial(breaker, clock):
    for _ in range(3):
        breaker.failed(ASK)
    clock.advance(9)
    assert not breaker.failed(ASK)
    clock.advance(1)
    assert breaker.permission() is TRY
    assert not breaker.failed(ASK)
    assert breaker.permission() is WAIT
    # An answer is one, whenever it was asked for.
    assert breaker.succeeded()
    assert breaker.permission() is ASK
