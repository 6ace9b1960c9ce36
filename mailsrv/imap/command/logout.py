"""LOGOUT (RFC 3501 6.1.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok

if TYPE_CHECKING:
    from mailsrv.imap.session import Session


@frozen
class Logout:
    """The end: BYE, then the tagged OK, then the connection is closed."""

    async def run(self, session: Session) -> Ok:
        session.leave_mailbox()
        session.bye("Logging out")
        return Ok()


def parse(cursor: Cursor, context: ParseContext) -> Logout:
    """LOGOUT"""
    return Logout()
