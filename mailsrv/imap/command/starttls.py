"""STARTTLS (RFC 3501 6.2.1). What was sent ahead in the clear ends the connection (R-TLS-1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.errors import BadCommand, ConnectionOver
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import NOT_YET, NoReplyYet, status_line

if TYPE_CHECKING:
    from mailsrv.imap.session import Session


@frozen
class StartTls:
    """TLS from here on."""

    async def run(self, session: Session) -> NoReplyYet:
        if not session.peer.may_start_tls():
            raise BadCommand("TLS cannot be started here")
        if session.reader.drop_all():
            raise ConnectionOver("Octets after STARTTLS")
        session.send(status_line(session.tag, b"OK", "Begin TLS negotiation now"))
        session.peer.start_tls()
        return NOT_YET


def parse(cursor: Cursor, context: ParseContext) -> StartTls:
    """STARTTLS"""
    return StartTls()
