"""The journal with its real threads, on a real disk, and killed in the middle of its work (R-Q-2)."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailsrv.disk import RealDisk
from mailsrv.journal import Journal, JournalSettings, recover_all_slots
from mailsrv.journal.worker import ThreadWorker
from tests.journal.rig import ALICE, BOB, FileApplier, record

SETTINGS = JournalSettings(
    segment_octets=256 * 1024, inline_limit=4096, free_space_floor=0, free_space_floor_percent=0.0, apply_wait=30.0
)


class QueueReactor(Clock):
    """The test's own thread stands in for the reactor's."""

    def __init__(self) -> None:
        super().__init__()
        self.posted: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def seconds(self) -> float:
        return time.monotonic()

    def callFromThread(self, function: Any, *arguments: Any) -> None:
        self.posted.put((function, arguments))

    def wait_for(self, deferred: Deferred[Any]) -> Any:
        result: list[Any] = []
        deferred.addCallback(result.append)
        deferred.addErrback(result.append)
        while not result:
            self.advance(0)
            function, arguments = self.posted.get(timeout=30)
            function(*arguments)
        return result[0]


def open_journal(directory, applier=None, settings=SETTINGS):
    disk = RealDisk()
    reactor = QueueReactor()
    applier = applier or FileApplier(disk, f"{directory}/mail")
    return Journal(settings, f"{directory}/journal", disk, applier, reactor), reactor, applier


def test_start_commit_stop_and_start_again(tmp_path):
    before = set(threading.enumerate())
    journal, reactor, applier = open_journal(tmp_path)
    reactor.wait_for(journal.start())
    writer = journal.spool.begin()
    writer.write(b"L" * 100_000)
    large = reactor.wait_for(writer.finish())
    answers = [journal.commit(record(b"%d" % number, ALICE, BOB)) for number in range(50)]
    answers.append(journal.commit(record(large)))
    noted = journal.commit_and_note(record(b"append"))
    for answer in answers:
        assert reactor.wait_for(answer) is None
    assert len(reactor.wait_for(noted)) == 1
    assert reactor.wait_for(journal.list_stuck()) == []
    assert journal.live_segments()
    assert reactor.wait_for(journal.stop()) is None
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert set(threading.enumerate()) <= before
    expected = sorted([*(b"%d" % number for number in range(50)), b"append", b"L" * 100_000])
    assert applier.texts(ALICE) == expected
    journal, reactor, again = open_journal(tmp_path)
    reactor.wait_for(journal.start())
    assert again.batches == []
    reactor.wait_for(journal.stop())


def test_a_worker_survives_a_bug_in_its_handler():
    broken, done = threading.Event(), threading.Event()

    def handle(items: list[str]) -> None:
        if "bug" in items:
            broken.set()
            raise ZeroDivisionError
        if "good" in items:
            done.set()

    worker: ThreadWorker[str] = ThreadWorker("test", handle)
    worker.start()
    worker.post("bug")
    assert broken.wait(10)
    worker.post("good")
    assert done.wait(10)
    worker.stop()
    worker.join()


CHILD = """
import sys
sys.path.insert(0, {root!r})
from tests.journal.test_journal_threads import child
child({directory!r})
"""


def child(directory: str) -> None:
    """Commits without end and prints what was acknowledged."""
    journal, reactor, _ = open_journal(directory, settings=evolve(SETTINGS, checkpoint_interval=0.05))
    reactor.wait_for(journal.start())
    number = 0
    while True:
        answers = []
        for _ in range(5):
            number += 1
            text = b"%d.%d " % (os.getpid(), number) + b"x" * (number % 3000)
            answers.append((text, journal.commit(record(text, ALICE, BOB) if number % 3 else record(text, ALICE))))
        text = b"%d.%d append" % (os.getpid(), number)
        answers.append((text, journal.commit_and_note(record(text))))
        for text, answer in answers:
            reactor.wait_for(answer)
            sys.stdout.buffer.write(text.partition(b" ")[0] + (b" append" if text.endswith(b"append") else b"") + b"\n")
        sys.stdout.flush()


def test_r_q_2_killed_while_committing_nothing_is_lost_or_doubled(tmp_path):
    root = os.getcwd()
    acknowledged: list[bytes] = []
    for lines in (3, 20, 57, 110):
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD.format(root=root, directory=str(tmp_path))], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(lines):
            acknowledged.append(process.stdout.readline().strip())
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += [line.strip() for line in process.stdout.readlines() if line.endswith(b"\n")]
        process.stdout.close()
        process.wait()
    disk = RealDisk()
    applier = FileApplier(disk, f"{tmp_path}/mail")
    recover_all_slots(SETTINGS, f"{tmp_path}/journal", disk, applier)
    found = Counter(text.rstrip(b"x").strip() for text in applier.mail(ALICE).values())
    assert acknowledged
    assert all(found[text] == 1 for text in acknowledged)
    assert max(found.values()) == 1


def test_a_stop_does_not_wait_for_a_batch_that_gathers():
    batches: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
    worker: ThreadWorker[str] = ThreadWorker("gathering", lambda batch: batches.put(batch))
    worker.set_linger(60.0)
    worker.start()
    worker.post("last")
    worker.stop()
    assert batches.get(timeout=30) == ["last"]
    worker.join()
