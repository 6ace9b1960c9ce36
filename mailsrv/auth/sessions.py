"""The sessions of one process that somebody has logged in on, by account.

There is one registry in a process, in the reactor thread. It holds no more than there are connections: a session is in
it from its log-in to its log-out. Which ones have to end is found out in :mod:`mailsrv.auth.session_watch`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mailsrv.address import Address
from mailsrv.interfaces.sessions import IUserSession, Login, SessionEnd


@define(eq=False)
class OpenSession:
    """One session and by what right it is there."""

    session: IUserSession
    login: Login
    end: SessionEnd | None = None
    """Set once it was told to end."""
    cut: IDelayedCall | None = field(default=None)

    @property
    def accounts(self) -> tuple[Address, ...]:
        """Without any of these it may not go on."""
        acting = self.login.acting
        user = self.login.user.address
        return (user,) if acting is None or acting.address == user else (user, acting.address)


class SessionRegistry:
    """``end_seconds``: how long a session that was told to end may take for the command under way."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, *, end_seconds: float = 10.0) -> None:
        self._clock = clock
        self.end_seconds = end_seconds
        self.entered: Callable[[Address], None] = lambda _account: None
        """Told of an account's first session."""
        self.left: Callable[[Address], None] = lambda _account: None
        """Told when its last one is gone."""
        self._by_account: dict[Address, dict[OpenSession, None]] = {}

    def __len__(self) -> int:
        """Accounts that have sessions here."""
        return len(self._by_account)

    def accounts(self) -> Sequence[Address]:
        """Those that have sessions here, as of now."""
        return tuple(self._by_account)

    def of(self, account: Address) -> Sequence[OpenSession]:
        """The sessions that need this account and are not ending already."""
        return tuple(each for each in self._by_account.get(account, ()) if each.end is None)

    def enter(self, session: IUserSession, login: Login) -> Callable[[], None]:
        """Somebody has logged in; answers with the function that is called at log-out."""
        opened = OpenSession(session, login)
        for account in opened.accounts:
            sessions = self._by_account.setdefault(account, {})
            sessions[opened] = None
            if len(sessions) == 1:
                self.entered(account)
        return lambda: self._leave(opened)

    def _leave(self, opened: OpenSession) -> None:
        if opened.cut is not None and opened.cut.active():
            opened.cut.cancel()
        opened.cut = None
        for account in opened.accounts:
            sessions = self._by_account.get(account)
            if sessions is not None and opened in sessions:
                del sessions[opened]
                if not sessions:
                    del self._by_account[account]
                    self.left(account)

    def end(self, opened: OpenSession, end: SessionEnd) -> None:
        """Tell a session to end; who is not gone after ``end_seconds`` is cut off."""
        if opened.end is not None:
            return
        opened.end = end
        session = opened.session
        self._log.info(
            "{service} session {connection} of {account} from {address} is ended: {reason}",
            service=session.service,
            connection=session.connection_id,
            account=str(opened.login.user.address),
            address=session.client_address,
            reason=end.name.lower(),
        )
        # First: a session that ends at once leaves at once.
        opened.cut = self._clock.callLater(self.end_seconds, session.abort)
        try:
            session.end_session(end)
        except Exception:
            self._log.failure("session {connection} could not be ended", connection=session.connection_id)
            session.abort()

    def end_account(self, account: Address, end: SessionEnd) -> int:
        """End every session that needs the account; answers how many."""
        sessions = self.of(account)
        for each in sessions:
            self.end(each, end)
        return len(sessions)
