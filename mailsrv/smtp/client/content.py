"""A message text on its way into chunks (RFC 3030): every line ends with CRLF, and nothing else is a line end.

The dots of DATA have an encoder of their own (:class:`mailsrv.wire.dot_stuffing.DotEncoder`); in a
chunk they mean nothing. Both make the same canonical text of the same octets (R-SMTP-3).
"""

from __future__ import annotations

from mailsrv.wire.dot_stuffing import has_bare_line_break


class LineEncoder:
    """A stream; a CR at the end of a piece waits for what follows."""

    __slots__ = ("_at_line_start", "_held")

    def __init__(self) -> None:
        self._held = b""
        self._at_line_start = True

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
        if has_bare_line_break(text):
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
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
