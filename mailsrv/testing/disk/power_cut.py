"""What a power cut leaves of a tree of files."""

from __future__ import annotations

import random

from mailsrv.testing.disk.inode import Inode


def copy_survivors(root: Inode, target: Inode, seed: int) -> int:
    """Fill the empty directory ``target`` with what is left of ``root``; the octets of its files."""
    chance = random.Random(seed)  # noqa: S311 # reproducible, not secret
    cuts = _choose_cuts(root, seed, chance)
    copies: dict[int, Inode] = {root.number: target}
    _copy_directory(root, target, cuts, copies, (seed, chance))
    return sum(len(inode.octets) for inode in copies.values() if not inode.is_directory)


def _all_directories(root: Inode) -> list[Inode]:
    found: dict[int, Inode] = {}

    def visit(directory: Inode) -> None:
        if directory.number in found:
            return
        found[directory.number] = directory
        for inode in (*directory.entries.values(), *directory.durable_entries.values()):
            if inode.is_directory:
                visit(inode)

    visit(root)
    return list(found.values())


def _choose_cuts(root: Inode, seed: int, chance: random.Random) -> dict[int, int]:
    """How many pending changes of each directory happened; one that is in two directories: in both or neither."""
    directories = _all_directories(root)
    cuts = {}
    for directory in directories:
        most = len(directory.pending)
        cuts[directory.number] = 0 if seed == 0 else most if seed == 1 else chance.randint(0, most)
    is_settled = False
    while not is_settled:
        is_settled = True
        for directory in directories:
            for index, change in enumerate(directory.pending[: cuts[directory.number]]):
                for other, _, _ in change.steps:
                    if other is directory or other.number not in cuts:
                        continue
                    if change not in other.pending[: cuts[other.number]]:
                        cuts[directory.number] = index
                        is_settled = False
                        break
                if not is_settled:
                    break
    return cuts


def _copy_directory(
    source: Inode,
    target: Inode,
    cuts: dict[int, int],
    copies: dict[int, Inode],
    choice: tuple[int, random.Random],
) -> None:
    entries = dict(source.durable_entries)
    for change in source.pending[: cuts[source.number]]:
        for directory, name, inode in change.steps:
            if directory is not source:
                continue
            if inode is None:
                entries.pop(name, None)
            else:
                entries[name] = inode
    for name, inode in entries.items():
        copy = copies.get(inode.number)
        if copy is None:
            copy = Inode(inode.number, inode.is_directory)
            copies[inode.number] = copy
            if inode.is_directory:
                _copy_directory(inode, copy, cuts, copies, choice)
            else:
                copy.octets = inode.surviving_octets(*choice)
                copy.durable = bytearray(copy.octets)
        target.entries[name] = target.durable_entries[name] = copy
