"""What the lab can be loaded with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Load(Protocol):
    """Works in a mounted file system, and knows afterwards what should be in it."""

    lines_before: int
    """How many lines there are before the first power cut: by then it is under way."""

    def command(self, directory: str) -> Sequence[str]:
        """A program that works in ``directory`` until it is killed.

        After each acknowledgement it prints one line that says what was acknowledged, and flushes.
        """

    def audit(self, directory: str, acknowledged: Sequence[str], later: Sequence[str]) -> Sequence[str]:
        """Recover what is in ``directory`` after a crash, and compare; one line for each broken promise.

        ``acknowledged`` were printed before the crash; ``later`` may or may not be there.
        """
