"""The queue with a million recipients: what it costs to fill it, to start on it, to take from it.

``python -m benchmarks.load_queue [--recipients N] [--destinations N] [--dead]`` fills a queue in one process and
measures in a second one, so that memory is what a worker needs that finds such a queue at its start. With
``--dead`` all of them wait for one destination.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mailsrv.address import Address
from mailsrv.disk import RealDisk
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.journal import DeliveryKey, JournaledMessage, PendingDelivery
from mailsrv.interfaces.queue import Delivered, Destination, OnwardDelivery, OnwardRecipient, Transport
from mailsrv.queue.settings import QueueSettings, StorageSettings
from mailsrv.queue.store import QueueStore

CONTENT = InlineContent(b"Return-Path: <>\r\nSubject: x\r\n\r\n" + b"x" * 2000)
NOW = 1_700_000_000.0
BATCH = 256
SEGMENT_OCTETS = 32 << 20


class Worker:
    """Does what is posted when it is told to."""

    def __init__(self, name: str, handler: Callable[[list[Any]], float | None]) -> None:
        self.handler = handler
        self.inbox: list[Any] = []

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def set_linger(self, seconds: float) -> None: ...

    def post(self, item: Any) -> None:
        self.inbox.append(item)


class Queue:
    """A store without threads."""

    def __init__(self, folder: Path, run: bytes) -> None:
        self.workers: list[Worker] = []
        storage = StorageSettings(free_space_floor=0, memory_octets=1 << 40)
        self.store = QueueStore(
            QueueSettings(storage=storage),
            str(folder / "queue"),
            RealDisk(),
            self,
            run_id=run,
            live_segments=frozenset,
            worker_factory=self.make_worker,
            clock=lambda: NOW,
        )

    def make_worker(self, name: str, handler: Callable[[list[Any]], float | None]) -> Worker:
        self.workers.append(Worker(name, handler))
        return self.workers[-1]

    def callFromThread(self, function: Callable[..., object], /, *arguments: object) -> None:
        function(*arguments)

    def wait(self, *deferreds: Any) -> Any:
        results: list[Any] = []
        for deferred in deferreds:
            deferred.addBoth(results.append)
        while len(results) < len(deferreds):
            for worker in self.workers:
                items, worker.inbox = worker.inbox, []
                if items:
                    worker.handler(items)
        return results[-1]


def destination(number: int) -> Destination:
    return Destination(Transport.MX, f"d{number}.example.test")


def pending(number: int, destinations: int) -> PendingDelivery[OnwardDelivery]:
    where = number % destinations
    recipient = OnwardRecipient(Address(f"user{number}", f"d{where}.example.test"), destination(where))
    delivery = OnwardDelivery(Address(f"sender{number % 1000}", "example.org"), (recipient,))
    segment, offset = divmod(number * 4096, SEGMENT_OCTETS)
    message = JournaledMessage(CONTENT, (delivery,), int(NOW) - number % 86400)
    return PendingDelivery(DeliveryKey(segment.to_bytes(16, "big"), offset, 0), message, delivery)


def fill(folder: Path, recipients: int, destinations: int) -> None:
    queue = Queue(folder, b"fill")
    applier = queue.store.applier
    cpu = time.process_time()
    for first in range(0, recipients, BATCH):
        batch = [pending(number, destinations) for number in range(first, min(recipients, first + BATCH))]
        applier.apply(batch)
        for message in queue.store.content.fresh_ids():
            queue.store.content.forget(message)
    print(f"filled: {(time.process_time() - cpu) / recipients * 1e6:.0f} µs CPU a message", flush=True)
    applier.close()


def measure(folder: Path, destinations: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    queue = Queue(folder, b"measure")
    start = time.perf_counter()
    queue.wait(queue.store.start())
    print(f"start: {time.perf_counter() - start:.2f} s")
    start = time.perf_counter()
    states = queue.wait(queue.store.destinations())
    print(f"destinations(): {time.perf_counter() - start:.2f} s for {len(states)}")
    waiting = sum(state.waiting for state in states)
    times: dict[str, list[float]] = {"take of 100": [], "state": [], "settlements of 100": []}
    for turn in range(50):
        where = destination(turn % destinations)
        start = time.perf_counter()
        taken = queue.wait(queue.store.take(where, NOW, 100, 50))
        times["take of 100"].append(time.perf_counter() - start)
        start = time.perf_counter()
        queue.wait(queue.store.state(where))
        times["state"].append(time.perf_counter() - start)
        start = time.perf_counter()
        queue.wait(
            *(
                queue.store.settle(each.entry, [Delivered(recipient.id, "250 ok") for recipient in each.recipients])
                for each in taken
            )
        )
        times["settlements of 100"].append(time.perf_counter() - start)
        waiting -= sum(len(each.recipients) for each in taken)
    for name, values in times.items():
        print(f"{name}: median {statistics.median(values) * 1e3:.1f} ms, longest {max(values) * 1e3:.1f} ms")
    if waiting != sum(state.waiting for state in queue.wait(queue.store.destinations())):
        raise SystemExit("the counts do not agree")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"memory: {after / 1024:.0f} MiB, of which the queue {(after - before) / 1024:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load_queue", description=__doc__)
    parser.add_argument("--recipients", type=int, default=1_000_000)
    parser.add_argument("--destinations", type=int, default=1000)
    parser.add_argument("--dead", action="store_true", help="one destination")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    destinations = 1 if options.dead else options.destinations
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="mailsrv-bench-", dir=options.folder) as temporary:
        for function, arguments in ((fill, (options.recipients, destinations)), (measure, (destinations,))):
            process = context.Process(target=function, args=(Path(temporary), *arguments))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(1)
        size = sum(path.stat().st_size for path in (Path(temporary) / "queue").glob("queue.db*"))
        print(f"database: {size >> 20} MiB")


if __name__ == "__main__":
    main()
