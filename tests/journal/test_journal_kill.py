"""The process is killed, the machine goes on, and only later the power goes (R-DUR-1, R-DUR-4, R-Q-2).

What a killed process had written is in the cache, and perhaps nowhere else: whoever comes next reads it as if it were
on the disk. Whatever they take for done has to be there after a power cut, too.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Collection

import pytest
from twisted.python.failure import Failure

from mailsrv.errors import Unavailable
from mailsrv.testing.disk import ModelDisk
from tests.journal.rig import ALICE, BOB, Rig, message
from tests.journal.test_journal_crash import PEOPLE, SETTINGS, audit, count_operations, start, work

CHECKPOINT_SECONDS = 61


def checkpoint(rig: Rig) -> None:
    """Long enough for a segment to be closed and for a checkpoint that failed to be tried again."""
    for seconds in (CHECKPOINT_SECONDS, 1, 31, 1):
        rig.tick(seconds)


def assert_durable(rig: Rig, texts: list[bytes]) -> None:
    for seed in range(6):
        again = Rig(rig.disk.after_power_cut(seed)).start()
        assert sorted(text for account in PEOPLE for text in again.applier.texts(account)) == texts, seed


@pytest.mark.parametrize("then", ["checkpoint", "stop", "another kill"])
def test_r_dur_1_a_kill_at_any_operation_a_restart_and_then_a_power_cut(then: str) -> None:
    """Every acknowledged message is there once and whole; none is there twice; none that was refused."""
    total = count_operations(11)
    for kill in range(3, total, 17):
        disk = ModelDisk()
        disk.cut_power_at(kill)
        promises = work(disk, 11)
        disk.kill()
        if then == "another kill":
            disk.cut_power_at(len(disk.operations) + kill % 60)
            start(disk)
            disk.kill()
        rig = start(disk)
        assert rig is not None
        if then == "stop":
            rig.stop()
        else:
            checkpoint(rig)
        for seed in (0, kill + 2):
            audit(promises, disk.after_power_cut(seed))


def test_r_dur_4_after_a_failed_checkpoint_and_a_kill_everything_is_written_anew() -> None:
    """It can be read whole, out of the cache; the kernel has told its error and will not write it."""
    rig = Rig(ModelDisk()).start()
    rig.commit(b"text")
    rig.pump()
    rig.disk.fail_from(0, errno.EIO, ["sync_paths"])
    rig.slot.close_current()
    rig.workers["journal-keeper"].handler([])
    rig.step("apply")
    rig.step("keeper")
    assert rig.journal.status().failed_checkpoints == 1
    rig.disk.heal()
    rig.disk.kill()
    again = Rig(rig.disk).start()
    assert again.applier.texts() == [b"text"]
    checkpoint(again)
    assert again.journal.status().live_segments == 0
    assert_durable(again, [b"text"])


def test_r_dur_4_the_same_where_another_process_replays_the_slot() -> None:
    disk = ModelDisk()
    first, second = Rig(disk, SETTINGS).start(), Rig(disk, SETTINGS).start()
    second.commit(b"of the second")
    second.pump()
    first.commit(b"of the first")
    first.pump()
    disk.fail_at_next("sync_paths", errno.EIO)
    first.tick(CHECKPOINT_SECONDS)
    first.tick(1)
    assert first.journal.status().failed_checkpoints == 1
    second.slot._lock_file.close()
    checkpoint(first)
    assert first.journal.status().live_segments == 0
    assert Rig(disk).start().applier.batches == [], "the other slot was recycled, too"
    assert_durable(first, [b"of the first", b"of the second"])


@pytest.mark.parametrize("at_start", [False, True])
def test_r_dur_4_a_sync_that_fails_after_the_replay_of_another_slot_concerns_our_own_mail(at_start: bool) -> None:
    """It had taken what our next checkpoint was to sync."""
    disk = ModelDisk()
    rig, dead = Rig(disk).start(), Rig(disk).start()
    dead.commit(b"of the dead")
    dead.step("commit")
    rig.commit(b"ours")
    rig.pump()
    if at_start:
        disk.kill()
        disk.fail_at_next("sync_paths", errno.EIO)
        rig = Rig(disk).start()
    else:
        dead.slot._lock_file.close()
        disk.fail_at_next("sync_paths", errno.EIO)
        result: list[object] = []
        rig.journal.recover().addBoth(result.append)
        rig.pump()
        assert result == [None]
    rig.slot.close_current()
    rig.tick(1)
    rig.tick(1)
    assert rig.journal.status().live_segments == 0
    assert_durable(rig, [b"of the dead", b"ours"])


def test_r_dur_4_a_sync_that_fails_when_stuck_mail_is_tried_again_concerns_our_own_mail() -> None:
    disk = ModelDisk()
    rig = Rig(disk).start()
    rig.applier.failing[ALICE] = Unavailable()
    rig.commit(b"stuck", ALICE)
    rig.pump()
    for _ in range(8):
        rig.tick(61)
    assert rig.disk.list_directory("/state/journal/stuck")
    rig.applier.failing.clear()
    rig.commit(b"ours", BOB)
    rig.pump()
    disk.fail_at_next("sync_paths", errno.EIO)
    rig.journal.retry_stuck()
    rig.pump()
    rig.slot.close_current()
    rig.tick(1)
    rig.tick(1)
    assert rig.journal.status().live_segments == 0
    for seed in range(6):
        assert Rig(disk.after_power_cut(seed)).start().applier.texts(BOB) == [b"ours"]


def test_r_dur_4_of_two_syncs_at_a_time_both_fail_where_one_is_told_of_the_error() -> None:
    """The checkpoint has asked what there is to sync when the replay of another slot meets the error."""
    disk = ModelDisk()
    rig, dead = Rig(disk).start(), Rig(disk).start()
    dead.commit(b"of the dead")
    dead.step("commit")
    dead.slot._lock_file.close()
    rig.commit(b"ours")
    rig.pump()
    rig.slot.close_current()
    rig.workers["journal-keeper"].handler([])
    rig.step("apply")
    disk.fail_at_next("sync_paths", errno.EIO)
    rig.journal.recover()
    rig.step("apply")
    rig.step("keeper")
    assert rig.journal.status().failed_checkpoints == 1
    assert rig.journal.status().live_segments == 1
    rig.pump()
    checkpoint(rig)
    assert rig.journal.status().live_segments == 0
    assert_durable(rig, [b"of the dead", b"ours"])


@pytest.mark.parametrize("hours", [-30, 0, 30])
def test_r_dur_1_files_written_after_the_clock_was_set_back_are_synced(
    monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Where files are synced one by one, it is those that changed since the segment was begun."""
    wall = 1_700_000_000 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: wall)
    rig = Rig(ModelDisk()).start()
    since: list[int] = []
    sync_paths = rig.disk.sync_paths

    def note_since(paths: Collection[str], changed_since_ns: int = 0) -> None:
        since.append(changed_since_ns)
        sync_paths(paths)

    monkeypatch.setattr(rig.disk, "sync_paths", note_since)
    rig.commit(b"before")
    rig.pump()
    first_written = wall
    wall += hours * 3600 * 10**9
    rig.tick(1)
    rig.commit(b"after")
    rig.pump()
    second_written = wall
    wall += 40 * 3600 * 10**9
    rig.tick(CHECKPOINT_SECONDS)
    rig.tick(1)
    [given] = since
    assert given <= min(first_written, second_written)
    assert given > 0


def test_an_append_that_was_refused_does_not_come_although_it_was_read_again_before() -> None:
    """A failed checkpoint has everything applied again: also what is on its way and will be refused."""
    rig = Rig(ModelDisk()).start()
    rig.applier.failing[ALICE] = Unavailable()
    rig.commit(b"waits", ALICE)
    rig.pump()
    answer = rig.commit_and_note(message(b"refused", ALICE))
    rig.step("commit")
    # What a sync that failed leads to comes first.
    rig.workers["journal-apply"].inbox.insert(0, rig.journal._sync_failed)
    rig.pump()
    assert isinstance(answer[0], Failure)
    rig.applier.failing.clear()
    checkpoint(rig)
    assert rig.applier.texts() == [b"waits"]
    assert rig.journal.status().live_segments == 0
    assert_durable(rig, [b"waits"])
