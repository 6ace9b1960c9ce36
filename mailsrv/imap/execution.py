"""One command from its tag to its tagged answer.

The table of commands says in which states a command may come, and what is told before and after it.
Every error has its answer here: tagged BAD and NO, or BYE; what is no MailError is logged and
answered generally.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from mailsrv.errors import MailError
from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.command.table import COMMANDS
from mailsrv.imap.errors import BadCommand, ConnectionOver, PeerGone
from mailsrv.imap.grammar import Cursor, tag_of
from mailsrv.imap.reader import LiteralAnnounced
from mailsrv.imap.responses import NoReplyYet, Ok, refusal_code, status_line
from mailsrv.imap.state import State
from mailsrv.imap.streaming import abandon_literal

if TYPE_CHECKING:
    from mailsrv.imap.session import Session

_SERVER_FAULT = "Internal error, it has been noted"
_log = Logger()


async def execute(session: Session, octets: bytes, announced: LiteralAnnounced | None = None) -> None:
    """Carry out what was read, and answer. ``announced``: the literal it stops at, the first message of APPEND."""
    session.tag = tag = tag_of(octets)
    session.announced = announced
    try:
        outcome = await _run(session, octets)
    except BadCommand as error:
        session.send(status_line(tag, b"BAD", error.text, error.code))
        abandon_literal(session)
        session.count_error()
    except ConnectionOver as error:
        session.bye(error.text, error.code)
    except PeerGone:
        session.state = State.LOGOUT
    except MailError as error:
        if error.cause:
            _log.info("{connection}: refused: {error}", connection=session.peer.connection_id, error=str(error))
        session.send(status_line(tag, b"NO", error.text, refusal_code(error)))
        abandon_literal(session)
    except Exception:
        _log.failure("{connection}: a command failed", connection=session.peer.connection_id)
        session.send(status_line(tag, b"NO", _SERVER_FAULT, b"SERVERBUG"))
        abandon_literal(session)
    else:
        if isinstance(outcome, Ok):
            condition = b"NO" if outcome.is_partial else b"OK"
            session.send(status_line(tag, condition, outcome.text or "Done", outcome.code))
    session.announced = None
    session.end_where_mailbox_is_gone()


async def _run(session: Session, octets: bytes) -> Ok | NoReplyYet:
    settings = session.services.settings
    is_in = session.state is not State.NOT_AUTHENTICATED
    if settings.commands_per_minute:
        await session.keep_to_rate(settings.commands_per_minute)
    cursor = Cursor(octets, depth_limit=settings.nesting if is_in else settings.login_nesting)
    cursor.tag()
    cursor.space()
    word = cursor.word()
    is_uid = word == b"UID"
    if is_uid:
        cursor.space()
        word = cursor.word()
    spec = COMMANDS.get(word)
    if spec is None or (is_uid and not spec.has_uid_variant):
        raise BadCommand("Unknown command")
    if session.state not in spec.states:
        raise BadCommand(f"Not possible in the state {session.state.value}")
    command = spec.parse(cursor, ParseContext(settings, is_uid, session.has_utf8))
    if session.announced is None:
        cursor.end()
    selected = session.selected
    may_renumber = is_uid or spec.may_renumber
    if selected is not None and (spec.uid_refreshes if is_uid else spec.refreshes):
        await selected.mailbox.refresh()
        if is_uid or not spec.may_renumber:
            # The command is to be carried out on what is there now.
            await selected.tell(session, may_renumber=may_renumber, with_uid=is_uid)
    outcome = await command.run(session)
    if selected is not None and session.selected is selected:
        await selected.tell(session, may_renumber=may_renumber, with_uid=is_uid)
    if isinstance(outcome, Ok) and not outcome.text:
        return Ok(word.decode("ascii") + " completed", outcome.code, outcome.is_partial)
    return outcome
