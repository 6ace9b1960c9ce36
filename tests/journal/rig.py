"""A journal without threads, on any disk, with an applier that keeps files.

:class:`Rig` runs the journal's stages one after the other in the test's thread, in an order the test
chooses. :class:`FileApplier` stores each delivery as one file, unsynced until a checkpoint: what it has
"in its mailboxes" after a crash is what the disk says.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from typing import Any, Self

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.disk import IDisk, make_directories
from mailsrv.errors import InsufficientStorage, MailError
from mailsrv.interfaces.content import Content, FileContent, InlineContent
from mailsrv.interfaces.journal import (
    Applied,
    DeliveryKey,
    IApplier,
    JournaledMessage,
    JournalRecord,
    LocalDelivery,
    NotApplied,
    PendingDelivery,
)
from mailsrv.journal import Journal, JournalSettings
from mailsrv.journal.slot import Slot

ALICE = Address("alice", "example.test")
BOB = Address("bob", "example.test")
DIRECTORY = "/state/journal"
MAIL = "/state/mail"
SMALL = JournalSettings(
    segment_octets=32 * 1024,
    most_segments=6,
    inline_limit=2048,
    spool_buffer=4096,
    backlog_octets=1 << 20,
    free_space_floor=0,
    free_space_floor_percent=0.0,
    stuck_after=3,
    spool_threads=1,
)


def message(octets: bytes | Content, *accounts: Address, mailbox: str = "INBOX") -> JournaledMessage:
    content = InlineContent(octets) if isinstance(octets, bytes) else octets
    deliveries = tuple(
        LocalDelivery(account, mailbox, frozenset(["\\Seen"]), str(account)) for account in accounts or (ALICE,)
    )
    return JournaledMessage(content, deliveries, 1_700_000_000, 60)


def record(octets: bytes | Content, *accounts: Address) -> JournalRecord:
    return JournalRecord((message(octets, *accounts),), "transaction-1", "sender@example.org")


class FakeReactor(Clock):
    """A clock; calls from threads are kept until they are run."""

    def __init__(self) -> None:
        super().__init__()
        self.posted: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def callFromThread(self, function: Callable[..., object], *arguments: object) -> None:
        self.posted.append((function, arguments))

    def run_calls(self) -> bool:
        calls, self.posted = self.posted, []
        for function, arguments in calls:
            function(*arguments)
        return bool(calls)


class ManualWorker:
    """Handles its inbox when told to."""

    def __init__(self, name: str, handler: Callable[[list[Any]], float | None]) -> None:
        self.name = name
        self.handler = handler
        self.inbox: list[Any] = []
        self.is_stopped = False
        self.delay: float | None = None
        self.linger = 0.0

    def start(self) -> None: ...

    def post(self, item: Any) -> None:
        self.inbox.append(item)

    def stop(self) -> None:
        self.is_stopped = True

    def set_linger(self, seconds: float) -> None:
        self.linger = seconds

    def step(self) -> bool:
        items, self.inbox = self.inbox, []
        if items:
            self.delay = self.handler(items)
        return bool(items)


@implementer(IApplier)
class FileApplier:
    """One file a delivery: MAIL/account/KEY.UID."""

    def __init__(self, disk: IDisk, root: str = MAIL) -> None:
        self.disk = disk
        self.root = root
        self.touched: set[str] = set()
        self.failing: dict[Address, MailError] = {}
        self.batches: list[Sequence[PendingDelivery]] = []
        self.doubted: list[DeliveryKey] = []
        self.next_uid = 1

    def directory(self, account: Address) -> str:
        return os.path.join(self.root, str(account))

    def apply(self, deliveries: Sequence[PendingDelivery]) -> Sequence[Applied | NotApplied]:
        self.batches.append(deliveries)
        return [self._apply(pending) for pending in deliveries]

    def _apply(self, pending: PendingDelivery) -> Applied | NotApplied:
        account = pending.delivery.account
        if account in self.failing:
            return NotApplied(pending.key, self.failing[account])
        try:
            return self._store(pending)
        except OSError as error:
            return NotApplied(pending.key, InsufficientStorage(cause=str(error)))

    def _store(self, pending: PendingDelivery) -> Applied:
        directory = self.directory(pending.delivery.account)
        make_directories(self.disk, directory)
        self.touched.add(directory)
        key = pending.key.to_octets().hex()
        octets = self.octets_of(pending.message.content)
        for entry in self.disk.list_directory(directory):
            found, _, uid = entry.name.partition(".")
            if found == key:
                path = os.path.join(directory, entry.name)
                if self.read(path) != octets:
                    self.disk.unlink(path)
                    break
                return Applied(pending.key, 1, int(uid), int(uid))
        uid = str(pending.noted.uid if pending.noted else self.next_uid)
        self.next_uid = max(self.next_uid, int(uid) + 1)
        path = os.path.join(directory, f"{key}.{uid}")
        file = self.disk.create(path)
        try:
            file.write(0, [octets])
        except OSError:
            self.disk.unlink(path)
            raise
        finally:
            file.close()
        return Applied(pending.key, 1, int(uid), int(uid))

    def octets_of(self, content: Content) -> bytes:
        return self.read(content.path) if isinstance(content, FileContent) else content.octets

    def read(self, path: str) -> bytes:
        file = self.disk.open(path)
        try:
            return file.read(0, 1 << 30)
        finally:
            file.close()

    def take_touched(self) -> Collection[str]:
        touched, self.touched = self.touched, set()
        return touched

    def checkpoint_failed(self, keys: Collection[DeliveryKey]) -> None:
        self.doubted += keys
        # Written in doubt: away with it, the re-apply writes it anew.
        wanted = {key.to_octets().hex() for key in keys}
        if self.disk.status(self.root) is None:
            return
        for account in self.disk.list_directory(self.root):
            directory = os.path.join(self.root, account.name)
            for entry in self.disk.list_directory(directory):
                if entry.name.partition(".")[0] in wanted:
                    self.disk.unlink(os.path.join(directory, entry.name))
            self.touched.add(directory)

    def mail(self, account: Address = ALICE) -> dict[str, bytes]:
        """Key → octets of everything the account has."""
        directory = self.directory(account)
        if self.disk.status(directory) is None:
            return {}
        return {
            entry.name.partition(".")[0]: self.read(os.path.join(directory, entry.name))
            for entry in self.disk.list_directory(directory)
        }

    def texts(self, account: Address = ALICE) -> list[bytes]:
        return sorted(self.mail(account).values())


class Rig:
    """A journal whose threads are stepped by the test."""

    def __init__(
        self,
        disk: Any,
        settings: JournalSettings = SMALL,
        applier: FileApplier | None = None,
        directory: str = DIRECTORY,
    ) -> None:
        self.disk = disk
        self.reactor = FakeReactor()
        self.applier = applier or FileApplier(disk)
        self.workers: dict[str, ManualWorker] = {}
        self.journal = Journal(
            settings,
            directory,
            disk,
            self.applier,
            self.reactor,
            worker_factory=self._make_worker,
            seconds=self.reactor.seconds,
        )

    def _make_worker(self, name: str, handler: Callable[[list[Any]], float | None]) -> ManualWorker:
        worker = self.workers[name] = ManualWorker(name, handler)
        return worker

    def start(self) -> Self:
        result: list[object] = []
        self.journal.start().addBoth(result.append)
        self.pump()
        if result and isinstance(result[0], Failure):
            result[0].raiseException()
        if not result:
            raise AssertionError("the journal did not start")
        return self

    @property
    def slot(self) -> Slot:
        stages = self.journal._stages
        if stages is None:
            raise AssertionError("not started")
        return stages.slot

    def step(self, name: str) -> bool:
        """One batch of one thread: ``commit``, ``apply``, ``keeper``, ``spool-0``."""
        self.reactor.advance(0)
        return self.workers[f"journal-{name}"].step()

    def pump(self) -> None:
        """All threads and answers, until nothing happens any more."""
        for _ in range(1000):
            self.reactor.advance(0)
            busy = [worker.step() for worker in self.workers.values()]
            if not (self.reactor.run_calls() or any(busy)):
                return
        raise AssertionError("it never comes to rest")

    def tick(self, seconds: float = 0.0) -> None:
        """Let time pass for everybody."""
        self.reactor.advance(seconds)
        for worker in self.workers.values():
            if not worker.is_stopped and not worker.name.startswith("journal-spool"):
                worker.delay = worker.handler([])
        self.pump()

    def stop(self) -> None:
        result: list[object] = []
        self.journal.stop().addBoth(result.append)
        self.pump()
        if result != [None]:
            raise AssertionError(f"the journal did not stop: {result}")

    def commit(self, octets: bytes | Content, *accounts: Address) -> list[object]:
        """The answer goes into the list: None, or a Failure."""
        result: list[object] = []
        self.journal.commit(record(octets, *accounts)).addBoth(result.append)
        return result

    def commit_and_note(self, *messages: JournaledMessage) -> list[Any]:
        result: list[Any] = []
        self.journal.commit_and_note(JournalRecord(messages, "t", "")).addBoth(result.append)
        return result

    def spool(self, octets: bytes, piece: int = 1000) -> list[Any]:
        writer = self.journal.spool.begin()
        for start in range(0, len(octets), piece):
            writer.write(octets[start : start + piece])
        result: list[Any] = []
        writer.finish().addBoth(result.append)
        return result
