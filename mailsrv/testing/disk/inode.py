"""A file or directory of the model: what is on disk of it, and what is only in the cache."""

from __future__ import annotations

import random
from collections.abc import Callable

from attrs import define, field

from mailsrv.testing.disk.faults import PowerCut

SECTOR = 512


@define(eq=False)
class Inode:
    """Contents of a file, or names of a directory; each as seen, as durable, and what lies between."""

    number: int
    is_directory: bool = False
    octets: bytearray = field(factory=bytearray)
    durable: bytearray = field(factory=bytearray)
    versions: dict[int, list[bytes]] = field(factory=dict)
    """Sector → contents it had since the last sync."""
    in_doubt: dict[int, list[bytes]] = field(factory=dict)
    """The same, of syncs that failed: no later sync settles it."""
    entries: dict[str, Inode] = field(factory=dict)
    durable_entries: dict[str, Inode] = field(factory=dict)
    pending: list[Change] = field(factory=list)
    changed_ns: int = 0
    lock_owner: object = None
    errors: int = 0
    """Write errors met by somebody else's sync: each handle open at the time is told once, as Linux does."""

    def put(self, offset: int, octets: bytes) -> None:
        """Write; not durable before a sync."""
        end = offset + len(octets)
        if len(self.octets) < end:
            self.octets.extend(bytes(end - len(self.octets)))
        self.octets[offset:end] = octets
        self.changed_ns += 1
        for sector in range(offset // SECTOR, (end + SECTOR - 1) // SECTOR):
            content = bytes(self.octets[sector * SECTOR : (sector + 1) * SECTOR])
            self.versions.setdefault(sector, []).append(content)

    def sync(self, operate: Callable[[], None]) -> None:
        """Make the contents durable, unless ``operate`` raises."""
        try:
            operate()
        except PowerCut:
            raise
        except OSError:
            # The kernel marks the pages clean all the same: they are in doubt from now on.
            for sector, contents in self.versions.items():
                self.in_doubt.setdefault(sector, []).extend(contents)
            self.versions.clear()
            raise
        length = len(self.octets)
        del self.durable[length:]
        self.durable.extend(bytes(length - len(self.durable)))
        for sector in self.versions:
            start = sector * SECTOR
            self.durable[start : start + SECTOR] = self.octets[start : start + SECTOR]
            self.in_doubt.pop(sector, None)
        self.versions.clear()

    def sync_names(self) -> None:
        """Make the names of a directory durable."""
        for change in self.pending:
            # A change that spans two directories becomes durable as one.
            for other, name, inode in change.steps:
                if inode is None:
                    other.durable_entries.pop(name, None)
                else:
                    other.durable_entries[name] = inode
                if other is not self and change in other.pending:
                    other.pending.remove(change)
        self.pending.clear()

    def surviving_octets(self, seed: int, chance: random.Random) -> bytearray:
        """What a power cut now would leave of the contents; ``seed`` as in ``ModelDisk.after_power_cut``."""
        octets = bytearray(self.durable)
        if seed == 0:
            return octets
        if seed == 1 and not self.in_doubt:
            return bytearray(self.octets)
        if chance.random() < 0.5:
            del octets[len(self.octets) :]
            octets.extend(bytes(max(0, len(self.octets) - len(octets))))
        length = len(octets)
        for contents in (self.in_doubt, self.versions):
            for sector in sorted(contents):
                choice = chance.randint(-1, len(contents[sector]) - 1)
                start = sector * SECTOR
                if choice >= 0 and start < length:
                    content = contents[sector][choice]
                    octets[start : start + len(content)] = content
        del octets[length:]
        return octets


@define(eq=False)
class Change:
    """One step on directories: names that go and names that come, each with its directory."""

    steps: list[tuple[Inode, str, Inode | None]]
