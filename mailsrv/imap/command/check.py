"""CHECK (RFC 3501 6.4.1): all that is acknowledged is on disk already, so it is a NOOP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok

if TYPE_CHECKING:
    from mailsrv.imap.session import Session


@frozen
class Check:
    """A checkpoint of the selected mailbox."""

    async def run(self, session: Session) -> Ok:
        return Ok()


def parse(cursor: Cursor, context: ParseContext) -> Check:
    """CHECK"""
    return Check()
