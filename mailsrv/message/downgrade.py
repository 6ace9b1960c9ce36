"""Messages for servers that take less: 8-bit and binary parts, and lines over 998 octets, are encoded
(RFC 6152 3, RFC 3030 3, RFC 5321 4.5.3.1.6).

Part by part, attached messages too; what is fit already stays as it is, octet by octet. What is signed
or encrypted as a whole (RFC 1847) is never touched: if it is not fit, nor is the message. Raw 8-bit text in
header fields becomes encoded words (RFC 2047) or parameters of RFC 2231, with the character set
``unknown-8bit`` (RFC 1428) where it is not UTF-8; long lines of fields are folded at their white space. A DKIM
signature does not survive (RFC 6376 5.3).

Linear in the message's length, and in memory: what is large is converted in a thread.
"""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import quote_from_bytes

from mailsrv.message.parameters import parse_content_type
from mailsrv.message.scanner import scan
from mailsrv.message.settings import DEFAULT_LIMITS, MessageLimits
from mailsrv.message.structure import Part
from mailsrv.wire.line_breaks import has_bare_line_break

LINE_OCTETS = 998
"""RFC 5322 2.1.1."""

_ROW = re.compile(rb"[^\n]*\n(?:[ \t][^\n]*\n?)*|[^\n]+")
_ENCODING_FIELD = re.compile(rb"content-transfer-encoding[ \t]*:", re.IGNORECASE)
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/=\r\n \t]")
# As much as a line holds in front of the soft line break, "=" with its digits kept together (RFC 2045 6.7).
_QUOTED_PIECE = re.compile(rb"(?:[^=]|=[0-9A-Fa-f]{2}){1,25}")
_HIGH = re.compile(rb"[\x80-\xff]")
_SPACE = re.compile(rb"([ \t\r\n]+)")
# In these an encoded word cannot replace a word that has them (RFC 2047 5).
_SPECIALS = re.compile(rb'["()<>@,;:\\\[\]]')
_QUOTED_PARAMETER = re.compile(rb'([!#-&+\--.0-9A-Z^-z|~]+)[ \t]*=[ \t]*"([^"\\]*[\x80-\xff][^"\\]*)"')
_WORD_OCTETS = 39
_UNENCODED = frozenset({b"7bit", b"8bit", b"binary"})
_SEALED = frozenset({b"signed", b"encrypted"})
_STRUCTURED = frozenset(
    {
        b"from",
        b"to",
        b"cc",
        b"bcc",
        b"sender",
        b"reply-to",
        b"resent-from",
        b"resent-to",
        b"resent-cc",
        b"resent-sender",
    }
    | {b"received", b"return-path", b"message-id", b"in-reply-to", b"references", b"date", b"mime-version"}
    | {b"content-type", b"content-disposition", b"content-transfer-encoding", b"content-id", b"dkim-signature"}
)
_PARAMETERISED = frozenset({b"content-type", b"content-disposition"})


class CannotConvert(Exception):
    """The message cannot be made fit without breaking it. The text says why."""


def is_binary(octets: bytes) -> bool:
    """Whether only BDAT could carry it: NUL, a line end that is not CRLF, or a line over 998 octets."""
    return b"\0" in octets or has_bare_line_break(octets) or has_long_line(octets)


def has_long_line(octets: bytes) -> bool:
    """Whether a line has more than 998 octets before its line end; some steps for each kilobyte."""
    return rest_of_lines(octets) is None


def rest_of_lines(octets: bytes) -> int | None:
    """Where the last, unended line begins; None where a line is too long. For text that comes piece by piece."""
    # From the beginning of a line to the last line end that can be reached: between them no line is too long.
    start, size, reach = 0, len(octets), LINE_OCTETS + 2
    while size - start > LINE_OCTETS:
        end = octets.rfind(b"\n", start, start + reach)
        if end < 0:
            # What is left may lack its CR or LF only.
            is_cut = size - start == LINE_OCTETS + 1 and octets.endswith(b"\r")
            return start if is_cut else None
        start = end + 1
    return start


def has_eight_bit_header(octets: bytes, limits: MessageLimits = DEFAULT_LIMITS) -> bool:
    """Whether a header field of the message or of a part of it is not ASCII."""
    if octets.isascii():
        return False
    return any(not octets[part.header_start : part.body_start].isascii() for part in scan(octets, limits).parts)


def convert(octets: bytes, *, keeps_eight_bit: bool = False, limits: MessageLimits = DEFAULT_LIMITS) -> bytes:
    """The same message in 7-bit lines, or in lines of any octets. Raises :class:`CannotConvert`."""
    if _is_fit(octets, keeps_eight_bit):
        return octets
    return _Converter(octets, keeps_eight_bit, limits).convert()


