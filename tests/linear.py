"""Twice the input, about twice the work: measured in CPU time, so that a busy machine spoils nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

_ROUNDS_AT_LEAST = 3
_ROUNDS_AT_MOST = 15
_SLACK_SECONDS = 0.002


def assert_linear(cost: Callable[[int], float], count: int, *, ratio: float = 3.0) -> None:
    """``cost`` tells the CPU seconds that input of a size takes.

    Sizes are measured in turn, so that what disturbs one disturbs the other, and the smallest of each count. Where they
    do not agree at once, more rounds are made: what is quadratic (a ratio of 4) stays so in all of them.
    """
    once = twice = math.inf
    for number in range(1, _ROUNDS_AT_MOST + 1):
        once, twice = min(once, cost(count)), min(twice, cost(2 * count))
        if number >= _ROUNDS_AT_LEAST and twice <= ratio * once + _SLACK_SECONDS:
            return
    raise AssertionError(f"{count}: {once * 1000:.1f} ms, doubled: {twice * 1000:.1f} ms")


def cpu_seconds(work: Callable[[], object]) -> float:
    """How long ``work`` keeps a processor."""
    began = time.process_time()
    work()
    return time.process_time() - began
