"""IDLE (RFC 2177). What goes on until DONE is in `idling.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import NOT_YET, NoReplyYet

if TYPE_CHECKING:
    from mailsrv.imap.session import Session


@frozen
class Idle:
    """Tell changes as they happen, until DONE."""

    async def run(self, session: Session) -> NoReplyYet:
        session.send(b"+ idling\r\n")
        session.idle_tag = session.tag
        return NOT_YET


def parse(cursor: Cursor, context: ParseContext) -> Idle:
    """IDLE"""
    return Idle()