def _is_fit(octets: bytes, keeps_eight_bit: bool) -> bool:
    return (keeps_eight_bit or octets.isascii()) and not is_binary(octets)


class _Converter:
    def __init__(self, octets: bytes, keeps_eight_bit: bool, limits: MessageLimits) -> None:
        self._octets = octets
        self._keeps = keeps_eight_bit
        self._limits = limits
        self._pieces: list[bytes] = []
        self._position = 0
        """Everything before is written."""

    def convert(self) -> bytes:
        for part in scan(self._octets, self._limits).parts:
            # Parts come in the order of the message; those of a sealed multipart are written with it.
            if part.header_start >= self._position:
                self._write_between(part.header_start)
                self._write_part(part)
        self._write_between(len(self._octets))
        return b"".join(self._pieces)

    def _write_between(self, end: int) -> None:
        """Delimiters, and what stands before the first and behind the last: nobody is meant to read that."""
        between = self._octets[self._position : end]
        if not self._keeps:
            between = _HIGH.sub(b"?", between)
        if is_binary(between):
            between = between.replace(b"\0", b"").replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
            if is_binary(between):
                raise CannotConvert("a line between two parts is too long")
        self._pieces.append(between)
        self._position = end

    def _write_part(self, part: Part) -> None:
        body = self._octets[part.body_start : part.end]
        kind = part.content_type
        encoding = b""
        self._position = part.end
        if kind.media_type == b"multipart" and kind.subtype in _SEALED:
            if not _is_fit(body, self._keeps):
                raise CannotConvert(f"a part is {kind.subtype.decode('ascii')} and not 7-bit")
        elif part.children:
            # A multipart or an attached message is encoded by its parts (RFC 2045 6.4).
            self._position = part.body_start
            body = b""
            if part.encoding == b"binary" or (part.encoding == b"8bit" and not self._keeps):
                encoding = b"8bit" if self._keeps else b"7bit"
        elif not _is_fit(body, self._keeps):
            encoding, body = self._encode(part, body)
        elif part.encoding == b"binary" or (part.encoding == b"8bit" and not self._keeps):
            encoding = b"7bit" if body.isascii() else b"8bit"
        self._pieces += (self._header(part, encoding), body)

    def _encode(self, part: Part, body: bytes) -> tuple[bytes, bytes]:
        kind = part.content_type
        if part.encoding not in _UNENCODED:
            return b"", _wrap_encoded(part.encoding, body)
        fields = part.fields.get(b"content-type")
        written = parse_content_type(fields[0]) if fields else None
        if written is not None and (
            written.media_type == b"multipart" or (written.media_type == b"message" and written.subtype != b"global")
        ):
            # Not looked into, or of a type that may only be 7-bit (RFC 2046 5.2).
            raise CannotConvert("a part that may not be encoded has 8-bit octets")
        if kind.media_type == b"text" and not is_binary(body):
            return b"quoted-printable", encode_quoted_printable(body)
        if kind.media_type == b"text" and b"\0" not in body and not has_bare_line_break(body):
            # Only its lines are too long.
            return b"quoted-printable", encode_quoted_printable(body)
        encoded = base64.encodebytes(body).replace(b"\n", b"\r\n")
        return b"base64", encoded if part.end == len(self._octets) else encoded[:-2]

    def _header(self, part: Part, encoding: bytes) -> bytes:
        """The header section, perhaps with another Content-Transfer-Encoding."""
        header = self._octets[part.header_start : part.body_start]
        is_fit = _is_fit(header, self._keeps)
        if is_fit and not encoding:
            return header
        rows: list[bytes] = _ROW.findall(header)
        has_end = bool(rows) and not rows[-1].strip(b"\r\n")
        if has_end:
            rows.pop()
        if encoding:
            rows = [row for row in rows if not _ENCODING_FIELD.match(row)]
            if part.index == 0 and not any(row[:13].lower() == b"mime-version:" for row in rows):
                rows.append(b"MIME-Version: 1.0\r\n")
            rows.append(b"Content-Transfer-Encoding: %b\r\n" % encoding)
        if not is_fit:
            rows = [row if _is_fit(row, self._keeps) else _convert_field(row, self._keeps) for row in rows]
        return b"".join(rows) + (b"\r\n" if has_end or encoding else b"")


