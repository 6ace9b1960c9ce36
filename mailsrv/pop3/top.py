"""The beginning of a message for TOP: header section, empty line, and n lines of the body (RFC 1939 7)."""

from __future__ import annotations


class TopReader:
    """Feed it the message in pieces; it answers with what TOP sends, until ``is_finished``."""

    __slots__ = ("_lines_left", "_tail", "is_finished")

    def __init__(self, lines: int) -> None:
        self._lines_left = lines
        # The last octets of the header so far: its end may stand across two pieces. A message
        # without header fields begins with the empty line, hence the line end before it.
        self._tail: bytes | None = b"\r\n"
        self.is_finished = False

    def feed(self, octets: bytes) -> bytes:
        """The part of ``octets`` that belongs to the answer."""
        start = 0
        if self._tail is not None:
            joined = self._tail + octets
            end = joined.find(b"\r\n\r\n")
            if end < 0:
                self._tail = joined[-3:]
                return octets
            start = end + 4 - len(self._tail)
            self._tail = None
        end = self._end_of_lines(octets, start)
        return octets if end < 0 else octets[:end]

    def _end_of_lines(self, octets: bytes, position: int) -> int:
        """Where the last wanted line ends, or -1 if that is not in this piece."""
        while self._lines_left:
            line_feed = octets.find(b"\n", position)
            if line_feed < 0:
                return -1
            position = line_feed + 1
            self._lines_left -= 1
        self.is_finished = True
        return position
