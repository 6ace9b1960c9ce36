"""The parts that hold mail: change bus, store, journal; and the order they start and stop in."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import maybeDeferred
from twisted.internet.threads import blockingCallFromThread
from twisted.logger import Logger
from zope.interface import implementer

from mailsrv.config.schema import Settings
from mailsrv.disk import RealDisk
from mailsrv.errors import MailError
from mailsrv.interfaces.changes import IChangeBus
from mailsrv.interfaces.journal import Applied, DeliveryKey, IApplier, NotApplied, PendingDelivery
from mailsrv.journal import Journal
from mailsrv.queue.shared_downs import SharedDowns
from mailsrv.queue.split_applier import SplitApplier
from mailsrv.queue.store import QueueStore
from mailsrv.store.account_table import AccountTable
from mailsrv.store.apply import StoreApplier
from mailsrv.store.bus import LocalChangeBus
from mailsrv.store.mail_store import MailStore
from mailsrv.store.memory import MemoryApplier, MemoryMailStore
from mailsrv.store.settings import RepositoryType
from mailsrv.store.worker_bus import WorkerChangeBus

_log = Logger()


@frozen
class Storage:
    """Store and journal of a process. ``store`` is an IMailStore with ``start`` and ``stop``."""

    store: Any
    journal: Journal
    queue: QueueStore
    worker_bus: WorkerChangeBus | None = None
    downs: SharedDowns | None = None
    """Destinations that are down; None where one worker alone would know."""
    bus: IChangeBus = field(factory=LocalChangeBus)
    """Reaches the other workers, where there are any."""

    async def start(self) -> None:
        """The store first: the journal's replay delivers into it."""
        if self.worker_bus is not None:
            self.worker_bus.start()
        await self.store.start()
        await self.journal.start()
        # Only now: what the journal held of the queue is in it again, and leases of the dead can be freed.
        await self.queue.start()

    async def stop(self) -> None:
        """The journal first: it still delivers into the store."""
        try:
            await self.journal.stop()
        finally:
            await self.queue.stop()
            await self.store.stop()
            if self.worker_bus is not None:
                await maybeDeferred(self.worker_bus.stop)


def open_storage(settings: Settings, reactor: Any, run_id: bytes, *, workers: int = 1, seat: int = 0) -> Storage:
    """Make the parts; nothing is read or written before ``start``.

    ``run_id`` is of the whole run: all workers have the same, another run has another (DESIGN 5.5). ``seat``
    tells the living processes of a run apart.
    """
    directory = os.path.join(settings.state_dir, "journal")
    disk = RealDisk()
    worker_bus = _worker_bus(settings, reactor) if workers > 1 else None
    bus = worker_bus or LocalChangeBus()
    queue = QueueStore(
        settings.queue,
        os.path.join(settings.state_dir, "queue"),
        disk,
        reactor,
        run_id=run_id,
        worker=seat,
        workers=workers,
        journal_directory=directory,
    )
    downs = None
    if workers > 1:
        path = os.path.join(settings.state_dir, "queue", "down")
        downs = SharedDowns(path, run_id, settings.queue.schedule.remembered_destinations)
    if settings.store.type is RepositoryType.MEMORY:
        memory = MemoryMailStore(settings.store, bus)
        applier = _ReactorApplier(MemoryApplier(memory), reactor)
        journal = Journal(settings.journal, directory, disk, SplitApplier(applier, queue.applier), reactor)
        queue.live_segments = journal.live_segments
        queue.recover_journal = journal.recover
        return Storage(memory, journal, queue, downs=downs, bus=bus)
    accounts = AccountTable(settings.store, disk, reactor, run_id, bus)
    journal = Journal(settings.journal, directory, disk, SplitApplier(StoreApplier(accounts), queue.applier), reactor)
    queue.live_segments = journal.live_segments
    queue.recover_journal = journal.recover
    return Storage(MailStore(accounts, journal), journal, queue, worker_bus, downs, bus)


async def retry_stuck(journal: Journal) -> None:
    """Try everything that was put aside again and say what came of it.

    All workers may do so at once: a delivery keeps its key, so its message is there once, and who
    comes second finds the file gone.
    """
    try:
        await _retry_each(journal)
    except MailError as error:
        # The server is about to stop, or the journal takes nothing any more and has said why.
        _log.warn("mail that was put aside could not be tried again: {error}", error=error)


async def _retry_each(journal: Journal) -> None:
    for stuck in await journal.list_stuck():
        try:
            (retried,) = await journal.retry_stuck([stuck.name])
        except FileNotFoundError:
            continue
        if retried.is_delivered:
            _log.info("mail put aside for {account} was delivered: {name}", account=str(stuck.account), name=stuck.name)
        elif stuck in await journal.list_stuck():
            _log.warn(
                "mail put aside for {account} still cannot be delivered: {name}: {error}",
                account=str(stuck.account),
                name=stuck.name,
                error=retried.error,
            )


def _worker_bus(settings: Settings, reactor: Any) -> WorkerChangeBus:
    directory = os.path.join(settings.state_dir, "changes")
    return WorkerChangeBus(reactor, directory, most_waiting=settings.store.notice_backlog)


@implementer(IApplier)
class _ReactorApplier:
    """Lets the journal's thread deliver into a store that lives in the reactor thread."""

    def __init__(self, applier: MemoryApplier, reactor: Any) -> None:
        self._applier = applier
        self._reactor = reactor

    def apply(self, deliveries: Sequence[PendingDelivery[Any]]) -> Sequence[Applied | NotApplied]:
        return blockingCallFromThread(self._reactor, self._applier.apply, deliveries)

    def take_touched(self) -> Collection[str]:
        return self._applier.take_touched()

    def checkpoint_failed(self, keys: Collection[DeliveryKey]) -> None:
        self._applier.checkpoint_failed(keys)
