"""ENABLE (RFC 5161): CONDSTORE (RFC 7162) and UTF8=ACCEPT (RFC 6855)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok

if TYPE_CHECKING:
    from mailsrv.imap.session import Session


@frozen
class Enable:
    """Extensions the client is ready for; those we do not know are passed over."""

    names: tuple[bytes, ...]

    async def run(self, session: Session) -> Ok:
        enabled = []
        for name in self.names:
            if name == b"CONDSTORE" and name not in enabled:
                session.enable_condstore()
                enabled.append(name)
            elif name == b"UTF8=ACCEPT" and name not in enabled:
                session.has_utf8 = True
                enabled.append(name)
        session.send(b" ".join([b"* ENABLED", *enabled]) + b"\r\n")
        return Ok()


def parse(cursor: Cursor, context: ParseContext) -> Enable:
    """``enable = "ENABLE" 1*(SP capability)``"""
    names = []
    cursor.space()
    names.append(cursor.atom().upper())
    while cursor.skip(b" "):
        names.append(cursor.atom().upper())
    return Enable(tuple(names))
