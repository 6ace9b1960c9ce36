"""Terminals of IMAP commands (RFC 3501 section 9), read from one whole command.

A command reaches the cursor as it was sent, with the octets of its literals behind their counts
(``{5}`` CRLF ``hello``), so reading is a walk over one string of octets: nothing is called back,
nothing recurses but by the caller's own nesting, which the cursor counts. Everything that does
not fit raises BadCommand. Control octets are refused here and nowhere else (R-CTL-1).
"""

from __future__ import annotations

import re

from mailsrv.imap.errors import BadCommand
from mailsrv.imap.sequence_set import SequenceSet, match_sequence_set

# atom = 1*ATOM-CHAR; ATOM-CHAR = any CHAR except ( ) { SP CTL % * " \ ]
_ATOM = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\\]]+')
# ASTRING-CHAR = ATOM-CHAR / "]"
_ASTRING = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\]+')
# list-char = ATOM-CHAR / "%" / "*" / "]"
_LIST_MAILBOX = re.compile(rb'[^\x00-\x20\x7f-\xff(){"\\]+')
# tag = 1*<any ASTRING-CHAR except "+">
_TAG = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\+]{1,128}')
_TAG_OF_COMMAND = re.compile(_TAG.pattern + rb"(?= )")
# quoted, without controls other than TAB; octets above 127 are UTF-8 (RFC 6855 section 3)
_QUOTED = re.compile(rb'"((?:[^\x00-\x08\x0a-\x1f\x7f"\\]|\\["\\])*)"')
_LITERAL = re.compile(rb"(~?)\{(\d{1,10})\+?\}\r\n")
_NUMBER = re.compile(rb"\d{1,20}")
_WORD = re.compile(rb"[A-Za-z0-9.=_+-]+")
_FLAG = re.compile(rb'\\?[^\x00-\x20\x7f-\xff(){%*"\\\]]+')
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_ESCAPE = re.compile(rb"\\(.)")

NUMBER_MAX = 2**32 - 1
NUMBER64_MAX = 2**63 - 1


def tag_of(octets: bytes) -> bytes:
    """The tag a command begins with, or ``*`` where it has none: to answer what cannot be read."""
    found = _TAG_OF_COMMAND.match(octets)
    return found.group() if found is not None else b"*"


class Cursor:
    """A place in a command. Methods named after a rule read it and move on, or raise BadCommand."""

    __slots__ = ("depth_limit", "octets", "position")

    def __init__(self, octets: bytes, position: int = 0, *, depth_limit: int = 32) -> None:
        self.octets = octets
        self.position = position
        self.depth_limit = depth_limit

    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self.position >= len(self.octets)

    def end(self) -> None:
        """The command ends here."""
        if self.position < len(self.octets):
            raise BadCommand("Unexpected text at the end of the command")

    def looking_at(self, octets: bytes) -> bool:
        """Whether ``octets`` come next, as they are."""
        return self.octets.startswith(octets, self.position)

    def skip(self, octets: bytes) -> bool:
        """Move over ``octets`` if they come next, in any case."""
        end = self.position + len(octets)
        if self.octets[self.position : end].upper() == octets:
            self.position = end
            return True
        return False

    def expect(self, octets: bytes) -> None:
        """``octets`` must come next, in any case."""
        if not self.skip(octets):
            raise BadCommand(f"Expected {octets.decode('ascii')!r}")

    def space(self) -> None:
        """SP"""
        if self.octets[self.position : self.position + 1] != b" ":
            raise BadCommand("Expected a space")
        self.position += 1

    def _take(self, expression: re.Pattern[bytes], what: str) -> bytes:
        found = expression.match(self.octets, self.position)
        if found is None:
            raise BadCommand(f"Expected {what}")
        self.position = found.end()
        return found.group()

    def tag(self) -> bytes:
        """``tag``"""
        return self._take(_TAG, "a tag")

    def word(self) -> bytes:
        """The name of a command, item or key, in upper case."""
        return self._take(_WORD, "a word").upper()

    def atom(self) -> bytes:
        """``atom``"""
        return self._take(_ATOM, "an atom")

    def flag(self) -> bytes:
        """``flag = "\\Answered" / … / flag-keyword / flag-extension``"""
        return self._take(_FLAG, "a flag")

    def number(self, largest: int = NUMBER_MAX) -> int:
        """number, number64"""
        value = int(self._take(_NUMBER, "a number"))
        if value > largest:
            raise BadCommand("Number too large")
        return value

    def nz_number(self) -> int:
        """nz-number"""
        value = self.number()
        if not value:
            raise BadCommand("Zero is not allowed here")
        return value

    def sequence_set(self) -> SequenceSet:
        """sequence-set"""
        found, self.position = match_sequence_set(self.octets, self.position)
        return found

    def _quoted(self) -> bytes:
        found = _QUOTED.match(self.octets, self.position)
        if found is None:
            raise BadCommand("Malformed quoted string")
        self.position = found.end()
        value = found.group(1)
        if b"\\" in value:
            value = _ESCAPE.sub(rb"\1", value)
        if not value.isascii():
            try:
                value.decode("utf-8")
            except UnicodeDecodeError:
                raise BadCommand("Octets in a quoted string are not UTF-8") from None
        return value

    def literal_count(self) -> tuple[int, bool] | None:
        """The size of a literal whose count stands here (and whether it is a literal8), without moving."""
        found = _LITERAL.match(self.octets, self.position)
        return None if found is None else (int(found.group(2)), bool(found.group(1)))

    def _literal(self) -> bytes:
        found = _LITERAL.match(self.octets, self.position)
        if found is None or found.group(1):
            raise BadCommand("Malformed literal")
        end = found.end() + int(found.group(2))
        if end > len(self.octets):
            raise BadCommand("Literal cut short")
        value = self.octets[found.end() : end]
        if b"\0" in value:
            raise BadCommand("NUL in a literal")
        self.position = end
        return value

    def string(self) -> bytes:
        """``string = quoted / literal``; may hold line ends and TAB, as text to search for does, but no NUL"""
        first = self.octets[self.position : self.position + 1]
        if first == b'"':
            return self._quoted()
        if first == b"{":
            return self._literal()
        raise BadCommand("Expected a string")

    def nstring(self) -> bytes | None:
        """``nstring = string / nil``"""
        return None if self.skip(b"NIL") else self.string()

    def text(self) -> bytes:
        """An astring that may hold controls other than NUL: what SEARCH looks for."""
        if self.octets[self.position : self.position + 1] in (b'"', b"{"):
            return self.string()
        return self._take(_ASTRING, "a string")

    def astring(self) -> bytes:
        """``astring = 1*ASTRING-CHAR / string``, without control octets"""
        return self._without_controls(self.text())

    def list_mailbox(self) -> bytes:
        """``list-mailbox = 1*list-char / string``"""
        if self.octets[self.position : self.position + 1] in (b'"', b"{"):
            return self._without_controls(self.string())
        return self._take(_LIST_MAILBOX, "a mailbox pattern")

    def open_parenthesis(self) -> None:
        """``"("``, counted against the nesting limit"""
        self.expect(b"(")
        self.descend()

    def close_parenthesis(self) -> None:
        """``")"``"""
        self.expect(b")")
        self.depth_limit += 1

    def descend(self) -> None:
        """One level deeper, for what nests without parentheses (NOT, OR)."""
        self.depth_limit -= 1
        if self.depth_limit < 0:
            raise BadCommand("Nested too deep", code=b"LIMIT")

    @staticmethod
    def _without_controls(value: bytes) -> bytes:
        if _CONTROL.search(value):
            raise BadCommand("Control characters are not allowed here")
        return value
