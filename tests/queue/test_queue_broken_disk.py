"""R-DUR-4: reads, writes and syncs of the queue's database fail (EIO). Nothing is said that is not durable, an alarm
is raised, and when the disk works again everything that was accepted is there, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest
from attrs import evolve
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from mailsrv.errors import InsufficientStorage, MailError, Unavailable
from mailsrv.interfaces.queue import Delivered
from mailsrv.queue.schema import FILE
from tests.queue.queue_and_journal import SETTINGS, Server
from tests.queue.queue_setting import A, QueueSetting, onward

KINDS = ["sync", "write"]


class BrokenFile(apsw.VFSFile):
    """A file of :class:`BrokenDisk`."""

    def __init__(self, disk: BrokenDisk, name: Any, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk
        text = name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        self._is_of_the_queue = FILE in text

    def xWrite(self, data: Any, offset: int) -> None:
        self._check("write")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._check("sync")
        super().xSync(flags)

    def _check(self, kind: str) -> None:
        if self._is_of_the_queue and kind in self._disk.broken:
            self._disk.failures += 1
            raise apsw.IOError("injected: EIO")


class BrokenDisk(apsw.VFS):
    """What SQLite works on while it is registered; ``broken`` are the kinds of operations that fail now."""

    def __init__(self) -> None:
        super().__init__("broken", "unix", makedefault=True)
        self.broken: set[str] = set()
        self.failures = 0

    def xOpen(self, name: Any, flags: list[int]) -> BrokenFile:
        return BrokenFile(self, name, flags)


@pytest.fixture
def disk() -> Iterator[BrokenDisk]:
    made = BrokenDisk()
    yield made
    made.unregister()


def alarms(events: Sequence[Mapping[str, Any]]) -> set[str]:
    return {str(event["log_alarm"]) for event in events if "log_alarm" in event}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("restarts", [False, True])
def test_r_dur_4_a_result_that_cannot_be_synced_is_not_taken_for_settled(
    tmp_path: Path, disk: BrokenDisk, kind: str, restarts: bool
):
    queue = QueueSetting(tmp_path).start()
    queue.enqueue(("u@a.test", A), ("v@a.test", A))
    [consignment] = queue.take()
    disk.broken = {kind}
    with capturedLogs() as events, pytest.raises(Unavailable):
        queue.settle(consignment, Delivered(0, "250 ok"))
    assert disk.failures
    assert alarms(events) == {"queue"}
    disk.broken = set()
    if restarts:
        queue.store._seats.release()
        queue = QueueSetting(tmp_path, run_id=b"run-2").start()
        [consignment] = queue.take()
        assert len(consignment.recipients) == 2
    queue.settle(consignment, Delivered(0, "250 ok"), Delivered(1, "250 ok"))
    assert queue.waiting() == {}
    queue.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_r_dur_4_nothing_is_taken_to_be_sent_whose_lease_cannot_be_written(tmp_path: Path, disk: BrokenDisk, kind: str):
    queue = QueueSetting(tmp_path).start()
    queue.enqueue(("u@a.test", A))
    disk.broken = {kind, "write"}
    with capturedLogs() as events, pytest.raises(Unavailable):
        queue.take()
    assert alarms(events) == {"queue"}
    disk.broken = set()
    assert len(queue.take()) == 1
    queue.stop()


def test_a_start_on_a_broken_disk_waits_for_it(tmp_path: Path, disk: BrokenDisk):
    queue = QueueSetting(tmp_path).start()
    queue.enqueue(("u@a.test", A))
    queue.take()
    queue.store._seats.release()
    disk.broken = {"write"}
    with capturedLogs() as events:
        queue = QueueSetting(tmp_path, run_id=b"run-2").start()
    assert alarms(events) == {"queue"}
    with pytest.raises(MailError):
        queue.take()
    disk.broken = set()
    queue.tick(2)
    assert len(queue.take()) == 1
    queue.stop()


@pytest.mark.parametrize("is_killed", [False, True])
def test_r_dur_4_what_was_accepted_meanwhile_is_the_journals_and_comes_into_the_queue_once(
    tmp_path: Path, disk: BrokenDisk, is_killed: bool
):
    settings = evolve(SETTINGS, most_segments=6)
    server = Server(tmp_path, b"run-1", settings)
    disk.broken = {"write", "sync"}
    refused: list[Failure] = []
    accepted = 0
    with capturedLogs() as events:
        while len(refused) < 5 and accepted < 2000:
            recipient = f"u{accepted}@a.test"
            [answer] = server.commit(onward((recipient, A)), content=b"From: a\r\n\r\n" + b"x" * 1500)
            if isinstance(answer, Failure):
                refused.append(answer)
            else:
                accepted += 1
    assert alarms(events) == {"queue"}
    # The journal holds what it cannot hand on, and takes no more than it can hold: 452.
    assert 50 < accepted < 2000
    assert all(failure.check(InsufficientStorage) for failure in refused)
    assert server.rig.journal.status().live_segments > 0
    disk.broken = set()
    if is_killed:
        server.die()
        server = Server(tmp_path, b"run-2", settings)
    for _ in range(10):
        server.checkpoint()
        server.queue.tick()
    server.accept(onward(("last@a.test", A)))
    taken = [str(each.recipients[0].address) for each in server.queue.take(A, messages=5000, recipients=5000)]
    assert sorted(taken) == sorted([*(f"u{number}@a.test" for number in range(accepted)), "last@a.test"])
    server.rig.stop()
    server.queue.stop()


def test_r_dur_4_after_a_failed_checkpoint_the_log_is_written_anew_and_the_journal_kept(
    tmp_path: Path, disk: BrokenDisk
):
    server = Server(tmp_path, b"run-1")
    server.accept(onward(("u@a.test", A)))
    disk.broken = {"write"}
    server.checkpoint()
    status = server.rig.journal.status()
    assert (status.failed_checkpoints > 0, status.live_segments > 0) == (True, True)
    server.die()
    disk.broken = set()
    server = Server(tmp_path, b"run-2")
    server.checkpoint()
    assert server.rig.journal.status().live_segments == 0
    assert server.queue.waiting() == {"mx:a.test": 1}
    server.rig.stop()
    server.queue.stop()
