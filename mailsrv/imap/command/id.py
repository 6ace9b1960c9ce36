"""ID (RFC 2971): both sides say what they are. What the client says goes to the log, nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from twisted.logger import Logger

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.errors import BadCommand
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok

if TYPE_CHECKING:
    from mailsrv.imap.session import Session

_PAIRS = 30
_log = Logger()


@frozen
class Id:
    """What the client says about itself: field and value, or nothing."""

    pairs: tuple[tuple[str, str], ...]

    async def run(self, session: Session) -> Ok:
        if self.pairs:
            said = {name[:30]: value[:100] for name, value in self.pairs}
            _log.debug("{connection}: client is {client}", connection=session.peer.connection_id, client=said)
        session.send(b'* ID ("name" "mailsrv")\r\n')
        return Ok()


def parse(cursor: Cursor, context: ParseContext) -> Id:
    """``id = "ID" SP id-params-list``; id-params-list = "(" *(string SP nstring) ")" / nil"""
    cursor.space()
    if cursor.skip(b"NIL"):
        return Id(())
    cursor.expect(b"(")
    pairs: list[tuple[str, str]] = []
    while not cursor.skip(b")"):
        if pairs:
            cursor.space()
        if len(pairs) == _PAIRS:
            raise BadCommand("Too many fields in ID")
        name = cursor.string().decode("utf-8", "replace")
        cursor.space()
        value = cursor.nstring()
        pairs.append((name, "" if value is None else value.decode("utf-8", "replace")))
    return Id(tuple(pairs))
