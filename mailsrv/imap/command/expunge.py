"""EXPUNGE (RFC 3501 6.4.3) and UID EXPUNGE (RFC 4315 2.1). What went is told as with any change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok
from mailsrv.imap.sequence_set import SequenceSet

if TYPE_CHECKING:
    from mailsrv.imap.session import Session


@frozen
class Expunge:
    """Remove what has \\Deleted, among ``uids`` if given."""

    uids: SequenceSet | None

    async def run(self, session: Session) -> Ok:
        selected = session.writable_mailbox()
        if self.uids is None:
            await selected.mailbox.expunge()
        else:
            numbering = selected.numbering
            wanted = numbering.uids_in(numbering.by_uid(self.uids))
            if wanted:
                await selected.mailbox.expunge(wanted)  # type: ignore[arg-type]
        return Ok()


def parse(cursor: Cursor, context: ParseContext) -> Expunge:
    """EXPUNGE; uid-expunge = "UID" SP "EXPUNGE" SP sequence-set"""
    if not context.is_uid:
        return Expunge(None)
    cursor.space()
    return Expunge(cursor.sequence_set())
