"""CREATE (RFC 3501 6.3.3) with USE (RFC 6154 section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.errors import BadCommand, CommandRefused
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok
from mailsrv.interfaces.mailbox import DELIMITER, SpecialUse

if TYPE_CHECKING:
    from mailsrv.imap.session import Session

_USES = {use.value.lower().encode(): use for use in SpecialUse}


@frozen
class Create:
    """Make a mailbox, and the parents it needs."""

    mailbox: str
    special_use: SpecialUse | None = None

    async def run(self, session: Session) -> Ok:
        await session.account_mailboxes().create(self.mailbox, self.special_use)
        return Ok()


def parse(cursor: Cursor, context: ParseContext) -> Create:
    """``create = "CREATE" SP mailbox [create-params]``; a delimiter at the end only says there will be children"""
    cursor.space()
    mailbox = context.mailbox(cursor)
    if len(mailbox) > 1:
        mailbox = mailbox.removesuffix(DELIMITER)
    special_use = None
    if cursor.skip(b" "):
        cursor.expect(b"(USE (")
        special_use = _parse_use(cursor)
        cursor.expect(b"))")
    return Create(mailbox, special_use)


def _parse_use(cursor: Cursor) -> SpecialUse | None:
    uses = []
    if not cursor.looking_at(b")"):
        uses.append(cursor.flag())
        while cursor.skip(b" "):
            uses.append(cursor.flag())
    if not all(use.startswith(b"\\") for use in uses):
        raise BadCommand("A use begins with a backslash")
    if not uses:
        return None
    known = _USES.get(uses[0].lower())
    if known is None or len(uses) > 1:
        raise CommandRefused("That special use cannot be kept", code=b"USEATTR")
    return known
