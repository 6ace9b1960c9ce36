"""DKIM canonicalization (RFC 6376 3.4): of fields at once, of bodies while their octets pass.

A line ends with CRLF; a lone CR or LF is an octet like any other. A body canonicalizer hands
canonical octets to a sink and keeps no more than counters between two pieces, whatever comes.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Callable
from typing import ClassVar

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


class BodyCanonicalizer(abc.ABC):
    """What both kinds do: line ends that come last wait until something follows them (RFC 6376 3.4.3)."""

    __slots__ = ("_held", "_held_lines", "_is_empty", "_sink")

    may_be_empty: ClassVar[bool]
    """A body of nothing but empty lines is hashed as nothing, not as one CRLF."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._is_empty = self.may_be_empty
        # What came last, in this order: CRLFs, then white space (as one SP) and a CR.
        self._held_lines = 0
        self._held = b""

    @abc.abstractmethod
    def feed(self, octets: bytes) -> None:
        """The next octets of the body, as many as there are."""

    def finish(self) -> None:
        """The body is over."""
        if self._held.endswith(b"\r"):
            self._release()
            self._sink(self._held)
        if not self._is_empty:
            self._sink(_CRLF)

    def _take(self, octets: bytes) -> bytes:
        """What was held and these octets, but for a CR at the end."""
        octets = self._held + octets
        if octets.endswith(b"\r"):
            self._held = b"\r"
            return octets[:-1]
        self._held = b""
        return octets

    def _pass_on(self, octets: bytes) -> None:
        end = _end_of_text(octets)
        if end:
            self._release()
            self._sink(octets if end == len(octets) else octets[:end])
        self._held_lines += (len(octets) - end) // 2

    def _release(self) -> None:
        self._is_empty = False
        _send_lines(self._sink, self._held_lines)
        self._held_lines = 0


class SimpleBody(BodyCanonicalizer):
    """RFC 6376 3.4.3: empty lines at the end are left out; then the body ends with one CRLF."""

    __slots__ = ()

    may_be_empty = False

    def feed(self, octets: bytes) -> None:
        self._pass_on(self._take(octets))


class RelaxedBody(BodyCanonicalizer):
    """RFC 6376 3.4.4: besides, no white space before a line end, and one SP for each run of it within a line.

    A body of nothing but white space and empty lines is empty.
    """

    __slots__ = ()

    may_be_empty = True

    def feed(self, octets: bytes) -> None:
        octets = self._take(octets)
        # Most pieces have nothing to change, and three searches cost less than one substitution.
        if b"\t" in octets or b"  " in octets:
            octets = _WHITE_SPACE.sub(b" ", octets)
        if b" \r\n" in octets:
            octets = octets.replace(b" \r\n", _CRLF)
        if octets.endswith(b" "):
            octets = octets[:-1]
            self._held = b" " + self._held
        self._pass_on(octets)


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
