"""What the store costs, part by part: CPU time of this thread and wall time, per operation.

    python benchmarks/store.py [FOLDER]

Applies batches of 2 KiB messages to 20 warm accounts and to cold ones, opens mailboxes, changes
flags, reads summaries. FOLDER should be on the file system to measure; a temporary one if not given.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mailsrv.address import Address
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.journal import DeliveryKey, JournaledMessage, LocalDelivery, PendingDelivery
from mailsrv.interfaces.mailbox import FlagOperation
from mailsrv.store.settings import StoreSettings
from mailsrv.store.summary import stored_summary
from tests.store.store_setting import StoreSetting

SEGMENT = os.urandom(16)
_HEADER = (
    b"Return-Path: <sender@example.test>\r\nReceived: from client.example.test (client.example.test [127.0.0.1])\r\n"
    b"\tby mail.example.test with ESMTP id %d; Sat, 21 Nov 2026 10:00:00 +0000\r\n"
    b"From: Sender <sender@example.test>\r\nTo: user <user@example.test>\r\nSubject: Message number %d\r\n"
    b"Date: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <%d@example.test>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
)


def message(number: int, size: int = 2048) -> bytes:
    header = _HEADER % (number, number, number)
    line = b"The quick brown fox jumps over the lazy dog, again and again and again.\r\n"
    return (header + line * (size // len(line)))[: size - 2] + b"\r\n"


def measure(name: str, count: int, function: Callable[[], object]) -> None:
    cpu, wall = time.process_time(), time.perf_counter()
    function()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"{name:52} {cpu / count * 1e6:9.1f} us CPU {wall / count * 1e6:9.1f} us wall   each of {count}")


def pending(number: int, account: Address) -> PendingDelivery:
    delivery = LocalDelivery(account, recipient=str(account))
    journaled = JournaledMessage(InlineContent(message(number)), (delivery,), 1_700_000_000 + number)
    return PendingDelivery(DeliveryKey(SEGMENT, number * 4096, 0), journaled, delivery)


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        setting = StoreSetting(StoreSettings(path=f"{folder}/{{local}}/Maildir", open_accounts=200))
        users = [Address(f"user{number}", "example.test") for number in range(20)]
        setting.applier.apply([pending(number, user) for number, user in enumerate(users)])
        octets = message(1)
        measure("summarise 2 KiB", 2000, lambda: [stored_summary(octets) for _ in range(2000)])
        for batch in (1, 8, 64, 256):
            count = 4096 if batch > 1 else 1024
            start = batch * 100_000
            deliveries = [pending(start + number, users[number % 20]) for number in range(count)]
            measure(
                f"apply, 20 warm accounts, batches of {batch}",
                count,
                lambda d=deliveries, b=batch, c=count: [setting.applier.apply(d[at : at + b]) for at in range(0, c, b)],
            )
        cold = [pending(10_000_000 + number, Address(f"cold{number}", "example.test")) for number in range(500)]
        measure(
            "apply, accounts made for it, batches of 64",
            500,
            lambda: [setting.applier.apply(cold[at : at + 64]) for at in range(0, 500, 64)],
        )
        again = [pending(11_000_000 + number, Address(f"cold{number}", "example.test")) for number in range(500)]
        measure(
            "apply, existing accounts opened for it",
            500,
            lambda: [setting.applier.apply(again[at : at + 64]) for at in range(0, 500, 64)],
        )
        big = users[0]
        setting.applier.apply([pending(20_000_000 + number, big) for number in range(20_000)])
        mail = setting.store.open_account(big).result
        found = []

        def open_it() -> None:
            found.append(mail.open_mailbox("INBOX").result)

        measure("open a mailbox of 20,000 the first time", 1, open_it)
        measure("open it again", 200, lambda: [open_it() for _ in range(200)])
        inbox = found[0]
        measure("refresh, nothing new", 2000, lambda: [inbox.refresh() for _ in range(2000)])
        uids = list(inbox.uids)
        measure(
            "summaries, slices of 1,000, cold",
            len(uids),
            lambda: [inbox.summaries(uids[at : at + 1000]).result for at in range(0, len(uids), 1000)],
        )
        measure(
            "summaries, slices of 1,000, warm",
            len(uids),
            lambda: [inbox.summaries(uids[at : at + 1000]).result for at in range(0, len(uids), 1000)],
        )
        measure(
            "contents, slices of 100",
            5000,
            lambda: [[one.close() for one in inbox.contents(uids[at : at + 100]).result] for at in range(0, 5000, 100)],
        )
        seen = frozenset({"\\Seen"})
        measure(
            "store one flag",
            300,
            lambda: [inbox.store_flags([uid], FlagOperation.ADD, seen).result for uid in uids[:300]],
        )
        measure(
            "store on 20,000",
            len(uids),
            lambda: inbox.store_flags(uids, FlagOperation.ADD, frozenset({"\\Flagged"})).result,
        )
        measure("copy 1,000", 1000, lambda: inbox.copy(uids[:1000], "Archive").result)
        measure("delete 1,000", 1000, lambda: inbox.delete_messages(uids[:1000]).result)
        setting.stop()


if __name__ == "__main__":
    main()
