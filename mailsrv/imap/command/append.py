"""APPEND (RFC 3501 6.3.11): MULTIAPPEND (RFC 3502), BINARY (RFC 3516), UTF8 (RFC 6855), APPENDUID (RFC 4315).

A message goes from the connection to the spool as it comes; nothing of it is held here. All
messages of one command are appended in one step, or none: until then each is a finished
content nobody else knows of, and is discarded on every way out but the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field, frozen

from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.dates import parse_date_time
from mailsrv.imap.errors import BadCommand, CommandRefused
from mailsrv.imap.flags import parse_flag_list
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.responses import Ok, no_destination
from mailsrv.imap.sequence_set import format_uid_set
from mailsrv.imap.streaming import begin_stream, line_after_literal, next_slice
from mailsrv.interfaces.content import Content, ISpoolWriter
from mailsrv.interfaces.mailbox import FlagSet, NewMessage, NoSuchMailbox, NotPermitted
from mailsrv.wire.line_breaks import has_bare_line_break

if TYPE_CHECKING:
    from mailsrv.imap.session import Session


@frozen
class MessageHead:
    """What is said of a message before its literal."""

    flags: FlagSet
    internal_date: int | None
    date_offset_minutes: int
    is_utf8: bool
    """UTF8 (~{…}): a parenthesis follows the literal."""


@frozen
class Append:
    """Add messages to a mailbox. ``first`` belongs to the literal the session has announced."""

    mailbox: str
    first: MessageHead
    context: ParseContext

    async def run(self, session: Session) -> Ok:
        mailboxes = session.account_mailboxes()
        await self._check_mailbox(session)
        messages: list[NewMessage] = []
        try:
            head: MessageHead | None = self.first
            while head is not None:
                if len(messages) == session.services.settings.append_messages:
                    raise CommandRefused("Too many messages in one APPEND", code=b"LIMIT")
                content = await _receive(session)
                messages.append(NewMessage(content, head.flags, head.internal_date, head.date_offset_minutes))
                head = await self._next_head(session, head)
        except BaseException:
            for message in messages:
                session.services.spool.discard(message.content)
            raise
        try:
            appended = await mailboxes.append(self.mailbox, messages)
        except NoSuchMailbox as error:
            raise no_destination(error) from None
        return Ok(code=b"APPENDUID %d %b" % (appended.uid_validity, format_uid_set(appended.uids)))

    async def _check_mailbox(self, session: Session) -> None:
        """Before the client is asked for 50 MiB: is there such a mailbox, and may anything be put there?"""
        mailboxes = session.account_mailboxes()
        for info in await mailboxes.list_mailboxes(self.mailbox):
            if info.name == self.mailbox and info.is_selectable:
                if not info.may_write:
                    raise NotPermitted
                return
        try:
            await mailboxes.status(self.mailbox)
        except NoSuchMailbox as error:
            raise no_destination(error) from None
        raise no_destination(NoSuchMailbox())

    async def _next_head(self, session: Session, before: MessageHead) -> MessageHead | None:
        """What follows a literal: the end of the command, or the next message."""
        cursor = Cursor(await line_after_literal(session))
        if before.is_utf8:
            cursor.expect(b")")
        if session.announced is None:
            cursor.end()
            return None
        cursor.space()
        return _parse_head(cursor, self.context, session.announced.is_binary)


@define
class _LineEnds:
    """Makes CRLF of every LF that stands alone, over slices cut anywhere."""

    _after_cr: bool = field(default=False)

    def mend(self, octets: bytes) -> bytes:
        held, self._after_cr = self._after_cr, octets.endswith(b"\r")
        if self._after_cr:
            octets = octets[:-1]
        if held:
            octets = b"\r" + octets
        if has_bare_line_break(octets):
            octets = octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        return octets

    def finish(self) -> bytes:
        return b"\r" if self._after_cr else b""


async def _receive(session: Session) -> Content:
    """One literal, into the spool."""
    announced = session.announced
    settings = session.services.settings
    if announced is None:
        raise BadCommand("Expected a literal")
    if announced.size > settings.append_octets:
        raise CommandRefused("The message is too large", code=b"TOOBIG")
    if not announced.size:
        raise CommandRefused("A message has at least one octet", code=b"CANNOT")
    writer = session.services.spool.begin()
    try:
        begin_stream(session)
        await _stream(session, writer)
    except BaseException:
        writer.abort()
        raise
    return await writer.finish()


async def _stream(session: Session, writer: ISpoolWriter) -> None:
    line_ends = _LineEnds()
    limit = session.services.settings.append_octets
    has_nul = False
    while octets := await next_slice(session):
        has_nul = has_nul or b"\0" in octets
        if has_nul or writer.size > limit:
            continue  # to its end, so that the answer finds a client that listens
        waiting = writer.write(line_ends.mend(octets))
        if waiting is not None:
            await waiting
    last = line_ends.finish()
    if last:
        writer.write(last)
    if has_nul:
        # RFC 3501 9: no NUL in a literal. RFC 3516 4.4: a literal8 may have it, and a store that
        # keeps messages as they are sent may refuse it so.
        raise CommandRefused("A message with NUL octets cannot be kept", code=b"UNKNOWN-CTE")
    if writer.size > limit:
        raise CommandRefused("The message is too large", code=b"TOOBIG")


def _parse_head(cursor: Cursor, context: ParseContext, is_binary: bool) -> MessageHead:
    """append-opts up to the literal: [SP flag-list] [SP date-time], then the literal's count"""
    flags: FlagSet = frozenset()
    internal_date, offset = None, 0
    if cursor.looking_at(b"("):
        flags = parse_flag_list(cursor, context.settings.keyword_octets)
        cursor.space()
    if cursor.looking_at(b'"'):
        internal_date, offset = parse_date_time(cursor)
        cursor.space()
    is_utf8 = False
    if cursor.skip(b"UTF8"):
        # RFC 6855 4: only with a literal8, and only where UTF8=ACCEPT was enabled.
        if not context.is_utf8:
            raise BadCommand("UTF8=ACCEPT is not enabled")
        cursor.space()
        cursor.expect(b"(")
        is_utf8 = True
        if not is_binary:
            raise BadCommand("Expected a literal8")
    if cursor.literal_count() is None:
        raise BadCommand("Expected a literal")
    return MessageHead(flags, internal_date, offset, is_utf8)


def parse(cursor: Cursor, context: ParseContext) -> Append:
    """``append = "APPEND" SP mailbox 1*append-message``"""
    cursor.space()
    mailbox = context.mailbox(cursor)
    cursor.space()
    # Whether the literal that is announced is a literal8 stands in its count.
    end = cursor.octets.rfind(b"{")
    head = _parse_head(cursor, context, end > 0 and cursor.octets[end - 1 : end] == b"~")
    return Append(mailbox, head, context)
