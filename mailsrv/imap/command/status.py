"""STATUS (RFC 3501 6.3.10), with SIZE (RFC 8438), HIGHESTMODSEQ (RFC 7162), APPENDLIMIT (RFC 7889) and DELETED,
DELETED-STORAGE (RFC 9208).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.errors import BadCommand
from mailsrv.imap.flags import DELETED
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok
from mailsrv.interfaces.mailbox import IMailbox

if TYPE_CHECKING:
    from mailsrv.imap.session import Session

STATUS_ITEMS = frozenset(
    {
        b"MESSAGES",
        b"RECENT",
        b"UIDNEXT",
        b"UIDVALIDITY",
        b"UNSEEN",
        b"SIZE",
        b"HIGHESTMODSEQ",
        b"APPENDLIMIT",
        b"DELETED",
        b"DELETED-STORAGE",
    }
)
_SUMMARIES_AT_ONCE = 500


@frozen
class Status:
    """Numbers about a mailbox that need not be selected."""

    mailbox: str
    items: tuple[bytes, ...]

    async def run(self, session: Session) -> Ok:
        session.send(await status_response(session, self.mailbox, self.items))
        return Ok()


async def status_response(session: Session, name: str, items: tuple[bytes, ...]) -> bytes:
    """``* STATUS name (…)``. Also for LIST … RETURN (STATUS …) (RFC 5819)."""
    mailboxes = session.account_mailboxes()
    if b"HIGHESTMODSEQ" in items:
        session.enable_condstore()
    status = await mailboxes.status(name)
    values: dict[bytes, int] = {
        b"MESSAGES": status.messages,
        b"RECENT": status.recent,
        b"UIDNEXT": status.uid_next,
        b"UIDVALIDITY": status.uid_validity,
        b"UNSEEN": status.unseen,
        b"SIZE": status.size_octets,
        b"HIGHESTMODSEQ": max(status.highest_mod_seq, 1),
        b"APPENDLIMIT": session.services.settings.append_octets,
        b"DELETED": status.deleted,
    }
    if b"DELETED-STORAGE" in items:
        values[b"DELETED-STORAGE"] = await _deleted_octets(session, name) if status.deleted else 0
    listed = b" ".join([b"%b %d" % (item, values[item]) for item in items])
    return b"* STATUS %b (%b)\r\n" % (session.format_name(name), listed)


async def _deleted_octets(session: Session, name: str) -> int:
    """What EXPUNGE would free. Nobody keeps that number, so it is added up."""
    mailbox: IMailbox = await session.account_mailboxes().open_mailbox(name)
    try:
        uids = [
            uid
            for uid, number in zip(mailbox.uids, mailbox.flag_set_numbers, strict=False)
            if DELETED in mailbox.flag_set(number)
        ]
        total = 0
        for start in range(0, len(uids), _SUMMARIES_AT_ONCE):
            summaries = await mailbox.summaries(uids[start : start + _SUMMARIES_AT_ONCE])  # type: ignore[arg-type]
            total += sum(summary.size_octets for summary in summaries)
            await session.breathe()
        return total
    finally:
        mailbox.close()


def parse_status_items(cursor: Cursor) -> tuple[bytes, ...]:
    """``"(" status-att *(SP status-att) ")"``"""
    cursor.expect(b"(")
    items: dict[bytes, None] = {}
    while True:
        item = cursor.word()
        if item not in STATUS_ITEMS:
            raise BadCommand("Unknown status item")
        items[item] = None
        if not cursor.skip(b" "):
            break
    cursor.expect(b")")
    return tuple(items)


def parse(cursor: Cursor, context: ParseContext) -> Status:
    """``status = "STATUS" SP mailbox SP "(" status-att *(SP status-att) ")"``"""
    cursor.space()
    mailbox = context.mailbox(cursor)
    cursor.space()
    return Status(mailbox, parse_status_items(cursor))
