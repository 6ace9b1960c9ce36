"""Asks which mailboxes of others a user may open: at log-in, and again while they have sessions.

A right that is gone is asked for once more before it ends, as a session of who is gone is
(:mod:`mailsrv.auth.session_watch`); one that became smaller holds at once.

Who has no such right gets their own mailboxes and nothing else: one question is what they cost, and its answer is
remembered for ``check_seconds``. The rights of who has some (or of whom nobody could tell) are asked for again every
``check_seconds``; what changed holds at once in all their sessions of the process. Each worker does so by itself.

While the directory does not answer what it said before holds; of whom it has said nothing yet, names of others'
mailboxes answer Unavailable.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.address import Address
from mailsrv.coroutines import fires_within
from mailsrv.errors import MailError
from mailsrv.interfaces.content import Content
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.interfaces.mailbox import IAccountMailboxes, IMailStore
from mailsrv.interfaces.rights import SharedAccount
from mailsrv.sharing.grants import Grants
from mailsrv.sharing.mailboxes import SharingMailboxes
from mailsrv.sharing.names import PREFIX, ROOT, is_others
from mailsrv.sharing.settings import SharingSettings

FindShared = Callable[[DirectoryUser], Deferred[Sequence[SharedAccount]]]
"""The accounts a user may open, each once; fails with MailError."""
Answer = Sequence[SharedAccount] | None
"""None: it is not known."""

_ASKED_AT_ONCE = 4
_AGAIN_SECONDS = 5.0
"""After so long a right that was missing is asked for once more."""


class RightsWatch:
    """``find`` answers with whom to ask as things are configured now; None where nobody has to be asked."""

    _log = Logger()

    def __init__(
        self,
        settings: SharingSettings,
        store: IMailStore,
        find: Callable[[], FindShared | None],
        clock: IReactorTime,
        *,
        discard: Callable[[Content], object],
    ) -> None:
        self._settings = settings
        self._store = store
        self._find = find
        self._clock = clock
        self._discard = discard
        self._live: dict[Address, Grants] = {}
        """Of users with sessions that may have rights."""
        self._without: OrderedDict[Address, float] = OrderedDict()
        """Who has none, and until when that is believed."""
        self._asking: dict[Address, list[Deferred[Answer]]] = {}
        self._call: IDelayedCall | None = None
        self._is_looking = False
        self._is_stopped = False
        self._is_out = False
        """The directory did not answer the last time."""

    def replace_settings(self, settings: SharingSettings) -> None:
        """Use these from now on; rules may be others, too."""
        self._settings = settings
        self._without.clear()

    def stop(self) -> None:
        """Ask no more."""
        self._is_stopped = True
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    # Log-in

    def open(self, user: DirectoryUser) -> Deferred[IAccountMailboxes]:
        """The user's mailboxes, with those of others if there are any."""
        if self._find() is None and user.address not in self._live:
            return self._store.open_account(user.address, user.quota_octets)
        return Deferred.fromCoroutine(self._open(user))

    async def _open(self, user: DirectoryUser) -> IAccountMailboxes:
        own = await self._store.open_account(user.address, user.quota_octets)
        grants: Grants | None = None
        try:
            grants = await self._enter(user)
            if grants is None or await self._is_taken(own):
                self._leave(grants)
                return own
        except BaseException:
            self._leave(grants)
            own.release()
            raise
        entered = grants
        return SharingMailboxes(own, entered, self._store, discard=self._discard, released=lambda: self._leave(entered))

    async def _is_taken(self, own: IAccountMailboxes) -> bool:
        """Whether the user has mailboxes of their own there: their mail is not to vanish behind that of others."""
        infos = await own.list_mailboxes(PREFIX)
        if not any(info.exists and is_others(info.name) for info in infos):
            return False
        self._log.warn(
            "{account} has a mailbox of their own called {name}: those of others are not shown",
            account=str(own.account),
            name=ROOT,
        )
        return True

    async def _enter(self, user: DirectoryUser) -> Grants | None:
        """What the user may open, to be left; None where there is nothing."""
        grants = self._live.get(user.address)
        if grants is None:
            if self._without.get(user.address, 0.0) > self._clock.seconds():
                return None
            answer = await self._ask_in_time(user)
            grants = self._live.get(user.address)
            if grants is None:
                if answer is not None and not answer:
                    return None
                grants = self._live[user.address] = Grants(user)
                if answer is not None:
                    grants.replace(answer)
        grants.user = user
        grants.sessions += 1
        self._plan()
        return grants

    def _leave(self, grants: Grants | None) -> None:
        if grants is None:
            return
        grants.sessions -= 1
        if not grants.sessions and self._live.get(grants.user.address) is grants:
            del self._live[grants.user.address]

    # Asking

    async def _ask_in_time(self, user: DirectoryUser) -> Answer:
        asked = self._ask(user)
        return await asked if await fires_within(asked, self._settings.login_seconds, self._clock) else None

    def _ask(self, user: DirectoryUser) -> Deferred[Answer]:
        """Ask once, however many want to know; never fails."""
        waiting: Deferred[Answer] = Deferred()
        others = self._asking.get(user.address)
        if others is not None:
            others.append(waiting)
            return waiting
        self._asking[user.address] = [waiting]
        asked: Deferred[Answer] = Deferred.fromCoroutine(self._find_shared(user))
        asked.addErrback(self._failed).addCallback(self._answered, user.address)
        return waiting

    async def _find_shared(self, user: DirectoryUser) -> Answer:
        find = self._find()
        if find is None:
            return ()
        try:
            found = await find(user)
        except MailError as error:
            if not self._is_out:
                # Once: everybody is asked for again and again.
                self._is_out = True
                self._log.warn(
                    "which mailboxes of others {account} may open cannot be asked: {error}",
                    account=str(user.address),
                    error=str(error),
                )
            return None
        self._is_out = False
        return found

    def _failed(self, failure: Failure) -> None:
        self._log.failure("which mailboxes of others somebody may open could not be found out", failure)

    def _answered(self, answer: Answer, account: Address) -> None:
        grants = self._live.get(account)
        asking = self._asking.pop(account)
        try:
            if answer is not None and grants is not None:
                grants.replace(answer)
            elif answer is not None and not answer:
                self._remember(account)
        except Exception:
            # Of who hears of it; the rights hold, and whoever logs in is not to wait for an answer that was given.
            self._log.failure("a session could not be told that rights to mailboxes of others have changed")
        for waiting in asking:
            waiting.callback(answer)

    def _remember(self, account: Address) -> None:
        """They have none."""
        self._without[account] = self._clock.seconds() + self._settings.check_seconds
        self._without.move_to_end(account)
        while len(self._without) > self._settings.cache_entries:
            self._without.popitem(last=False)

    # Asking again

    def _plan(self) -> None:
        if self._live and not self._is_stopped and not self._is_looking and self._call is None:
            seconds = self._settings.check_seconds
            if any(grants.is_doubted for grants in self._live.values()):
                seconds = min(seconds, _AGAIN_SECONDS)
            self._call = self._clock.callLater(seconds, self._look)

    def _look(self) -> None:
        self._call = None
        self._is_looking = True
        Deferred.fromCoroutine(self._look_at_all()).addErrback(self._failed).addBoth(self._looked)

    async def _look_at_all(self) -> None:
        live = list(self._live.values())
        users = [grants.user for grants in [each for each in live if each.is_doubted] or live]
        for start in range(0, len(users), _ASKED_AT_ONCE):
            if self._is_stopped:
                return
            some = [user for user in users[start : start + _ASKED_AT_ONCE] if user.address in self._live]
            await gatherResults([self._ask(user) for user in some])

    def _looked(self, _result: object) -> None:
        self._is_looking = False
        self._plan()
