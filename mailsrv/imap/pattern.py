"""Mailbox names against LIST patterns (RFC 3501 6.3.8): ``*`` is anything, ``%`` anything but ``/``.

All ways to match are followed at once: the set of pattern positions reached is one integer, and
each character of the name is a shift and two masks. The work is the length of the name, whatever
the pattern (R-IMAP-2); there is nothing to go back to.
"""

from __future__ import annotations

from mailsrv.imap.names import canonical_name
from mailsrv.interfaces.mailbox import DELIMITER


class Pattern:
    """A pattern made ready to be matched with many names."""

    __slots__ = ("_final", "_literals", "_stay", "_stay_in_level", "literal_count", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._literals: dict[str, int] = {}
        self._stay = 0
        self._stay_in_level = 0
        position = 0
        for character in text:
            bit = 1 << position
            if character == "*":
                self._stay |= bit
            elif character == "%":
                self._stay_in_level |= bit
            else:
                self._literals[character] = self._literals.get(character, 0) | bit
                position += 1
        self.literal_count = position
        self._final = 1 << position

    @property
    def beginning(self) -> str:
        """What stands before the first wildcard; of INBOX in any case nothing is said."""
        end = min((place for place in map(self.text.find, "*%") if place >= 0), default=len(self.text))
        return self.text[:end]

    def matches(self, name: str) -> bool:
        """Whether the whole of ``name`` matches."""
        if len(name) < self.literal_count:
            return False
        stay = self._stay
        stay_in_level = stay | self._stay_in_level
        literals = self._literals
        reached = 1
        if name[:5] == "INBOX" and name[5:6] in {"", DELIMITER}:
            for character in "INBOX":  # in any case, so "in*" finds it
                here = literals.get(character, 0) | literals.get(character.lower(), 0)
                reached = ((reached & here) << 1) | (reached & stay_in_level)
            name = name[5:]
        for character in name:
            kept = reached & (stay if character == DELIMITER else stay_in_level)
            reached = ((reached & literals.get(character, 0)) << 1) | kept
            if not reached:
                return False
        return bool(reached & self._final)


def compile_pattern(reference: str, text: str) -> Pattern:
    """The pattern ``text`` means below ``reference``: with one delimiter in between, INBOX in any case."""
    if reference.endswith(DELIMITER) and text.startswith(DELIMITER):
        text = text[1:]
    return Pattern(canonical_name(reference + text))
