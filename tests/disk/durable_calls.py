"""The order in which a file is made durable."""

from __future__ import annotations

import os
import stat

import pytest


def note_durable_calls(patch: pytest.MonkeyPatch) -> list[str]:
    """Grows as the calls are made: ``file`` and ``folder`` (synced), ``rename``."""
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_sync(descriptor: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def note_rename(source: str, target: str) -> None:
        calls.append("rename")
        rename(source, target)

    patch.setattr("os.fsync", note_sync)
    patch.setattr("os.rename", note_rename)
    return calls
