"""Literals that are streamed instead of being read into their command: the messages of APPEND.

`Session.announced` is the literal the running command has to deal with. It is asked for (`begin_stream`),
taken slice by slice (`next_slice`), and followed by the rest of the command or by the next literal
(`line_after_literal`). A command that ends before that leaves the rest to `abandon_literal`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mailsrv.imap.errors import BadCommand
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.reader import CommandRead, LiteralAnnounced

if TYPE_CHECKING:
    from mailsrv.imap.session import Session

_APPEND = re.compile(rb"[^ ]{1,128} APPEND ", re.IGNORECASE)


def is_message_of_append(announced: LiteralAnnounced) -> bool:
    """Whether the literal is a message; the mailbox of APPEND may be a literal too."""
    found = _APPEND.match(announced.so_far)
    if found is None:
        return False
    cursor = Cursor(announced.so_far, found.end())
    try:
        cursor.astring()
        cursor.space()
    except BadCommand:
        return False
    return True


def begin_stream(session: Session) -> None:
    """Ask for the announced literal, if the client waits to be asked."""
    announced, session.announced = session.announced, None
    if announced is None:
        raise BadCommand("Expected a literal")
    if announced.is_synchronizing:
        session.send(b"+ Ready for literal data\r\n")
    session.is_streaming = True
    session.reader.stream_literal()


async def next_slice(session: Session) -> bytes:
    """Octets of the literal; empty at its end."""
    reader = session.reader
    while reader.streamed_owed:
        taken = reader.take_slice()
        if taken:
            return taken
        await session.peer.more_input()
    return b""


async def line_after_literal(session: Session) -> bytes:
    """What follows a streamed literal, up to the next one (then it is announced) or the end of the command."""
    while True:
        event = session.reader.next_event()
        if event is None:
            await session.peer.more_input()
            continue
        session.is_streaming = False
        if isinstance(event, CommandRead):
            return event.octets
        if isinstance(event, LiteralAnnounced):
            session.announced = event
            return event.so_far
        raise BadCommand("Command too long", code=b"TOOBIG")


def abandon_literal(session: Session) -> None:
    """A command ended before its literals did: what the client still sends of it is read over."""
    if session.announced is not None:
        session.announced = None
        session.refuse_literal()
    elif session.is_streaming:
        session.reader.discard_rest()
    session.is_streaming = False
