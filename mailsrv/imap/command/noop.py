"""NOOP (RFC 3501 6.1.2): the table makes it look for changes, and they are told as with any command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok

if TYPE_CHECKING:
    from mailsrv.imap.session import Session


@frozen
class Noop:
    """Do nothing, but tell what is new."""

    async def run(self, session: Session) -> Ok:
        return Ok()


def parse(cursor: Cursor, context: ParseContext) -> Noop:
    """NOOP"""
    return Noop()
