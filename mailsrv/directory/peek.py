"""What a directory knows without asking anybody: nearly every recipient is a user in a file that was just read.

A Deferred costs more than the look-up in memory it answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from zope.interface import Interface

from mailsrv.address import Address
from mailsrv.interfaces.directory import DirectoryUser

Peeked = tuple[Sequence[Address] | None, DirectoryUser | None]
"""What ``find_alias`` and ``find_user`` would answer."""


class Peek(Protocol):
    """As a callable."""

    def __call__(self, address: Address, /, *, is_target: bool = False) -> Peeked | None: ...


NOBODY: Peeked = (None, None)


class IPeekable(Interface):
    """A directory that can answer at once."""

    def peek(address: Address, *, is_target: bool = False) -> Peeked | None:
        """For a canonical address; None where it cannot be said without waiting, or is not known to be so still.

        ``is_target``: a list or an alias names it, and what was read of it with the list is good enough.
        """
