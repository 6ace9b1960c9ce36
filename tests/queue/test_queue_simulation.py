"""Ten thousand runs of the queue in a world that breaks (see :mod:`mailsrv.testing.queue_simulation`).

A failing run names its seed. To replay it alone, with what it did on standard output::

    MAILSRV_QUEUE_SEED=1234 pytest tests/queue/test_queue_simulation.py

MAILSRV_QUEUE_RUNS sets the number of runs (10,000), MAILSRV_QUEUE_FIRST_SEED the first seed (0).
"""

from __future__ import annotations

import os

import pytest

from mailsrv.testing.queue_simulation import World

RUNS = int(os.environ.get("MAILSRV_QUEUE_RUNS", "10000"))
FIRST = int(os.environ.get("MAILSRV_QUEUE_FIRST_SEED", "0"))
CHUNKS = 10


def _seeds(chunk: int) -> range:
    only = os.environ.get("MAILSRV_QUEUE_SEED")
    if only is not None:
        return range(int(only), int(only) + (chunk == 0))
    size = RUNS // CHUNKS
    return range(FIRST + chunk * size, FIRST + (chunk + 1) * size)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_accepted_recipient_is_delivered_or_bounced_exactly_once(chunk):
    crashes = uncertain = delivered = bounced = 0
    for seed in _seeds(chunk):
        world = World(seed).run()
        crashes += world.crashes
        uncertain += world.uncertain.total()
        delivered += world.delivered.total()
        bounced += len(world.kept.mailboxes)
    print(f"{crashes} crashes, {delivered} delivered, {uncertain} of them uncertain, {bounced} notices")  # noqa: T201
