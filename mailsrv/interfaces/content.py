"""Message content on its way through the server: octets in memory, or in a synced file.

Small content travels as octets; content above the journal's inline limit (128 KiB unless set
otherwise) is written to a spool file while it arrives, so that no connection holds a large
message in memory. Both ways it is the canonical form: CRLF line ends, dots un-stuffed.
"""

from __future__ import annotations

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface


@frozen
class InlineContent:
    """A message held in memory."""

    octets: bytes

    @property
    def size(self) -> int:
        return len(self.octets)


@frozen
class FileContent:
    """A message in a file of its own that is complete and synced, but belongs to nobody yet.

    Whoever is given it journals it (the journal then owns the file) or removes it with
    :meth:`ISpool.discard`. Files without an owner are removed at the next start.
    """

    path: str
    size: int
    checksum: bytes


Content = InlineContent | FileContent


class ISpool(Interface):
    """Where content is kept while it arrives."""

    def begin() -> ISpoolWriter:
        """A writer for one message."""

    def discard(content: Content) -> None:
        """Give up content that was finished and not journaled. Does not wait; never raises."""


class ISpoolWriter(Interface):
    """Collects one message. Exactly one of ``finish`` and ``abort`` ends its life."""

    size: int = Attribute("Octets written so far.")

    def write(octets: bytes) -> Deferred[None] | None:
        """Add octets.

        ``None``: go on. A ``Deferred``: stop reading from the peer until it fires (the file is
        behind). Errors are kept and come out of ``finish``.
        """

    def finish() -> Deferred[Content]:
        """The content; file content is synced by then.

        Fails with :class:`~mailsrv.errors.InsufficientStorage` or
        :class:`~mailsrv.errors.Unavailable`, and has then removed what it wrote.
        """

    def abort() -> None:
        """Forget everything written."""


class IContent(Interface):
    """A stored message opened for reading; its octets never change."""

    size: int = Attribute("Length in octets, equal to RFC822.SIZE (R-SIZE-1).")
    octets: bytes | None = Attribute("The whole message where it was small enough to be loaded at once, else None.")

    def read(offset: int, count: int) -> Deferred[bytes]:
        """``count`` octets from ``offset``, fewer only at the end. May wait for the disk."""

    def close() -> None:
        """Let go of the file. Safe to call twice."""
