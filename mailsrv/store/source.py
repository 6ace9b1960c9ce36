"""Where the octets of a journaled message come from, and the file that is to have them.

Errors are :class:`OSError`. Nothing is synced here: until a checkpoint the journal is what survives.
"""

from __future__ import annotations

from attrs import frozen

from mailsrv.disk import IDisk, IDiskFile, opened
from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.journal import (
    JournaledMessage,
)
from mailsrv.store.summary import StoredSummary, stored_summary

_CHUNK = 1 << 20


@frozen
class Source:
    """A message of a batch: scanned once, written once, linked for its further recipients."""

    summary: StoredSummary
    octets: bytes | None
    """None where the content is a file."""
    path: str
    """The content's file, or "" """

    def write(self, disk: IDisk, path: str) -> None:
        """A complete file; one left by an attempt before is replaced."""
        try:
            file = disk.create(path)
        except FileExistsError:
            disk.unlink(path)
            file = disk.create(path)
        try:
            if self.octets is not None:
                file.write(0, (self.octets,))
            else:
                _copy(disk, self.path, file)
        finally:
            file.close()

    def is_held_by(self, disk: IDisk, path: str, stored: int) -> bool:
        """Whether the file has exactly these octets: a crash can leave a name with nothing, or zeros, behind it."""
        try:
            with opened(disk.open(path)) as file:
                if file.size() != stored:
                    return False
                if self.octets is not None:
                    return file.read(0, stored) == self.octets
                with opened(disk.open(self.path)) as original:
                    offset = 0
                    while chunk := original.read(offset, _CHUNK):
                        if file.read(offset, len(chunk)) != chunk:
                            return False
                        offset += len(chunk)
                    return True
        except OSError:
            return False


def read_source(disk: IDisk, message: JournaledMessage) -> Source:
    """Look a message over."""
    content = message.content
    if isinstance(content, InlineContent):
        return Source(stored_summary(content.octets), content.octets, "")
    with opened(disk.open(content.path)) as file:
        octets = file.read(0, content.size)
    return Source(stored_summary(octets), None, content.path)


def _copy(disk: IDisk, source: str, target: IDiskFile) -> None:
    with opened(disk.open(source)) as file:
        offset = 0
        while chunk := file.read(offset, _CHUNK):
            target.write(offset, [chunk])
            offset += len(chunk)
