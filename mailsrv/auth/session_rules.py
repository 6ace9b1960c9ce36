"""Whether open sessions could be begun now: the rules on log-ins, held against those who are logged in.

Rules change with the configuration, and what they are about with the directory: groups, the networks of a user, a
second factor that is demanded. Sessions that could not be begun any more end. Users come with every look of
:class:`~mailsrv.auth.session_watch.SessionWatch`; their groups, which cost questions of their own in some directories,
only where a rule needs them, one account after the other, beside the looks and not before them. Groups that were
asked for serve until somebody hears that they have changed, or for GROUPS_SECONDS. Where they cannot be asked for
nothing ends.

It remembers no more than the accounts that have sessions here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.address import Address
from mailsrv.auth.access import AccessRules
from mailsrv.auth.access_settings import AccessSettings
from mailsrv.auth.rules import LoginRules
from mailsrv.auth.sessions import OpenSession, SessionRegistry
from mailsrv.auth.settings import AuthSettings
from mailsrv.errors import MailError
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.interfaces.sessions import SessionEnd

FindGroups = Callable[[DirectoryUser], Deferred[tuple[str, ...]]]
"""See :class:`~mailsrv.interfaces.rights.IRightsDirectory`. May fail with MailError."""

GROUPS_SECONDS = 300.0
"""A directory that tells no changes is asked for the groups of somebody with open sessions this often."""


@frozen
class _Groups:
    names: tuple[str, ...]
    asked_at: float


class SessionRules:
    """``find_groups`` asks the directories as they are configured now."""

    _log = Logger()

    def __init__(
        self,
        registry: SessionRegistry,
        auth: AuthSettings,
        access: Sequence[AccessSettings],
        *,
        find_groups: FindGroups,
        clock: IReactorTime,
    ) -> None:
        self._registry = registry
        self._find_groups = find_groups
        self._clock = clock
        self._groups: dict[Address, _Groups] = {}
        self._waiting: dict[Address, DirectoryUser] = {}
        """Whose groups are to be asked for."""
        self._is_asking = False
        self.replace(auth, access)

    def replace(self, auth: AuthSettings, access: Sequence[AccessSettings]) -> None:
        """From now on these are the rules."""
        self._rules = LoginRules(auth, self._clock, AccessRules(access))
        self._needs_groups = bool(auth.second_factor_groups) or any(rule.groups for rule in access)
        self._groups.clear()

    def forget(self, account: Address) -> None:
        """Its groups may have changed, or it has no sessions any more."""
        self._groups.pop(account, None)

    def review(self, user: DirectoryUser) -> None:
        """Look at the sessions of a user who may log in, as the directory tells them now."""
        known = self._groups.get(user.address)
        if not self._needs_groups:
            self._judge(user)
        elif known is not None and self._clock.seconds() - known.asked_at < GROUPS_SECONDS:
            self._judge(evolve(user, groups=known.names))
        else:
            self._waiting[user.address] = user
            if not self._is_asking:
                self._is_asking = True
                Deferred.fromCoroutine(self._ask()).addErrback(self._failed).addBoth(self._asked)

    async def _ask(self) -> None:
        while self._waiting:
            user = self._waiting.pop(next(iter(self._waiting)))
            if not self._registry.of(user.address):
                continue
            try:
                names = await self._find_groups(user)
            except MailError:
                # With the next look.
                continue
            if self._registry.of(user.address):
                self._groups[user.address] = _Groups(names, self._clock.seconds())
                self._judge(evolve(user, groups=names))

    def _failed(self, failure: Failure) -> None:
        self._log.failure("groups of users with open sessions could not be asked for", failure)

    def _asked(self, _result: object) -> None:
        self._is_asking = False

    def _judge(self, user: DirectoryUser) -> None:
        for each in self._registry.of(user.address):
            if each.login.prover.address != user.address:
                # Whoever acts for somebody else is the one who logged in.
                continue
            if not each.login.proof.is_second_factor and self._rules.second_factor.demands(user):
                self._registry.end(each, SessionEnd.SECOND_FACTOR)
            elif reason := self._rules.objection(user, each.session):
                self._deny(each, user, reason)

    def _deny(self, opened: OpenSession, user: DirectoryUser, reason: str) -> None:
        session = opened.session
        self._log.info(
            "{service}: {account} from {address} could not log in now: {reason}",
            service=session.service,
            account=str(user.address),
            address=session.client_address,
            reason=reason,
            connection=session.connection_id,
        )
        self._registry.end(opened, SessionEnd.DENIED)
