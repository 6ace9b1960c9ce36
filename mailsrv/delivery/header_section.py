"""The header section on its way in: held back until it is complete, because decisions hang on it."""

from __future__ import annotations

import re

from mailsrv.errors import MailError
from mailsrv.message import count_received
from mailsrv.status import ROUTING_LOOP

_MESSAGE_ID = re.compile(rb"message-id:[ \t]*(?:\r\n[ \t]+)?(<[^>\s]{1,250}>)", re.IGNORECASE)
_LINE_FEED = 10
_NOT_PRINTABLE = re.compile(r"[^ -~]")


class HeaderHold:
    """Collects octets up to and with the empty line that ends the header section, or up to a limit.

    Linear in what comes, however small the pieces.
    """

    __slots__ = ("_held", "_limit", "header_octets", "is_cut")

    def __init__(self, limit_octets: int) -> None:
        self._held = bytearray()
        self._limit = limit_octets
        self.header_octets = 0
        """Length of the header section once ``feed`` answered True."""
        self.is_cut = False
        """The limit came first: what follows may be fields nobody here has looked at."""

    def feed(self, octets: bytes) -> bool:
        """Whether the header section is complete (or the limit is passed) now."""
        held = self._held
        # The empty line may be the first of all, and its line ends may come in different pieces.
        start = max(0, len(held) - 3)
        is_first = len(held) < 2
        held += octets
        if is_first and held.startswith(b"\r\n"):
            self.header_octets = 2
            return True
        end = held.find(b"\r\n\r\n", start)
        if end >= 0 and end + 4 <= self._limit:
            self.header_octets = end + 4
            return True
        if len(held) >= self._limit:
            self.header_octets = min(len(held), self._limit)
            self.is_cut = True
            return True
        return False

    def end(self) -> None:
        """The message ended within its header section."""
        self.header_octets = len(self._held)

    @property
    def header(self) -> bytes:
        """The header section, with the empty line where there is one."""
        return bytes(self._held[: self.header_octets])

    def take(self) -> bytes:
        """All octets held, header and the beginning of the body; they are let go of here."""
        octets = bytes(self._held)
        self._held = bytearray()
        return octets


def check_hops(header: bytes, limit: int) -> None:
    """Raise 5.4.6 for a message that went through more than ``limit`` servers (RFC 5321 6.3)."""
    if header.lower().count(b"received") > limit and count_received(header) > limit:
        raise MailError(ROUTING_LOOP, "Too many hops: the message is in a loop")


def message_id_of(header: bytes) -> str:
    """The Message-ID for the log, "" without a usable one."""
    # Far cheaper than to let the pattern search for any case at any line.
    lower = header.lower()
    start = lower.find(b"message-id:")
    while start >= 0:
        if start == 0 or header[start - 1] == _LINE_FEED:
            match = _MESSAGE_ID.match(header, start)
            if match is not None:
                return _NOT_PRINTABLE.sub("?", match.group(1).decode("utf-8", "replace"))
        start = lower.find(b"message-id:", start + 1)
    return ""
