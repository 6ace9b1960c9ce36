"""The engine of an IMAP session: octets in, answers out, one command at a time.

It does no I/O and keeps no timer. The shell gives it octets (`receive_octets`), asks for the next
piece of work (`next_work`: a coroutine, or None if more octets are needed), runs that to its end
before it asks again, and sends what `octets_to_send` gives. A coroutine waits for the store and
the directory, and through the `Peer` for more octets and for the peer to take what was sent.

Every error has its answer here: tagged BAD and NO, or BYE; what is no MailError is logged and
answered generally.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from attrs import frozen
from cryptography.x509 import Certificate
from twisted.cred.portal import Portal
from twisted.logger import Logger

from mailsrv.errors import MailError
from mailsrv.imap import capability
from mailsrv.imap.command.spec import ParseContext
from mailsrv.imap.command.table import COMMANDS
from mailsrv.imap.errors import BadCommand, CommandRefused, ConnectionOver, PeerGone
from mailsrv.imap.fetch.row_cache import RowCache
from mailsrv.imap.grammar import Cursor
from mailsrv.imap.names import format_name
from mailsrv.imap.reader import Budget, CommandRead, CommandReader, CommandTooBig, LiteralAnnounced
from mailsrv.imap.responses import NoReplyYet, Ok, refusal_code, status_line
from mailsrv.imap.selected import SelectedMailbox
from mailsrv.imap.settings import ImapSettings
from mailsrv.imap.state import State
from mailsrv.interfaces.account import IAccount
from mailsrv.interfaces.content import ISpool
from mailsrv.interfaces.mailbox import IAccountMailboxes, IMailbox

_TAG = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\+]{1,128}(?= )')
_APPEND = re.compile(rb"[^ ]{1,128} APPEND ", re.IGNORECASE)
_SERVER_FAULT = "Internal error, it has been noted"

Work = Coroutine[Any, Any, None]
_T = TypeVar("_T")


class Peer(Protocol):
    """The client as the engine sees it; the shell provides it."""

    client_address: str
    connection_id: str

    def is_tls(self) -> bool:
        """Whether TLS is on."""

    def may_start_tls(self) -> bool:
        """Whether STARTTLS would be possible."""

    def may_log_in(self) -> bool:
        """Whether passwords may be sent as things are: over TLS, or from a network that is trusted (R-TRUST-1)."""

    def mechanisms(self) -> tuple[str, ...]:
        """The SASL mechanisms that can be had as things are."""

    def channel_binding(self, kind: str) -> bytes | None:
        """The data of a type of channel binding; None where there is none."""

    def has_settled(self) -> bool:
        """Whether nothing that a TLS handshake under way may show would change what can be had."""

    def client_certificate(self) -> Certificate | None:
        """The client's, verified in the TLS handshake."""

    def start_tls(self) -> None:
        """Send what is there and begin TLS."""

    def breathe(self) -> Awaitable[None]:
        """Send what is there, let others have their turn, and wait until the peer took enough. PeerGone."""

    def more_input(self) -> Awaitable[None]:
        """Send what is there and wait for octets. PeerGone."""

    def logged_in(self, account: IAccount) -> None:
        """Count the connection as this user's, and log it; raises MailError if there are too many."""

    def wake(self) -> None:
        """There may be work although no octets came; look soon."""

    async def wait_seconds(self, seconds: float) -> None:
        """Let time pass."""

    def compute(self, octets: int, function: Callable[[], _T]) -> Awaitable[_T]:
        """Do work that takes time in proportion to ``octets``: much of it not in the reactor's thread."""

    def seconds(self) -> float:
        """A clock that only goes forward."""


