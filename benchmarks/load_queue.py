"""The queue with a million recipients: what it costs to fill it, to start on it, to take from it.

``python -m benchmarks.load_queue [--recipients N] [--destinations N] [--dead]`` fills a queue in one process and
measures in a second one, so that memory is what a worker needs that finds such a queue at its start. With
``--dead`` all of them wait for one destination.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.progress import Progress
from benchmarks.report import Result, table
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
        storage = StorageSettings(free_space_floor=0, memory_octets=1 << 40, gather_seconds=0.0)
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

    def callLater(self, delay: float, function: Callable[..., object], /, *arguments: object) -> None:
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


def fill(folder: Path, recipients: int, destinations: int) -> list[Result]:
    queue = Queue(folder, b"fill")
    applier = queue.store.applier
    progress = Progress("filled", recipients)
    start, cpu = time.perf_counter(), time.process_time()
    for first in range(0, recipients, BATCH):
        batch = [pending(number, destinations) for number in range(first, min(recipients, first + BATCH))]
        applier.apply(batch)
        for message in queue.store.content.fresh_ids():
            queue.store.content.forget(message)
        progress.at(first)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    applier.close()
    octets = sum(path.stat().st_size for path in (folder / "queue").glob("queue.db*"))
    note = f"database {octets >> 20} MiB"
    return [Result("Queue", f"fill, {destinations} destinations", recipients, seconds, cpu, note=note)]


def measure(folder: Path, destinations: int) -> list[Result]:
    """What a worker does that finds the queue."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    queue = Queue(folder, b"measure")
    clock = Stopwatch()
    clock.time("start", lambda: queue.wait(queue.store.start()))
    states = clock.time("all destinations", lambda: queue.wait(queue.store.destinations()))
    waiting = sum(state.waiting for state in states)
    for turn in range(50):
        where = destination(turn % destinations)
        taken = clock.time("take 100", lambda where=where: queue.wait(queue.store.take(where, NOW, 100, 50)))
        clock.time("state", lambda where=where: queue.wait(queue.store.state(where)))
        settled = [(each.entry, [Delivered(one.id, "250 ok") for one in each.recipients]) for each in taken]
        clock.time("settle 100", lambda settled=settled: queue.wait(*(queue.store.settle(*each) for each in settled)))
        waiting -= sum(len(each.recipients) for each in taken)
    if waiting != sum(state.waiting for state in queue.wait(queue.store.destinations())):
        raise SystemExit("the counts do not agree")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return clock.results(after, f"{(after - before) / 1024:.0f} MiB of it for the queue")


class Stopwatch:
    """Times what is done, by name."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}
        self._cpu: dict[str, float] = {}

    def time(self, name: str, function: Callable[[], Any]) -> Any:
        start, cpu = time.perf_counter(), time.process_time()
        answer = function()
        self._seconds.setdefault(name, []).append(time.perf_counter() - start)
        self._cpu[name] = self._cpu.get(name, 0.0) + time.process_time() - cpu
        return answer

    def results(self, memory_kib: int, note: str) -> list[Result]:
        return [
            Result(
                "Queue",
                name,
                len(seconds),
                sum(seconds),
                self._cpu[name],
                [each * 1e3 for each in seconds],
                memory_kib,
                note,
            )
            for name, seconds in self._seconds.items()
        ]


def work(folder: Path | None, recipients: int, destinations: int) -> Iterator[Result]:
    """Fill and measure, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="mailsrv-bench-", dir=folder) as temporary:
        steps: list[tuple[Callable[..., list[Result]], tuple[int, ...]]] = [
            (fill, (recipients, destinations)),
            (measure, (destinations,)),
        ]
        for function, arguments in steps:
            with ProcessPoolExecutor(1, context) as pool:
                yield from pool.submit(function, Path(temporary), *arguments).result()


def run(folder: Path) -> Iterator[Result]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    for destinations in (1000, 1):
        yield from work(folder.parent, 100_000, destinations)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load_queue", description=__doc__)
    parser.add_argument("--recipients", "--messages", type=int, default=1_000_000, help="one a message")
    parser.add_argument("--destinations", type=int, default=1000)
    parser.add_argument("--dead", action="store_true", help="one destination")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    print(table(list(work(options.folder, options.recipients, 1 if options.dead else options.destinations))))


if __name__ == "__main__":
    main()
