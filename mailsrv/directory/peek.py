"""What a directory knows without asking anybody: nearly every recipient is a user in a file that was just read.

A Deferred costs more than the look-up in memory it answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import Interface

from mailsrv.address import Address
from mailsrv.interfaces.directory import DirectoryUser

Peeked = tuple[Sequence[Address] | None, DirectoryUser | None]
"""What ``find_alias`` and ``find_user`` would answer."""

NOBODY: Peeked = (None, None)


class IPeekable(Interface):
    """A directory that can answer at once."""

    def peek(address: Address) -> Peeked | None:
        """For a canonical address; None where it cannot be said without waiting, or is not known to be so still."""
