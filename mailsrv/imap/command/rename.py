"""RENAME (RFC 3501 6.3.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok
from mailsrv.interfaces.mailbox import DELIMITER

if TYPE_CHECKING:
    from mailsrv.imap.session import Session


@frozen
class Rename:
    """Give a mailbox, and those below it, another name. INBOX gives its messages away."""

    old: str
    new: str

    async def run(self, session: Session) -> Ok:
        await session.account_mailboxes().rename(self.old, self.new)
        return Ok()


def parse(cursor: Cursor, context: ParseContext) -> Rename:
    """``rename = "RENAME" SP mailbox SP mailbox``"""
    cursor.space()
    old = context.mailbox(cursor)
    cursor.space()
    new = context.mailbox(cursor)
    return Rename(old, new.removesuffix(DELIMITER) if len(new) > 1 else new)
