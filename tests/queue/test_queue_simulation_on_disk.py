"""The simulation over the store on disk: what it keeps is an SQLite database, the journal is replayed after each kill.

``MAILSRV_QUEUE_DISK_RUNS`` sets the number of runs, ``MAILSRV_QUEUE_SEED`` runs one seed alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw
from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailsrv.errors import MailError
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.journal import (
    Applied,
    DeliveryKey,
    IJournal,
    JournalRecord,
    LocalDelivery,
    PendingDelivery,
)
from mailsrv.interfaces.queue import Ending, IQueueStore, QueuedRecipient, QueueEntry
from mailsrv.queue.rows import MESSAGE_COLUMNS, RECIPIENT_COLUMNS, entry_of, recipient_of
from mailsrv.queue.schema import ENDINGS
from mailsrv.testing.queue_simulation import SimulatedDisk, World
from tests.queue.queue_setting import SEGMENT, QueueSetting

RUNS = int(os.environ.get("MAILSRV_QUEUE_DISK_RUNS", "40"))


class KeptOnDisk:
    """What the account wants to know, read from the database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[JournalRecord] = []
        """The journal's."""
        self.unapplied: list[int] = []
        self.mailboxes: list[tuple[LocalDelivery, bytes]] = []
        self.delivered: set[DeliveryKey] = set()
        self._connection: apsw.Connection | None = None

    def query(self, sql: str, *bindings: Any) -> list[Any]:
        if self._connection is None:
            self._connection = apsw.Connection(str(self.path))
        return list(self._connection.execute(sql, bindings))

    @property
    def places(self) -> list[Any]:
        return self.query("SELECT message, number FROM recipient WHERE state<>3")

    @property
    def rows(self) -> bool:
        """Whether anything is still to be done."""
        return bool(self.unapplied or self.query("SELECT 1 FROM recipient WHERE state<>3 LIMIT 1"))

    def row(self, message: int, number: int) -> object:
        rows = self.query("SELECT 1 FROM recipient WHERE state<>3 AND message=? AND number=?", message, number)
        return rows[0] if rows else None

    @property
    def added(self) -> list[QueueEntry]:
        return [entry_of(row) for row in self.query(f"SELECT {MESSAGE_COLUMNS} FROM message")]

    @property
    def ended(self) -> list[tuple[QueueEntry, QueuedRecipient, Ending]]:
        entries = {entry.id: entry for entry in self.added}
        sql = f"SELECT message, ending, {RECIPIENT_COLUMNS} FROM recipient WHERE state=3"
        return [(entries[row[0]], recipient_of(row[2:]), ENDINGS[row[1]]) for row in self.query(sql)]


@implementer(IJournal)
class ReplayedJournal:
    """Synced by the simulated disk, applied a little later, replayed by the next process."""

    def __init__(self, world: DiskWorld, disk: SimulatedDisk) -> None:
        self.world = world
        self.disk = disk

    def check_acceptance(self, octets: int) -> MailError | None:
        return None

    def commit(self, record: JournalRecord) -> Deferred[None]:
        return self.disk.write(lambda: self._synced(record))

    def _synced(self, record: JournalRecord) -> None:
        kept = self.world.on_disk
        kept.unapplied.append(len(kept.records))
        kept.records.append(record)
        self.world.clock.callLater(0.05, self.apply)

    def apply(self) -> None:
        kept = self.world.on_disk
        numbers, kept.unapplied = kept.unapplied, []
        for number in numbers:
            self.world.apply(number, is_replay=False)

    def commit_and_note(self, record: JournalRecord) -> Deferred[Sequence[Applied]]:
        raise NotImplementedError

    def live_segments(self) -> frozenset[bytes]:
        return frozenset({SEGMENT})


class DiskWorld(World):
    """A world whose queue is the real one."""

    def __init__(self, seed: int, directory: Path) -> None:
        super().__init__(seed)
        self.directory = directory
        self.on_disk = KeptOnDisk(directory / "queue" / "queue.db")
        self.kept = self.on_disk  # type: ignore[assignment]
        self.setting: QueueSetting | None = None
        self.runs = 0

    def open_queue(self, disk: SimulatedDisk) -> tuple[IQueueStore, IJournal]:
        self.disk = disk
        self.runs += 1
        setting = self.setting = QueueSetting(self.directory, run_id=b"run-%d" % self.runs)
        setting.now = setting.monotonic = self.clock.seconds()
        self.on_disk.unapplied = []
        for number in range(len(self.on_disk.records)):
            self.apply(number, is_replay=True)
        setting.start()
        return setting.store, ReplayedJournal(self, disk)

    @property
    def has_work(self) -> bool:
        return self.setting is not None and any(worker.inbox for worker in self.setting.workers)

    def work(self) -> None:
        setting = self.setting
        if setting is not None:
            setting.now = setting.monotonic = self.clock.seconds()
            setting.pump()

    def lose_memory(self) -> None:
        setting = self.setting
        if setting is None:
            return
        self.disk.crash(self.random)
        self.close()

    def close(self) -> None:
        """Without doing what was still asked for."""
        setting, self.setting = self.setting, None
        if setting is not None:
            for worker in setting.workers:
                worker.inbox.clear()
            setting.store.listen(lambda states: None)
            setting.stop()

    def apply(self, number: int, *, is_replay: bool) -> None:
        """A record of the journal reaches mailboxes and queue."""
        kept, setting = self.on_disk, self.setting
        if setting is None:
            return
        record = kept.records[number]
        deliveries = [(message, delivery) for message in record.messages for delivery in message.deliveries]
        queued: list[PendingDelivery[Any]] = []
        for index, (message, delivery) in enumerate(deliveries):
            key = DeliveryKey(SEGMENT, 4096 * (number + 1), index)
            if isinstance(delivery, LocalDelivery):
                if key not in kept.delivered and isinstance(message.content, InlineContent):
                    kept.delivered.add(key)
                    kept.mailboxes.append((delivery, message.content.octets))
            else:
                queued.append(PendingDelivery(key, message, delivery, is_replay, transaction_id=record.transaction_id))
        if queued:
            answers = setting.store.applier.apply(queued)
            if not all(isinstance(answer, Applied) for answer in answers):
                raise RuntimeError(str(answers))


def _run(seed: int, directory: Path, report: Callable[[World], object]) -> None:
    directory.mkdir()
    world = DiskWorld(seed, directory)
    try:
        world.run()
        report(world)
    finally:
        world.close()


def test_every_accepted_recipient_is_delivered_or_bounced_exactly_once_by_the_store_on_disk(tmp_path):
    only = os.environ.get("MAILSRV_QUEUE_SEED")
    worlds: list[World] = []
    for seed in range(RUNS) if only is None else (int(only),):
        _run(seed, tmp_path / str(seed), worlds.append)
    assert only is not None or any(world.crashes for world in worlds)
