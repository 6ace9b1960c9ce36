"""A strict reader of IMAP parenthesised data (RFC 3501 9), to check what mailsrv sends.

``read_data(octets)`` gives nested lists of ``bytes`` (strings), ``int`` and None (NIL); anything
that is not exactly one such value raises ValueError.
"""

from __future__ import annotations

import re
from typing import Any

# quoted = DQUOTE *QUOTED-CHAR DQUOTE, of CHAR without CR and LF: 7-bit, no NUL
_TOKEN = re.compile(
    rb'(?P<quoted>"(?:[\x01-\x09\x0b\x0c\x0e-\x21\x23-\x5b\x5d-\x7f]|\\["\\])*")'
    rb"|\{(?P<literal>0|[1-9][0-9]*)\}\r\n|(?P<number>0|[1-9][0-9]{0,9})(?=[ )]|\Z)|(?P<nil>NIL)(?=[ )]|\Z)"
    rb"|(?P<open>\()|(?P<close>\))|(?P<space> (?=[^ )]))"
)


def read_data(octets: bytes) -> Any:
    stack: list[list[Any]] = [[]]
    position = 0
    can_follow_directly = True
    while position < len(octets):
        match = _TOKEN.match(octets, position)
        if match is None:
            raise ValueError(f"at {position}: {octets[position : position + 60]!r}")
        position = match.end()
        kind = match.lastgroup
        # Only lists may follow each other without a space (addresses, parts of a multipart).
        if kind in {"quoted", "literal", "number", "nil"} and not can_follow_directly:
            raise ValueError(f"missing space at {match.start()}")
        can_follow_directly = kind in {"open", "space"}
        if kind == "quoted":
            stack[-1].append(re.sub(rb"\\(.)", rb"\1", match[0][1:-1]))
        elif kind == "literal":
            length = int(match["literal"])
            value = octets[position : position + length]
            if len(value) != length or b"\0" in value:
                raise ValueError("literal is cut short or holds NUL")
            stack[-1].append(value)
            position += length
        elif kind == "number":
            stack[-1].append(int(match[0]))
        elif kind == "nil":
            stack[-1].append(None)
        elif kind == "open":
            inner: list[Any] = []
            stack[-1].append(inner)
            stack.append(inner)
        elif kind == "close":
            if len(stack) == 1:
                raise ValueError("unbalanced )")
            stack.pop()
    if len(stack) != 1 or len(stack[0]) != 1:
        raise ValueError("not one value")
    return stack[0][0]


def check_envelope(value: Any) -> None:
    """``envelope``: types of all ten members."""
    _require(isinstance(value, list) and len(value) == 10, "envelope", value)
    for place in (0, 1, 8, 9):
        _nstring(value[place])
    for addresses in value[2:8]:
        if addresses is None:
            continue
        _require(isinstance(addresses, list) and len(addresses) > 0, "address list", addresses)
        is_in_group = False
        for address in addresses:
            _require(isinstance(address, list) and len(address) == 4, "address", address)
            for member in address:
                _nstring(member)
            if address[3] is None:
                _require(is_in_group == (address[2] is None), "group", addresses)
                is_in_group = address[2] is not None
            else:
                _require(address[2] is not None, "mailbox", address)
        _require(not is_in_group, "open group", addresses)


def check_body(root: Any, *, is_extended: bool) -> None:
    """``body``: the members of every part by its kind; iterative."""
    left = [root]
    while left:
        body = left.pop()
        _require(isinstance(body, list) and len(body) > 0, "body", body)
        if isinstance(body[0], list):
            parts = 0
            while parts < len(body) and isinstance(body[parts], list):
                left.append(body[parts])
                parts += 1
            rest = body[parts:]
            _string(rest[0])
            if is_extended:
                _require(len(rest) == 5, "multipart", rest)
                _parameters(rest[1])
                _extension(rest[2:])
            else:
                _require(len(rest) == 1, "multipart", rest)
            continue
        media = (body[0].lower(), body[1].lower())
        _string(body[0])
        _string(body[1])
        _parameters(body[2])
        _nstring(body[3])
        _nstring(body[4])
        _string(body[5])
        _number(body[6])
        rest = body[7:]
        if media == (b"message", b"rfc822"):
            check_envelope(rest[0])
            left.append(rest[1])
            _number(rest[2])
            rest = rest[3:]
        elif media[0] == b"text":
            _number(rest[0])
            rest = rest[1:]
        if is_extended:
            _require(len(rest) == 4, "extension", rest)
            _nstring(rest[0])
            _extension(rest[1:])
        else:
            _require(rest == [], "no extension", rest)


def _extension(rest: list[Any]) -> None:
    disposition, language, location = rest
    if disposition is not None:
        _require(isinstance(disposition, list) and len(disposition) == 2, "disposition", disposition)
        _string(disposition[0])
        _parameters(disposition[1])
    if isinstance(language, list):
        _require(len(language) > 0, "language", language)
        for tag in language:
            _string(tag)
    else:
        _nstring(language)
    _nstring(location)


def _parameters(value: Any) -> None:
    if value is None:
        return
    _require(isinstance(value, list) and len(value) > 0 and len(value) % 2 == 0, "parameters", value)
    for member in value:
        _string(member)


def _string(value: Any) -> None:
    _require(isinstance(value, bytes), "string", value)


def _nstring(value: Any) -> None:
    _require(value is None or isinstance(value, bytes), "nstring", value)


def _number(value: Any) -> None:
    _require(isinstance(value, int), "number", value)


def _require(condition: bool, what: str, value: Any) -> None:
    if not condition:
        raise ValueError(f"{what}: {value!r}")
