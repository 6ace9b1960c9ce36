"""Content too large to be sent in one piece: block by block, as fast as the server takes them.

At most two blocks are in memory.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mailsrv.interfaces.content import IContent
from mailsrv.smtp.client.session import SmtpClientSession
from mailsrv.smtp.client.settings import SmtpClientSettings

BLOCK_OCTETS = 65536


async def stream_content(
    session: SmtpClientSession,
    content: IContent,
    settings: SmtpClientSettings,
    seconds: Callable[[], float],
    send: Callable[[], Awaitable[None]],
) -> None:
    """Answer ``ContentWanted``; returns when all is written, or when the session wants no more.

    ``seconds`` is a clock; ``send`` sends what there is, and fires when the next block may follow.
    Raises what reading raises, and OSError where the content is shorter than it should be. A server
    that takes less than the settings ask for is given up as timed out.
    """
    began = seconds()
    offset, size = 0, content.size
    while session.wants_content():
        octets = await content.read(offset, BLOCK_OCTETS)
        if not session.wants_content():
            return
        offset += len(octets)
        if not octets and offset < size:
            raise OSError("the content is shorter than it should be")
        session.write_content(octets, is_last=offset >= size)
        await send()
        if offset >= size:
            return
        due = seconds() - began - settings.data_rate_grace
        if due > 0 and offset < due * settings.data_rate_octets:
            session.time_out()
            await send()
            return
