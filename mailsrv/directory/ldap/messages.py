"""The LDAP messages that make up the load, simple binds and searches, and StartTLS, as octets (RFC 4511; BER: X.690).

ldap3 writes a request through a general ASN.1 library, which takes a thread a millisecond and more, and a log-in is
two of them; each entry of an answer costs it another tenth. All that time the interpreter is not the reactor's. What
stands here does the same for these messages alone, in a tenth of it.

Decoding trusts nobody: lengths are definite and within what surrounds them, what nests is read without recursion, and
whatever does not fit is a :class:`MessageError`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import field, frozen

BIND_REQUEST, BIND_RESPONSE = 0x60, 0x61
SEARCH_REQUEST, SEARCH_ENTRY, SEARCH_DONE, SEARCH_REFERENCE = 0x63, 0x64, 0x65, 0x73
EXTENDED_REQUEST, EXTENDED_RESPONSE, INTERMEDIATE_RESPONSE = 0x77, 0x78, 0x79
START_TLS = b"1.3.6.1.4.1.1466.20037"
NOTICE_OF_DISCONNECTION = b"1.3.6.1.4.1.1466.20036"
PAGED_RESULTS = b"1.2.840.113556.1.4.319"

_BOOLEAN, _INTEGER, _OCTETS, _ENUMERATED, _SEQUENCE, _SET = 0x01, 0x02, 0x04, 0x0A, 0x30, 0x31
_CONTROLS, _REFERRAL, _SIMPLE, _RESPONSE_NAME = 0xA0, 0xA3, 0x80, 0x8A
_LARGEST_LENGTH_OCTETS = 4
FILTER_DEPTH = 50


class MessageError(Exception):
    """Octets that are no LDAP message; the text is for the log."""


@frozen
class Message:
    """A message as it came: ``tag`` is the operation's, ``content`` what it holds."""

    number: int
    tag: int
    content: bytes = field(repr=False)
    controls: bytes = field(default=b"", repr=False)


@frozen
class Outcome:
    """An LDAPResult (RFC 4511 4.1.9)."""

    code: int
    message: str = ""


# Writing


def tlv(tag: int, content: bytes) -> bytes:
    """A tag, the length in as few octets as it takes, and the content."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _integer(value: int, tag: int = _INTEGER) -> bytes:
    return tlv(tag, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _message(number: int, operation: bytes, controls: Sequence[bytes] = ()) -> bytes:
    return tlv(_SEQUENCE, _integer(number) + operation + (tlv(_CONTROLS, b"".join(controls)) if controls else b""))


def bind_request(number: int, dn: str, password: bytes) -> bytes:
    """A simple bind (RFC 4511 4.2). Raises ValueError without a DN or a password, which would be nobody (R-AUTH-1)."""
    if not dn or not password:
        raise ValueError("a bind needs a name and a password")
    content = _integer(3) + tlv(_OCTETS, dn.encode("utf-8", "surrogatepass")) + tlv(_SIMPLE, password)
    return _message(number, tlv(BIND_REQUEST, content))


def extended_request(number: int, name: bytes) -> bytes:
    """An extended operation without a value (RFC 4511 4.12)."""
    return _message(number, tlv(EXTENDED_REQUEST, tlv(_SIMPLE, name)))


def search_request(
    number: int,
    base: str,
    what: bytes,
    attributes: Sequence[str],
    *,
    whole_tree: bool,
    size_limit: int,
    time_limit_seconds: int,
    page: tuple[int, bytes] | None = None,
    controls: Sequence[bytes] = (),
) -> bytes:
    """A search (RFC 4511 4.5.1) that follows no aliases; ``page``: how many entries, and the cookie (RFC 2696).

    ``controls`` are further ones, of :func:`control`.
    """
    content = (
        tlv(_OCTETS, base.encode("utf-8", "surrogatepass"))
        + _integer(2 if whole_tree else 0, _ENUMERATED)
        + _integer(0, _ENUMERATED)
        + _integer(size_limit)
        + _integer(time_limit_seconds)
        + tlv(_BOOLEAN, b"\0")
        + what
        + tlv(_SEQUENCE, b"".join([tlv(_OCTETS, name.encode("ascii")) for name in attributes]))
    )
    if page is not None:
        value = tlv(_SEQUENCE, _integer(page[0]) + tlv(_OCTETS, page[1]))
        controls = (*controls, control(PAGED_RESULTS, value))
    return _message(number, tlv(SEARCH_REQUEST, content), controls)


def control(kind: bytes, value: bytes | None = None) -> bytes:
    """A control (RFC 4511 4.1.11) that the server has to obey or refuse."""
    end = b"" if value is None else tlv(_OCTETS, value)
    return tlv(_SEQUENCE, tlv(_OCTETS, kind) + tlv(_BOOLEAN, b"\xff") + end)


# Filters

_ITEM = re.compile(r"\(\s*([A-Za-z0-9.;-]+)(=|~=|>=|<=)([^()]*)\)", re.DOTALL)
_EXTENSIBLE = re.compile(r"\(\s*([A-Za-z0-9.;-]*)((?i::dn)?)((?::[A-Za-z0-9.-]+)?):=([^()]*)\)", re.DOTALL)
_COMPARISONS = {"=": 0xA3, ">=": 0xA5, "<=": 0xA6, "~=": 0xA8}
_SETS = {"&": 0xA0, "|": 0xA1}
_NOT, _SUBSTRINGS, _PRESENT, _EXTENSIBLE_MATCH = 0xA2, 0xA4, 0x87, 0xA9
_ESCAPED = re.compile(rb"\\(..?)?", re.DOTALL)
_SPACES = re.compile(r"\s*")


def encode_filter(text: str) -> bytes:
    """A filter's text (RFC 4515) as octets (RFC 4511 4.5.1.7). Raises ValueError."""
    # A stack of what is open: the tag of each, and what it holds so far.
    stack: list[tuple[int, list[bytes]]] = [(0, [])]
    at, end = _spaces(text, 0), len(text)
    while at < end:
        if text[at] == ")":
            at += 1
            if len(stack) == 1:
                raise ValueError("a parenthesis too many")
            tag, parts = stack.pop()
            if tag == _NOT and len(parts) != 1:
                raise ValueError("one filter can be negated")
            stack[-1][1].append(tlv(tag, b"".join(parts)))
        elif (match := _ITEM.match(text, at)) is not None:
            at = match.end()
            stack[-1][1].append(_encode_item(match[1], match[2], match[3]))
        elif (match := _EXTENSIBLE.match(text, at)) is not None:
            at = match.end()
            stack[-1][1].append(_encode_extensible(*match.groups()))
        else:
            operator_at = _spaces(text, at + 1)
            operator = text[operator_at : operator_at + 1]
            if text[at] != "(" or operator not in ("&", "|", "!"):
                raise ValueError(f"no filter: {text[at : at + 20]!r}")
            if len(stack) > FILTER_DEPTH:
                raise ValueError("filters within filters within filters")
            stack.append((_SETS.get(operator, _NOT), []))
            at = operator_at + 1
        at = _spaces(text, at)
    if len(stack) != 1 or len(stack[0][1]) != 1:
        raise ValueError("expected one filter")
    return stack[0][1][0]


