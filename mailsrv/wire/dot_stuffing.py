r"""Message text with dots: the decoder of SMTP DATA (RFC 5321 4.5.2), and the encoder of SMTP clients and POP3.

Both are streams that carry state from chunk to chunk and never handle lines one by one. Only
``CRLF . CRLF`` ends a text, in every mode (R-SMTP-1): other forms (``LF . LF``, ``CR . CR``, …) are
content, and the bare CR or LF in them is noticed. The encoder lets only canonical text out, with
exactly one end, at the end (R-SMTP-3).
"""

from __future__ import annotations

from mailsrv.wire.line_breaks import BareLineFeeds, LineEncoder, LineWatch, has_bare_line_break

_END = b"\r\n.\r\n"


class DotDecoder(LineWatch):
    """Un-stuffs a message text and finds its end.

    Feed it chunks; it answers with canonical octets. After ``is_finished`` the octets that came
    after the end are in ``unused``, and further ones are not to be fed. It holds back at most
    four octets.
    """

    __slots__ = ("_held", "_skip", "is_finished", "unused")

    def __init__(self, bare_line_feeds: BareLineFeeds = BareLineFeeds.REFUSE) -> None:
        super().__init__(bare_line_feeds)
        # The text begins as if after a CRLF (that of the DATA command), which is not content.
        self._held = b"\r\n"
        self._skip = 2
        self.is_finished = False
        self.unused = b""

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


def _length_of_possible_end(text: bytes) -> int:
    """How many octets at the end of ``text`` may be the start of ``CRLF . CRLF``."""
    carriage_return = text.rfind(b"\r", -4)
    if carriage_return < 0:
        return 0
    earlier = text.rfind(b"\r\n.", -4)
    if earlier >= 0 and _END.startswith(text[earlier:]):
        return len(text) - earlier
    return len(text) - carriage_return if _END.startswith(text[carriage_return:]) else 0


class DotEncoder(LineEncoder):
    """Stuffs dots into a message text on its way out; :meth:`finish` writes the one end."""

    __slots__ = ()

    def encode(self, octets: bytes) -> bytes:
        """The next part of the text as it goes on the wire. A CR at its end waits for what follows."""
        begins_line = self._at_line_start
        text = LineEncoder.encode(self, octets)
        stuffed = text.replace(b"\n.", b"\n..")
        return b"." + stuffed if begins_line and text.startswith(b".") else stuffed

    def finish(self) -> bytes:
        """What is left: the end of an unfinished line, and the line with the dot."""
        return LineEncoder.finish(self) + b".\r\n"