def _wrap_encoded(encoding: bytes, body: bytes) -> bytes:
    """A part that is encoded, only its lines are too long."""
    if body.isascii() and b"\0" not in body and not has_bare_line_break(body):
        if encoding == b"base64" and not _NOT_BASE64.search(body):
            text = b"".join(body.split())
            lines = [text[start : start + 76] for start in range(0, len(text), 76)]
            return b"\r\n".join(lines) + (b"\r\n" if body.endswith(b"\r\n") else b"")
        if encoding == b"quoted-printable":
            return b"\r\n".join(_break_softly(line) for line in body.split(b"\r\n"))
    raise CannotConvert("a part is encoded and its lines are no text all the same")


def _break_softly(line: bytes) -> bytes:
    """A line of quoted-printable; what is no quoted-printable has no place to break."""
    if len(line) <= LINE_OCTETS:
        return line
    # White space behind a soft line break does not count (RFC 2045 6.7, rule 3).
    text = line.rstrip(b" \t")
    is_open = text.endswith(b"=")
    text = text[:-1] if is_open else line
    pieces = _QUOTED_PIECE.findall(text)
    if sum(map(len, pieces)) != len(text):
        raise CannotConvert("a quoted-printable part has a long line that is none")
    return b"=\r\n".join(pieces) + (b"=" if is_open else b"")


def encode_quoted_printable(body: bytes) -> bytes:
    """Lines of text with CRLF (RFC 2045 6.7)."""
    return binascii.b2a_qp(body, istext=True).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _convert_field(row: bytes, keeps_eight_bit: bool) -> bytes:
    """A field with raw 8-bit text or lines too long; where its grammar leaves no way out, CannotConvert."""
    name, colon, body = row.partition(b":")
    if b"\0" in row or has_bare_line_break(row) or not colon or not name.isascii():
        raise CannotConvert("a header field is not made of lines")
    if not keeps_eight_bit and not body.isascii():
        row = name + colon + _encode_field(name, body)
    return _fold(row) if has_long_line(row) else row


def _encode_field(name: bytes, body: bytes) -> bytes:
    """The body of a field in ASCII."""
    name_known = name.strip().lower()
    if name_known in _PARAMETERISED:
        body = _QUOTED_PARAMETER.sub(_encode_parameter, body)
    is_structured = name_known in _STRUCTURED
    tokens = _SPACE.split(body)
    written: list[bytes] = []
    index = 0
    while index < len(tokens):
        token = tokens[index]
        if token.isascii():
            written.append(token)
            index += 1
            continue
        # Spaces between encoded words are not shown: neighbours go into one (RFC 2047 6.2).
        last = index
        while last + 2 < len(tokens) and not tokens[last + 2].isascii():
            last += 2
        if is_structured and any(_SPECIALS.search(tokens[place]) for place in range(index, last + 1, 2)):
            raise CannotConvert("a structured header field has 8-bit octets")
        written.append(_encode_words(b"".join(tokens[index : last + 1])))
        index = last + 1
    return b"".join(written)


def _fold(row: bytes) -> bytes:
    """A field with line breaks put in front of white space (RFC 5322 2.2.3), where its lines are too long."""
    lines: list[bytes] = []
    for line in row.removesuffix(b"\r\n").split(b"\r\n"):
        rest = line
        while len(rest) > LINE_OCTETS:
            # Neither in front of nor behind nothing but white space: such a line would end the header for some.
            first = len(rest) - len(rest.lstrip(b" \t")) + 1
            end = max(rest.rfind(b" ", first, LINE_OCTETS), rest.rfind(b"\t", first, LINE_OCTETS))
            if end < 0 or not rest[:end].strip(b" \t") or not rest[end:].strip(b" \t"):
                raise CannotConvert("a header field has a line that is too long and cannot be folded")
            lines.append(rest[:end])
            rest = rest[end:]
        lines.append(rest)
    return b"\r\n".join(lines) + (b"\r\n" if row.endswith(b"\r\n") else b"")


def _charset(octets: bytes) -> bytes:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return b"unknown-8bit"
    return b"utf-8"


def _encode_words(octets: bytes) -> bytes:
    charset = _charset(octets)
    octets = octets.replace(b"\r\n", b"")
    words: list[bytes] = []
    while octets:
        cut = min(_WORD_OCTETS, len(octets))
        # Each encoded word is whole characters (RFC 2047 5).
        while charset == b"utf-8" and cut < len(octets) and octets[cut] & 0xC0 == 0x80:
            cut -= 1
        words.append(b"=?%b?b?%b?=" % (charset, base64.b64encode(octets[:cut])))
        octets = octets[cut:]
    return b"\r\n ".join(words)


def _encode_parameter(match: re.Match[bytes]) -> bytes:
    """RFC 2231 4."""
    value = quote_from_bytes(match[2], safe="").encode("ascii")
    return b"%b*=%b''%b" % (match[1].rstrip(b"*"), _charset(match[2]), value)
