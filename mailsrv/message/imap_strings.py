"""IMAP strings inside ENVELOPE and BODYSTRUCTURE (RFC 9051 4.3, 9 ``string``, ``nstring``).

Quoted where a quoted string may hold the value, else a literal. NUL, which no string may carry,
is left out; CR and LF become spaces, since a header value is one line.
"""

from __future__ import annotations

import re

NIL = b"NIL"
EMPTY = b'""'
_LONGEST_QUOTED = 1_000
# QUOTED-CHAR without those that need an escape, and without control characters.
_AS_IT_STANDS = re.compile(rb"[ !#-\[\]-~]{0,1000}+")
_ESCAPED = re.compile(rb'(["\\])')
_LINE_ENDS_TO_SPACES = bytes.maketrans(b"\r\n", b"  ")


def format_string(value: bytes) -> bytes:
    """``string``: 8-bit octets and great length make it a literal, which every client must read."""
    if _AS_IT_STANDS.fullmatch(value):
        return b'"%b"' % value
    value = value.translate(_LINE_ENDS_TO_SPACES, b"\0")
    if value.isascii() and len(value) <= _LONGEST_QUOTED:
        return b'"%b"' % _ESCAPED.sub(rb"\\\1", value)
    return b"{%d}\r\n%b" % (len(value), value)


def format_nstring(value: bytes | None) -> bytes:
    """``nstring``: NIL for what is not there."""
    return NIL if value is None else format_string(value)
