"""The delivery journal with an applier that keeps files like a Maildir, unsynced until a checkpoint."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from attrs import evolve
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.disk import RealDisk, make_directories
from mailsrv.errors import InsufficientStorage
from mailsrv.interfaces.content import Content, FileContent
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
from mailsrv.journal import Journal, JournalSettings, recover_all_slots

SETTINGS = JournalSettings(
    segment_octets=2 << 20,
    inline_limit=16 * 1024,
    checkpoint_interval=0.3,
    free_space_floor=8 << 20,
    free_space_floor_percent=1.0,
)
ACCOUNTS = tuple(Address(name, "example.test") for name in ("alice", "bob", "carol"))
SENDERS = 32


def compose(name: str) -> bytes:
    """A message that can be checked knowing its name alone."""
    seed = hashlib.blake2b(name.encode(), digest_size=32).digest()
    lines = seed[0] * 2 + (1500 if seed[1] < 6 else 0)
    return name.encode() + b"\r\n" + (seed.hex().encode() + b"\r\n") * lines


@implementer(IApplier)
class FolderApplier:
    """new/KEY in each account's folder."""

    def __init__(self, root: str) -> None:
        self.disk = RealDisk()
        self.root = root
        self.touched: set[str] = set()

    def apply(self, deliveries: Sequence[PendingDelivery]) -> Sequence[Applied | NotApplied]:
        return [self._apply(pending) for pending in deliveries]

    def _apply(self, pending: PendingDelivery) -> Applied | NotApplied:
        folder = os.path.join(self.root, pending.delivery.account.local_part, "new")
        name = pending.key.to_octets().hex()
        try:
            make_directories(self.disk, folder)
            self.touched.add(folder)
            self._store(folder, name, pending.message.content)
        except OSError as error:
            return NotApplied(pending.key, InsufficientStorage(cause=str(error)))
        return Applied(pending.key, 1, 1, 1)

    def _store(self, folder: str, name: str, content: Content) -> None:
        path = os.path.join(folder, name)
        if isinstance(content, FileContent):
            with open(content.path, "rb") as file:
                octets = file.read()
        else:
            octets = content.octets
        if os.path.exists(path):
            with open(path, "rb") as file:
                if file.read() == octets:
                    return
        temporary = f"{os.path.dirname(folder)}/{name}.tmp"
        try:
            with open(temporary, "wb") as file:
                file.write(octets)
            os.rename(temporary, path)
        except OSError:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise

    def take_touched(self) -> Collection[str]:
        touched, self.touched = self.touched, set()
        return touched

    def checkpoint_failed(self, keys: Collection[DeliveryKey]) -> None:
        for key in keys:
            for account in ACCOUNTS:
                path = os.path.join(self.root, account.local_part, "new", key.to_octets().hex())
                if os.path.exists(path):
                    os.unlink(path)


class JournalLoad:
    """See :class:`tests.crashlab.loads.Load`."""

    lines_before = 1

    def command(self, directory: str) -> Sequence[str]:
        return [sys.executable, "-m", "tests.crashlab.journal_load", directory]

    def audit(self, directory: str, acknowledged: Sequence[str], later: Sequence[str]) -> Sequence[str]:
        disk = RealDisk()
        recover_all_slots(SETTINGS, f"{directory}/journal", disk, FolderApplier(f"{directory}/mail"))
        disk.close()
        found: Counter[str] = Counter()
        problems = []
        for account in ACCOUNTS:
            folder = f"{directory}/mail/{account.local_part}/new"
            for name in os.listdir(folder) if os.path.isdir(folder) else ():
                with open(f"{folder}/{name}", "rb") as file:
                    octets = file.read()
                sent = octets.partition(b"\r\n")[0].decode("ascii", "replace")
                if octets != compose(sent):
                    problems.append(f"{name} ({sent}) is not what was sent")
                found[f"{sent} {account.local_part}"] += 1
        problems += [f"{name} is there {count} times" for name, count in found.items() if count > 1]
        problems += [f"{line} is lost" for line in acknowledged if not found[line]]
        return problems


class FullDiskLoad(JournalLoad):
    """The same without a floor: on a small image (``--megabytes 40``) it runs into the full disk (R-DUR-5)."""

    def command(self, directory: str) -> Sequence[str]:
        return [*super().command(directory), "full"]

    def audit(self, directory: str, acknowledged: Sequence[str], later: Sequence[str]) -> Sequence[str]:
        # What is accepted stays in the journal until there is room again.
        self._make_room(directory)
        return super().audit(directory, acknowledged, later)

    def _make_room(self, directory: str) -> None:
        if os.path.exists(f"{directory}/ballast"):
            os.unlink(f"{directory}/ballast")


def main(directory: str, settings: JournalSettings = SETTINGS) -> None:
    """Commit without end; every answer is printed."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    journal = Journal(settings, f"{directory}/journal", RealDisk(), FolderApplier(f"{directory}/mail"), reactor)
    state = {"number": 0}

    def send(_: object = None) -> None:
        state["number"] += 1
        number = state["number"]
        name = f"{os.getpid()}.{number}"
        writer = journal.spool.begin()
        writer.write(compose(name))
        writer.finish().addCallback(commit, name, number).addErrback(refused)

    def commit(content: Content, name: str, number: int) -> object:
        accounts = ACCOUNTS[: number % 3 + 1]
        message = JournaledMessage(content, tuple(LocalDelivery(account) for account in accounts), 1_700_000_000)
        record = JournalRecord((message,), name)
        waiting = journal.commit_and_note(record) if number % 5 == 0 else journal.commit(record)

        def told(_: object) -> None:
            for account in accounts:
                sys.stdout.write(f"{name} {account.local_part}\n")
            sys.stdout.flush()
            send()

        return waiting.addCallback(told)

    def refused(failure: object) -> None:
        if not isinstance(getattr(failure, "value", None), InsufficientStorage):
            sys.stderr.write(f"refused: {failure}\n")
        reactor.callLater(0.05, send)

    def begin(_: object) -> None:
        for _number in range(SENDERS):
            send()

    journal.start().addCallback(begin)
    reactor.run()


if __name__ == "__main__":
    if sys.argv[2:] == ["full"]:
        with open(f"{sys.argv[1]}/ballast", "wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, 12 << 20)
        main(sys.argv[1], evolve(SETTINGS, free_space_floor=0, free_space_floor_percent=0.0))
    else:
        main(sys.argv[1])
