"""A process that delivers and changes flags in one account, for test_store_processes."""

from __future__ import annotations

import faulthandler
import sys

from mailsrv.address import Address
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.journal import Applied, DeliveryKey, JournaledMessage, LocalDelivery, PendingDelivery
from mailsrv.store.settings import StoreSettings
from tests.store.store_setting import StoreSetting


def main(path: str, run_id: str, worker: int, count: int) -> None:
    faulthandler.dump_traceback_later(50, exit=True)
    setting = StoreSetting(StoreSettings(path=path, busy_seconds=30), run_id=bytes.fromhex(run_id))
    account = Address("alice", "example.test")
    delivery = LocalDelivery(account, recipient="alice@example.test")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    for number in range(count):
        octets = b"Subject: %d from %d\r\n\r\n" % (number, worker)
        message = JournaledMessage(InlineContent(octets), (delivery,), number)
        key = DeliveryKey(bytes([worker]) * 16, number, 0)
        [applied] = setting.applier.apply([PendingDelivery(key, message, delivery)])
        if not isinstance(applied, Applied):
            raise SystemExit(str(applied))
        sys.stdout.write(f"{applied.uid}\n")
    if worker % 2:
        setting.stop()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
