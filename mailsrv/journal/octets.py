"""How values lie in a journal record: big-endian integers and length-prefixed UTF-8 (R-INJ-2).

What does not fit the grammar to the last octet is a :class:`FormatError`, never a guess.
"""

from __future__ import annotations

import struct

SHORT = struct.Struct(">H")
LONG = struct.Struct(">I")


class FormatError(ValueError):
    """Octets that are no record of ours although their checksum is right (or a value no record can hold)."""


def pack_text(text: str) -> bytes:
    """length[2] utf-8"""
    octets = text.encode("utf-8")
    if len(octets) > 0xFFFF:
        raise FormatError("a text of more than 65535 octets")
    return SHORT.pack(len(octets)) + octets


class Reader:
    """Takes values off a payload, never past its end."""

    __slots__ = ("_at", "_octets")

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    def take(self, count: int) -> bytes:
        """Exactly so many octets."""
        end = self._at + count
        if end > len(self._octets):
            raise FormatError("the record ends too early")
        part = self._octets[self._at : end]
        self._at = end
        return part

    def numbers(self, layout: struct.Struct) -> tuple[int, ...]:
        """What ``layout`` says."""
        return layout.unpack(self.take(layout.size))

    def text(self) -> str:
        """The inverse of :func:`pack_text`."""
        (length,) = self.numbers(SHORT)
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise FormatError("a text that is not UTF-8") from error

    def end(self) -> None:
        """Nothing may follow."""
        if self._at != len(self._octets):
            raise FormatError("octets after the end of the record")

    @property
    def is_at_end(self) -> bool:
        """Whether all was taken."""
        return self._at == len(self._octets)
