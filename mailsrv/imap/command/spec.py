"""What the table of commands says about each of them, and what they are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from attrs import frozen

from mailsrv.imap.grammar import Cursor
from mailsrv.imap.names import parse_name
from mailsrv.imap.responses import NoReplyYet, Ok
from mailsrv.imap.settings import ImapSettings
from mailsrv.imap.state import State

if TYPE_CHECKING:
    from mailsrv.imap.session import Session


class Command(Protocol):
    """A command as it was read: a frozen value that knows how to be carried out."""

    async def run(self, session: Session) -> Ok | NoReplyYet:
        """Carry it out; untagged answers go to ``session.send``. Raises MailError for a NO or BAD."""


@frozen
class ParseContext:
    """What reading a command depends on besides its octets."""

    settings: ImapSettings
    is_uid: bool = False
    """The command follows UID."""
    is_utf8: bool = False
    """UTF8=ACCEPT is enabled: names are UTF-8 (RFC 6855)."""

    def mailbox(self, cursor: Cursor) -> str:
        """``mailbox = "INBOX" / astring``"""
        return parse_name(cursor.astring(), is_utf8=self.is_utf8)


@frozen
class CommandSpec:
    """One line of the table."""

    parse: Callable[[Cursor, ParseContext], Command]
    states: frozenset[State]
    has_uid_variant: bool = False
    may_renumber: bool = True
    """Whether EXPUNGE may be told with it (RFC 3501 7.4.1); with UID it always may."""
    refreshes: bool = False
    """Whether changes by others are looked for first, and told before it is carried out."""
    uid_refreshes: bool = True
    """The same for the UID variant. Not for STORE: a client could take flags told first for the outcome."""