def _spaces(text: str, at: int) -> int:
    match = _SPACES.match(text, at)
    return match.end() if match else at


def _encode_item(attribute: str, comparison: str, text: str) -> bytes:
    name = attribute.encode("ascii")
    if comparison == "=" and "*" in text:
        if text == "*":
            return tlv(_PRESENT, name)
        pieces = [_unescape(piece) for piece in text.split("*")]
        tags = (0x80, *(0x81,) * (len(pieces) - 2), 0x82)
        found = [tlv(tag, piece) for tag, piece in zip(tags, pieces, strict=True) if piece]
        return tlv(_SUBSTRINGS, tlv(_OCTETS, name) + tlv(_SEQUENCE, b"".join(found)))
    return tlv(_COMPARISONS[comparison], tlv(_OCTETS, name) + tlv(_OCTETS, _unescape(text)))


def _encode_extensible(attribute: str, dn: str, rule: str, text: str) -> bytes:
    if not attribute and not rule:
        raise ValueError("neither an attribute nor a rule to match by")
    content = (
        (tlv(0x81, rule[1:].encode("ascii")) if rule else b"")
        + (tlv(0x82, attribute.encode("ascii")) if attribute else b"")
        + tlv(0x83, _unescape(text))
        + (tlv(0x84, b"\xff") if dn else b"")
    )
    return tlv(_EXTENSIBLE_MATCH, content)


def _unescape(text: str) -> bytes:
    octets = text.encode("utf-8", "surrogatepass")
    return _ESCAPED.sub(_escaped_octet, octets) if b"\\" in octets else octets


def _escaped_octet(match: re.Match[bytes]) -> bytes:
    try:
        digits = (match[1] or b"").decode("ascii")
        if len(digits) != 2 or not digits.isalnum():
            raise ValueError(digits)
        return bytes.fromhex(digits)
    except ValueError:
        raise ValueError("a backslash without two hexadecimal digits") from None


# Reading


def message_size(head: bytes | bytearray, limit: int) -> int | None:
    """How long the message is that begins so; None while that cannot be told. Raises MessageError past ``limit``."""
    if head and head[0] != _SEQUENCE:
        raise MessageError("no LDAP message")
    if len(head) < 2:
        return None
    length, at = head[1], 2
    if length >= 0x80:
        at += length & 0x7F
        if not 2 < at <= 2 + _LARGEST_LENGTH_OCTETS:
            raise MessageError("a length of no use")
        if len(head) < at:
            return None
        length = int.from_bytes(head[2:at], "big")
    if at + length > limit:
        raise MessageError("the answer is too large")
    return at + length


