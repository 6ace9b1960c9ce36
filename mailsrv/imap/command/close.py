"""CLOSE (RFC 3501 6.4.2) and UNSELECT (RFC 3691)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok

if TYPE_CHECKING:
    from mailsrv.imap.session import Session


@frozen
class Close:
    """Leave the selected mailbox; CLOSE expunges first, and tells nothing of it."""

    expunges: bool

    async def run(self, session: Session) -> Ok:
        selected = session.selected_mailbox()
        if self.expunges and not selected.is_read_only:
            await selected.mailbox.expunge()
        session.leave_mailbox()
        return Ok()


def parse(cursor: Cursor, context: ParseContext) -> Close:
    """CLOSE"""
    return Close(expunges=True)


def parse_unselect(cursor: Cursor, context: ParseContext) -> Close:
    """UNSELECT"""
    return Close(expunges=False)
