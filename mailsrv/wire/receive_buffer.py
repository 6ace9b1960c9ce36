"""A receive buffer that remembers how far it looked, so that a slow sender costs linear time.

Lines end with CRLF and nothing else; a bare CR or LF is an error of its own (R-SMTP-1), and so is
a line longer than the caller allows. After :class:`LineTooLong` the connection can go on: call
:meth:`ReceiveBuffer.discard_line` until it says that the line is over. The buffer does not bound
itself: the shell stops reading while ``len(buffer)`` is above its setting.
"""

from __future__ import annotations

from mailsrv.errors import MailError
from mailsrv.status import BAD_SYNTAX, LINE_TOO_LONG


class LineTooLong(MailError):
    """No line end within the limit. What has come of the line is still in the buffer."""

    def __init__(self) -> None:
        super().__init__(LINE_TOO_LONG, "Line too long")


class BareLineBreak(MailError):
    """CR without LF or LF without CR. The line has been taken out of the buffer."""

    def __init__(self) -> None:
        super().__init__(BAD_SYNTAX, "Bare carriage return or line feed")


class ReceiveBuffer:
    """Octets received and not yet understood."""

    __slots__ = ("_data", "_searched")

    def __init__(self) -> None:
        self._data = bytearray()
        self._searched = 0
        """No LF stands before this index."""

    def __len__(self) -> int:
        return len(self._data)

    def append(self, octets: bytes) -> None:
        """Add what the transport brought."""
        self._data += octets

    def startswith(self, prefix: bytes) -> bool:
        """Whether the unread octets begin so, ASCII letters compared without case."""
        return self._data[: len(prefix)].upper() == prefix.upper()

    def take(self, count: int) -> bytes:
        """Up to ``count`` octets from the front, as many as there are."""
        octets = bytes(self._data[:count])
        self._drop(count)
        return octets

    def take_all(self) -> bytes:
        """Everything there is."""
        octets = bytes(self._data)
        self.clear()
        return octets

    def clear(self) -> int:
        """Forget everything unread; how many octets that were (R-TLS-1 wants to know)."""
        count = len(self._data)
        self._data.clear()
        self._searched = 0
        return count

    def put_back(self, octets: bytes) -> None:
        """Octets that a stream decoder was given and did not use go to the front again."""
        self._data[:0] = octets
        self._searched = 0

    def maybe_extract_line(self, limit_octets: int) -> bytes | None:
        """The next line without its CRLF, or None if it is not complete.

        ``limit_octets`` counts the CRLF. Raises :class:`LineTooLong` as soon as the limit is passed,
        complete or not, and :class:`BareLineBreak`.
        """
        line_feed = self._data.find(b"\n", self._searched, limit_octets)
        if line_feed < 0:
            if len(self._data) >= limit_octets:
                raise LineTooLong
            self._searched = len(self._data)
            return None
        line = bytes(self._data[: line_feed + 1])
        self._drop(line_feed + 1)
        if line.find(b"\r") != line_feed - 1 or line_feed == 0:
            raise BareLineBreak
        return line[:-2]

    def discard_line(self) -> bool:
        """Drop octets up to and with the next LF; False while it has not come."""
        line_feed = self._data.find(b"\n", self._searched)
        if line_feed < 0:
            self.clear()
            return False
        self._drop(line_feed + 1)
        return True

    def _drop(self, count: int) -> None:
        # Deleting at the front of a bytearray moves no octets.
        del self._data[:count]
        self._searched = max(0, self._searched - count)
