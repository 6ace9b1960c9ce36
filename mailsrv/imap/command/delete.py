"""DELETE (RFC 3501 6.3.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok

if TYPE_CHECKING:
    from mailsrv.imap.session import Session


@frozen
class Delete:
    """Remove a mailbox with its messages. If it is the selected one, no mailbox is selected any more."""

    mailbox: str

    async def run(self, session: Session) -> Ok:
        await session.account_mailboxes().delete(self.mailbox)
        if session.selected is not None and session.selected.mailbox.is_gone:
            session.leave_mailbox()
        return Ok()


def parse(cursor: Cursor, context: ParseContext) -> Delete:
    """``delete = "DELETE" SP mailbox``"""
    cursor.space()
    return Delete(context.mailbox(cursor))
