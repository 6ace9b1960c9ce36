"""Rates and their buckets: at the limit, over it, recovered (R-LIM-2), and what hostile clients and clocks can do."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.wire.rates import SET_OCTETS, WAYS, Buckets, Rate, hash_position, parse_rate

START = 1_700_000_000.0


def buckets(sets: int = 64, key: bytes = b"k" * 32) -> Buckets:
    return Buckets(memoryview(bytearray(sets * SET_OCTETS)), key)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("", None),
        ("1 per second", Rate(1, 1, 1)),
        ("300 per minute", Rate(300, 60, 300)),
        ("300 per minute, burst 600", Rate(300, 60, 600)),
        ("5 per 10 seconds, burst 1", Rate(5, 10, 1)),
        ("1000 per 2 hours", Rate(1000, 7200, 1000)),
        ("7 per day", Rate(7, 86400, 7)),
    ],
)
def test_rates_are_read(text, rate):
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    [
        "0 per minute",
        "1 per 0 minutes",
        "5",
        "5/minute",
        "1 per minute, burst 0",
        "-1 per day",
        "1 per week",
        "1  per day",
    ],
)
def test_what_is_no_rate_is_told_with_an_example(text):
    with pytest.raises(ValueError, match="300 per minute"):
        parse_rate(text)


@pytest.mark.parametrize("rate", [Rate(60, 60, 60), Rate(300, 60, 600), Rate(1, 3600, 1), Rate(1000, 60, 2000)])
def test_r_lim_2_at_over_and_recovered(rate):
    table, now = buckets(), START
    assert all(table.take("kind", "name", rate, now) for _ in range(rate.burst))
    assert not table.take("kind", "name", rate, now)
    assert table.used("kind", "name", rate, now) == pytest.approx(rate.burst)
    now += rate.interval
    assert table.take("kind", "name", rate, now)
    assert not table.take("kind", "name", rate, now)
    now += rate.burst * rate.interval
    assert all(table.take("kind", "name", rate, now) for _ in range(rate.burst))
    assert not table.take("kind", "name", rate, now)


def test_kinds_and_names_do_not_share_a_bucket():
    table, rate = buckets(), Rate(1, 60, 1)
    for kind in ("a", "b"):
        for name in ("x", "y", ""):
            assert table.take(kind, name, rate, START)
            assert not table.take(kind, name, rate, START)


def test_what_is_refused_is_not_counted_and_an_amount_counts_as_a_whole():
    table, rate = buckets(), Rate(10, 10, 10)
    assert table.take("k", "n", rate, START, 7)
    assert not table.take("k", "n", rate, START, 4)
    assert table.take("k", "n", rate, START, 3)
    assert not table.take("k", "n", rate, START, 1)


def test_what_is_given_back_can_be_taken_again():
    table, rate = buckets(), Rate(2, 60, 2)
    table.give_back("k", "n", rate, START)  # of nobody: nothing happens
    assert table.take("k", "n", rate, START)
    assert table.take("k", "n", rate, START)
    table.give_back("k", "n", rate, START)
    assert table.take("k", "n", rate, START)
    assert not table.take("k", "n", rate, START)
    table.clear("k", "n")
    assert table.used("k", "n", rate, START) == 0


def test_a_clock_that_is_set_back_refuses_no_longer_than_a_full_bucket_does():
    table, rate = buckets(), Rate(10, 10, 10)
    for _ in range(10):
        assert table.take("k", "n", rate, START)
    earlier = START - 1_000_000
    assert not table.take("k", "n", rate, earlier)
    assert table.take("k", "n", rate, earlier + 1)
    assert not table.take("k", "n", rate, earlier + 1)
    assert sum(table.take("k", "n", rate, earlier + 11) for _ in range(20)) == 10


def test_a_full_set_gives_the_place_of_who_has_recovered_longest():
    table, rate = buckets(sets=1), Rate(1, 60, 100)
    for number in range(WAYS):
        for _ in range(1 + number):
            assert table.take("k", str(number), rate, START)
    assert table.take("k", "new", rate, START)
    assert table.used("k", "0", rate, START) == 0
    assert table.used("k", "7", rate, START) == pytest.approx(8)
    assert table.used("k", "new", rate, START) == pytest.approx(1)


def test_memory_is_bounded_and_a_flood_of_names_does_not_free_who_is_refused():
    table, rate = buckets(sets=16), Rate(10, 60, 10)
    while table.take("k", "attacker", rate, START):
        pass
    memory = table.capacity
    for number in range(20 * memory):
        table.take("k", f"flood {number}", rate, START + number * 0.001)
    assert table.capacity == memory
    assert not table.take("k", "attacker", rate, START + 1)


def test_names_fall_into_other_sets_with_another_key():
    """A client that knows names which share a set under one key knows nothing about the next run's."""
    crowd = [str(number) for number in range(4000) if hash_position(b"one" * 8, str(number), 256)[1] == 0]
    assert len(crowd) > 4
    assert len({hash_position(b"two" * 8, name, 256)[1] for name in crowd}) > len(crowd) // 2


@given(st.text(), st.text())
def test_any_name_will_do(kind, name):
    table, rate = buckets(sets=2), Rate(1, 60, 1)
    assert table.take(kind, name, rate, START)
    assert not table.take(kind, name, rate, START)


@given(st.lists(st.floats(min_value=-100, max_value=1000), max_size=60))
def test_never_more_than_burst_and_rate_allow(steps):
    """Whatever the clock does: not more than the burst and what has recovered since, for time that goes on."""
    table, rate = buckets(), Rate(1, 10, 5)
    now = latest = START
    passed = taken = 0.0
    for step in steps:
        now += step
        passed += max(0.0, now - latest)
        latest = max(latest, now)
        taken += table.take("k", "n", rate, now)
    moved_back = sum(-step for step in steps if step < 0)
    assert taken <= rate.burst + (passed + moved_back) / rate.interval + len(steps) * 0.02 + 1


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e300, -1.0])
def test_whatever_stands_in_the_memory_does_no_lasting_harm(garbage):
    memory = memoryview(bytearray(SET_OCTETS))
    table, rate = Buckets(memory, b"k"), Rate(2, 2, 2)
    assert table.take("k", "n", rate, START)
    times = memory.cast("d")
    for slot in range(WAYS):
        times[WAYS + slot] = garbage
    table.give_back("k", "n", rate, START)
    assert table.take("k", "n", rate, START + 2)
    assert table.take("k", "n", rate, START + 4)


def test_memory_of_no_whole_set_is_refused():
    for size in (0, 8, SET_OCTETS + 16):
        with pytest.raises(ValueError, match="whole sets"):
            Buckets(memoryview(bytearray(size)), b"k")
