"""The contract of queue stores, over the one in memory and the one on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.journal import Delivery, JournaledMessage, JournalRecord
from mailsrv.interfaces.queue import IQueueStore
from mailsrv.testing.queue import MemoryQueueJournal, MemoryQueueStore
from tests.contracts import queue_store as contract
from tests.contracts.queue_store import CONTENT, QueueUnderTest
from tests.queue.queue_setting import NOW, QueueSetting


class MemoryQueue:
    """The store in memory."""

    def __init__(self) -> None:
        self.now = NOW
        self.store = MemoryQueueStore(self._seconds)
        self.number = 0

    def _seconds(self) -> float:
        return self.now

    def apply(self, *deliveries: Delivery, content: bytes = CONTENT) -> None:
        self.number += 1
        message = JournaledMessage(InlineContent(content), deliveries, int(self.now))
        journal = MemoryQueueJournal(self.store, self._seconds)
        self.result(journal.commit(JournalRecord((message,), f"T{self.number}")))

    def result(self, deferred: Deferred[Any]) -> Any:
        results: list[Any] = []
        deferred.addCallback(results.append)
        (result,) = results
        return result

    def restart(self) -> None:
        self.store = MemoryQueueStore(self._seconds, self.store.kept)

    def close(self) -> None:
        pass


class SqliteQueue:
    """The store on disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runs = 1
        self.setting = QueueSetting(directory, run_id=b"run-1").start()

    @property
    def now(self) -> float:
        return self.setting.now

    @now.setter
    def now(self, value: float) -> None:
        self.setting.now = value

    @property
    def store(self) -> IQueueStore:
        return self.setting.store

    def apply(self, *deliveries: Delivery, content: bytes = CONTENT) -> None:
        setting = self.setting
        setting.store.applier.apply(setting.pending(*deliveries, content=content, accepted_at=int(setting.now)))
        setting.pump()

    def result(self, deferred: Deferred[Any]) -> Any:
        return self.setting.result(deferred)

    def restart(self) -> None:
        old = self.setting
        old.store.applier.take_touched()  # what a checkpoint does: content that was only in memory gets its file
        old.stop()
        self.runs += 1
        self.setting = QueueSetting(self.directory, run_id=b"run-%d" % self.runs)
        self.setting.now, self.setting.places = old.now, old.places
        self.setting.start()

    def close(self) -> None:
        self.setting.stop()


class MemoryQueueTests(contract.QueueStoreContract):
    def make_queue(self, directory: Path) -> QueueUnderTest:
        return MemoryQueue()


class SqliteQueueTests(contract.QueueStoreContract):
    def make_queue(self, directory: Path) -> QueueUnderTest:
        return SqliteQueue(directory)
