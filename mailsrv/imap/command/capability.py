"""CAPABILITY (RFC 3501 6.1.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok

if TYPE_CHECKING:
    from mailsrv.imap.session import Session


@frozen
class Capability:
    """What can this server do, as things are now?"""

    async def run(self, session: Session) -> Ok:
        session.send(b"* CAPABILITY " + session.capability() + b"\r\n")
        return Ok()


def parse(cursor: Cursor, context: ParseContext) -> Capability:
    """``capability = "CAPABILITY"``"""
    return Capability()
