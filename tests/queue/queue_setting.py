"""A queue store whose threads the test steps, and the journal records it is fed with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailsrv.address import Address
from mailsrv.disk import IDisk, RealDisk
from mailsrv.interfaces.content import Content, InlineContent
from mailsrv.interfaces.envelope import EnvelopeParameters
from mailsrv.interfaces.journal import (
    Delivery,
    DeliveryKey,
    JournaledMessage,
    PendingDelivery,
)
from mailsrv.interfaces.queue import (
    Consignment,
    Destination,
    DestinationState,
    OnwardDelivery,
    OnwardRecipient,
    QueueSettlement,
    Transport,
)
from mailsrv.queue.settings import QueueSettings
from mailsrv.queue.store import QueueStore

SEGMENT = b"segment-number-1"
NOW = 1_700_000_000.0
RETURN_PATH = b"Return-Path: <sender@example.org>\r\n"
BODY = b"From: sender@example.org\r\nSubject: one\r\n\r\nHello\r\n"
CONTENT = RETURN_PATH + BODY


def mx(domain: str) -> Destination:
    return Destination(Transport.MX, domain)


A, B = mx("a.test"), mx("b.test")


class ManualWorker:
    """Handles its inbox when told to."""

    def __init__(self, name: str, handler: Callable[[list[Any]], float | None]) -> None:
        self.handler = handler
        self.inbox: list[Any] = []

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def set_linger(self, seconds: float) -> None: ...

    def post(self, item: Any) -> None:
        self.inbox.append(item)

    def step(self) -> bool:
        items, self.inbox = self.inbox, []
        if items:
            self.handler(items)
        return bool(items)


class DirectReactor:
    """Calls at once: the test has one thread."""

    def callFromThread(self, function: Callable[..., object], /, *arguments: object) -> None:
        function(*arguments)

    def callLater(self, delay: float, function: Callable[..., object], /, *arguments: object) -> None:
        function(*arguments)


class QueueSetting:
    """One worker's store on a folder; several of them may share one."""

    def __init__(
        self,
        directory: Path | str,
        *,
        run_id: bytes = b"run-1",
        worker: int = 0,
        workers: int = 1,
        disk: IDisk | None = None,
        queue_settings: QueueSettings | None = None,
        journal_directory: str = "",
        **storage: Any,
    ) -> None:
        settings = queue_settings or QueueSettings()
        settings = evolve(settings, storage=evolve(settings.storage, free_space_floor=0, **storage))
        self.directory = Path(directory)
        self.workers: list[ManualWorker] = []
        self.now = NOW
        self.monotonic = 0.0
        self.live: frozenset[bytes] = frozenset({SEGMENT})
        self.told: list[DestinationState] = []
        self.store = QueueStore(
            settings,
            str(self.directory / "queue"),
            disk or RealDisk(),
            DirectReactor(),
            run_id=run_id,
            worker=worker,
            workers=workers,
            journal_directory=journal_directory,
            live_segments=lambda: self.live,
            worker_factory=self._make_worker,
            clock=lambda: self.now,
            seconds=lambda: self.monotonic,
        )
        self.store.listen(self.told.extend)
        self.places = itertools.count(4096, 4096)

    def _make_worker(self, name: str, handler: Callable[[list[Any]], float | None]) -> ManualWorker:
        worker = ManualWorker(name, handler)
        self.workers.append(worker)
        return worker

    def start(self) -> QueueSetting:
        self.result(self.store.start())
        return self

    def stop(self) -> None:
        self.result(self.store.stop())

    def pump(self) -> None:
        while sum(worker.step() for worker in self.workers):
            pass

    def tick(self, seconds: float = 1.0) -> None:
        """What others did is noticed."""
        self.monotonic += seconds
        self.workers[0].handler([])
        self.pump()

    def result(self, deferred: Deferred[Any]) -> Any:
        results: list[Any] = []
        deferred.addBoth(results.append)
        self.pump()
        [result] = results
        if isinstance(result, Failure):
            result.raiseException()
        return result

    # -- mail in ---------------------------------------------------------------------

    def pending(
        self,
        *deliveries: Delivery,
        content: bytes | Content = CONTENT,
        at: int | None = None,
        segment: bytes = SEGMENT,
        is_replay: bool = False,
        accepted_at: int = int(NOW),
    ) -> list[PendingDelivery[Any]]:
        offset = next(self.places) if at is None else at
        made = InlineContent(content) if isinstance(content, bytes) else content
        message = JournaledMessage(made, deliveries, accepted_at)
        return [
            PendingDelivery(
                DeliveryKey(segment, offset, number), message, delivery, is_replay, transaction_id=f"T{offset}"
            )
            for number, delivery in enumerate(deliveries)
        ]

    def enqueue(self, *recipients: tuple[str, Destination], **more: Any) -> list[Any]:
        delivery = onward(
            *recipients, **{key: more.pop(key) for key in ("sender", "account", "parameters") if key in more}
        )
        answers = self.store.applier.apply(self.pending(delivery, **more))
        self.pump()
        return list(answers)

    def settle_journaled(self, settlement: QueueSettlement, **more: Any) -> list[Any]:
        return list(self.store.applier.apply(self.pending(settlement, content=b"", **more)))

    # -- mail out --------------------------------------------------------------------

    def take(self, destination: Destination = A, messages: int = 100, recipients: int = 50) -> list[Consignment]:
        return list(self.result(self.store.take(destination, self.now, messages, recipients)))

    def settle(self, consignment: Consignment, *settlements: Any) -> None:
        self.result(self.store.settle(consignment.entry, settlements))

    def waiting(self) -> dict[str, int]:
        states: Sequence[DestinationState] = self.result(self.store.destinations())
        return {str(state.destination): state.waiting for state in states}

    def octets(self, consignment: Consignment) -> bytes:
        content = self.result(self.store.open_content(consignment.entry))
        octets: bytes = self.result(content.read(0, 1 << 30))
        content.close()
        assert len(octets) == content.size == consignment.entry.size
        return octets

    def files(self) -> list[Path]:
        return sorted(path for path in (self.directory / "queue" / "content").rglob("*") if path.is_file())


def onward(
    *recipients: tuple[str, Destination],
    sender: str | None = "sender@example.org",
    account: str = "",
    parameters: EnvelopeParameters | None = None,
) -> OnwardDelivery:
    return OnwardDelivery(
        None if sender is None else address(sender),
        tuple(OnwardRecipient(address(name), destination) for name, destination in recipients),
        parameters or EnvelopeParameters(),
        account,
    )


def address(text: str) -> Address:
    local_part, _, domain = text.rpartition("@")
    return Address(local_part, domain)


def names(consignments: Sequence[Consignment]) -> list[list[str]]:
    return [[str(recipient.address) for recipient in each.recipients] for each in consignments]
