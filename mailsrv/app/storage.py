"""The parts that hold mail: change bus, store, journal; and the order they start and stop in."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import maybeDeferred
from twisted.internet.threads import blockingCallFromThread
from zope.interface import implementer

from mailsrv.config.schema import Settings
from mailsrv.disk import RealDisk
from mailsrv.interfaces.journal import Applied, DeliveryKey, IApplier, NotApplied, PendingDelivery
from mailsrv.journal import Journal
from mailsrv.store.account import AccountTable
from mailsrv.store.apply import StoreApplier
from mailsrv.store.bus import LocalChangeBus
from mailsrv.store.mail_store import MailStore
from mailsrv.store.memory import MemoryApplier, MemoryMailStore
from mailsrv.store.settings import RepositoryType
from mailsrv.store.worker_bus import WorkerChangeBus


@frozen
class Storage:
    """Store and journal of a process. ``store`` is an IMailStore with ``start`` and ``stop``."""

    store: Any
    journal: Journal
    worker_bus: WorkerChangeBus | None = None

    async def start(self) -> None:
        """The store first: the journal's replay delivers into it."""
        if self.worker_bus is not None:
            self.worker_bus.start()
        await self.store.start()
        await self.journal.start()

    async def stop(self) -> None:
        """The journal first: it still delivers into the store."""
        try:
            await self.journal.stop()
        finally:
            await self.store.stop()
            if self.worker_bus is not None:
                await maybeDeferred(self.worker_bus.stop)


def open_storage(settings: Settings, reactor: Any, run_id: bytes, *, workers: int = 1) -> Storage:
    """Make the parts; nothing is read or written before ``start``.

    ``run_id`` is of the whole run: all workers have the same, another run has another (DESIGN 5.5).
    """
    directory = os.path.join(settings.state_dir, "journal")
    disk = RealDisk()
    worker_bus = WorkerChangeBus(reactor, os.path.join(settings.state_dir, "changes")) if workers > 1 else None
    bus = worker_bus or LocalChangeBus()
    if settings.store.type is RepositoryType.MEMORY:
        memory = MemoryMailStore(settings.store, bus)
        applier = _ReactorApplier(MemoryApplier(memory), reactor)
        return Storage(memory, Journal(settings.journal, directory, disk, applier, reactor))
    accounts = AccountTable(settings.store, disk, reactor, run_id, bus)
    journal = Journal(settings.journal, directory, disk, StoreApplier(accounts), reactor)
    return Storage(MailStore(accounts, journal), journal, worker_bus)


@implementer(IApplier)
class _ReactorApplier:
    """Lets the journal's thread deliver into a store that lives in the reactor thread."""

    def __init__(self, applier: MemoryApplier, reactor: Any) -> None:
        self._applier = applier
        self._reactor = reactor

    def apply(self, deliveries: Sequence[PendingDelivery]) -> Sequence[Applied | NotApplied]:
        return blockingCallFromThread(self._reactor, self._applier.apply, deliveries)

    def take_touched(self) -> Collection[str]:
        return self._applier.take_touched()

    def checkpoint_failed(self, keys: Collection[DeliveryKey]) -> None:
        self._applier.checkpoint_failed(keys)
