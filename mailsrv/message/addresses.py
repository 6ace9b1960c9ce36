"""Address lists of header fields (RFC 5322 3.4, 4.4; RFC 6532), as ENVELOPE wants them.

A lexer in one loop: no recursion, and time linear in the length whatever is unclosed or nested.
Anything malformed still gives something a client can show. The common forms ``Name <l@d>``,
``"Name" <l@d>`` and ``l@d`` are taken by one regular expression.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mailsrv.address import Address, AddressError
from mailsrv.message.fields import unfold
from mailsrv.message.quoted_string import QUOTED_TEXT
from mailsrv.message.settings import DEFAULT_LIMITS

_COMMENT_NESTING = 100


class EnvelopeAddress(NamedTuple):
    """The four parts of an ENVELOPE address (RFC 9051 7.5.2).

    ``host`` None begins a group (``mailbox`` is its name) or, with ``mailbox`` None, ends it.
    A host that is missing is empty. Values are without quotes, escapes and comments.
    """

    name: bytes | None
    adl: bytes | None
    mailbox: bytes | None
    host: bytes | None


GROUP_END = EnvelopeAddress(None, None, None, None)

_ATOM = rb"[^\x00-\x20\x7f\"(),:;<>@\[\]\\]"
_PHRASE = rb'"(' + QUOTED_TEXT + rb')"[ \t]*+|([^\x00-\x08\x0a-\x1f\x7f"(),:;<>@\[\]\\]*+)'
_ADDR_SPEC = b"(" + _ATOM + b"++)@(" + _ATOM + b"++)"
_SIMPLE = re.compile(rb"[ \t]*+(?:(?:" + _PHRASE + b")<" + _ADDR_SPEC + b">|" + _ADDR_SPEC + rb")[ \t]*+(?:,|\Z)")
_SPACES = re.compile(rb"[ \t]{2,}|\t")
_TOKEN = re.compile(
    rb"(?P<space>[\x00-\x20\x7f]++)|(?P<atom>" + _ATOM + rb"++)|(?P<literal>\[[^\[\]]*+\])|(?P<special>.)", re.DOTALL
)
_QUOTED = re.compile(rb'"(' + QUOTED_TEXT + rb')"', re.DOTALL)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_COMMENT_TOKEN = re.compile(rb"[()]|\\.", re.DOTALL)

_AT, _WORD = True, False
_Piece = tuple[bytes, bool, bool]
"""(text, is it a bare @, did white space or a comment stand before it)"""


def parse_addresses(body: bytes, limit: int = DEFAULT_LIMITS.addresses) -> list[EnvelopeAddress]:
    """The addresses of a field body, groups marked, at most ``limit`` entries (a group that is open is closed)."""
    text = unfold(body)
    found: list[EnvelopeAddress] = []
    position = 0
    length = len(text)
    while position < length:
        match = _SIMPLE.match(text, position)
        if match is None:
            return _Lexer(text, position, found, limit).run()
        quoted, phrase, mailbox, host, bare_mailbox, bare_host = match.groups()
        if mailbox is None:
            found.append(EnvelopeAddress(None, None, bare_mailbox, bare_host))
        else:
            if quoted is None:
                name = _SPACES.sub(b" ", phrase.strip())
            else:
                name = _ESCAPE.sub(rb"\1", quoted) if b"\\" in quoted else quoted
            found.append(EnvelopeAddress(name or None, None, mailbox, host))
        if len(found) >= limit:
            break
        position = match.end()
    return found


class _Lexer:
    """The whole grammar, with what people make of it."""

    def __init__(self, text: bytes, position: int, found: list[EnvelopeAddress], limit: int) -> None:
        self._text = text
        self._position = position
        self._found = found
        self._limit = limit
        self._in_group = False
        self._attempts_left = 2 * limit
        self._quotes_are_closed = True
        self._comments_are_closed = True
        self._begin()

    def _begin(self) -> None:
        self._outside: list[_Piece] = []
        self._inside: list[_Piece] | None = None
        self._route: list[bytes] | None = None
        self._adl: bytes | None = None
        self._angle_is_closed = False
        self._comment: bytes | None = None
        self._spaced = False

    def run(self) -> list[EnvelopeAddress]:
        text, length = self._text, len(self._text)
        while self._position < length and len(self._found) < self._limit and self._attempts_left > 0:
            match = _TOKEN.match(text, self._position)
            if match is None:  # cannot happen: the last alternative takes any octet
                break
            self._position = match.end()
            if match.lastgroup == "space":
                self._spaced = True
            elif match.lastgroup == "special":
                self._take_special(match[0])
            else:
                self._add(match[0], _WORD)
        if len(self._found) < self._limit:
            self._finish_address()
        if self._in_group:
            self._found.append(GROUP_END)
        return self._found

    def _add(self, text: bytes, is_at: bool) -> None:
        piece = (text, is_at, self._spaced)
        self._spaced = False
        if self._inside is None or self._angle_is_closed:
            self._outside.append(piece)
        elif self._route is not None:
            self._route.append(text)
        else:
            self._inside.append(piece)

    def _take_special(self, octet: bytes) -> None:
        is_in_angle = self._inside is not None and not self._angle_is_closed
        if octet == b'"':
            self._take_quoted()
        elif octet == b"(":
            self._take_comment()
        elif octet == b"," and (self._route is None or not is_in_angle):
            self._finish_address()
        elif octet == b";" and not is_in_angle:
            self._finish_address()
            self._end_group()
        elif octet == b":" and is_in_angle and self._route is not None:
            self._adl = b"".join(self._route)
            self._route = None
        elif octet == b":" and self._inside is None and not self._in_group:
            self._begin_group()
        elif octet == b"<":
            if self._inside is not None:  # a comma, or a closing bracket, was forgotten
                self._finish_address()
            self._inside = []
        elif octet == b">":
            self._angle_is_closed = is_in_angle or self._angle_is_closed
            self._spaced = True
        elif octet == b"@":
            self._take_at(is_in_angle=is_in_angle)
        elif octet == b"\\":
            self._add(self._text[self._position : self._position + 1], _WORD)
            self._position += 1
        else:
            self._add(octet, _WORD)

    def _take_at(self, *, is_in_angle: bool) -> None:
        # obs-route = obs-domain-list ":" (RFC 5322 4.4)
        if is_in_angle and not self._inside and self._route is None and self._adl is None:
            self._route = []
        self._add(b"@", _AT)

    def _take_quoted(self) -> None:
        match = _QUOTED.match(self._text, self._position - 1) if self._quotes_are_closed else None
        if match is None:
            # Never looked for again: each search would run to the end of the field.
            self._quotes_are_closed = False
            self._spaced = True
            return
        self._position = match.end()
        content = match[1]
        self._add(_ESCAPE.sub(rb"\1", content) if b"\\" in content else content, _WORD)

    def _take_comment(self) -> None:
        end = _comment_end(self._text, self._position) if self._comments_are_closed else -1
        if end < 0:
            self._comments_are_closed = False
            self._spaced = True
            return
        content = self._text[self._position : end - 1].strip()
        if content:
            self._comment = _ESCAPE.sub(rb"\1", content) if b"\\" in content else content
        self._position = end
        self._spaced = True

    def _begin_group(self) -> None:
        name = _join(self._outside)
        self._begin()
        self._in_group = True
        self._found.append(EnvelopeAddress(None, None, name, None))

    def _end_group(self) -> None:
        if self._in_group:
            self._in_group = False
            self._found.append(GROUP_END)

    def _finish_address(self) -> None:
        self._attempts_left -= 1
        outside, inside = self._outside, self._inside
        if inside is not None:
            if self._route is not None:  # <@host> without a colon: no route after all
                inside = [(text, text == b"@", False) for text in self._route]
            mailbox, host, _ = _split_at(inside)
            name = _join(outside) or self._comment
            if mailbox or host or name:
                self._found.append(EnvelopeAddress(name or None, self._adl or None, mailbox, host))
        elif outside:
            mailbox, host, rest = _split_at(outside)
            if mailbox or host:
                self._found.append(EnvelopeAddress(self._comment or rest or None, None, mailbox, host))
        self._begin()


def _comment_end(text: bytes, position: int) -> int:
    """Where the comment ends whose opening parenthesis stands before ``position``; -1 if nowhere."""
    depth = 1
    for match in _COMMENT_TOKEN.finditer(text, position):
        octet = match[0]
        if octet == b"(":
            depth += 1
            if depth > _COMMENT_NESTING:
                return -1
        elif octet == b")":
            depth -= 1
            if not depth:
                return match.end()
    return -1


def _join(pieces: list[_Piece]) -> bytes:
    return b"".join([b" " + text if spaced else text for text, _, spaced in pieces]).strip()


def _split_at(pieces: list[_Piece]) -> tuple[bytes, bytes, bytes]:
    """(mailbox, host, words behind the host). Without an @ all of it is the mailbox and the host empty."""
    at = next((index for index in range(len(pieces) - 1, -1, -1) if pieces[index][1]), -1)
    if at < 0:
        return _join_dots(pieces), b"", b""
    domain = pieces[at + 1 :]
    # obs-domain allows space around the dots; any other word does not belong to it.
    end = 1
    while end < len(domain) and (
        not domain[end][2] or domain[end][0].startswith(b".") or domain[end - 1][0].endswith(b".")
    ):
        end += 1
    return _join_dots(pieces[:at]), _join_dots(domain[:end]), _join(domain[end:])


def _join_dots(pieces: list[_Piece]) -> bytes:
    """obs-local-part, obs-domain: the white space around dots means nothing."""
    joined = bytearray()
    for text, _, spaced in pieces:
        if spaced and joined and not joined.endswith(b".") and not text.startswith(b"."):
            joined += b" "
        joined += text
    return bytes(joined)


def header_addresses(body: bytes, limit: int = DEFAULT_LIMITS.addresses) -> list[Address]:
    """The valid addresses of a field body, also those inside groups; what is malformed is left out."""
    addresses = []
    for entry in parse_addresses(body, limit):
        if entry.mailbox and entry.host:
            try:
                addresses.append(Address(entry.mailbox.decode("utf-8"), entry.host.decode("utf-8")))
            except (UnicodeDecodeError, AddressError):
                continue
    return addresses
