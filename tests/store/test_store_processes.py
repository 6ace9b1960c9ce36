"""Several processes at one account (RELIABILITY 8.5, DESIGN decision 11)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from mailsrv.address import Address
from mailsrv.store.check import check_account
from mailsrv.store.settings import StoreSettings
from tests.store.store_setting import StoreSetting

ALICE = Address("alice", "example.test")
_PROGRAM = Path(__file__).with_name("delivering_process.py")
_PROJECT = Path(__file__).parent.parent.parent


def run(path: str, workers: int, count: int, run_ids: list[str]) -> list[int]:
    processes = [
        subprocess.Popen(
            [sys.executable, str(_PROGRAM), path, run_ids[worker], str(worker), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_PROJECT,
            env={"PYTHONPATH": str(_PROJECT)},
        )
        for worker in range(workers)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    uids = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        uids += [int(line) for line in process.communicate(timeout=60)[0].split()]
        assert process.returncode == 0
    return uids


def test_two_workers_of_a_run_never_give_a_uid_twice(tmp_path: Path):
    path = str(tmp_path / "{local}")
    run_id = bytes(16).hex()
    uids = run(path, 2, 150, [run_id, run_id])
    assert len(uids) == len(set(uids)) == 300
    setting = StoreSetting(StoreSettings(path=path))
    mail: Any = setting.store.open_account(ALICE).result
    inbox = mail.open_mailbox("INBOX").result
    assert sorted(uids) == list(inbox.uids)
    setting.stop()
    report = check_account(setting.table.disk, str(tmp_path / "alice"))
    assert report.is_sound, report
    assert not report.differs


def test_a_run_after_a_kill_goes_on_above(tmp_path: Path):
    path = str(tmp_path / "{local}")
    first = run(path, 1, 5, [bytes(16).hex()])
    second = run(path, 1, 5, [bytes(range(16)).hex()])
    # The second run repeats the first one's keys, which are not delivered again.
    assert first == second
    setting = StoreSetting(StoreSettings(path=path))
    mail: Any = setting.store.open_account(ALICE).result
    assert mail.status("INBOX").result.messages == 5
    setting.stop()
