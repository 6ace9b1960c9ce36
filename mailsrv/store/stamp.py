"""Whether anything happened to an open mailbox, for the price of a few ``stat`` calls."""

from __future__ import annotations

import os
import time

from attrs import frozen


@frozen
class Stamp:
    """Time stamps of index and folder; equal and old ones mean that nothing happened."""

    stamps: tuple[int, ...]
    newest_ns: int
    taken_ns: int


def take_stamp(index_path: str, folder: str) -> Stamp:
    """Of this moment. What is missing counts as such."""
    stamps: list[int] = []
    newest = 0
    for name in (index_path, f"{index_path}-wal", f"{folder}/new", f"{folder}/cur"):
        try:
            status = os.stat(name)
        except FileNotFoundError:
            stamps.append(0)
        else:
            stamps += (status.st_mtime_ns, status.st_ino, status.st_size)
            newest = max(newest, status.st_mtime_ns)
    return Stamp(tuple(stamps), newest, time.time_ns())
