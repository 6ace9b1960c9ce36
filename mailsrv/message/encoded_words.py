"""Encoded words in header fields (RFC 2047, RFC 2231 5).

Tolerant: words of unknown character sets or with broken encodings give replacement characters,
what only looks like an encoded word stays as it is.
"""

from __future__ import annotations

import binascii
import re

from mailsrv.message.charsets import decode_octets
from mailsrv.message.fields import unfold

# encoded-word = "=?" charset "?" encoding "?" encoded-text "?=" (RFC 2047 2; RFC 2231 5 adds "*" language)
_ENCODED_WORD = re.compile(rb"=\?([^?\x00-\x20]{1,60}+)\?([BbQq])\?([^?]*+)\?=")
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")


def decode_header(body: bytes) -> str:
    """A field body as text on one line: encoded words decoded, adjacent ones joined before decoding where possible."""
    text = unfold(body)
    if b"=?" not in text:
        return decode_octets(text, b"")
    pieces: list[str] = []
    pending: list[bytes] = []
    pending_charset = b""
    position = 0
    for match in _ENCODED_WORD.finditer(text):
        between = text[position : match.start()]
        charset = match[1].split(b"*", 1)[0].lower()
        if pending and (between.strip(b" \t") or charset != pending_charset):
            pieces.append(decode_octets(b"".join(pending), pending_charset))
            pending.clear()
        if between and (between.strip(b" \t") or not position):
            pieces.append(decode_octets(between, b""))
        # A character may be split over two words of one character set: octets are joined first.
        pending.append(_decode_word(match[2], match[3]))
        pending_charset = charset
        position = match.end()
    if pending:
        pieces.append(decode_octets(b"".join(pending), pending_charset))
    pieces.append(decode_octets(text[position:], b""))
    return "".join(pieces)


def _decode_word(encoding: bytes, text: bytes) -> bytes:
    if encoding in b"Qq":
        return binascii.a2b_qp(text.replace(b" ", b"_"), header=True)
    return decode_base64(text)


def decode_base64(text: bytes) -> bytes:
    """The octets of base64 text; what is no base64 is passed over, a broken end is left out."""
    try:
        return binascii.a2b_base64(text)
    except binascii.Error:
        digits = _NOT_BASE64.sub(b"", text)
        if len(digits) % 4 == 1:
            digits = digits[:-1]
        try:
            return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4))
        except binascii.Error:
            return b""
