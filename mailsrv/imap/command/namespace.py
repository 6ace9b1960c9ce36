"""NAMESPACE (RFC 2342): one personal namespace, and that of other users where something of theirs is shared."""

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
    """Where are my mailboxes, and those of others?"""

    async def run(self, session: Session) -> Ok:
        prefix = session.account_mailboxes().others_prefix
        others = b'((%b "/"))' % session.format_name(prefix) if prefix else b"NIL"
        session.send(b'* NAMESPACE (("" "/")) %b NIL\r\n' % others)
        return Ok()


def parse(cursor: Cursor, context: ParseContext) -> Namespace:
    """NAMESPACE"""
    return Namespace()
