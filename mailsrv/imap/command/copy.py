"""COPY (RFC 3501 6.4.7), MOVE (RFC 6851) and their UID variants, with COPYUID (RFC 4315 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok, no_destination, status_line
from mailsrv.imap.sequence_set import SequenceSet, format_uid_set
from mailsrv.interfaces.mailbox import CopiedMessages, NoSuchMailbox

if TYPE_CHECKING:
    from mailsrv.imap.session import Session


@frozen
class Copy:
    """Copy or move messages to another mailbox: all of them or none."""

    messages: SequenceSet
    is_uid: bool
    destination: str
    moves: bool

    async def run(self, session: Session) -> Ok:
        selected = session.writable_mailbox() if self.moves else session.selected_mailbox()
        numbering = selected.numbering
        ranges = numbering.by_uid(self.messages) if self.is_uid else numbering.by_number(self.messages)
        wanted = numbering.uids_in(ranges)
        if not wanted:
            return Ok("No messages found")
        mailbox = selected.mailbox
        try:
            if self.moves:
                copied = await mailbox.move(wanted, self.destination)  # type: ignore[arg-type]
            else:
                copied = await mailbox.copy(wanted, self.destination)  # type: ignore[arg-type]
        except NoSuchMailbox as error:
            raise no_destination(error) from None
        code = _copy_uid(copied)
        if self.moves and code:
            # RFC 6851 4.3: an untagged OK before the EXPUNGE responses.
            session.send(status_line(b"*", b"OK", "Moved", code))
            code = b""
        if not self.is_uid and len(copied.source) < len(wanted):
            return Ok("Some of the messages no longer exist", code or b"EXPUNGEISSUED", is_partial=not copied.source)
        return Ok(code=code)


def _copy_uid(copied: CopiedMessages) -> bytes:
    if not copied.source:
        return b""
    return b"COPYUID %d %b %b" % (
        copied.uid_validity,
        format_uid_set(copied.source),
        format_uid_set(copied.destination),
    )


def _parse(cursor: Cursor, context: ParseContext, *, moves: bool) -> Copy:
    cursor.space()
    messages = cursor.sequence_set()
    cursor.space()
    return Copy(messages, context.is_uid, context.mailbox(cursor), moves)


def parse(cursor: Cursor, context: ParseContext) -> Copy:
    """``copy = "COPY" SP sequence-set SP mailbox``"""
    return _parse(cursor, context, moves=False)


def parse_move(cursor: Cursor, context: ParseContext) -> Copy:
    """``move = "MOVE" SP sequence-set SP mailbox``"""
    return _parse(cursor, context, moves=True)
