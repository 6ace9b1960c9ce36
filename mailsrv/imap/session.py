"""The engine of an IMAP session: octets in, answers out, one command at a time.

It does no I/O and keeps no timer. The shell gives it octets (`receive_octets`), asks for the next
piece of work (`next_work`: a coroutine, or None if more octets are needed), runs that to its end
before it asks again, and sends what `octets_to_send` gives. A coroutine waits for the store and
the directory, and through the `Peer` for more octets and for the peer to take what was sent.

Here is what a session knows, what commands do to it, and what becomes of octets that are no
command yet. How a command is carried out stands in `execution.py`, the literals of APPEND in
`streaming.py`, IDLE in `idling.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from mailsrv.imap import capability
from mailsrv.imap.errors import BadCommand, CommandRefused, ConnectionOver
from mailsrv.imap.execution import execute
from mailsrv.imap.grammar import tag_of
from mailsrv.imap.idling import Idling, next_in_idle
from mailsrv.imap.names import format_name
from mailsrv.imap.peer import Peer
from mailsrv.imap.reader import CommandRead, CommandReader, CommandTooBig, LiteralAnnounced
from mailsrv.imap.responses import status_line
from mailsrv.imap.selected import SelectedMailbox
from mailsrv.imap.services import Services
from mailsrv.imap.state import State
from mailsrv.imap.streaming import is_message_of_append
from mailsrv.interfaces.account import IAccount
from mailsrv.interfaces.mailbox import IAccountMailboxes, IMailbox, NotPermitted

Work = Coroutine[Any, Any, None]


class Session:
    """One connection. See the head of this file for how it is driven."""

    __slots__ = (
        "_commands_counted",
        "_errors",
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
        "is_streaming",
        "login_failures",
        "mailboxes",
        "peer",
        "reader",
        "selected",
        "services",
        "state",
        "tag",
    )

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
        self.is_streaming = False
        """It takes that literal, or has taken one and has not looked at what follows."""
        self.tag = b"*"
        self.login_failures = 0
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

    def poll(self) -> None:
        """In IDLE: it is time to look for changes no notice told of."""
        if self.idle_tag is not None:
            self.idling = Idling.POLL

    def next_work(self) -> Work | None:
        """The next thing to do; None if that takes more octets, or nothing is left to do."""
        if self.state is State.LOGOUT:
            return None
        if self._stop_text is not None:
            self.bye(self._stop_text, self._stop_code)
            return None
        if self.idle_tag is not None:
            return next_in_idle(self)
        while not self.is_over:
            event = self.reader.next_event()
            if event is None:
                return None
            if isinstance(event, CommandRead):
                return execute(self, event.octets)
            if isinstance(event, CommandTooBig):
                self._too_big(event.start, can_go_on=event.can_go_on)
            elif self.state is not State.NOT_AUTHENTICATED and is_message_of_append(event):
                return execute(self, event.so_far, event)
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
        if not selected.mailbox.may_write:
            raise NotPermitted
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

    def enter_mailbox(self, mailbox: IMailbox, *, is_examined: bool) -> SelectedMailbox:
        """SELECT and EXAMINE."""
        self.selected = SelectedMailbox(mailbox, is_examined=is_examined, watcher=self._mailbox_changed)
        self.state = State.SELECTED
        return self.selected

    def _mailbox_changed(self) -> None:
        if self.idle_tag is not None and self.idling is Idling.NOTHING:
            self.idling = Idling.NEWS
            self.peer.wake()

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

    # What else carrying them out needs

    def end_where_mailbox_is_gone(self) -> None:
        """The selected mailbox was deleted by somebody else, or is not shared any more: nothing the client knows holds.

        RFC 2180 3.3 has BYE for it; no response says "no mailbox is selected now" ([CLOSED] belongs to SELECT).
        """
        if self.selected is not None and self.selected.mailbox.is_gone and not self.is_over:
            self.bye("The selected mailbox is there no more")

    def count_error(self) -> None:
        """The client said something that is no command."""
        self._errors += 1
        if self._errors >= self.services.settings.errors and not self.is_over:
            self.bye("Too many errors")

    def refuse_literal(self) -> None:
        """The announced literal is not wanted, nor what follows it."""
        if not self.reader.refuse():
            self.bye("A literal that large cannot be read over", b"TOOBIG")

    async def keep_to_rate(self, per_minute: int) -> None:
        """Count a command, and wait for the next minute where there were too many in this one."""
        now = self.peer.seconds()
        minute = int(now // 60)
        if minute != self._minute:
            self._minute = minute
            self._commands_counted = 0
        self._commands_counted += 1
        if self._commands_counted > per_minute:
            await self.peer.wait_seconds((minute + 1) * 60 - now)

    # What is no command, or not yet

    def _take_literal(self, announced: LiteralAnnounced) -> None:
        if self.reader.fits(announced.size):
            self.reader.take_literal()
            if announced.is_synchronizing:
                self.send(b"+ Ready for literal data\r\n")
            return
        self.send(status_line(tag_of(announced.so_far), b"BAD", "Literal too large", b"TOOBIG"))
        self.refuse_literal()
        self.count_error()

    def _too_big(self, start: bytes, *, can_go_on: bool) -> None:
        if not can_go_on:
            self.bye("Too much", b"TOOBIG")
            return
        self.send(status_line(tag_of(start), b"BAD", "Command too long", b"TOOBIG"))
        self.count_error()
