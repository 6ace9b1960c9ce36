"""Leases of what takes long are renewed."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailsrv.errors import Unavailable
from mailsrv.queue.renewal import LeaseRenewal
from mailsrv.testing.queue import MemoryQueueStore
from tests.queue.queue_rig import Rig, bob, taken


def test_what_is_in_hand_is_said_several_times_a_lease():
    clock = Clock()
    store, in_hand = MemoryQueueStore(clock.seconds), [[], [7], [7, 8], []]
    renewal = LeaseRenewal(store, clock, lambda: in_hand.pop(0), lease_seconds=400)
    renewal.start()
    clock.pump([100] * 4)
    assert store.renewed == [(7,), (7, 8)]
    renewal.stop()
    renewal.stop()
    assert not clock.getDelayedCalls()


def test_what_is_sent_is_in_hand_until_its_result_is_written():
    sending: list[Deferred] = []

    def slow(consignment):
        sending.append(Deferred())
        return sending[-1]

    rig = Rig(answer=slow).start()
    rig.send(bob())
    assert len(rig.runner.in_hand()) == 1
    settle = rig.store.settle
    refused: Deferred = Deferred()
    rig.store.settle = lambda *_: refused  # type: ignore[method-assign]
    sending[0].callback(taken(rig.agent.consignments[0]))
    refused.errback(Unavailable(cause="no disk"))
    assert len(rig.runner.in_hand()) == 1
    rig.store.settle = settle  # type: ignore[method-assign]
    rig.advance(10)
    assert rig.runner.in_hand() == []
    assert len(rig.endings) == 1
