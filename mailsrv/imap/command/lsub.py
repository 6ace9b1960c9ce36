"""LSUB (RFC 3501 6.3.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.list import common_beginning, parse_patterns
from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.pattern import Pattern
from mailsrv.imap.responses import Ok
from mailsrv.interfaces.mailbox import DELIMITER

if TYPE_CHECKING:
    from mailsrv.imap.session import Session


@frozen
class Lsub:
    """Which names are subscribed to? ``patterns`` None asks for the delimiter only."""

    patterns: tuple[Pattern, ...] | None

    async def run(self, session: Session) -> Ok:
        if self.patterns is None:
            session.send(b'* LSUB (\\Noselect) "/" ""\r\n')
            return Ok()
        listed: dict[str, bytes] = {}
        listed_infos = await session.account_mailboxes().list_mailboxes(common_beginning(self.patterns))
        infos = [info for info in listed_infos if info.is_subscribed]
        for info in infos:
            if any(pattern.matches(info.name) for pattern in self.patterns):
                listed[info.name] = b"" if info.exists and info.is_selectable else b"\\Noselect"
        parents = {parent for info in infos if info.name not in listed for parent in _parents(info.name)}
        for parent in sorted(parents - listed.keys()):
            # RFC 3501 6.3.9: where "%" leaves out what is subscribed, its parent is told as \\Noselect.
            if any("%" in pattern.text and pattern.matches(parent) for pattern in self.patterns):
                listed[parent] = b"\\Noselect"
        for name, attribute in listed.items():
            session.send(b'* LSUB (%b) "/" %b\r\n' % (attribute, session.format_name(name)))
        return Ok()


def _parents(name: str) -> list[str]:
    parts = name.split(DELIMITER)
    return [DELIMITER.join(parts[:count]) for count in range(1, len(parts))]


def parse(cursor: Cursor, context: ParseContext) -> Lsub:
    """``lsub = "LSUB" SP mailbox SP list-mailbox``"""
    cursor.space()
    reference = cursor.astring()
    cursor.space()
    text = cursor.list_mailbox()
    if not text:
        return Lsub(None)
    return Lsub(parse_patterns([text], reference, is_utf8=context.is_utf8))
