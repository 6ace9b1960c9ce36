"""A worker in a process of its own: takes what is due, settles it, says so. Killed by the test.

Arguments: folder, run, worker number, workers, messages a take, and whether it settles ("settle" or "keep").
"""

from __future__ import annotations

import sys

from mailsrv.interfaces.queue import Delivered
from tests.queue.queue_setting import A, QueueSetting


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(folder: str, run: str, worker: str, workers: str, messages: str, mode: str) -> None:
    setting = QueueSetting(folder, run_id=run.encode(), worker=int(worker), workers=int(workers)).start()
    say("ready")
    sys.stdin.readline()
    while taken := setting.take(A, int(messages), 1):
        for consignment in taken:
            number = consignment.recipients[0].id
            say(f"taken {consignment.entry.id} {number}")
            if mode == "settle":
                setting.settle(consignment, Delivered(number, "250 ok"))
                say(f"settled {consignment.entry.id} {number}")
    say("done")
    sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
