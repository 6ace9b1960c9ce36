"""SELECT and EXAMINE (RFC 3501 6.3.1, 6.3.2) with the CONDSTORE parameter (RFC 7162 3.1.8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.errors import BadCommand
from mailsrv.imap.flags import SEEN
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok

if TYPE_CHECKING:
    from mailsrv.imap.selected import SelectedMailbox
    from mailsrv.imap.session import Session


@frozen
class Select:
    """Open a mailbox, and leave the one that was selected."""

    mailbox: str
    is_read_only: bool
    has_condstore: bool

    async def run(self, session: Session) -> Ok:
        session.leave_mailbox()
        mailboxes = session.account_mailboxes()
        recent = (await mailboxes.status(self.mailbox)).recent if self.is_read_only else None
        selected = session.enter_mailbox(await mailboxes.open_mailbox(self.mailbox), is_examined=self.is_read_only)
        try:
            if selected.is_read_only and recent is None:
                recent = (await mailboxes.status(self.mailbox)).recent
            if recent is not None:
                selected.show_recent(recent)
            else:
                await selected.claim_recent()
        except BaseException:
            session.leave_mailbox()
            raise
        if self.has_condstore:
            session.has_condstore = True
        session.send(_describe(selected))
        # RFC 3501 6.3.1: READ-ONLY also where the user may not change anything.
        code = b"READ-ONLY" if selected.told_read_only else b"READ-WRITE"
        return Ok("EXAMINE completed" if self.is_read_only else "SELECT completed", code=code)


def _describe(selected: SelectedMailbox) -> bytes:
    mailbox = selected.mailbox
    count = selected.numbering.count
    lines = [
        selected.flags_line(),
        selected.permanent_flags_line(),
        b"* %d EXISTS\r\n* %d RECENT\r\n" % (count, selected.recent_count()),
    ]
    unseen = _first_unseen(selected)
    if unseen:
        lines.append(b"* OK [UNSEEN %d] First unseen\r\n" % unseen)
    lines.append(
        b"* OK [UIDVALIDITY %d] UIDs valid\r\n"
        b"* OK [UIDNEXT %d] Predicted next UID\r\n"
        b"* OK [HIGHESTMODSEQ %d] Highest\r\n"
        % (mailbox.uid_validity, mailbox.uid_next, max(mailbox.highest_mod_seq, 1))
    )
    return b"".join(lines)


def _first_unseen(selected: SelectedMailbox) -> int:
    """The number of the first message without \\Seen, or 0. Whether a flag set has it is asked once a set."""
    mailbox = selected.mailbox
    unseen_sets: dict[int, bool] = {}
    for number, flag_set_number in enumerate(mailbox.flag_set_numbers[: selected.numbering.count], 1):
        is_unseen = unseen_sets.get(flag_set_number)
        if is_unseen is None:
            is_unseen = unseen_sets[flag_set_number] = SEEN not in mailbox.flag_set(flag_set_number)
        if is_unseen:
            return number
    return 0


def _parse(cursor: Cursor, context: ParseContext, *, is_read_only: bool) -> Select:
    cursor.space()
    mailbox = context.mailbox(cursor)
    has_condstore = False
    if cursor.skip(b" "):
        cursor.expect(b"(")
        while True:
            if cursor.word() != b"CONDSTORE":
                raise BadCommand("Unknown parameter")
            has_condstore = True
            if not cursor.skip(b" "):
                break
        cursor.expect(b")")
    return Select(mailbox, is_read_only, has_condstore)


def parse(cursor: Cursor, context: ParseContext) -> Select:
    """``select = "SELECT" SP mailbox [select-params]``"""
    return _parse(cursor, context, is_read_only=False)


def parse_examine(cursor: Cursor, context: ParseContext) -> Select:
    """``examine = "EXAMINE" SP mailbox [select-params]``"""
    return _parse(cursor, context, is_read_only=True)
