"""Header fields and body text as people read them, for SEARCH and filters (RFC 2045 6, RFC 9051 6.4.4).

Unknown character sets and broken encodings give replacement characters, never errors.
Comparison ignores case and compatibility differences, which contains what i;unicode-casemap
(RFC 5051) asks for. Plain ASCII, most of mail, takes short cuts everywhere.
"""

from __future__ import annotations

import binascii
import codecs
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from mailsrv.message.charsets import decode_octets, is_ascii_compatible
from mailsrv.message.encoded_words import decode_base64, decode_header
from mailsrv.message.fields import Octets, field_body, read_header, unfold, unfold_all
from mailsrv.message.settings import DEFAULT_LIMITS, MessageLimits
from mailsrv.message.structure import MessageStructure, Part

# A parameter as nearly everybody writes it. Anything else makes a message one that has to be parsed.
_CHARSET = re.compile(rb'charset ?= ?"?([a-z0-9_-]++)')
# What hides text of a body from a look at the octets: encodings, headers inside it.
_HIDING = (b"base64", b"quoted-printable", b"message/", b"digest")
# What hides names of files (RFC 2231).
_HIDING_NAMES = (b"*=", b"*0=")
_UTF8 = frozenset({b"utf-8", b"us-ascii", b"utf8", b"ascii"})
_FOLDING = "mailsrv-fold"
# Begins only where a run of white space does: linear, however long the run.
_WHITE_SPACE_AT_END = re.compile(rb"(?<![ \t])[ \t]++(?=\r?\n|\Z)")
_ENDS_OF_WHITE_SPACE = (b" \r", b"\t\r", b" \n", b"\t\n")
# TAB is a space: fields were folded with either, and nobody sees which.
_ASCII_LOWER = bytes(range(9)) + b" " + bytes(range(10, 65)) + bytes(range(97, 123)) + bytes(range(91, 256))


def decode_body(body: bytes, encoding: bytes) -> bytes | None:
    """The octets a body stands for, or None for a transfer encoding nobody knows."""
    if encoding in (b"7bit", b"8bit", b"binary"):
        return body
    if encoding == b"quoted-printable":
        return _decode_quoted_printable(body)
    if encoding == b"base64":
        return decode_base64(body)
    return None


def _decode_quoted_printable(body: bytes) -> bytes:
    """RFC 2045 6.7: white space at the end of a line was added on the way, also behind a soft line break's ``=``."""
    if body.endswith((b" ", b"\t")) or any(end in body for end in _ENDS_OF_WHITE_SPACE):
        body = _WHITE_SPACE_AT_END.sub(b"", body)
    return binascii.a2b_qp(body)


def body_text(octets: Octets, part: Part, limit_octets: int = DEFAULT_LIMITS.search_text_octets) -> str:
    """The text of a part, transfer encoding and character set decoded, reading at most ``limit_octets`` of its body."""
    body = octets[part.body_start : min(part.end, part.body_start + limit_octets)]
    decoded = decode_body(body, part.encoding)
    return decode_octets(body if decoded is None else decoded, part.content_type.parameter(b"charset") or b"")


def text_parts(structure: MessageStructure) -> Iterator[Part]:
    """The parts whose bodies are text."""
    return (part for part in structure.parts if part.is_text)


def _is_report(part: Part) -> bool:
    """Whether it is written in fields as messages are: delivery status, receipts, feedback (RFC 3464, 8098, 5965)."""
    return part.content_type.media_type == b"message" and not part.is_attached_message


def iterate_text(octets: Octets, structure: MessageStructure, limits: MessageLimits = DEFAULT_LIMITS) -> Iterator[str]:
    """The text of all text parts, in order, as far as ``limits.search_text_octets`` reach."""
    left = limits.search_text_octets
    for part in text_parts(structure):
        if left <= 0:
            return
        yield body_text(octets, part, left)
        left -= part.body_octets


def fold_text(text: str) -> str:
    """The form in which two texts are compared: case and compatibility forms are one, and so are TAB and space."""
    if "\t" in text:
        text = text.replace("\t", " ")
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())


@lru_cache(maxsize=4096)
def _folded_run(run: str) -> bytes:
    return "".join([character if character.isascii() else "\0" for character in fold_text(run)]).encode("ascii")


