"""SUBSCRIBE and UNSUBSCRIBE (RFC 3501 6.3.6, 6.3.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok

if TYPE_CHECKING:
    from mailsrv.imap.session import Session


@frozen
class Subscribe:
    """Put a name on the list LSUB gives, or take it off. It need not exist."""

    mailbox: str
    subscribed: bool

    async def run(self, session: Session) -> Ok:
        await session.account_mailboxes().subscribe(self.mailbox, subscribed=self.subscribed)
        return Ok()


def parse(cursor: Cursor, context: ParseContext) -> Subscribe:
    """``subscribe = "SUBSCRIBE" SP mailbox``"""
    cursor.space()
    return Subscribe(context.mailbox(cursor), subscribed=True)


def parse_unsubscribe(cursor: Cursor, context: ParseContext) -> Subscribe:
    """``unsubscribe = "UNSUBSCRIBE" SP mailbox``"""
    cursor.space()
    return Subscribe(context.mailbox(cursor), subscribed=False)
