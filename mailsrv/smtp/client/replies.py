"""Replies of a server: read within bounds, and never believed further than their grammar (RFC 5321 4.2).

A line may end with LF alone, as old servers do. Anything else that is no reply raises
:class:`BrokenReply`: after it nobody knows which answer belongs to which command.
"""

from __future__ import annotations

import re

from attrs import frozen

from mailsrv.smtp.client.settings import SmtpClientSettings
from mailsrv.status import EnhancedStatus

TEXT_LIMIT = 512

# Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
# Reply-code = %x32-35 %x30-35 %x30-39, but second digits above 5 are in use.
_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])([^\r\n]*))?\r?\n")
# RFC 2034 4:  text ::= status-code CRLF-free text
_STATUS = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?![0-9.])")
_UNPRINTABLE = re.compile(r"[^ -~]")


class BrokenReply(Exception):
    """What the server sends is no reply, or has no end. The text says how."""


def printable(text: str, limit: int = TEXT_LIMIT) -> str:
    """One line of printable ASCII, whatever it was."""
    if not (text.isascii() and text.isprintable()):
        text = _UNPRINTABLE.sub("?", text)
    return text[:limit]


@frozen
class ServerReply:
    """One reply; ``lines`` are its texts without codes, in printable ASCII."""

    code: int
    lines: tuple[str, ...]

    @property
    def is_positive(self) -> bool:
        """2xx."""
        return self.code < 300

    @property
    def is_temporary(self) -> bool:
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        return self.code >= 500

    @property
    def is_refusal(self) -> bool:
        """4xx or 5xx."""
        return self.code >= 400

    @property
    def status(self) -> EnhancedStatus | None:
        """The enhanced status code (RFC 2034), where there is one of the reply's own class."""
        match = _STATUS.match(self.lines[0])
        if match is None or int(match[1]) != self.code // 100:
            return None
        return EnhancedStatus(int(match[1]), int(match[2]), int(match[3]))

    @property
    def text(self) -> str:
        """Everything on one bounded line."""
        lines = self.lines
        return f"{self.code} {lines[0] if len(lines) == 1 else ' '.join(lines)}"[:TEXT_LIMIT].rstrip()


class ReplyReader:
    """Takes replies out of the octets a server sent."""

    __slots__ = ("_buffer", "_code", "_limits", "_lines", "_octets")

    def __init__(self, limits: SmtpClientSettings) -> None:
        self._limits = limits
        self._buffer = b""
        self._code = 0
        """Of the reply whose first lines have come; 0 between replies."""
        self._lines: list[str] = []
        self._octets = 0

    def feed(self, octets: bytes) -> None:
        """What the transport brought."""
        self._buffer = self._buffer + octets if self._buffer else octets

    @property
    def has_octets(self) -> bool:
        """Whether something has come that is not yet part of a reply that was taken."""
        return bool(self._buffer) or bool(self._code)

    def next_reply(self) -> ServerReply | None:
        """The next whole reply, or None. Raises :class:`BrokenReply`."""
        while self._buffer:
            match = _LINE.match(self._buffer)
            if match is None:
                if b"\n" in self._buffer:
                    raise BrokenReply("what the server sent is no reply")
                if len(self._buffer) > self._limits.reply_line_octets:
                    raise BrokenReply("a line of the server's reply is too long")
                return None
            length = match.end()
            if length > self._limits.reply_line_octets:
                raise BrokenReply("a line of the server's reply is too long")
            self._buffer = self._buffer[length:]
            code = int(match[1])
            text = printable((match[3] or b"").decode("ascii", "replace"), self._limits.reply_line_octets)
            if self._code and code != self._code:
                raise BrokenReply("the server's reply has two codes")
            if match[2] != b"-":
                if not self._code:
                    return ServerReply(code, (text,))
                reply = ServerReply(code, (*self._lines, text))
                self._code, self._lines, self._octets = 0, [], 0
                return reply
            self._code = code
            self._lines.append(text)
            self._octets += length
            if len(self._lines) >= self._limits.reply_lines or self._octets > self._limits.reply_octets:
                raise BrokenReply("the server's reply has no end")
        return None