def _fold_run(error: UnicodeError) -> tuple[bytes, int]:
    """Encoding's way of asking about characters that are not ASCII."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return _folded_run(error.object[error.start : error.end]), error.end


codecs.register_error(_FOLDING, _fold_run)


def _folded_ascii(text: str) -> bytes:
    """:func:`fold_text` for a search of ASCII: everything else is NUL. Several times as fast.

    Characters fold one by one as far as ASCII is concerned: what NFKD puts into another order are
    combining marks, which no ASCII character is.
    """
    return text.encode("ascii", _FOLDING).translate(_ASCII_LOWER)


class TextSearch:
    """One string looked for in many header fields and bodies (SEARCH: substring, case ignored).

    White space in header fields counts at the length it has after unfolding.
    """

    def __init__(self, wanted: str) -> None:
        self._wanted = fold_text(wanted)
        self._octets = self._wanted.encode("ascii") if self._wanted.isascii() and "\0" not in self._wanted else None
        self._is_one_word = self._wanted.split() == [self._wanted]

    def is_in_text(self, text: str) -> bool:
        """Whether it occurs in a text."""
        if self._octets is not None:
            return self._octets in _folded_ascii(text)
        return self._wanted in fold_text(text)

    def is_ruled_out(self, octets: bytes, *, with_header: bool) -> bool:
        """Whether the octets as they stand show that the message does not contain it. False: it has to be parsed.

        Saves most messages of a search from being scanned for their parts.
        """
        wanted = self._octets
        if not wanted:
            return False
        is_ascii = octets.isascii()
        if is_ascii:
            folded = octets.translate(_ASCII_LOWER)
        else:
            try:
                folded = _folded_ascii(octets.decode("utf-8"))
            except UnicodeDecodeError:
                return False
        if wanted in folded or any(mark in folded for mark in _HIDING):
            return False
        charsets = _CHARSET.findall(folded)
        if folded.count(b"charset") != len(charsets):
            return False
        if not all(is_ascii_compatible(name) if is_ascii else name in _UTF8 for name in charsets):
            return False
        if not with_header:
            return True
        if any(mark in folded for mark in _HIDING_NAMES):
            return False
        if self._is_one_word and b"=?" not in folded:
            return True
        if b"multipart/" in folded:
            return False
        # A header has encoded words, and words may stand on two of its lines.
        return not self.is_in_header(octets[: read_header(octets, 0, len(octets)).body_start])

    def is_in_field(self, body: bytes) -> bool:
        """Whether it occurs in a field body, as decoded."""
        text = unfold(body) if b"\n" in body else body
        if text.isascii() and b"=?" not in text:
            return self._octets is not None and self._octets in text.translate(_ASCII_LOWER)
        return self.is_in_text(decode_header(text))

    def is_in_header(self, header: bytes, name: bytes | None = None) -> bool:
        """Whether a field of that name (lower case), or any field at all, contains it (RFC 9051: HEADER).

        With an empty string: whether there is such a field.
        """
        if name is None and self._octets is not None and header.isascii() and b"=?" not in header:
            return self._octets in unfold_all(header).translate(_ASCII_LOWER)
        if (
            self._octets
            and self._is_one_word
            and header.isascii()
            and b"=?" not in header
            and self._octets not in header.translate(_ASCII_LOWER)
        ):
            return False
        for row in read_header(header, 0, len(header)).rows:
            if row[1] and (name is None or row[1].lower() == name):
                body = row[0] if name is None else field_body(row)
                if self.is_in_field(body.strip(b" \t\r\n")):
                    return True
        return False

    def is_in_part(self, octets: Octets, part: Part, limit_octets: int = DEFAULT_LIMITS.search_text_octets) -> bool:
        """Whether the decoded text of a part contains it."""
        body = octets[part.body_start : min(part.end, part.body_start + limit_octets)]
        decoded = decode_body(body, part.encoding)
        if decoded is None:
            decoded = body
        charset = part.content_type.parameter(b"charset") or b""
        if decoded.isascii() and is_ascii_compatible(charset):
            return self._octets is not None and self._octets in decoded.translate(_ASCII_LOWER)
        return self.is_in_text(decode_octets(decoded, charset))

    def is_in_body(self, octets: Octets, structure: MessageStructure, limits: MessageLimits = DEFAULT_LIMITS) -> bool:
        """SEARCH BODY: whether a part that is text contains it, or the header of an attached message."""
        if not self._wanted:
            return True
        left = limits.search_text_octets
        for part in structure.parts:
            if left <= 0:
                return False
            if part.index and part.is_message:
                start, end = part.header_start, min(part.body_start, part.header_start + left)
                if self.is_in_header(octets[start:end]):
                    return True
                left -= end - start
            if part.is_text or _is_report(part):
                if self.is_in_part(octets, part, left):
                    return True
                left -= part.body_octets
        return False

    def is_in_message(
        self, octets: Octets, structure: MessageStructure, limits: MessageLimits = DEFAULT_LIMITS
    ) -> bool:
        """SEARCH TEXT: header, MIME header fields included, or body (RFC 9051 6.4.4)."""
        header = octets[: min(structure.root.body_start, limits.header_octets)]
        return (
            self.is_in_header(header)
            or self._is_in_mime_fields(octets, structure, limits)
            or self.is_in_body(octets, structure, limits)
        )

    def _is_in_mime_fields(self, octets: Octets, structure: MessageStructure, limits: MessageLimits) -> bool:
        """Whether the header of a part contains it, or the name of a file as RFC 2231 spells it."""
        left = limits.search_text_octets
        for part in structure.parts:
            if left <= 0:
                return False
            if any(self.is_in_text(name) for name in part.file_names()):
                return True
            if part.index and not part.is_message:
                end = min(part.body_start, part.header_start + left)
                if self.is_in_header(octets[part.header_start : end]):
                    return True
                left -= end - part.header_start
        return False
