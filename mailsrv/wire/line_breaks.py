"""Line breaks of message texts: what is a stray CR or LF, how long lines are, and the canonical form of a text.

In it every line ends with CRLF and nothing else is a line end (R-SMTP-3). The streams carry state from piece to
piece, which may be cut anywhere, also between CR and LF; none handles lines one by one.
"""

from __future__ import annotations

import enum

_NOT_CR_LF = bytes(octet for octet in range(256) if octet not in b"\r\n")


class BareLineFeeds(enum.Enum):
    """What is done with an LF that has no CR before it."""

    REFUSE = "refuse"
    """Note it in ``has_bare_line_break``."""
    MEND = "mend"
    """Make it CRLF. A dot after it is content: transparency belongs to the lines of SMTP, which end with CRLF."""


def has_bare_line_break(octets: bytes) -> bool:
    """Whether there is a CR without LF or an LF without CR.

    Each CRLF takes one CR and one LF, so there are strays exactly if more CRs and LFs are counted
    than all CRLFs have. (Comparing what is left after deleting everything else with CRLF CRLF …
    would not do: ``a CR b LF`` passes it.)
    """
    return len(octets.translate(None, _NOT_CR_LF)) != 2 * octets.count(b"\r\n")


def canonicalise(octets: bytes) -> bytes:
    """What :class:`LineEncoder` makes of a whole text.

    A stray LF becomes CRLF. A stray CR becomes a space: as CRLF it could turn the rest of a header
    field into a field of its own at the next hop.
    """
    octets = _without_strays(octets)
    return octets if not octets or octets.endswith(b"\n") else octets + b"\r\n"


def _without_strays(octets: bytes) -> bytes:
    if has_bare_line_break(octets):
        return octets.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
    return octets


class LineWatch:
    """What is noticed in a text that comes in: its stray line breaks, and how long its lines are."""

    __slots__ = ("_bare_line_feeds", "_line_length", "has_bare_line_break", "line_octets")

    def __init__(self, bare_line_feeds: BareLineFeeds = BareLineFeeds.REFUSE) -> None:
        self._bare_line_feeds = bare_line_feeds
        self._line_length = 0
        self.has_bare_line_break = False
        """A stray CR, or a stray LF that was not mended, has come."""
        self.line_octets = 0
        """Longest line met at the borders of pieces, without CRLF: none is longer than both this and every piece."""

    def _mend(self, text: bytes) -> bytes:
        """``text`` has a stray line break."""
        if self._bare_line_feeds is BareLineFeeds.REFUSE:
            self.has_bare_line_break = True
            return text
        text = text.replace(b"\r\n", b"\n")
        if b"\r" in text:
            self.has_bare_line_break = True
        return text.replace(b"\n", b"\r\n")

    def _measure(self, text: bytes) -> None:
        """Follow the length of the line at the borders; a line within one piece is no longer than the piece."""
        first = text.find(b"\n")
        if first < 0:
            self._line_length += len(text)
        else:
            self.line_octets = max(self.line_octets, self._line_length + first - 1)
            self._line_length = len(text) - 1 - text.rfind(b"\n")
        self.line_octets = max(self.line_octets, self._line_length)


class LineBreaks(LineWatch):
    """Text that comes in chunks (BDAT), judged as that of DATA is.

    Text that is no BINARYMIME consists of lines, so its last line is ended where the client did not
    (RFC 3030 2 leaves that open; other transports need it).
    """

    __slots__ = ("_ends_line", "_held")

    def __init__(self, bare_line_feeds: BareLineFeeds) -> None:
        super().__init__(bare_line_feeds)
        self._held = False
        """A CR at the end of what came waits for its LF."""
        self._ends_line = True

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


class LineEncoder:
    """A text that goes out, made canonical; a CR at the end of a piece waits for what follows."""

    __slots__ = ("_at_line_start", "_held")

    def __init__(self) -> None:
        self._at_line_start = True
        self._held = b""

    def encode(self, octets: bytes) -> bytes:
        """The next piece as it goes out."""
        text = self._held + octets if self._held else octets
        if text.endswith(b"\r"):
            self._held = b"\r"
            text = text[:-1]
        else:
            self._held = b""
        if not text:
            return b""
        text = _without_strays(text)
        self._at_line_start = text.endswith(b"\n")
        return text

    def finish(self) -> bytes:
        """The end of an unfinished line."""
        last = b" " if self._held else b""
        if last or not self._at_line_start:
            last += b"\r\n"
        self._held = b""
        self._at_line_start = True
        return last
