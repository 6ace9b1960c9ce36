"""Runs of the queue in a world that breaks (see :mod:`mailsrv.testing.queue_simulation`).

Ten thousand runs with the relay's client engine in it are in ``tests/relay/test_relay_simulation.py``.

A failing run names its seed. To replay it alone, with what it did on standard output::

    MAILSRV_QUEUE_SEED=1234 pytest tests/queue/test_queue_simulation.py

MAILSRV_QUEUE_RUNS sets the number of runs (2,000), MAILSRV_QUEUE_FIRST_SEED the first seed (0).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, succeed

from mailsrv.interfaces.journal import JournalRecord
from mailsrv.interfaces.queue import Consignment
from mailsrv.queue.conclusion import Conclusion
from mailsrv.queue.recording import Recording
from mailsrv.testing.queue import MemoryQueueJournal
from mailsrv.testing.queue_account import LostAccount
from mailsrv.testing.queue_hops import SimulatedHops
from mailsrv.testing.queue_simulation import SimulatedDisk, World

RUNS = int(os.environ.get("MAILSRV_QUEUE_RUNS", "2000"))
FIRST = int(os.environ.get("MAILSRV_QUEUE_FIRST_SEED", "0"))
CHUNKS = 10


def _seeds(chunk: int) -> range:
    only = os.environ.get("MAILSRV_QUEUE_SEED")
    if only is not None:
        return range(int(only), int(only) + (chunk == 0))
    size = RUNS // CHUNKS
    return range(FIRST + chunk * size, FIRST + (chunk + 1) * size)


@pytest.mark.parametrize("chunk", [0, *(pytest.param(each, marks=pytest.mark.slow) for each in range(1, CHUNKS))])
def test_every_accepted_recipient_is_delivered_or_bounced_exactly_once(chunk):
    crashes = uncertain = delivered = bounced = 0
    for seed in _seeds(chunk):
        world = World(seed).run()
        crashes += world.crashes
        uncertain += world.account.uncertain.total()
        delivered += world.account.delivered.total()
        bounced += len(world.kept.mailboxes)
    print(f"{crashes} crashes, {delivered} delivered, {uncertain} of them uncertain, {bounced} notices")  # noqa: T201


# That the account would show it: mistakes made on purpose.


def _first_complaint(worlds: int = 300) -> str:
    for seed in range(worlds):
        try:
            World(seed).run()
        except LostAccount as complaint:
            return str(complaint)
    return ""


def test_a_disk_that_says_durable_too_early_is_noticed(monkeypatch):
    def write(disk: SimulatedDisk, operation: Callable[[], None]) -> Deferred[None]:
        disk.clock.callLater(0.5, operation)
        return succeed(None)

    monkeypatch.setattr(SimulatedDisk, "write", write)
    assert "seed" in _first_complaint()


def test_a_result_that_is_forgotten_is_noticed(monkeypatch):
    durable = Recording.record

    def record(recording: Recording, conclusion: Conclusion) -> Deferred[None]:
        return succeed(None) if conclusion.settlements else durable(recording, conclusion)

    monkeypatch.setattr(Recording, "record", record)
    assert "seed" in _first_complaint()


def test_a_notice_apart_from_the_end_of_its_recipient_is_noticed(monkeypatch):
    commit = MemoryQueueJournal.commit

    def in_two_records(journal: MemoryQueueJournal, record: JournalRecord) -> Deferred[None]:
        if len(record.messages) == 1:
            return commit(journal, record)
        first, second = (evolve(record, messages=part) for part in (record.messages[:1], record.messages[1:]))
        return commit(journal, first).addCallback(lambda _: commit(journal, second))

    monkeypatch.setattr(MemoryQueueJournal, "commit", in_two_records)
    assert "told 2 times" in _first_complaint(2000)


def test_an_uncertain_delivery_that_is_not_counted_is_noticed(monkeypatch):
    takes = SimulatedHops.takes

    def uncounted(hops: SimulatedHops, consignment: Consignment, ids: Sequence[int], is_reply_lost: bool) -> None:
        takes(hops, consignment, ids, is_reply_lost=False)

    monkeypatch.setattr(SimulatedHops, "takes", uncounted)
    assert "uncertain 0" in _first_complaint()
