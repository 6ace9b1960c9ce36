r"""Message text with dots: the decoder of SMTP DATA (RFC 5321 4.5.2), and the encoder of SMTP clients and POP3.

Both are streams that carry state from chunk to chunk and never handle lines one by one. Only
``CRLF . CRLF`` ends a text, in every mode (R-SMTP-1): other forms (``LF . LF``, ``CR . CR``, …) are
content, and the bare CR or LF in them is noticed. The encoder lets only canonical text out, with
exactly one end, at the end (R-SMTP-3).
"""

from __future__ import annotations

import enum

_END = b"\r\n.\r\n"
_NOT_CR_LF = bytes(octet for octet in range(256) if octet not in b"\r\n")


class BareLineFeeds(enum.Enum):
    """What the decoder does with an LF that has no CR before it."""

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


class DotDecoder:
    """Un-stuffs a message text and finds its end.

    Feed it chunks; it answers with canonical octets. After ``is_finished`` the octets that came
    after the end are in ``unused``, and further ones are not to be fed. It holds back at most
    four octets.
    """

    __slots__ = (
        "_bare_line_feeds",
        "_held",
        "_line_length",
        "_skip",
        "has_bare_line_break",
        "is_finished",
        "line_octets",
        "unused",
    )

    def __init__(self, bare_line_feeds: BareLineFeeds = BareLineFeeds.REFUSE) -> None:
        self._bare_line_feeds = bare_line_feeds
        # The text begins as if after a CRLF (that of the DATA command), which is not content.
        self._held = b"\r\n"
        self._skip = 2
        self._line_length = 0
        self.is_finished = False
        self.unused = b""
        self.has_bare_line_break = False
        """A stray CR, or a stray LF that was not mended, has come."""
        self.line_octets = 0
        """Longest line met at the borders of chunks, without CRLF: none is longer than both this and every chunk."""

    def feed(self, octets: bytes) -> bytes:
        """The content that is certain after these octets; often empty for very short chunks."""
        text = self._held + octets
        first = text.find(b"\r\n.")
        if first >= 0 and first == len(text) - 5 and text.endswith(_END):
            # The usual last chunk: that one dot is the end, and nothing was stuffed.
            self._finish(b"")
            text = text[self._skip : -3]
            self._skip = 0
            self._measure(text)
            return self._mend(text) if has_bare_line_break(text) else text
        content = text.replace(b"\r\n.", b"\r\n") if first >= 0 else text
        dots = len(text) - len(content)
        end = text.find(_END) if dots else -1
        if end >= 0:
            self._finish(text[end + 5 :])
            text = text[: end + 2]
            return self._check(text, text.replace(b"\r\n.", b"\r\n"))
        held = _length_of_possible_end(text)
        self._held = text[len(text) - held :]
        if held:
            text = text[:-held]
            content = text.replace(b"\r\n.", b"\r\n") if dots else text
        return self._check(text, content) if text else b""

    def _finish(self, unused: bytes) -> None:
        self.is_finished = True
        self.unused = unused
        self._held = b""

    def _check(self, text: bytes, content: bytes) -> bytes:
        """Look at line breaks and lengths. No CRLF is cut here: a CR at the end of a chunk is always held back."""
        if self._skip:
            text = text[self._skip :]
            content = content[self._skip :]
            self._skip = 0
        self._measure(text)
        if has_bare_line_break(text):
            content = self._mend(content)
        return content

    def _mend(self, content: bytes) -> bytes:
        if self._bare_line_feeds is BareLineFeeds.REFUSE:
            self.has_bare_line_break = True
            return content
        content = content.replace(b"\r\n", b"\n")
        if b"\r" in content:
            self.has_bare_line_break = True
        return content.replace(b"\n", b"\r\n")

    def _measure(self, text: bytes) -> None:
        """Follow the length of the line at the chunk borders; a line within one chunk is no longer than the chunk."""
        first = text.find(b"\n")
        if first < 0:
            self._line_length += len(text)
            self.line_octets = max(self.line_octets, self._line_length)
            return
        self.line_octets = max(self.line_octets, self._line_length + first - 1)
        self._line_length = len(text) - 1 - text.rfind(b"\n")
        self.line_octets = max(self.line_octets, self._line_length)


def _length_of_possible_end(text: bytes) -> int:
    """How many octets at the end of ``text`` may be the start of ``CRLF . CRLF``."""
    carriage_return = text.rfind(b"\r", -4)
    if carriage_return < 0:
        return 0
    earlier = text.rfind(b"\r\n.", -4)
    if earlier >= 0 and _END.startswith(text[earlier:]):
        return len(text) - earlier
    return len(text) - carriage_return if _END.startswith(text[carriage_return:]) else 0


def canonicalise(octets: bytes) -> bytes:
    """What the encoder makes of a text, without the stuffing: every line ends with CRLF, nothing else is a line end.

    A stray LF becomes CRLF. A stray CR becomes a space: as CRLF it could turn the rest of a header
    field into a field of its own at the next hop.
    """
    if has_bare_line_break(octets):
        octets = octets.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
    return octets if not octets or octets.endswith(b"\n") else octets + b"\r\n"


class DotEncoder:
    """Stuffs dots into a message text on its way out; :meth:`finish` writes the one end."""

    __slots__ = ("_at_line_start", "_held")

    def __init__(self) -> None:
        self._at_line_start = True
        self._held = b""

    def encode(self, octets: bytes) -> bytes:
        """The next part of the text as it goes on the wire. A CR at its end waits for what follows."""
        text = self._held + octets
        if text.endswith(b"\r"):
            self._held = b"\r"
            text = text[:-1]
        else:
            self._held = b""
        if not text:
            return b""
        if has_bare_line_break(text):
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
        stuffed = text.replace(b"\n.", b"\n..")
        if self._at_line_start and stuffed.startswith(b"."):
            stuffed = b"." + stuffed
        self._at_line_start = text.endswith(b"\n")
        return stuffed

    def finish(self) -> bytes:
        """What is left: the end of an unfinished line, and the line with the dot."""
        last = b" " if self._held else b""
        self._held = b""
        if last or not self._at_line_start:
            last += b"\r\n"
        self._at_line_start = True
        return last + b".\r\n"