def _element(octets: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Tag, begin and end of the content of what begins at ``at``."""
    if at + 2 > end:
        raise MessageError("an element that ends too early")
    tag, length = octets[at], octets[at + 1]
    at += 2
    if length >= 0x80:
        size = length & 0x7F
        if not 0 < size <= _LARGEST_LENGTH_OCTETS:
            raise MessageError("a length of no use")
        length = int.from_bytes(octets[at : at + size], "big")
        at += size
    if at + length > end:
        raise MessageError("an element that is longer than what it stands in")
    return tag, at, at + length


def _expected(octets: bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    found, begin, stop = _element(octets, at, end)
    if found != tag:
        raise MessageError(f"tag {found:#x} where {tag:#x} is expected")
    return begin, stop


def _small_integer(octets: bytes, begin: int, stop: int) -> int:
    if not 0 < stop - begin <= 5:
        raise MessageError("a number of no use")
    return int.from_bytes(octets[begin:stop], "big", signed=True)


def read_message(octets: bytes) -> Message:
    """A whole message (RFC 4511 4.1.1). Raises MessageError."""
    at, end = _expected(octets, 0, len(octets), _SEQUENCE)
    begin, at = _expected(octets, at, end, _INTEGER)
    number = _small_integer(octets, begin, at)
    tag, begin, at = _element(octets, at, end)
    content = octets[begin:at]
    controls = b""
    if at < end:
        begin, at = _expected(octets, at, end, _CONTROLS)
        controls = octets[begin:at]
    return Message(number, tag, content, controls)


def read_elements(content: bytes) -> list[tuple[int, bytes]]:
    """What stands side by side in a constructed value: tags and contents. Raises MessageError."""
    at, end = 0, len(content)
    found = []
    while at < end:
        tag, begin, at = _element(content, at, end)
        found.append((tag, content[begin:at]))
    return found


def read_control(controls: bytes, kind: bytes) -> bytes | None:
    """The value of a control among those of a message; None where it is not there. Raises MessageError."""
    for _, content in read_elements(controls):
        parts = read_elements(content)
        if parts and parts[0] == (_OCTETS, kind):
            return next((value for tag, value in parts[1:] if tag == _OCTETS), b"")
    return None


def read_entry(content: bytes) -> tuple[str, dict[str, tuple[bytes, ...]]]:
    """DN and values of a SearchResultEntry (4.5.2); names of attributes in lower case. Raises MessageError."""
    end = len(content)
    begin, at = _expected(content, 0, end, _OCTETS)
    dn = _text(content[begin:at])
    at, end = _expected(content, at, end, _SEQUENCE)
    values: dict[str, list[bytes]] = {}
    while at < end:
        inner, stop = _expected(content, at, end, _SEQUENCE)
        begin, inner = _expected(content, inner, stop, _OCTETS)
        name = content[begin:inner].decode("ascii", "replace").lower()
        inner, last = _expected(content, inner, stop, _SET)
        found: list[bytes] = []
        while inner < last:
            # Most values are short: this is the innermost loop of the largest answers.
            length = content[inner + 1] if inner + 1 < last else 0x80
            if content[inner] == _OCTETS and length < 0x80 and inner + 2 + length <= last:
                begin, inner = inner + 2, inner + 2 + length
            else:
                begin, inner = _expected(content, inner, last, _OCTETS)
            found.append(content[begin:inner])
        if found:
            values.setdefault(name, found)
            if values[name] is not found:
                # RFC 4511 4.1.7 has each name once; one that comes a million times must not take a million copies.
                values[name] += found
        at = stop
    return dn, {name: tuple(found) for name, found in values.items()}


def read_outcome(content: bytes) -> Outcome:
    """Of a response that ends an operation. Raises MessageError."""
    end = len(content)
    begin, at = _expected(content, 0, end, _ENUMERATED)
    code = _small_integer(content, begin, at)
    _, at = _expected(content, at, end, _OCTETS)
    begin, at = _expected(content, at, end, _OCTETS)
    return Outcome(code, _text(content[begin:at]))


def read_response_name(content: bytes) -> bytes:
    """What an ExtendedResponse is (4.12); empty where it does not say. Raises MessageError."""
    at, end = 0, len(content)
    while at < end:
        tag, begin, at = _element(content, at, end)
        if tag == _RESPONSE_NAME:
            return content[begin:at]
    return b""


def read_page_cookie(controls: bytes) -> bytes:
    """Where the next page begins (RFC 2696 3); empty: there is none. Raises MessageError."""
    at, end = 0, len(controls)
    while at < end:
        inner, stop = _expected(controls, at, end, _SEQUENCE)
        begin, inner = _expected(controls, inner, stop, _OCTETS)
        kind = controls[begin:inner]
        while kind == PAGED_RESULTS and inner < stop:
            tag, begin, inner = _element(controls, inner, stop)
            if tag == _OCTETS:
                inside, last = _expected(controls, begin, inner, _SEQUENCE)
                _, inside = _expected(controls, inside, last, _INTEGER)
                begin, inside = _expected(controls, inside, last, _OCTETS)
                return controls[begin:inside]
        at = stop
    return b""


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")
