"""What a session does from IDLE to DONE (RFC 2177): tell news as they come. No coroutine waits meanwhile."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from twisted.logger import Logger

from mailsrv.errors import MailError
from mailsrv.imap.errors import PeerGone
from mailsrv.imap.reader import CommandRead
from mailsrv.imap.responses import status_line
from mailsrv.imap.state import State

if TYPE_CHECKING:
    from mailsrv.imap.session import Session, Work

_log = Logger()


class Idling(enum.Enum):
    """What a session in IDLE has to look at."""

    NOTHING = enum.auto()
    NEWS = enum.auto()
    """Somebody changed the mailbox."""
    POLL = enum.auto()
    """It is time to look whether a notice was missed."""


def next_in_idle(session: Session) -> Work | None:
    """News to tell, or the end of IDLE; None while there is nothing to do."""
    if session.idling is not Idling.NOTHING:
        return _tell_news(session)
    event = session.reader.next_event()
    if event is None:
        return None
    return _end_idle(session, event.octets if isinstance(event, CommandRead) else None)


async def _tell_news(session: Session) -> None:
    selected = session.selected
    is_poll, session.idling = session.idling is Idling.POLL, Idling.NOTHING
    if selected is None:
        return
    try:
        if is_poll:
            await selected.mailbox.refresh()
        await selected.tell(session, may_renumber=True, with_uid=False)
    except PeerGone:
        session.state = State.LOGOUT
    except MailError as error:
        _log.info("{connection}: IDLE: {error}", connection=session.peer.connection_id, error=str(error))
    except Exception:
        _log.failure("{connection}: IDLE failed", connection=session.peer.connection_id)
    session.end_where_mailbox_is_gone()


async def _end_idle(session: Session, line: bytes | None) -> None:
    """``line``: what the client said instead of going on listening; None for a literal or too much."""
    tag, session.idle_tag = session.idle_tag or b"*", None
    await _tell_news(session)
    if session.is_over:
        return
    if line is not None and line.upper() == b"DONE":
        session.send(status_line(tag, b"OK", "IDLE terminated"))
        return
    if line is None and session.reader.has_announced:
        session.refuse_literal()
    session.send(status_line(tag, b"BAD", "Expected DONE"))
    session.count_error()
