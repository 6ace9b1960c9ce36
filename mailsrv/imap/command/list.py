"""LIST (RFC 3501 6.3.8).

With LIST-EXTENDED (RFC 5258), CHILDREN (RFC 3348), SPECIAL-USE (RFC 6154) and LIST-STATUS (RFC 5819).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.errors import MailError
from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.command.status import parse_status_items, status_response
from mailsrv.imap.errors import BadCommand, CommandRefused
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.names import decode_name
from mailsrv.imap.pattern import Pattern, compile_pattern
from mailsrv.imap.responses import Ok
from mailsrv.interfaces.mailbox import DELIMITER, MailboxInfo

if TYPE_CHECKING:
    from mailsrv.imap.session import Session

_PATTERNS_MAX = 50
_MATCHES_AT_ONCE = 500
"""Names times patterns; a long name and a pattern of wildcards take some 40 µs."""


class Selection(enum.Enum):
    """list-select-opt: which mailboxes."""

    SUBSCRIBED = b"SUBSCRIBED"
    REMOTE = b"REMOTE"
    RECURSIVEMATCH = b"RECURSIVEMATCH"
    SPECIAL_USE = b"SPECIAL-USE"


class Return(enum.Enum):
    """return-option: what is told of them. STATUS is apart, as it has items."""

    SUBSCRIBED = b"SUBSCRIBED"
    CHILDREN = b"CHILDREN"
    SPECIAL_USE = b"SPECIAL-USE"


_SELECTIONS = {option.value: option for option in Selection}
_RETURNS = {option.value: option for option in Return}


@frozen
class List:
    """Which mailboxes are there? ``patterns`` None asks for the delimiter only."""

    patterns: tuple[Pattern, ...] | None
    selection: frozenset[Selection] = frozenset()
    returns: frozenset[Return] = frozenset()
    status_items: tuple[bytes, ...] = ()

    async def run(self, session: Session) -> Ok:
        if self.patterns is None:
            session.send(b'* LIST (\\Noselect) "/" ""\r\n')
            return Ok()
        infos = await session.account_mailboxes().list_mailboxes(common_beginning(self.patterns))
        parents = _parents_of(info.name for info in infos if info.exists)
        subscribed_below = _parents_of(info.name for info in infos if info.is_subscribed)
        special_below = _parents_of(info.name for info in infos if info.special_use is not None)
        if Selection.RECURSIVEMATCH in self.selection:
            # RFC 5258 3.5: told also where nothing of that name exists, for what is below it.
            wanted = subscribed_below if Selection.SUBSCRIBED in self.selection else frozenset()
            wanted |= special_below if Selection.SPECIAL_USE in self.selection else frozenset()
            missing = wanted.difference(info.name for info in infos)
            infos = [*infos, *(MailboxInfo(name, 0, is_selectable=False, exists=False) for name in sorted(missing))]
        names_at_once = max(1, _MATCHES_AT_ONCE // max(1, len(self.patterns)))
        for place, info in enumerate(infos):
            if place and place % names_at_once == 0:
                await session.breathe()
            if not any(pattern.matches(info.name) for pattern in self.patterns):
                continue
            is_wanted = self._is_selected(info)
            below = []
            if Selection.RECURSIVEMATCH in self.selection:
                if Selection.SUBSCRIBED in self.selection and info.name in subscribed_below:
                    below.append(b'"SUBSCRIBED"')
                if Selection.SPECIAL_USE in self.selection and info.name in special_below:
                    below.append(b'"SPECIAL-USE"')
            if not is_wanted and not below:
                continue
            session.send(self._line(session, info, has_children=info.name in parents, below=below))
            if self.status_items and info.is_selectable and info.exists and is_wanted:
                await self._send_status(session, info.name)
        return Ok()

    def _is_selected(self, info: MailboxInfo) -> bool:
        selection = self.selection
        if Selection.SUBSCRIBED in selection:
            if not info.is_subscribed:
                return False
        elif not info.exists:
            return False
        return Selection.SPECIAL_USE not in selection or info.special_use is not None

    def _line(self, session: Session, info: MailboxInfo, *, has_children: bool, below: Sequence[bytes]) -> bytes:
        attributes = []
        if not info.exists:
            attributes.append(b"\\NonExistent")
        elif not info.is_selectable:
            attributes.append(b"\\Noselect")
        if info.is_subscribed and (Return.SUBSCRIBED in self.returns or Selection.SUBSCRIBED in self.selection):
            attributes.append(b"\\Subscribed")
        # RFC 3348: told always, as it costs nothing here.
        attributes.append(b"\\HasChildren" if has_children else b"\\HasNoChildren")
        if info.special_use is not None:
            attributes.append(info.special_use.value.encode("ascii"))
        line = b'* LIST (%b) "/" %b' % (b" ".join(attributes), session.format_name(info.name))
        if below:
            line += b' ("CHILDINFO" (%b))' % b" ".join(below)
        return line + b"\r\n"

    async def _send_status(self, session: Session, name: str) -> None:
        """RFC 5819 2: a mailbox whose STATUS fails is listed all the same."""
        try:
            session.send(await status_response(session, name, self.status_items))
        except (CommandRefused, BadCommand):
            raise
        except MailError:
            return
        await session.breathe()


def _parents_of(names: Iterable[str]) -> frozenset[str]:
    """Every name that has one of these below it."""
    parents: set[str] = set()
    for name in names:
        end = name.rfind(DELIMITER)
        while end > 0:
            parent = name[:end]
            if parent in parents:
                break
            parents.add(parent)
            end = name.rfind(DELIMITER, 0, end)
    return frozenset(parents)


def common_beginning(patterns: Sequence[Pattern]) -> str:
    """What every name begins with that one of these matches, as far as that can be seen."""
    beginnings = [pattern.beginning for pattern in patterns]
    if not beginnings:
        return ""
    first, last = min(beginnings), max(beginnings)
    return first[
        : next((place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    ]


def parse_patterns(octets: Sequence[bytes], reference: bytes, *, is_utf8: bool) -> tuple[Pattern, ...]:
    """Patterns below a reference name. One that is no encoding of any name matches nothing."""
    patterns = []
    for pattern in octets:
        try:
            whole = (reference, pattern)
            texts = [text.decode("utf-8") if is_utf8 else decode_name(text) for text in whole]
        except ValueError:
            continue
        patterns.append(compile_pattern(texts[0], texts[1]))
    return tuple(patterns)


def parse(cursor: Cursor, context: ParseContext) -> List:
    """``list = "LIST" [SP list-select-opts] SP mailbox SP mbox-or-pat [SP list-return-opts]``"""
    cursor.space()
    selection: frozenset[Selection] = frozenset()
    is_extended = False
    if cursor.looking_at(b"("):
        is_extended = True
        selection = _parse_selection(cursor)
        cursor.space()
    reference = cursor.astring()
    cursor.space()
    if cursor.skip(b"("):
        is_extended = True
        texts = [cursor.list_mailbox()]
        while cursor.skip(b" "):
            texts.append(cursor.list_mailbox())
        cursor.expect(b")")
        if len(texts) > _PATTERNS_MAX:
            raise BadCommand("Too many patterns", code=b"LIMIT")
    else:
        texts = [cursor.list_mailbox()]
    returns: frozenset[Return] = frozenset()
    status_items: tuple[bytes, ...] = ()
    if cursor.skip(b" "):
        cursor.expect(b"RETURN ")
        returns, status_items = _parse_returns(cursor)
        is_extended = True
    if texts == [b""] and not is_extended:
        return List(None)
    return List(parse_patterns(texts, reference, is_utf8=context.is_utf8), selection, returns, status_items)


def _parse_selection(cursor: Cursor) -> frozenset[Selection]:
    cursor.expect(b"(")
    selection = set()
    if not cursor.looking_at(b")"):
        while True:
            option = _SELECTIONS.get(cursor.word())
            if option is None:
                raise BadCommand("Unknown selection option")
            selection.add(option)
            if not cursor.skip(b" "):
                break
    cursor.expect(b")")
    if Selection.RECURSIVEMATCH in selection and selection <= {Selection.RECURSIVEMATCH, Selection.REMOTE}:
        raise BadCommand("RECURSIVEMATCH needs something to match")  # RFC 5258 3.1
    return frozenset(selection)


def _parse_returns(cursor: Cursor) -> tuple[frozenset[Return], tuple[bytes, ...]]:
    cursor.expect(b"(")
    returns = set()
    status_items: tuple[bytes, ...] = ()
    if not cursor.looking_at(b")"):
        while True:
            word = cursor.word()
            if word == b"STATUS":
                cursor.space()
                status_items = parse_status_items(cursor)
            elif word in _RETURNS:
                returns.add(_RETURNS[word])
            else:
                raise BadCommand("Unknown return option")
            if not cursor.skip(b" "):
                break
    cursor.expect(b")")
    return frozenset(returns), status_items