@frozen(eq=False)
class Services:
    """What all sessions of a factory share."""

    settings: ImapSettings
    hostname: str
    portal: Portal
    spool: ISpool
    row_cache: RowCache
    before_login: Budget
    after_login: Budget

    @classmethod
    def build(
        cls, settings: ImapSettings, *, hostname: str, portal: Portal, spool: ISpool, row_cache: RowCache | None = None
    ) -> Services:
        """Work out the budgets from the settings."""
        return cls(
            settings,
            hostname,
            portal,
            spool,
            row_cache if row_cache is not None else RowCache(settings.row_cache_octets),
            Budget(
                settings.login_line_octets,
                settings.login_literal_octets,
                settings.login_command_octets,
                settings.discard_octets,
            ),
            Budget(settings.line_octets, settings.literal_octets, settings.command_octets, settings.discard_octets),
        )


class Idling(enum.Enum):
    """What a session in IDLE has to look at."""

    NOTHING = enum.auto()
    NEWS = enum.auto()
    """Somebody changed the mailbox."""
    POLL = enum.auto()
    """It is time to look whether a notice was missed."""


class Session:
    """One connection. See the head of this file for how it is driven."""

    __slots__ = (
        "_commands_counted",
        "_errors",
        "_is_streaming",
        "_logout",
        "_minute",
        "_out",
        "_stop_code",
        "_stop_text",
        "account",
        "announced",
        "has_condstore",
        "has_utf8",
        "idle_tag",
        "idling",
        "login_failures",
        "mailboxes",
        "peer",
        "reader",
        "selected",
        "services",
        "state",
        "tag",
    )

    _log = Logger()

    def __init__(self, services: Services, peer: Peer) -> None:
        self.services = services
        self.peer = peer
        self.state = State.NOT_AUTHENTICATED
        self.reader = CommandReader(services.before_login)
        self.account: IAccount | None = None
        self.mailboxes: IAccountMailboxes | None = None
        self.selected: SelectedMailbox | None = None
        self.has_condstore = False
        """CONDSTORE was enabled, by ENABLE or by a command that implies it (RFC 7162 3.1)."""
        self.has_utf8 = False
        self.idle_tag: bytes | None = None
        """The tag of the IDLE that is going on."""
        self.idling = Idling.NOTHING
        self.announced: LiteralAnnounced | None = None
        """The literal the running command has to deal with (APPEND)."""
        self.tag = b"*"
        self.login_failures = 0
        self._is_streaming = False
        self._errors = 0
        self._out: list[bytes] = []
        self._logout: Callable[[], object] | None = None
        self._stop_text: str | None = None
        self._stop_code = b""
        self._minute = 0
        self._commands_counted = 0

    # What the shell uses

    def greet(self) -> None:
        """The greeting (RFC 3501 7.1.1); without capabilities where it comes before they are known."""
        code = b"[CAPABILITY %b] " % self.capability() if self.peer.has_settled() else b""
        self.send(b"* OK %b%b ready\r\n" % (code, self.services.hostname.encode("ascii", "replace")))

    def receive_octets(self, data: bytes) -> None:
        """What came from the client."""
        self.reader.receive_octets(data)

    def octets_to_send(self) -> bytes:
        """What is to go to the client, taken out."""
        out = self._out
        if not out:
            return b""
        self._out = []
        return out[0] if len(out) == 1 else b"".join(out)

    @property
    def is_over(self) -> bool:
        """Whether the connection is to be closed when everything is sent."""
        return self.state is State.LOGOUT

    @property
    def is_idling(self) -> bool:
        """Whether an IDLE is going on."""
        return self.idle_tag is not None

    def wants_input(self) -> bool:
        """Whether more octets may be read ahead of the running command."""
        settings = self.services.settings
        reader = self.reader
        return reader.buffered < settings.read_ahead_octets and (
            reader.queued_lines(settings.queued_commands) < settings.queued_commands
        )

    def request_stop(self, text: str, code: bytes = b"UNAVAILABLE") -> None:
        """Say BYE as soon as the running command is done; in IDLE at once (R-STOP-1)."""
        self._stop_text, self._stop_code = text, code

    def next_work(self) -> Work | None:
        """The next thing to do; None if that takes more octets, or nothing is left to do."""
        if self.state is State.LOGOUT:
            return None
        if self._stop_text is not None:
            self.bye(self._stop_text, self._stop_code)
            return None
        if self.idle_tag is not None:
            return self._next_in_idle()
        while not self.is_over:
            event = self.reader.next_event()
            if event is None:
                return None
            if isinstance(event, CommandRead):
                return self._execute(event.octets, None)
            if isinstance(event, CommandTooBig):
                self._too_big(event.start, can_go_on=event.can_go_on)
            elif self._is_message_literal(event):
                return self._execute(event.so_far, event)
            else:
                self._take_literal(event)
        return None

    def end(self) -> None:
        """The connection is gone, and no work is running: let go of everything."""
        self.state = State.LOGOUT
        self.idle_tag = None
        self.leave_mailbox()
        mailboxes, self.mailboxes = self.mailboxes, None
        if mailboxes is not None:
            mailboxes.release()
        logout, self._logout = self._logout, None
        if logout is not None:
            logout()
        self._out = []

    # What commands use

    def send(self, octets: bytes) -> None:
        """Add to the answers."""
        self._out.append(octets)

    async def breathe(self) -> None:
        """Between slices of a long answer: send, let others have their turn, wait for a slow peer."""
        await self.peer.breathe()

    def mechanisms(self) -> tuple[str, ...]:
        """Of log-in, that can be had now."""
        return self.peer.mechanisms()

    def capability(self) -> bytes:
        """The capabilities as things are now."""
        if self.state is State.NOT_AUTHENTICATED:
            peer = self.peer
            return capability.before_login(
                self.mechanisms(), may_start_tls=peer.may_start_tls(), may_log_in=peer.may_log_in()
            )
        return capability.after_login(self.services.settings.append_octets)

    def format_name(self, name: str) -> bytes:
        """A mailbox name as this client reads it."""
        return format_name(name, is_utf8=self.has_utf8)

    def account_mailboxes(self) -> IAccountMailboxes:
        """The mailboxes of who is logged in."""
        if self.mailboxes is None:
            raise BadCommand("Log in first")
        return self.mailboxes

    def selected_mailbox(self) -> SelectedMailbox:
        """The selected mailbox."""
        if self.selected is None:
            raise BadCommand("Select a mailbox first")
        return self.selected

    def writable_mailbox(self) -> SelectedMailbox:
        """The selected mailbox if it may be changed."""
        selected = self.selected_mailbox()
        if selected.is_read_only:
            raise CommandRefused("The mailbox is selected read-only", code=b"READ-ONLY")
        return selected

    def enter_account(self, account: IAccount, mailboxes: IAccountMailboxes, logout: Callable[[], object]) -> None:
        """Log-in succeeded: another state, larger budgets."""
        self.account = account
        self.mailboxes = mailboxes
        self._logout = logout
        self.state = State.AUTHENTICATED
        self.reader.budget = self.services.after_login

    def enter_mailbox(self, mailbox: IMailbox, *, is_read_only: bool) -> SelectedMailbox:
        """SELECT and EXAMINE."""
        self.selected = SelectedMailbox(mailbox, is_read_only=is_read_only, watcher=self._mailbox_changed)
        self.state = State.SELECTED
        return self.selected

    def leave_mailbox(self) -> None:
        """Back to the authenticated state."""
        selected, self.selected = self.selected, None
        if selected is not None:
            selected.close()
        if self.state is State.SELECTED:
            self.state = State.AUTHENTICATED

    def enable_condstore(self) -> None:
        """A CONDSTORE enabling command was seen (RFC 7162 3.1)."""
        if not self.has_condstore:
            self.has_condstore = True
            if self.selected is not None:
                highest = max(self.selected.mailbox.highest_mod_seq, 1)
                self.send(b"* OK [HIGHESTMODSEQ %d] Highest\r\n" % highest)

    def bye(self, text: str, code: bytes = b"") -> None:
        """Untagged BYE; the connection is closed."""
        self.send(status_line(b"*", b"BYE", text, code))
        self.state = State.LOGOUT

    async def read_line(self) -> bytes:
        """The next line, for AUTHENTICATE. Literals mean nothing there."""
        while True:
            event = self.reader.next_event()
            if isinstance(event, CommandRead):
                return event.octets
            if event is not None:
                raise ConnectionOver("Line too long")
            await self.peer.more_input()

    # Streaming of literals, for APPEND

    def begin_stream(self) -> None:
        """Ask for the announced literal, if the client waits to be asked."""
        announced, self.announced = self.announced, None
        if announced is None:
            raise BadCommand("Expected a literal")
        if announced.is_synchronizing:
            self.send(b"+ Ready for literal data\r\n")
        self._is_streaming = True
        self.reader.stream_literal()

    async def next_slice(self) -> bytes:
        """Octets of the literal; empty at its end."""
        reader = self.reader
        while reader.streamed_owed:
            taken = reader.take_slice()
            if taken:
                return taken
            await self.peer.more_input()
        return b""

    async def line_after_literal(self) -> bytes:
        """What follows a streamed literal, up to the next one (then ``announced`` is set) or the end of the command."""
        while True:
            event = self.reader.next_event()
            if isinstance(event, CommandRead):
                self._is_streaming = False
                return event.octets
            if isinstance(event, LiteralAnnounced):
                self._is_streaming = False
                self.announced = event
                return event.so_far
            if event is not None:
                self._is_streaming = False
                raise BadCommand("Command too long", code=b"TOOBIG")
            await self.peer.more_input()

    # Reading

    def _is_message_literal(self, announced: LiteralAnnounced) -> bool:
        """Whether the literal is a message of APPEND; its mailbox may be a literal too."""
        if self.state is State.NOT_AUTHENTICATED:
            return False
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

    def _take_literal(self, announced: LiteralAnnounced) -> None:
        if self.reader.fits(announced.size):
            self.reader.take_literal()
            if announced.is_synchronizing:
                self.send(b"+ Ready for literal data\r\n")
            return
        self.send(status_line(_tag_of(announced.so_far), b"BAD", "Literal too large", b"TOOBIG"))
        self._refuse_literal()
        self._count_error()

    def _refuse_literal(self) -> None:
        if not self.reader.refuse():
            self.bye("A literal that large cannot be read over", b"TOOBIG")

    def _too_big(self, start: bytes, *, can_go_on: bool) -> None:
        if not can_go_on:
            self.bye("Too much", b"TOOBIG")
            return
        self.send(status_line(_tag_of(start), b"BAD", "Command too long", b"TOOBIG"))
        self._count_error()

    def _count_error(self) -> None:
        self._errors += 1
        if self._errors >= self.services.settings.errors and not self.is_over:
            self.bye("Too many errors")

    # Execution

    async def _execute(self, octets: bytes, announced: LiteralAnnounced | None) -> None:
        """One command from its tag to its tagged answer."""
        self.tag = tag = _tag_of(octets)
        self.announced = announced
        try:
            outcome = await self._run(octets)
        except BadCommand as error:
            self.send(status_line(tag, b"BAD", error.text, error.code))
            self._abandon_literal()
            self._count_error()
        except ConnectionOver as error:
            self.bye(error.text, error.code)
        except PeerGone:
            self.state = State.LOGOUT
        except MailError as error:
            if error.cause:
                self._log.info("{connection}: refused: {error}", connection=self.peer.connection_id, error=str(error))
            self.send(status_line(tag, b"NO", error.text, refusal_code(error)))
            self._abandon_literal()
        except Exception:
            self._log.failure("{connection}: a command failed", connection=self.peer.connection_id)
            self.send(status_line(tag, b"NO", _SERVER_FAULT, b"SERVERBUG"))
            self._abandon_literal()
        else:
            if isinstance(outcome, Ok):
                condition = b"NO" if outcome.is_partial else b"OK"
                self.send(status_line(tag, condition, outcome.text or "Done", outcome.code))
        self.announced = None
        if self.selected is not None and self.selected.mailbox.is_gone and not self.is_over:
            self.bye("The selected mailbox was deleted")

    def _abandon_literal(self) -> None:
        """A command ended before its literals did: what the client still sends of it is read over."""
        if self.announced is not None:
            self.announced = None
            self._refuse_literal()
        elif self._is_streaming:
            self.reader.discard_rest()
        self._is_streaming = False

    async def _run(self, octets: bytes) -> Ok | NoReplyYet:
        services = self.services
        settings = services.settings
        is_in = self.state is not State.NOT_AUTHENTICATED
        if settings.commands_per_minute:
            await self._keep_to_rate(settings.commands_per_minute)
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
        if self.state not in spec.states:
            raise BadCommand(f"Not possible in the state {self.state.value}")
        command = spec.parse(cursor, ParseContext(settings, is_uid, self.has_utf8))
        if self.announced is None:
            cursor.end()
        selected = self.selected
        may_renumber = is_uid or spec.may_renumber
        if selected is not None and (spec.uid_refreshes if is_uid else spec.refreshes):
            await selected.mailbox.refresh()
            if is_uid or not spec.may_renumber:
                # The command is to be carried out on what is there now.
                await selected.tell(self, may_renumber=may_renumber, with_uid=is_uid)
        outcome = await command.run(self)
        if self.selected is not None and self.selected is selected:
            await selected.tell(self, may_renumber=may_renumber, with_uid=is_uid)
        if isinstance(outcome, Ok) and not outcome.text:
            return Ok(word.decode("ascii") + " completed", outcome.code, outcome.is_partial)
        return outcome

    async def _keep_to_rate(self, per_minute: int) -> None:
        now = self.peer.seconds()
        minute = int(now // 60)
        if minute != self._minute:
            self._minute = minute
            self._commands_counted = 0
        self._commands_counted += 1
        if self._commands_counted > per_minute:
            await self.peer.wait_seconds((minute + 1) * 60 - now)

    # IDLE

    def _mailbox_changed(self) -> None:
        if self.idle_tag is not None and self.idling is Idling.NOTHING:
            self.idling = Idling.NEWS
            self.peer.wake()

    def poll(self) -> None:
        """In IDLE: it is time to look for changes no notice told of."""
        if self.idle_tag is not None:
            self.idling = Idling.POLL

    def _next_in_idle(self) -> Work | None:
        if self.idling is not Idling.NOTHING:
            return self._tell_news()
        event = self.reader.next_event()
        if event is None:
            return None
        return self._end_idle(event.octets if isinstance(event, CommandRead) else None)

    async def _tell_news(self) -> None:
        selected = self.selected
        is_poll, self.idling = self.idling is Idling.POLL, Idling.NOTHING
        if selected is None:
            return
        try:
            if is_poll:
                await selected.mailbox.refresh()
            await selected.tell(self, may_renumber=True, with_uid=False)
        except PeerGone:
            self.state = State.LOGOUT
        except MailError as error:
            self._log.info("{connection}: IDLE: {error}", connection=self.peer.connection_id, error=str(error))
        except Exception:
            self._log.failure("{connection}: IDLE failed", connection=self.peer.connection_id)
        if selected.mailbox.is_gone and not self.is_over:
            self.bye("The selected mailbox was deleted")

    async def _end_idle(self, line: bytes | None) -> None:
        tag, self.idle_tag = self.idle_tag or b"*", None
        await self._tell_news()
        if self.is_over:
            return
        if line is not None and line.upper() == b"DONE":
            self.send(status_line(tag, b"OK", "IDLE terminated"))
            return
        if line is None:
            self._abandon_idle_literal()
        self.send(status_line(tag, b"BAD", "Expected DONE"))
        self._count_error()

    def _abandon_idle_literal(self) -> None:
        if self.reader.has_announced:
            self._refuse_literal()


def _tag_of(octets: bytes) -> bytes:
    """The tag a command begins with, or ``*`` where it has none."""
    found = _TAG.match(octets)
    return found.group() if found is not None else b"*"
