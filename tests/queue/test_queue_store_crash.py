"""Kills and power cuts: nobody is "delivered" who was not settled, nobody is lost, nobody is taken by two."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from mailsrv.interfaces.queue import Delivered, Ending, QueueSettlement
from mailsrv.queue.database import QueueDatabase
from mailsrv.queue.schema import FILE, RecipientState
from tests.queue.queue_setting import A, QueueSetting

ROOT = Path(__file__).parents[2]
LOG_HEAD, FRAME = 32, 24 + 4096


def test_r_dur_6_a_log_cut_anywhere_never_says_delivered_before_it_was_settled(tmp_path: Path):
    queue = QueueSetting(tmp_path / "whole").start()
    queue.enqueue(*((f"u{number}@a.test", A) for number in range(3)))
    [consignment] = queue.take()
    log = tmp_path / "whole" / "queue" / f"{FILE}-wal"
    settled_at: list[int] = []
    for number in range(2):
        queue.settle(consignment, Delivered(number, "250 ok"))
        settled_at.append(log.stat().st_size)
    queue.settle_journaled(QueueSettlement(consignment.entry.id, (2,), Ending.BOUNCED))
    settled_at.append(log.stat().st_size)
    octets = log.read_bytes()
    database = log.with_name(FILE).read_bytes()
    ends = range(LOG_HEAD, len(octets) + 1, FRAME)
    assert len(octets) in ends
    cuts = sorted({cut for end in ends for cut in (end - 4096, end - 1, end, end + 1, end + 23)} | set(range(LOG_HEAD)))
    for number, cut in enumerate(cut for cut in cuts if 0 <= cut <= len(octets)):
        folder = tmp_path / f"cut-{number}"
        folder.mkdir()
        (folder / FILE).write_bytes(database)
        (folder / f"{FILE}-wal").write_bytes(octets[:cut])
        db = QueueDatabase(str(folder), threading.Lock(), 1.0)
        rows = db.connection.execute("SELECT number, state FROM recipient ORDER BY number").fetchall()
        for recipient, state in rows:
            expected = cut >= settled_at[int(recipient)]  # type: ignore[arg-type]
            assert (state == RecipientState.ENDED) is expected, (cut, recipient)
        owed = db.row("SELECT owed FROM message")
        if owed is not None:
            assert owed[0] == sum(1 for _, state in rows if state != RecipientState.ENDED)
        db.close()
        shutil.rmtree(folder)
    queue.stop()


def test_r_dur_6_a_flipped_bit_in_the_log_never_says_delivered_too_early(tmp_path: Path):
    queue = QueueSetting(tmp_path / "whole").start()
    queue.enqueue(("u@a.test", A))
    [consignment] = queue.take()
    log = tmp_path / "whole" / "queue" / f"{FILE}-wal"
    before = log.stat().st_size
    queue.settle(consignment, Delivered(0, "250 ok"))
    octets = log.read_bytes()
    database = log.with_name(FILE).read_bytes()
    choose = random.Random(7)
    for number in range(60):
        folder = tmp_path / f"flip-{number}"
        folder.mkdir()
        damaged = bytearray(octets)
        damaged[choose.randrange(before, len(octets))] ^= 1 << choose.randrange(8)
        (folder / FILE).write_bytes(database)
        (folder / f"{FILE}-wal").write_bytes(bytes(damaged))
        db = QueueDatabase(str(folder), threading.Lock(), 1.0)
        assert db.row("SELECT state FROM recipient") == (RecipientState.LEASED,)
        db.close()
    queue.stop()


class TakingProcess:
    """One of ``taking_process``."""

    def __init__(self, folder: Path, run: str, worker: int, workers: int, *, messages: int, mode: str) -> None:
        arguments = [folder, run, worker, workers, messages, mode]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.queue.taking_process", *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []

    def wait_for(self, line: str) -> None:
        while line not in self.lines:
            self.read_line()

    def read_line(self) -> str:
        if self.process.stdout is None:
            raise AssertionError("no pipe")
        line = self.process.stdout.readline().strip()
        if not line:
            raise AssertionError(f"the process ended: {self.lines[-3:]}")
        self.lines.append(line)
        return line

    def go(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()

    def said(self, word: str) -> list[str]:
        return [line.partition(" ")[2] for line in self.lines if line.startswith(f"{word} ")]

    def kill(self) -> None:
        self.process.kill()
        if self.process.stdout is not None:
            # Before communicate(), which knows nothing of what was read ahead. A line may have been cut off.
            self.lines += [line for line in self.process.stdout.read().split("\n")[:-1] if line]
        self.process.communicate()


def fill(folder: Path, messages: int) -> QueueSetting:
    setting = QueueSetting(folder, worker=9, workers=4).start()
    for number in range(messages):
        setting.enqueue((f"u{number}@a.test", A), (f"v{number}@a.test", A))
    return setting


def test_several_processes_never_take_the_same_recipient(tmp_path: Path):
    setting = fill(tmp_path, 150)
    processes = [TakingProcess(tmp_path, "run-1", worker, 4, messages=3, mode="settle") for worker in range(3)]
    try:
        for process in processes:
            process.wait_for("ready")
        for process in processes:
            process.go()
        for process in processes:
            process.wait_for("done")
    finally:
        for process in processes:
            process.kill()
    taken = Counter(each for process in processes for each in process.said("taken"))
    assert len(taken) == 300
    assert set(taken.values()) == {1}
    assert setting.waiting() == {}


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_a_worker_that_is_killed_loses_nobody_and_what_was_settled_stays_so(tmp_path: Path, seed: int):
    setting = fill(tmp_path, 60)
    settled: list[str] = []
    taken: Counter[str] = Counter()
    choose = random.Random(seed)
    for _ in range(3):
        process = TakingProcess(tmp_path, "run-1", 0, 4, messages=5, mode="settle")
        process.wait_for("ready")
        process.go()
        for _ in range(choose.randrange(1, 40)):
            process.read_line()
        process.kill()
        settled += process.said("settled")
        taken.update(process.said("taken"))
    again = QueueSetting(tmp_path, worker=0, workers=4).start()
    # What it had taken waits a moment, in case another worker is replaying its journal.
    again.now += 5
    left = [f"{each.entry.id} {each.recipients[0].id}" for _ in range(300) for each in again.take(A, 1, 1)]
    assert len(set(settled)) == len(settled)
    assert not set(settled) & set(left)
    # Settled and killed before it could say so: at most one in each of the three.
    assert 120 - 3 <= len(set(settled) | set(left)) <= 120
    assert len(set(left)) == len(left)
    assert setting.waiting() == {}
