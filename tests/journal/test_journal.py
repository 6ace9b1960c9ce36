"""The journal's promises, one by one, with its threads stepped by hand."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from attrs import evolve
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from mailsrv.errors import InsufficientStorage, Unavailable
from mailsrv.interfaces.content import FileContent, InlineContent, ISpool, ISpoolWriter
from mailsrv.interfaces.journal import IJournal
from mailsrv.journal import recover_all_slots
from mailsrv.journal.slot import Slot
from mailsrv.testing.disk import ModelDisk
from tests.journal.rig import ALICE, BOB, DIRECTORY, SMALL, FileApplier, Rig, message


@pytest.fixture
def rig():
    return Rig(ModelDisk()).start()


def syncs(rig):
    return sum(name == "sync" for name, _ in rig.disk.operations)


def error_of(result):
    assert len(result) == 1
    assert isinstance(result[0], Failure)
    return result[0].value


def test_provides_the_interfaces(rig):
    assert verifyObject(IJournal, rig.journal)
    assert verifyObject(ISpool, rig.journal.spool)
    assert verifyObject(ISpoolWriter, rig.journal.spool.begin())


def test_a_message_for_two_accounts(rig):
    answer = rig.commit(b"text", ALICE, BOB)
    rig.pump()
    assert answer == [None]
    assert rig.applier.texts(ALICE) == rig.applier.texts(BOB) == [b"text"]


def test_r_dur_7_everything_that_waited_goes_with_one_write_and_one_sync(rig):
    first = rig.commit(b"0")
    rig.pump()
    assert first == [None]
    before = len(rig.disk.operations)
    answers = [rig.commit(b"%d" % number) for number in range(20)]
    assert len(rig.disk.operations) == before, "the reactor thread touched the disk"
    rig.step("commit")
    assert [name for name, _ in rig.disk.operations[before:]] == ["write", "sync"]
    assert answers == [[]] * 20
    rig.step("apply")
    assert len(rig.applier.batches[-1]) == 20
    assert len(rig.reactor.posted) == 1, "one hand-over back for the whole batch"
    rig.reactor.run_calls()
    assert answers == [[None]] * 20


def test_the_answer_waits_for_the_apply_but_not_for_ever(rig):
    answer = rig.commit(b"text")
    rig.reactor.advance(10)
    assert answer == [], "not synced, so no answer however long it takes"
    rig.step("commit")
    rig.reactor.advance(0.2)
    assert answer == []
    rig.reactor.advance(0.1)
    assert answer == [None]
    rig.pump()
    assert rig.applier.texts() == [b"text"]
    assert answer == [None]


def test_notes_are_synced_before_the_answer(rig):
    answer = rig.commit_and_note(message(b"one"), message(b"two"))
    rig.step("commit")
    rig.step("apply")
    rig.reactor.run_calls()
    assert answer == []
    before = syncs(rig)
    rig.step("commit")
    assert syncs(rig) == before + 1
    rig.reactor.run_calls()
    assert [applied.uid for applied in answer[0]] == [1, 2]


def test_a_told_uid_comes_back_after_a_crash(rig):
    rig.commit(b"first")
    answer = rig.commit_and_note(message(b"told"))
    rig.pump()
    told = answer[0][0]
    after = rig.disk.after_power_cut(0)
    again = Rig(after).start()
    noted = [pending.noted for batch in again.applier.batches for pending in batch]
    assert noted == [None, told]
    assert all(pending.is_replay for batch in again.applier.batches for pending in batch)


def test_append_is_withdrawn_when_it_cannot_be_applied(rig):
    rig.applier.failing[ALICE] = Unavailable(cause="broken index")
    answer = rig.commit_and_note(message(b"one"), message(b"two"))
    rig.pump()
    assert error_of(answer).cause == "broken index"
    again = Rig(rig.disk.after_power_cut(1)).start()
    assert again.applier.texts() == []
    # Nothing is left of it in this run either, and the account is not blocked.
    assert rig.journal.status().blocked_deliveries == 0
    assert rig.journal.status().unapplied_octets == 0


def test_append_behind_a_failing_delivery_is_refused_at_once(rig):
    rig.applier.failing[ALICE] = Unavailable()
    assert rig.commit(b"mail") == []
    rig.pump()
    del rig.applier.failing[ALICE]
    answer = rig.commit_and_note(message(b"append"))
    rig.pump()
    assert isinstance(error_of(answer), Unavailable)
    rig.tick(2.0)
    assert rig.applier.texts() == [b"mail"]


def test_a_failing_account_holds_up_nobody_else_and_keeps_its_order(rig):
    rig.applier.failing[ALICE] = InsufficientStorage()
    first = rig.commit(b"1", ALICE, BOB)
    rig.pump()
    assert first == [None], "it is durable"
    second = rig.commit(b"2", ALICE)
    rig.pump()
    assert second == [None]
    assert rig.applier.texts(BOB) == [b"1"]
    del rig.applier.failing[ALICE]
    rig.tick(0.5)
    assert rig.applier.texts(ALICE) == []
    rig.tick(0.6)
    assert [pending.message.content.octets for pending in rig.applier.batches[-1]] == [b"1", b"2"]
    assert rig.applier.texts(ALICE) == [b"1", b"2"]
    assert rig.journal.status().unapplied_octets == 0


def test_an_applier_that_raises_is_asked_account_by_account(rig):
    apply = rig.applier.apply

    def raising(deliveries):
        if any(pending.delivery.account == BOB for pending in deliveries):
            raise ZeroDivisionError
        return apply(deliveries)

    rig.applier.apply = raising
    answer = rig.commit(b"text", ALICE, BOB)
    rig.pump()
    assert answer == [None]
    assert rig.applier.texts(ALICE) == [b"text"]
    assert rig.journal.status().blocked_deliveries == 1


def result_of(rig, deferred):
    found: list[Any] = []
    deferred.addBoth(found.append)
    rig.pump()
    return found[0]


def test_mail_that_goes_nowhere_is_put_aside_whole_and_can_be_tried_again(rig):
    rig.applier.failing[ALICE] = Unavailable(cause="no such disk")
    large = rig.spool(b"L" * 5000)
    rig.pump()
    rig.commit(b"small text")
    rig.commit(large[0])
    rig.pump()
    for _ in range(5):
        rig.tick(60)
    assert rig.journal.status().blocked_deliveries == 0
    stuck = result_of(rig, rig.journal.list_stuck())
    assert sorted((one.account, one.mailbox, one.size, one.is_content_complete) for one in stuck) == [
        (ALICE, "INBOX", size, True) for size in (10, 5000)
    ]
    assert "no such disk" in stuck[0].error
    keys = {one.key.segment_id for one in stuck}
    rig.tick(120)
    rig.tick(120)
    assert rig.journal.status().live_segments == 0
    assert keys <= rig.journal.live_segments(), "their keys may come again"
    # Nothing of it is replayed at the next start, and a retry while the account fails changes nothing.
    again = Rig(rig.disk.after_power_cut(0)).start()
    assert again.applier.batches == []
    again.applier.failing[ALICE] = Unavailable()
    tried = result_of(again, again.journal.retry_stuck())
    assert [one.is_delivered for one in tried] == [False, False]
    del again.applier.failing[ALICE]
    tried = result_of(again, again.journal.retry_stuck())
    assert [one.is_delivered for one in tried] == [True, True]
    assert again.applier.texts() == [b"L" * 5000, b"small text"]
    assert result_of(again, again.journal.list_stuck()) == []
    last = Rig(again.disk.after_power_cut(0)).start()
    assert last.applier.texts() == [b"L" * 5000, b"small text"]


def test_mail_that_was_put_aside_is_not_replayed(rig):
    rig.applier.failing[ALICE] = Unavailable()
    rig.commit(b"text")
    rig.pump()
    while not result_of(rig, rig.journal.list_stuck()):
        rig.reactor.advance(60)
        rig.workers["journal-apply"].handler([])
    rig.step("commit")
    again = Rig(rig.disk.after_power_cut(0)).start()
    assert again.applier.batches == []
    assert len(result_of(again, again.journal.list_stuck())) == 1


def test_r_dur_4_a_refused_record_does_not_come_back_with_the_next_start(rig):
    """Its octets may well be on the disk: the seal in the next segment tells."""
    rig.commit(b"before")
    rig.pump()
    slot = rig.slot
    failed = slot.live[-1].segment.path
    rig.disk.fail_at(len(rig.disk.operations) + 1, errno.EIO)
    answer = rig.commit(b"refused")
    rig.step("commit")
    rig.reactor.run_calls()
    assert isinstance(error_of(answer), Unavailable)
    after = rig.commit(b"after")
    rig.step("commit")
    assert slot.live[-1].segment.path != failed
    rig.step("apply")
    rig.reactor.run_calls()
    assert after == [None]
    for seed in range(40):
        again = Rig(rig.disk.after_power_cut(seed)).start()
        assert again.applier.texts() == [b"after", b"before"]


def test_r_dur_4_a_sync_error_closes_the_segment_for_good(rig):
    rig.commit(b"before")
    rig.pump()
    failed = rig.slot.live[-1].segment.path
    rig.disk.fail_from(len(rig.disk.operations) + 1, errno.EIO, ["sync"])
    answer = rig.commit(b"refused")
    rig.disk.on_operation = lambda name, path: rig.disk.heal() if path != failed else None
    rig.step("commit")
    rig.reactor.run_calls()
    assert isinstance(error_of(answer), Unavailable)
    after = rig.commit(b"after")
    rig.pump()
    assert after == [None]
    assert ("write", failed) not in rig.disk.operations[-30:]
    for seed in range(30):
        again = Rig(rig.disk.after_power_cut(seed)).start()
        assert again.applier.texts() == [b"after", b"before"]


def test_r_dur_5_no_room_is_452_and_leaves_nothing(rig):
    rig.disk.fail_from(len(rig.disk.operations), errno.ENOSPC, ["write", "fill", "create"])
    answer = rig.commit(b"refused")
    rig.pump()
    assert isinstance(error_of(answer), InsufficientStorage)
    rig.disk.heal()
    rig.tick(1)
    assert rig.commit(b"taken") == []
    rig.pump()
    assert rig.applier.texts() == [b"taken"]
    assert Rig(rig.disk.after_power_cut(1)).start().applier.texts() == [b"taken"]


def test_r_dur_5_below_the_floor_nothing_is_taken():
    disk = ModelDisk(capacity=1 << 20)
    rig = Rig(disk, evolve(SMALL, free_space_floor=900_000)).start()
    rig.tick()
    assert rig.journal.check_acceptance(1000) is None
    filler = disk.create("/filler")
    filler.fill(0, 200_000)
    rig.tick(1)
    assert isinstance(rig.journal.check_acceptance(1000), InsufficientStorage)
    assert isinstance(error_of(rig.commit(b"x")), InsufficientStorage)
    filler.truncate(0)
    rig.tick(1)
    assert rig.journal.check_acceptance(1000) is None


def test_r_full_1_the_spare_segment_is_given_up_to_a_full_disk():
    disk = ModelDisk(capacity=200_000)
    rig = Rig(disk).start()
    rig.tick()
    filler = disk.create("/filler")
    filler.fill(0, disk.space.free - 100)
    rig.tick(1)
    assert disk.space_left("/").free_octets >= SMALL.segment_octets, "room for an EXPUNGE"
    filler.truncate(0)
    rig.tick(1)
    assert rig.slot.has_spare()
    assert rig.commit(b"text") == []
    rig.pump()
    assert rig.applier.texts() == [b"text"]


def test_r_lim_2_the_backlog_is_bounded_and_recovers():
    rig = Rig(ModelDisk(), evolve(SMALL, backlog_octets=10_000, stuck_after=100)).start()
    rig.applier.failing[ALICE] = Unavailable()
    for _ in range(4):
        rig.commit(b"x" * 1500)
        rig.pump()
    assert rig.journal.check_acceptance(1000) is None
    refused = rig.journal.check_acceptance(2000)
    assert isinstance(refused, InsufficientStorage)
    assert isinstance(error_of(rig.commit(b"x" * 2000)), InsufficientStorage)
    del rig.applier.failing[ALICE]
    rig.tick(2)
    assert rig.journal.check_acceptance(2000) is None


def test_segments_go_round_and_their_number_is_bounded(rig):
    for number in range(200):
        answer = rig.commit(b"%03d" % number + b"x" * 1000)
        rig.pump()
        rig.tick(0.1)
        assert answer == [None]
    files = [entry.name for entry in rig.disk.list_directory(f"{DIRECTORY}/slot-0") if "segment" in entry.name]
    assert len(files) <= 4
    assert len(rig.applier.texts()) == 200


def test_when_all_segments_are_held_new_mail_is_refused_and_later_taken():
    rig = Rig(ModelDisk(), evolve(SMALL, stuck_after=1000, most_segments=4)).start()
    rig.disk.fail_from(0, errno.EIO, ["sync_paths"])
    answers = []
    for _ in range(150):
        answers.append(rig.commit(b"x" * 1500))
        rig.pump()
    refused = [answer for answer in answers if answer != [None]]
    assert refused
    assert all(isinstance(error_of(answer), InsufficientStorage) for answer in refused)
    taken = len(answers) - len(refused)
    assert len(rig.applier.texts()) == taken
    rig.disk.heal()
    for _ in range(4):
        rig.tick(31)
    assert rig.commit(b"y") == []
    rig.pump()
    assert len(rig.applier.texts()) == taken + 1


def test_a_failed_checkpoint_recycles_nothing_and_applies_again(rig):
    rig.commit(b"text")
    rig.pump()
    rig.disk.fail_from(0, errno.EIO, ["sync_paths"])
    rig.tick(61)
    rig.tick(1)
    assert rig.journal.status().failed_checkpoints > 0
    assert rig.applier.doubted
    assert rig.applier.texts() == [b"text"]
    for seed in range(10):
        assert Rig(rig.disk.after_power_cut(seed)).start().applier.texts() == [b"text"]
    rig.disk.heal()
    rig.tick(31)
    rig.tick(1)
    assert rig.journal.status().live_segments == 0
    for seed in range(10):
        again = Rig(rig.disk.after_power_cut(seed)).start()
        assert again.applier.batches == []
        assert again.applier.texts() == [b"text"]


def test_an_idle_server_moves_its_mail_out_of_the_journal(rig):
    large = rig.spool(b"L" * 5000)
    rig.pump()
    rig.commit(large[0])
    rig.pump()
    assert rig.disk.status(large[0].path) is not None
    rig.tick(61)
    rig.tick(1)
    assert rig.journal.status().live_segments == 0
    assert rig.disk.status(large[0].path) is None, "deleted mail would otherwise free no space"
    assert rig.applier.texts() == [b"L" * 5000]


def test_after_a_clean_stop_nothing_is_replayed(rig):
    for number in range(30):
        rig.commit(b"%d" % number * 500)
    rig.stop()
    for seed in (0, 1, 2):
        again = Rig(rig.disk.after_power_cut(seed)).start()
        assert again.applier.batches == []
        assert len(again.applier.texts()) == 30
    assert isinstance(error_of(rig.commit(b"late")), Unavailable)


def test_stop_waits_for_the_start(rig):
    other = Rig(rig.disk)
    order: list[str] = []
    other.journal.start().addCallback(lambda _: order.append("started"))
    other.journal.stop().addCallback(lambda _: order.append("stopped"))
    assert order == []
    other.pump()
    assert order == ["started", "stopped"]
    assert all(worker.is_stopped for worker in other.workers.values())


def test_a_start_that_fails_ends_its_threads():
    disk = ModelDisk()
    disk.fail_from(0, errno.EIO)
    rig = Rig(disk)
    with pytest.raises(OSError, match="error"):
        rig.start()
    assert all(worker.is_stopped for worker in rig.workers.values())
    assert isinstance(rig.journal.check_acceptance(1), Unavailable)


def test_what_an_account_cannot_take_survives_a_clean_stop(rig):
    rig.applier.failing[ALICE] = Unavailable()
    rig.commit(b"text", ALICE, BOB)
    rig.pump()
    rig.stop()
    again = Rig(rig.disk.after_power_cut(0)).start()
    assert again.applier.texts(ALICE) == again.applier.texts(BOB) == [b"text"]


def test_two_processes_take_two_slots_and_a_third_finds_what_one_left():
    disk = ModelDisk()
    first, second = Rig(disk).start(), Rig(disk).start()
    second.commit(b"from the second")
    second.step("commit")
    ids = first.journal.live_segments()
    assert second.slot.live[-1].segment.segment_id in ids
    # The second dies; its lock goes with it.
    second.slot._lock_file.close()
    first.tick(61)
    assert first.applier.texts() == [b"from the second"]
    third = Rig(disk).start()
    assert third.slot.directory.endswith("slot-1")
    assert third.applier.batches == []


def test_all_slots_are_recovered_before_anything_is_accepted():
    disk = ModelDisk()
    rigs = [Rig(disk).start() for _ in range(3)]
    for number, rig in enumerate(rigs):
        rig.commit(b"%d" % number)
        rig.step("commit")
    after = disk.after_power_cut(0)
    applier = FileApplier(after)
    applier.failing[BOB] = Unavailable()
    recovery = recover_all_slots(SMALL, DIRECTORY, after, applier)
    assert (recovery.slots, recovery.deliveries, recovery.left) == (3, 3, 0)
    assert applier.texts() == [b"0", b"1", b"2"]
    assert recover_all_slots(SMALL, DIRECTORY, after, applier).slots == 0
    assert recover_all_slots(SMALL, "/nowhere", after, applier).slots == 0


def test_recovery_leaves_what_an_account_cannot_take():
    disk = ModelDisk()
    rig = Rig(disk).start()
    rig.commit(b"1", ALICE, BOB)
    rig.commit(b"2", ALICE)
    rig.step("commit")
    after = disk.after_power_cut(0)
    applier = FileApplier(after)
    applier.failing[ALICE] = Unavailable()
    assert recover_all_slots(SMALL, DIRECTORY, after, applier).left == 2
    assert applier.texts(BOB) == [b"1"]
    del applier.failing[ALICE]
    assert recover_all_slots(SMALL, DIRECTORY, after, applier).left == 0
    assert applier.texts(ALICE) == [b"1", b"2"]
    assert applier.texts(BOB) == [b"1"]


def test_many_small_messages_in_one_unit_are_put_into_files(rig):
    messages = [message(b"%02d" % number * 500) for number in range(30)]
    answer = rig.commit_and_note(*messages)
    rig.pump()
    assert len(answer[0]) == 30
    again = Rig(rig.disk.after_power_cut(0)).start()
    assert again.applier.texts() == sorted(b"%02d" % number * 500 for number in range(30))


def test_a_record_that_fits_nowhere_is_refused_and_the_rest_goes_on(rig):
    too_many = [ALICE] * 2000
    large = rig.commit(b"x", *too_many)
    broken = rig.commit_and_note(message(b"x", mailbox="\ud800"))
    fine = rig.commit(b"fine")
    rig.pump()
    assert isinstance(error_of(large), InsufficientStorage)
    assert isinstance(error_of(broken), Unavailable)
    assert fine == [None]
    assert rig.applier.texts() == [b"fine"]
    assert rig.journal.status().unapplied_octets == 0


def test_records_behind_damaged_ones_are_delivered_and_the_segment_is_kept(rig):
    for number in range(4):
        rig.commit(b"%d" % number * 100)
        rig.step("commit")
    segment = rig.slot.live[-1].segment
    first = next(segment.records())
    after = rig.disk.after_power_cut(0)
    after.open(segment.path, write=True).write(first.offset + 60, [b"\xff"])
    again = Rig(after).start()
    assert again.applier.texts() == [b"%d" % number * 100 for number in (1, 2, 3)]
    assert any(entry.name.endswith(".damaged") for entry in after.list_directory(f"{DIRECTORY}/slot-0"))


# -- spool -----------------------------------------------------------------------


def test_small_content_stays_in_memory(rig):
    before = len(rig.disk.operations)
    assert rig.spool(b"x" * SMALL.inline_limit) == [InlineContent(b"x" * SMALL.inline_limit)]
    assert len(rig.disk.operations) == before


def test_large_content_is_synced_with_its_name(rig):
    octets = bytes(range(256)) * 20
    answer = rig.spool(octets)
    rig.pump()
    content = answer[0]
    assert isinstance(content, FileContent)
    assert content.size == len(octets)
    rig.commit(content, ALICE, BOB)
    rig.step("commit")
    again = Rig(rig.disk.after_power_cut(0)).start()
    assert again.applier.texts(ALICE) == again.applier.texts(BOB) == [octets]


def test_the_sender_waits_while_the_disk_is_behind(rig):
    writer = rig.journal.spool.begin()
    waits = []
    for _ in range(6):
        deferred = writer.write(b"x" * 1000)
        waits.append(deferred)
    assert waits[:4] == [None] * 4
    assert waits[4] is not None
    assert waits[5] is waits[4]
    fired: list[Any] = []
    waits[4].addCallback(fired.append)
    rig.pump()
    assert fired == [None]
    answer: list[Any] = []
    writer.finish().addCallback(answer.append)
    rig.pump()
    assert answer[0].size == 6000


def test_orphans_are_removed_at_the_next_start_and_named_files_stay(rig):
    kept, orphan = rig.spool(b"k" * 5000), rig.spool(b"o" * 5000)
    rig.pump()
    rig.applier.failing[ALICE] = Unavailable()
    rig.commit(kept[0])
    rig.pump()
    after = rig.disk.after_power_cut(1)
    applier = FileApplier(after)
    applier.failing[ALICE] = Unavailable()
    again = Rig(after, applier=applier).start()
    assert again.disk.status(kept[0].path) is not None
    assert again.disk.status(orphan[0].path) is None


def test_content_that_is_given_up_leaves_no_file(rig):
    finished = rig.spool(b"x" * 5000)
    rig.pump()
    rig.journal.spool.discard(finished[0])
    rig.journal.spool.discard(InlineContent(b""))
    aborted = rig.journal.spool.begin()
    aborted.write(b"x" * 5000)
    aborted.write(b"x" * 5000)
    aborted.abort()
    rig.pump()
    late = rig.journal.spool.begin()
    late.write(b"x" * 5000)
    rig.pump()
    late.abort()
    rig.pump()
    assert rig.disk.list_directory(f"{DIRECTORY}/slot-0/spool") == []


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, InsufficientStorage), (errno.EDQUOT, InsufficientStorage), (errno.EIO, Unavailable)],
)
@pytest.mark.parametrize("operation", ["create", "write", "sync", "sync_directory"])
def test_r_dur_5_spool_errors_come_out_of_finish(rig, operation, number, expected):
    rig.disk.fail_from(len(rig.disk.operations), number, [operation])
    writer = rig.journal.spool.begin()
    writer.write(b"x" * 5000)
    rig.pump()
    waiting = writer.write(b"x" * 9000)
    rig.pump()
    assert waiting is None or waiting.called
    answer: list[Any] = []
    writer.finish().addErrback(answer.append)
    rig.pump()
    assert isinstance(answer[0].value, expected)
    rig.disk.heal()
    assert rig.disk.list_directory(f"{DIRECTORY}/slot-0/spool") == []


def test_refused_file_content_is_removed(rig):
    content = rig.spool(b"x" * 5000)
    rig.pump()
    rig.disk.fail_from(len(rig.disk.operations), errno.EIO, ["write"])
    answer = rig.commit(content[0])
    rig.step("commit")
    rig.disk.heal()
    rig.pump()
    assert isinstance(error_of(answer), Unavailable)
    assert rig.disk.list_directory(f"{DIRECTORY}/slot-0/spool") == []


def test_file_content_of_elsewhere_is_refused(rig):
    answer = rig.commit(FileContent("/etc/passwd", 1, b""))
    assert isinstance(error_of(answer), Unavailable)


def test_a_checkpoint_asked_for_before_the_stop_and_answered_after_it_is_over(rig):
    rig.commit(b"text")
    rig.pump()
    rig.slot.close_current()
    stopped: list[object] = []
    rig.journal.stop().addBoth(stopped.append)
    for name in ("spool-0", "commit", "apply", "commit"):
        rig.step(name)
    # The keeper looks once more, behind the stop's own question to the applier.
    rig.workers["journal-keeper"].handler([])
    assert len(rig.workers["journal-apply"].inbox) == 2
    rig.pump()
    assert stopped == [None]
    again = Rig(rig.disk.after_power_cut(0)).start()
    assert again.applier.batches == []
    assert again.applier.texts() == [b"text"]


def test_r_dur_4_a_stop_after_a_failed_checkpoint_leaves_all_to_the_next_start(rig):
    rig.commit(b"text")
    rig.pump()
    rig.disk.fail_from(0, errno.EIO, ["sync_paths"])
    rig.tick(61)
    rig.tick(1)
    rig.disk.heal()
    rig.stop()
    again = Rig(rig.disk.after_power_cut(0)).start()
    assert len(again.applier.batches) == 1
    assert again.applier.texts() == [b"text"]


def test_what_waited_behind_a_failure_is_looked_up_when_it_comes_again(rig):
    rig.applier.failing[ALICE] = Unavailable()
    rig.commit(b"first")
    rig.pump()
    rig.commit(b"second")
    rig.pump()
    assert not any(pending.is_replay for pending in rig.applier.batches[0])
    rig.applier.failing.clear()
    rig.tick(60)
    assert [pending.is_replay for pending in rig.applier.batches[-1]] == [True, True]
    assert rig.applier.texts() == [b"first", b"second"]


def test_r_full_1_a_full_disk_keeps_no_journal_from_opening(rig):
    rig.commit(b"text")
    rig.pump()
    disk = rig.disk.after_power_cut(0)
    disk.fail_from(0, errno.ENOSPC, ["write", "fill", "create"])
    slot = Slot.claim(rig.slot.directory, disk, SMALL)
    assert slot is not None
    slot.open()
    assert len(slot.live) == 1
    slot.close()
    disk.heal()
    disk.unlink(f"{rig.slot.directory}/live")
    disk.fail_from(0, errno.ENOSPC, ["write", "fill", "create"])
    again = Slot.claim(rig.slot.directory, disk, SMALL)
    assert again is not None
    with pytest.raises(OSError, match=r"\[Errno 28\]"):
        again.open()
