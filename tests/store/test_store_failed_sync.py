"""After a sync that failed: what can be read proves nothing, it is written anew (R-DUR-4)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import apsw
import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailsrv.address import Address
from mailsrv.disk import RealDisk
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.journal import Applied, DeliveryKey, JournaledMessage, LocalDelivery, PendingDelivery
from mailsrv.store.index.transaction import Transaction
from mailsrv.store.settings import StoreSettings
from mailsrv.store.write_queue import WriteQueue
from tests.store.store_setting import StoreSetting

ALICE = Address("alice", "example.test")
KEY = DeliveryKey(bytes(range(16)), 4096, 0)


@pytest.fixture
def store_settings(tmp_path: Path) -> StoreSettings:
    return StoreSettings(path=str(tmp_path / "{local}"))


def pending(*, is_replay: bool = False) -> list[PendingDelivery[LocalDelivery]]:
    delivery = LocalDelivery(ALICE)
    message = JournaledMessage(InlineContent(b"Subject: 1\r\n\r\n"), (delivery,), 1)
    return [PendingDelivery(KEY, message, delivery, is_replay)]


def messages_without_log(root: Path, place: Path) -> int:
    """Rows that would be there had the disk nothing of the index's log."""
    place.mkdir(exist_ok=True)
    shutil.copyfile(root / "mailsrv.index", place / "index")
    with apsw.Connection(str(place / "index")) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM message")
    connection.close()
    for path in place.iterdir():
        path.unlink()
    return int(count)


@pytest.mark.parametrize("is_restarted", [False, True])
def test_r_dur_4_what_a_failed_checkpoint_was_to_sync_is_written_anew(
    store_settings: StoreSettings, tmp_path: Path, is_restarted: bool
) -> None:
    setting = StoreSetting(store_settings)
    setting.applier.apply(pending())
    root = tmp_path / "alice"
    # A reader may have the file go to "cur" before the checkpoint.
    touched = {str(root), str(root / "new"), str(root / "cur")}
    assert touched <= set(setting.applier.take_touched())
    [file] = (root / "new").iterdir()
    before = os.open(file, os.O_RDONLY)
    assert messages_without_log(root, tmp_path / "copy") == 0
    if is_restarted:
        setting.kill()
        setting = StoreSetting(store_settings)
    setting.applier.checkpoint_failed([KEY])
    [answer] = setting.applier.apply(pending(is_replay=True))
    assert isinstance(answer, Applied)
    assert answer.uid == 1
    [again] = (root / "new").iterdir()
    assert again.name == file.name
    assert again.read_bytes() == b"Subject: 1\r\n\r\n"
    assert again.stat().st_ino != os.fstat(before).st_ino
    os.close(before)
    assert messages_without_log(root, tmp_path / "copy") == 1
    assert touched <= set(setting.applier.take_touched())
    setting.stop()


def write(setting: StoreSetting, operation: Any) -> Any:
    account = setting.table.account(ALICE)
    results: list[Any] = []

    def in_thread(function: Any) -> Deferred[Any]:
        deferred: Deferred[Any] = Deferred()
        try:
            deferred.callback(function())
        except Exception:
            deferred.errback(Failure())
        return deferred

    queue = WriteQueue(setting.table, account, in_thread, known=dict, take=lambda _: None)
    queue.add(operation).addBoth(results.append)
    return results[0]


def test_r_dur_4_after_a_failed_sync_the_log_is_written_anew_before_anything_is_committed(
    store_settings: StoreSettings, tmp_path: Path
) -> None:
    """Rows that were committed before it without a sync may be lost with it, and what is committed after them."""
    setting = StoreSetting(store_settings)
    setting.applier.apply(pending())

    def fail(transaction: Transaction) -> None:
        raise apsw.IOError("a sync failed")

    assert isinstance(write(setting, fail), Failure)
    account = setting.table.account(ALICE)
    assert account.is_log_doubtful, "it is remembered"
    account.close()
    setting.table.forget_unused([ALICE], lambda _: False)
    assert setting.table.account(ALICE) is account, "otherwise nobody would remember"
    seen: list[int] = []
    write(setting, lambda transaction: seen.append(messages_without_log(tmp_path / "alice", tmp_path / "copy")))
    assert seen == [1]
    setting.stop()


class NotingDisk(RealDisk):
    """Remembers which directories were synced, and which file systems are watched."""

    def __init__(self) -> None:
        super().__init__()
        self.synced: list[str] = []
        self.watched: list[str] = []

    def sync_directory(self, path: str) -> None:
        self.synced.append(path)
        super().sync_directory(path)

    def watch_file_system(self, path: str) -> None:
        self.watched.append(path)
        super().watch_file_system(path)


def test_r_dur_1_the_name_of_an_index_that_was_made_again_in_use_is_durable_before_anything_is_told(
    store_settings: StoreSettings, tmp_path: Path
) -> None:
    disk = NotingDisk()
    setting = StoreSetting(store_settings, disk=disk)
    setting.applier.apply(pending())
    root = str(tmp_path / "alice")
    assert write(setting, lambda transaction: None) is None
    assert root in disk.synced
    disk.synced.clear()
    account = setting.table.account(ALICE)
    with account.lock:
        account.found_damaged()
    assert write(setting, lambda transaction: None) is None
    assert root in disk.synced
    setting.stop()


def test_r_dur_4_the_file_system_of_an_account_is_watched_before_anything_is_written_to_it(
    store_settings: StoreSettings, tmp_path: Path
) -> None:
    """Whoever begins to listen later is not told of an error that another process has heard."""
    disk = NotingDisk()
    setting = StoreSetting(store_settings, disk=disk)
    setting.applier.apply(pending())
    assert disk.watched == [str(tmp_path / "alice")]
    setting.stop()
