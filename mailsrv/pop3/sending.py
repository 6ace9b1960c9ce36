"""A message on its way to the client: opened, read in pieces, no faster than the peer takes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mailsrv.errors import MailError
from mailsrv.interfaces.content import IContent
from mailsrv.pop3.session import Pop3Session
from mailsrv.status import BAD_MAILBOX


class MessageGone(MailError):
    """Another session removed it after this one began."""

    def __init__(self) -> None:
        super().__init__(BAD_MAILBOX, "The message is gone")


async def send_message(
    engine: Pop3Session, content: IContent | None, piece_octets: int, breathe: Callable[[], Awaitable[bool]]
) -> None:
    """Answer :class:`~mailsrv.pop3.events.MessageRequested`, and close ``content``. None: it is gone.

    ``breathe`` sends what the engine has and waits for the peer; False where that is gone. A read
    error after the first piece can only be told by closing: the length was announced.
    """
    if content is None:
        raise MessageGone
    try:
        if content.octets is not None:
            engine.send_message(content.octets)
            return
        octets = await content.read(0, piece_octets)
        engine.begin_message(content.size)
        offset = 0
        while octets and engine.send_part(octets):
            offset += len(octets)
            if not await breathe() or offset >= content.size:
                break
            octets = await content.read(offset, piece_octets)
        engine.end_message()
    finally:
        content.close()
