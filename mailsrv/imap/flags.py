"""Flags between the wire and the store (RFC 3501 2.3.2)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from mailsrv.imap.errors import BadCommand, CommandRefused
from mailsrv.imap.grammar import Cursor
from mailsrv.interfaces.mailbox import SYSTEM_FLAGS, FlagSet

SEEN = "\\Seen"
DELETED = "\\Deleted"
_SYSTEM = {flag.lower().encode(): flag for flag in SYSTEM_FLAGS}
_ORDER = {flag: place for place, flag in enumerate(SYSTEM_FLAGS)}


def parse_flag(cursor: Cursor, keyword_octets: int) -> str:
    """flag, but for \\Recent, which no client may set."""
    octets = cursor.flag()
    if octets.startswith(b"\\"):
        known = _SYSTEM.get(octets.lower())
        if known is None:
            raise BadCommand("No such system flag, or one that cannot be set")
        return known
    if len(octets) > keyword_octets:
        raise CommandRefused("Keyword too long", code=b"LIMIT")
    return octets.decode("ascii")


def parse_flag_list(cursor: Cursor, keyword_octets: int) -> FlagSet:
    """``flag-list = "(" [flag *(SP flag)] ")"``"""
    cursor.expect(b"(")
    flags = set()
    if not cursor.looking_at(b")"):
        flags.add(parse_flag(cursor, keyword_octets))
        while cursor.skip(b" "):
            flags.add(parse_flag(cursor, keyword_octets))
    cursor.expect(b")")
    return frozenset(flags)


@lru_cache(maxsize=4096)
def format_flags(flags: FlagSet, is_recent: bool = False) -> bytes:
    """The parenthesised list: system flags in the RFC's order, keywords by name."""
    ordered = sorted(flags, key=lambda flag: (_ORDER.get(flag, len(_ORDER)), flag))
    if is_recent:
        ordered.append("\\Recent")
    return b"(" + " ".join(ordered).encode("ascii", "replace") + b")"


class FlagTemplates(dict[int, bytes]):
    """``FLAGS (…)`` by the mailbox's flag-set numbers, made when first asked for."""

    def __init__(self, flag_set: Callable[[int], FlagSet], *, is_recent: bool, after: bytes = b"") -> None:
        super().__init__()
        self._flag_set = flag_set
        self._is_recent = is_recent
        self._after = after

    def __missing__(self, number: int) -> bytes:
        made = b"FLAGS " + format_flags(self._flag_set(number), self._is_recent) + self._after
        self[number] = made
        return made
