"""What goes wrong with a disk: single operations that fail, by their numbers, and the end of the machine."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection


class PowerCut(OSError):
    """The machine is off. An OSError, so that nothing but the disk's own callers sees it."""

    def __init__(self) -> None:
        super().__init__(errno.EIO, "power cut")


class FaultyOperations:
    """Operations with numbers, some of which fail."""

    def __init__(self) -> None:
        self.operations: list[tuple[str, str]] = []
        """Everything that was asked: what, and of which path."""
        self.is_dead = False
        self._cut_at: int | None = None
        self._failures: dict[int, int] = {}
        self._fail_next: dict[str, int] = {}
        self._fail_from: tuple[int, int, frozenset[str]] | None = None
        self.on_operation: Callable[[str, str], None] | None = None

    def cut_power_at(self, number: int | None) -> None:
        """Stop at the operation of this number (0 is the first one ever); None: at none."""
        self._cut_at = number

    def fail_at(self, number: int, error_number: int) -> None:
        """Let one operation fail, e.g. with ``errno.EIO``."""
        self._failures[number] = error_number

    def fail_at_next(self, name: str, error_number: int) -> None:
        """Let the next operation of this name fail, and no other."""
        self._fail_next[name] = error_number

    def fail_from(self, number: int, error_number: int, names: Collection[str] = ()) -> None:
        """Let all operations (of these names, if given) from ``number`` on fail, until :meth:`heal`."""
        self._fail_from = (number, error_number, frozenset(names))

    def heal(self) -> None:
        """No more failures. What was in doubt stays so."""
        self._failures.clear()
        self._fail_next.clear()
        self._fail_from = None

    def operate(self, name: str, path: str) -> None:
        """Count one, and raise what was arranged for it."""
        number = len(self.operations)
        if self.is_dead:
            raise PowerCut
        self.operations.append((name, path))
        if self.on_operation is not None:
            self.on_operation(name, path)
        if self._cut_at is not None and number >= self._cut_at:
            self.is_dead = True
            raise PowerCut
        error_number = self._failures.get(number) or self._fail_next.pop(name, None)
        if error_number is None and self._fail_from is not None:
            first, wanted, names = self._fail_from
            if number >= first and (not names or name in names):
                error_number = wanted
        if error_number is not None:
            raise OSError(error_number, os.strerror(error_number), path)
