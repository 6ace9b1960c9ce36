"""What a journaled message costs: ``python benchmarks/journal.py [DIRECTORY]``.

A fixed number of senders each commit a message and send the next one when it is answered, on the epoll
reactor, with an applier that does nothing (the journal alone) or writes Maildir-like files. Reported are
messages a second, CPU time of the process for one message, and latencies. Best of some runs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Sequence

from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.disk import RealDisk
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.journal import (
    Applied,
    DeliveryKey,
    IApplier,
    JournaledMessage,
    JournalRecord,
    LocalDelivery,
    PendingDelivery,
)
from mailsrv.journal import Journal, JournalSettings


@implementer(IApplier)
class NothingApplier:
    """Answers, and that is all."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def apply(self, deliveries: Sequence[PendingDelivery]) -> Sequence[Applied]:
        return [Applied(pending.key, 1, 1, 1) for pending in deliveries]

    def take_touched(self) -> Collection[str]:
        return [self.directory]

    def checkpoint_failed(self, keys: Collection[DeliveryKey]) -> None: ...


class FilesApplier(NothingApplier):
    """One file a delivery, unsynced, as a Maildir would have it."""

    def apply(self, deliveries: Sequence[PendingDelivery]) -> Sequence[Applied]:
        for pending in deliveries:
            content = pending.message.content
            name = os.path.join(self.directory, pending.key.to_octets().hex())
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            if isinstance(content, InlineContent):
                os.write(descriptor, content.octets)
            os.close(descriptor)
        return super().apply(deliveries)


def run(directory: str, applier_class: type[NothingApplier], size: int, senders: int, count: int, notes: bool) -> None:
    from twisted.internet import reactor

    mail = os.path.join(directory, "mail")
    os.makedirs(mail, exist_ok=True)
    settings = JournalSettings(free_space_floor=0, free_space_floor_percent=0)
    journal = Journal(settings, os.path.join(directory, "journal"), RealDisk(), applier_class(mail), reactor)
    delivery = (LocalDelivery(Address("alice", "example.test"), recipient="alice@example.test"),)
    octets = os.urandom(size)
    latencies: list[float] = []
    state = {"started": 0, "done": 0, "wall": 0.0, "cpu": 0.0}

    def send(_: object = None) -> None:
        if state["started"] >= count:
            return
        state["started"] += 1
        begun = time.perf_counter()
        record = JournalRecord(
            (JournaledMessage(InlineContent(octets), delivery, 1_700_000_000),), "t", "s@example.org"
        )
        waiting = journal.commit_and_note(record) if notes else journal.commit(record)
        waiting.addCallback(lambda _: done(begun))

    def done(begun: float) -> None:
        latencies.append(time.perf_counter() - begun)
        state["done"] += 1
        if state["done"] == count:
            state["wall"] = time.perf_counter() - state["wall"]
            state["cpu"] = time.process_time() - state["cpu"]
            journal.stop().addCallback(lambda _: reactor.stop())
        else:
            send()

    def begin(_: object) -> None:
        # The first spare segment is filled now: not part of the figure.
        reactor.callLater(0.5, go)

    def go() -> None:
        state["wall"], state["cpu"] = time.perf_counter(), time.process_time()
        for _ in range(senders):
            send()

    journal.start().addCallback(begin)
    reactor.run()
    latencies.sort()
    print(
        f"{applier_class.__name__:15} {'notes' if notes else '':5} {size:7} B {senders:3} senders: "
        f"{count / state['wall']:7.0f} msg/s  {state['cpu'] / count * 1e6:6.1f} us CPU  "
        f"p50 {latencies[len(latencies) // 2] * 1e3:5.1f} ms  p99 {latencies[len(latencies) * 99 // 100] * 1e3:5.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", default=None)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--senders", type=int, default=64)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--files", action="store_true", help="write a file for each message, too")
    parser.add_argument("--notes", action="store_true", help="as APPEND does")
    parser.add_argument("--profile", action="store_true", help="of the reactor's thread")
    options = parser.parse_args()
    directory = tempfile.mkdtemp(dir=options.directory)
    applier = FilesApplier if options.files else NothingApplier
    arguments = (directory, applier, options.size, options.senders, options.count, options.notes)
    try:
        if options.profile:
            import cProfile
            import pstats

            profile = cProfile.Profile()
            profile.runcall(run, *arguments)
            pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(25)
        else:
            run(*arguments)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
