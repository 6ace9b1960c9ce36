"""A journal under load: answers that do not wait for a store that is behind, and batches that grow."""

from __future__ import annotations

import pytest
from attrs import evolve

from mailsrv.testing.disk import ModelDisk
from tests.journal.rig import SMALL, Rig, message

PACE = evolve(SMALL, apply_ahead=10, linger_from=8, apply_linger=0.05)


@pytest.fixture
def rig():
    return Rig(ModelDisk(), PACE).start()


def test_an_answer_does_not_wait_for_a_store_that_is_behind(rig):
    first = rig.commit(b"first")
    rig.step("commit")
    rig.reactor.run_calls()
    assert first == [], "nothing is ahead of it: it waits to be in its mailbox"
    second = rig.commit(b"second")
    rig.step("commit")
    rig.reactor.run_calls()
    assert second == [None]
    assert first == []
    rig.pump()
    assert first == [None]
    assert rig.applier.texts() == [b"first", b"second"]


def test_r_lim_2_too_far_behind_everybody_waits_again(rig):
    answers = []
    for number in range(12):
        answers.append(rig.commit(b"%d" % number))
        rig.step("commit")
        rig.reactor.run_calls()
    assert answers == [[]] + [[None]] * 9 + [[]] * 2
    rig.pump()
    assert answers == [[None]] * 12
    again = rig.commit(b"again")
    rig.pump()
    assert again == [None]


def test_a_note_is_never_told_before_it_is_synced(rig):
    rig.commit(b"first")
    rig.step("commit")
    noted = rig.commit_and_note(message(b"second"))
    rig.step("commit")
    rig.reactor.run_calls()
    assert noted == []
    rig.pump()
    assert len(noted) == 1


def test_a_busy_server_gathers_and_a_quiet_one_does_not(rig):
    worker = rig.workers["journal-apply"]
    for number in range(8):
        rig.commit(b"%d" % number)
    rig.pump()
    assert worker.linger == 0.05
    single = rig.commit(b"single")
    rig.step("commit")
    rig.reactor.run_calls()
    assert single == [None], "it need not wait while others are gathered"
    rig.pump()
    assert worker.linger == 0.0


def test_a_few_busy_connections_are_gathered_too(rig):
    worker = rig.workers["journal-apply"]
    for number in range(3):
        rig.commit(b"%d" % number)
        rig.commit(b"%d too" % number)
        rig.pump()
        assert worker.linger == 0.0
        rig.reactor.advance(0.01)
    rig.commit(b"last")
    rig.commit(b"last, too")
    rig.pump()
    assert worker.linger == 0.05


def test_one_message_after_the_other_is_in_its_mailbox_when_it_is_told(rig):
    worker = rig.workers["journal-apply"]
    for number in range(20):
        told = rig.commit(b"%d" % number)
        rig.pump()
        assert told == [None]
        assert len(rig.applier.texts()) == number + 1
        assert worker.linger == 0.0
        rig.reactor.advance(0.001)


def test_messages_now_and_then_are_stored_at_once(rig):
    worker = rig.workers["journal-apply"]
    for number in range(20):
        rig.commit(b"%d" % number)
        rig.commit(b"%d too" % number)
        rig.pump()
        assert worker.linger == 0.0
        rig.reactor.advance(0.02)


def test_an_import_of_one_message_after_the_other_is_not_gathered(rig):
    worker = rig.workers["journal-apply"]
    for number in range(20):
        rig.commit_and_note(message(b"%d" % number))
        rig.pump()
        assert worker.linger == 0.0
