"""Records that end in one turn of the reactor wake the commit thread once."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from mailsrv.journal.hand_over import HandOver
from mailsrv.testing.disk import ModelDisk
from tests.journal.rig import FakeReactor, ManualWorker, Rig, record


def test_what_is_posted_in_one_turn_goes_together_and_in_order() -> None:
    reactor, worker = FakeReactor(), ManualWorker("w", lambda items: None)
    hand_over: HandOver[int] = HandOver(worker, reactor)
    hand_over.post(1)
    hand_over.post(2)
    assert worker.inbox == []
    assert len(reactor.getDelayedCalls()) == 1
    reactor.advance(0)
    assert worker.inbox == [1, 2]
    hand_over.post(3)
    hand_over.flush()
    assert worker.inbox == [1, 2, 3]
    reactor.advance(0)
    assert worker.inbox == [1, 2, 3]


def test_messages_of_one_turn_share_a_sync() -> None:
    rig = Rig(ModelDisk()).start()
    answers: list[Deferred[None]] = [rig.journal.commit(record(b"one")), rig.journal.commit(record(b"two"))]
    assert not rig.workers["journal-commit"].inbox
    rig.reactor.advance(0)
    assert len(rig.workers["journal-commit"].inbox) == 2
    rig.pump()
    assert [answer.called for answer in answers] == [True, True]
    rig.stop()


def test_what_was_committed_in_the_turn_of_the_stop_is_kept() -> None:
    rig = Rig(ModelDisk()).start()
    answer = rig.commit(b"one")
    rig.stop()
    assert answer == [None]
    assert rig.applier.texts() == [b"one"]
