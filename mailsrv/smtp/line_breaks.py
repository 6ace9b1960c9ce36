"""The line ends of text that comes in chunks (BDAT), judged as those of DATA are.

Chunks may be cut anywhere, also between CR and LF. Text that is no BINARYMIME consists of lines, so its last
line is ended where the client did not (RFC 3030 2 leaves that open; other transports need it).
"""

from __future__ import annotations

from mailsrv.wire.dot_stuffing import BareLineFeeds, has_bare_line_break


class LineBreaks:
    """A stream of text. ``has_bare_line_break`` and ``line_octets`` are as in ``DotDecoder``."""

    __slots__ = ("_bare_line_feeds", "_ends_line", "_held", "_line_length", "has_bare_line_break", "line_octets")

    def __init__(self, bare_line_feeds: BareLineFeeds) -> None:
        self._bare_line_feeds = bare_line_feeds
        self._held = False
        """A CR at the end of what came waits for its LF."""
        self._ends_line = True
        self._line_length = 0
        self.has_bare_line_break = False
        self.line_octets = 0
        """Longest line, without its CRLF, that crosses the border of two pieces, or is no shorter than a piece."""

    def feed(self, octets: bytes) -> bytes:
        """The content that is certain after these octets."""
        text = b"\r" + octets if self._held else octets
        self._held = text.endswith(b"\r")
        if self._held:
            text = text[:-1]
        if not text:
            return b""
        if has_bare_line_break(text):
            text = self._mend(text)
        self._measure(text)
        self._ends_line = text.endswith(b"\n")
        return text

    def finish(self) -> bytes:
        """What is still to come after the last piece."""
        if self._held:
            self.has_bare_line_break = True
        return b"" if self._ends_line else b"\r\n"

    def _mend(self, text: bytes) -> bytes:
        if self._bare_line_feeds is BareLineFeeds.REFUSE:
            self.has_bare_line_break = True
            return text
        text = text.replace(b"\r\n", b"\n")
        if b"\r" in text:
            self.has_bare_line_break = True
        return text.replace(b"\n", b"\r\n")

    def _measure(self, text: bytes) -> None:
        first = text.find(b"\n")
        if first < 0:
            self._line_length += len(text)
        else:
            self.line_octets = max(self.line_octets, self._line_length + first - 1)
            self._line_length = len(text) - 1 - text.rfind(b"\n")
        self.line_octets = max(self.line_octets, self._line_length)
