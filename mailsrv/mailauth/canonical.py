"""DKIM canonicalization (RFC 6376 3.4): of fields at once, of bodies while their octets pass.

A line ends with CRLF; a lone CR or LF is an octet like any other. A body canonicalizer hands
canonical octets to a sink and keeps no more than counters between two pieces, whatever comes.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mailsrv.mailauth.settings import Canonicalization

Sink = Callable[[bytes], object]
"""Takes canonical octets, such as ``update`` of a hash."""

_FOLD = re.compile(rb"\r\n(?=[ \t])")
_WHITE_SPACE = re.compile(rb"[ \t]+")
_CRLF = b"\r\n"
_BLOCK_LINES = 4096
_BLOCK = _CRLF * _BLOCK_LINES


def canonical_field(field: bytes, kind: Canonicalization) -> bytes:
    """A header field, with its line end, as it is hashed (RFC 6376 3.4.1, 3.4.2). It has a colon."""
    if kind is Canonicalization.SIMPLE:
        return field
    name, _, body = field.partition(b":")
    if _CRLF in body:
        body = _FOLD.sub(b"", body).removesuffix(_CRLF)
    if b"\t" in body or b"  " in body:
        body = _WHITE_SPACE.sub(b" ", body)
    return b"%b:%b\r\n" % (name.rstrip(b" \t").lower(), body.strip(b" \t"))


class SimpleBody:
    """RFC 6376 3.4.3: empty lines at the end are left out; then the body ends with one CRLF."""

    __slots__ = ("_held_cr", "_held_lines", "_sink")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._held_lines = 0
        """CRLFs that came last: the end of a line and empty lines, if anything follows."""
        self._held_cr = False

    def feed(self, octets: bytes) -> None:
        if not octets:
            return
        if self._held_cr:
            octets = b"\r" + octets
            self._held_cr = False
        if octets.endswith(b"\r"):
            octets = octets[:-1]
            self._held_cr = True
        end = _end_of_text(octets)
        if end:
            self._release()
            self._sink(octets if end == len(octets) else octets[:end])
        self._held_lines += (len(octets) - end) // 2

    def finish(self) -> None:
        if self._held_cr:
            self._release()
            self._sink(b"\r")
        self._sink(_CRLF)

    def _release(self) -> None:
        _send_lines(self._sink, self._held_lines)
        self._held_lines = 0


class RelaxedBody:
    """RFC 6376 3.4.4: besides, no white space before a line end, and one SP for each run of it within a line.

    A body of nothing but white space and empty lines is empty.
    """

    __slots__ = ("_held_cr", "_held_lines", "_held_space", "_is_empty", "_sink")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        # What came last, in this order: line ends, white space, CR.
        self._held_lines = 0
        self._held_space = False
        self._held_cr = False
        self._is_empty = True

    def feed(self, octets: bytes) -> None:
        if not octets:
            return
        if self._held_cr or self._held_space:
            octets = (b" " if self._held_space else b"") + (b"\r" if self._held_cr else b"") + octets
            self._held_space = self._held_cr = False
        if octets.endswith(b"\r"):
            octets = octets[:-1]
            self._held_cr = True
        # Most pieces have nothing to change, and three searches cost less than one substitution.
        if b"\t" in octets or b"  " in octets:
            octets = _WHITE_SPACE.sub(b" ", octets)
        if b" \r\n" in octets:
            octets = octets.replace(b" \r\n", _CRLF)
        if octets.endswith(b" "):
            octets = octets[:-1]
            self._held_space = True
        end = _end_of_text(octets)
        if end:
            self._release()
            self._sink(octets if end == len(octets) else octets[:end])
        self._held_lines += (len(octets) - end) // 2

    def finish(self) -> None:
        if self._held_cr:
            self._release()
            self._sink(b" \r" if self._held_space else b"\r")
        if not self._is_empty:
            self._sink(_CRLF)

    def _release(self) -> None:
        self._is_empty = False
        _send_lines(self._sink, self._held_lines)
        self._held_lines = 0


BodyCanonicalizer = SimpleBody | RelaxedBody


def body_canonicalizer(kind: Canonicalization, sink: Sink) -> BodyCanonicalizer:
    """One for a body."""
    return RelaxedBody(sink) if kind is Canonicalization.RELAXED else SimpleBody(sink)


def _end_of_text(octets: bytes) -> int:
    """Where the CRLFs at the end begin."""
    if not octets.endswith(_CRLF):
        return len(octets)
    end = len(octets.rstrip(_CRLF))
    length = len(octets) - end
    if octets.count(_CRLF, end) * 2 == length:
        return end
    # There are lone CRs or LFs among them.
    end = len(octets)
    while octets.endswith(_CRLF, 0, end):
        end -= 2
    return end


def _send_lines(sink: Sink, count: int) -> None:
    while count >= _BLOCK_LINES:
        sink(_BLOCK)
        count -= _BLOCK_LINES
    if count:
        sink(_CRLF * count)
