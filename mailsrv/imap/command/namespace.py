"""NAMESPACE (RFC 2342): one personal namespace, nothing of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok

if TYPE_CHECKING:
    from mailsrv.imap.session import Session


@frozen
class Namespace:
    """Where are my mailboxes?"""

    async def run(self, session: Session) -> Ok:
        session.send(b'* NAMESPACE (("" "/")) NIL NIL\r\n')
        return Ok()


def parse(cursor: Cursor, context: ParseContext) -> Namespace:
    """NAMESPACE"""
    return Namespace()
