"""How a directory is, for ``mailsrvctl status``: told from memory, nobody is asked."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from zope.interface import Interface


@frozen
class DirectoryServerState:
    """One of the servers of a directory."""

    uri: str
    is_up: bool
    down_seconds: float = 0.0
    """For how long it has been down."""
    cause: str = ""
    """Why it is down, as far as is known."""


@frozen
class DirectoryState:
    """One directory as one process sees it."""

    name: str
    is_out: bool = False
    """It cannot be asked now: mail for known recipients goes on, nobody can log in whose password it has to check."""
    out_seconds: float = 0.0
    """For how long that has been so, as far as is known."""
    trouble: str = ""
    servers: tuple[DirectoryServerState, ...] = ()
    """In the order they are asked; the first that is up serves. Empty where it has none."""
    answers: int | None = None
    """How many are remembered; None where nothing is."""
    oldest_answer_seconds: float | None = None
    """The age of the oldest of them, in an outage."""


class IReportsState(Interface):
    """A directory that tells how it is."""

    def states() -> Sequence[DirectoryState]:
        """Of itself, or of those it consists of."""
