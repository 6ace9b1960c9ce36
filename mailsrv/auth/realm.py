"""The realm: avatars for users the checker has let in, and the portal in front of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import Interface, implementer

from mailsrv.address import Address
from mailsrv.auth.checker import PasswordChecker
from mailsrv.auth.login_cache import LoginCache
from mailsrv.auth.sessions import SessionRegistry
from mailsrv.auth.settings import AuthSettings
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.interfaces.account import IAccount, IDelegate, ISharedWith
from mailsrv.interfaces.directory import DirectoryUser, IDirectory
from mailsrv.interfaces.mailbox import IAccountMailboxes, IMailStore
from mailsrv.interfaces.sessions import DirectoryProof, IUserSession, Login

MaySendAs = Callable[[Address, Address], Deferred[bool]]
"""(account, address) → whether the account may send under that address."""


def _nobody(_account: Address, _address: Address) -> Deferred[bool]:
    """Nobody writes on behalf of others."""
    return succeed(False)


OpenMailboxes = Callable[[DirectoryUser], Deferred[IAccountMailboxes]]
"""A user's mailboxes, with those of others that are shared with them."""


@implementer(IAccount, IDelegate, ISharedWith)
class Account:
    """A logged-in user. Holds no resource itself: ``open_mailboxes`` does, until released."""

    __slots__ = (
        "_may_send_as",
        "_may_send_on_behalf",
        "_open_with_shared",
        "_store",
        "_user",
        "address",
        "administrator",
        "display_name",
        "quota_octets",
    )

    def __init__(
        self,
        user: DirectoryUser,
        store: IMailStore,
        may_send_as: MaySendAs,
        *,
        administrator: Address | None = None,
        may_send_on_behalf: MaySendAs = _nobody,
        open_with_shared: OpenMailboxes | None = None,
    ) -> None:
        self.address = user.address
        self.administrator = administrator
        self.display_name = user.display_name
        self.quota_octets = user.quota_octets
        self._user = user
        self._store = store
        self._may_send_as = may_send_as
        self._may_send_on_behalf = may_send_on_behalf
        self._open_with_shared = open_with_shared

    def open_mailboxes(self) -> Deferred[IAccountMailboxes]:
        return self._store.open_account(self.address, self.quota_octets)

    def open_with_shared(self) -> Deferred[IAccountMailboxes]:
        return self.open_mailboxes() if self._open_with_shared is None else self._open_with_shared(self._user)

    def may_send_as(self, address: Address) -> Deferred[bool]:
        return self._may_send_as(self.address, address)

    def may_send_on_behalf(self, address: Address) -> Deferred[bool]:
        return self._may_send_on_behalf(self.address, address)


@implementer(IRealm)
class MailRealm:
    """Makes an :class:`Account` of a :class:`Login`, or of a :class:`DirectoryUser` whose password was right.

    The mind, if it is an :class:`~mailsrv.interfaces.sessions.IUserSession`, is entered in ``sessions`` until log-out.
    """

    def __init__(
        self,
        store: IMailStore,
        may_send_as: MaySendAs,
        sessions: SessionRegistry | None = None,
        *,
        may_send_on_behalf: MaySendAs = _nobody,
        open_with_shared: OpenMailboxes | None = None,
    ) -> None:
        self._open_with_shared = open_with_shared
        self._store = store
        self._may_send_as = may_send_as
        self._may_send_on_behalf = may_send_on_behalf
        self._sessions = sessions

    def requestAvatar(
        self, avatarId: object, mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], Account, Callable[[], None]]:
        """Only :class:`IAccount` is to be had, and only for users the checker answered with."""
        login = Login(avatarId, DirectoryProof(avatarId)) if isinstance(avatarId, DirectoryUser) else avatarId
        if IAccount not in interfaces or not isinstance(login, Login):
            raise NotImplementedError("this realm gives IAccount to directory users")
        administrator = None if login.acting is None else login.acting.address
        account = Account(
            login.user,
            self._store,
            self._may_send_as,
            administrator=administrator,
            may_send_on_behalf=self._may_send_on_behalf,
            open_with_shared=self._open_with_shared,
        )
        leave: Callable[[], None] = _nothing_to_do
        if self._sessions is not None and IUserSession.providedBy(mind):
            leave = self._sessions.enter(IUserSession(mind), login)
        return IAccount, account, leave


def _nothing_to_do() -> None:
    """Log-out: the session releases the mailboxes it opened."""


def make_checker(
    directory: IDirectory,
    settings: AuthSettings,
    *,
    clock: IReactorTime,
    exempt_networks: Iterable[str] = (),
) -> PasswordChecker:
    """A checker with a throttle and a cache of its own. ``exempt_networks`` are neither delayed nor refused."""
    return PasswordChecker(
        directory,
        settings,
        clock=clock,
        throttle=LoginThrottle(settings, clock=clock, exempt_networks=exempt_networks),
        cache=LoginCache(clock=clock, seconds=settings.cache_seconds, entries=settings.cache_entries),
    )


def make_portal(
    directory: IDirectory,
    settings: AuthSettings,
    *,
    store: IMailStore,
    may_send_as: MaySendAs,
    clock: IReactorTime,
    exempt_networks: Iterable[str] = (),
    further_checkers: Iterable[ICredentialsChecker] = (),
) -> Portal:
    """The one portal of a process: all protocols log in here, so that failures are counted together."""
    checker = make_checker(directory, settings, clock=clock, exempt_networks=exempt_networks)
    return Portal(MailRealm(store, may_send_as), (checker, *further_checkers))
