"""Looks again, every now and then, at the accounts that have sessions, and ends those that have no right to go on.

Ended are sessions of accounts that are disabled or expired, of passwords that have changed, of administrators as
somebody else who are none any more, of whatever else a proof knows of (a revoked app password, a token past its time),
and those that the rules on log-ins deny by now (:mod:`mailsrv.auth.session_rules`). An account that is not found is
asked for once more before its sessions end: a directory that is being filled anew is no reason to throw everybody out.
Where nothing can be found out nothing ends.

Each worker looks after its own sessions. A round takes all accounts in batches, no more than ``checks_per_second``
accounts a second. A hint (:meth:`SessionWatch.look_at`, or a notice of another worker) makes an account be looked at
next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.address import Address
from mailsrv.auth.session_rules import SessionRules
from mailsrv.auth.session_settings import SessionSettings
from mailsrv.auth.sessions import OpenSession, SessionRegistry
from mailsrv.coroutines import pause
from mailsrv.errors import MailError
from mailsrv.interfaces.changes import ChangeNotice, IChangeBus
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.interfaces.sessions import Login, SessionEnd

Review = Callable[[Sequence[Address]], Deferred[Mapping[Address, DirectoryUser | None]]]
"""See :class:`~mailsrv.interfaces.sessions.IReviewDirectory`."""
IsAdministrator = Callable[[Address], Deferred[bool]]
"""Asked for those only who act for somebody else: it may cost a question about groups. May fail with MailError."""

_BATCH = 100
_SOON_SECONDS = 0.1
"""Hints come in bursts."""
_AGAIN_SECONDS = 5.0
"""After so long who was not found is asked for once more."""
_TOPIC = "log-in\0"
"""Notices about accounts go over the bus of mailboxes, under names no account can have."""


class SessionWatch:
    """``review`` and ``is_administrator`` ask the directories as they are configured now."""

    _log = Logger()

    def __init__(
        self,
        registry: SessionRegistry,
        review: Review,
        settings: SessionSettings,
        clock: IReactorTime,
        bus: IChangeBus,
        *,
        is_administrator: IsAdministrator,
        rules: SessionRules,
    ) -> None:
        self._review = review
        self._rules = rules
        self._is_administrator = is_administrator
        self._registry = registry
        self._clock = clock
        self._bus = bus
        self._settings = settings
        self._hinted: dict[Address, None] = {}
        self._missing: set[Address] = set()
        """Not found the last time."""
        self._listening: dict[Address, Callable[[], None]] = {}
        self._round_due: float | None = None
        self._call: IDelayedCall | None = None
        self._is_looking = False
        self._is_stopped = True
        registry.entered = self._entered
        registry.left = self._left

    def replace_settings(self, settings: SessionSettings) -> None:
        """Use these from now on."""
        self._settings = settings
        self._registry.end_seconds = settings.end_seconds

    def start(self) -> None:
        """Look from now on."""
        self._is_stopped = False
        self._plan()

    def stop(self) -> None:
        """Look no more."""
        self._is_stopped = True
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    # Hints

    def look_at(self, account: Address) -> None:
        """Something has changed there: look soon, in all workers."""
        self._bus.publish(ChangeNotice(_TOPIC + str(account), 0, 0))

    def heard(self, accounts: Sequence[Address] | None) -> None:
        """A directory has changed there; None: anywhere. Every worker hears it by itself."""
        for account in self._registry.accounts() if accounts is None else accounts:
            if account in self._listening:
                self._rules.forget(account)
                self._hinted[account] = None
        self._plan()

    def _entered(self, account: Address) -> None:
        self._listening[account] = self._bus.listen(_TOPIC + str(account), lambda _notice: self._hint(account))
        self._plan()

    def _left(self, account: Address) -> None:
        end = self._listening.pop(account, None)
        if end is not None:
            end()
        self._hinted.pop(account, None)
        self._missing.discard(account)
        self._rules.forget(account)

    def _hint_again(self, account: Address) -> None:
        if account in self._missing and not self._is_stopped:
            self._hint(account)

    def _hint(self, account: Address) -> None:
        self._hinted[account] = None
        self._plan()

    # When

    def _plan(self) -> None:
        """Call :meth:`_look` when it is time: soon for hints, else when the next round begins."""
        if self._is_stopped or self._is_looking or not len(self._registry):
            return
        now = self._clock.seconds()
        if self._round_due is None or self._round_due < now - self._settings.check_seconds:
            # Nobody was there for a while.
            self._round_due = now + self._settings.check_seconds
        due = min(self._round_due, now + _SOON_SECONDS) if self._hinted else self._round_due
        if self._call is not None and self._call.active():
            if self._call.getTime() <= due:
                return
            self._call.cancel()
        self._call = self._clock.callLater(max(0.0, due - now), self._look)

    def _look(self) -> None:
        self._call = None
        if self._round_due is not None and self._clock.seconds() >= self._round_due:
            accounts: Sequence[Address] = self._registry.accounts()
            self._hinted.clear()
            self._round_due = self._clock.seconds() + self._settings.check_seconds
        else:
            accounts = tuple(self._hinted)
            self._hinted.clear()
        self._is_looking = True
        Deferred.fromCoroutine(self._look_at_all(accounts)).addErrback(self._failed).addBoth(self._looked)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("sessions could not be looked at", failure)

    def _looked(self, _result: object) -> None:
        self._is_looking = False
        self._plan()

    async def _look_at_all(self, accounts: Sequence[Address]) -> None:
        for start in range(0, len(accounts), _BATCH):
            batch = accounts[start : start + _BATCH]
            await self._look_at_batch(batch)
            if self._is_stopped:
                return
            if start + _BATCH < len(accounts):
                await pause(self._clock, len(batch) / self._settings.checks_per_second)

    # What of it

    async def _look_at_batch(self, accounts: Sequence[Address]) -> None:
        found = await self._review(accounts)
        for account in accounts:
            if account in found:
                try:
                    await self._judge(account, found[account])
                except Exception:
                    # Others' sessions have to end all the same.
                    self._log.failure("sessions of {account} could not be looked at", account=str(account))
            else:
                # What was missing before the directory went down is missing for the first time again.
                self._missing.discard(account)

    async def _judge(self, account: Address, user: DirectoryUser | None) -> None:
        sessions = self._registry.of(account)
        if user is None:
            if account in self._missing:
                self._end(account, sessions, SessionEnd.GONE)
            elif sessions:
                self._missing.add(account)
                # A moment is enough for a server that was just filling its database.
                self._clock.callLater(min(_AGAIN_SECONDS, self._settings.check_seconds), self._hint_again, account)
            return
        self._missing.discard(account)
        if not user.may_log_in:
            self._end(account, sessions, SessionEnd.DISABLED)
            return
        for each in sessions:
            if each.login.prover.address == account:
                end = await each.login.proof.objection(user) or await self._acting_objection(each.login)
                if end is not None:
                    self._end(account, (each,), end)
        self._rules.review(user)

    async def _acting_objection(self, login: Login) -> SessionEnd | None:
        if login.acting is None:
            return None
        try:
            return None if await self._is_administrator(login.acting.address) else SessionEnd.DEMOTED
        except MailError:
            return None

    def _end(self, account: Address, sessions: Sequence[OpenSession], end: SessionEnd) -> None:
        for each in sessions:
            self._registry.end(each, end)
        if sessions and end is not SessionEnd.EXPIRED:
            # Others will find out by themselves; so they do at once. Only who has sessions of it looks.
            self.look_at(account)
