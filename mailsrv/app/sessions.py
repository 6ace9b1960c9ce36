"""The sessions of this process: their registry, and who looks after them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed

from mailsrv.address import Address
from mailsrv.auth.rules import find_login
from mailsrv.auth.session_rules import SessionRules
from mailsrv.auth.session_watch import SessionWatch
from mailsrv.auth.sessions import SessionRegistry
from mailsrv.config.schema import Settings
from mailsrv.directory.review import review_users
from mailsrv.interfaces.changes import IChangeBus
from mailsrv.interfaces.directory import DirectoryUser, IDirectory
from mailsrv.interfaces.directory_changes import IFollowDirectory
from mailsrv.interfaces.rights import IRightsDirectory


class Sessions:
    """``directory`` answers with the directories as they are configured now."""

    def __init__(self, settings: Settings, *, clock: Any, bus: IChangeBus, directory: Callable[[], IDirectory]) -> None:
        def review(accounts: Sequence[Address]) -> Deferred[Mapping[Address, DirectoryUser | None]]:
            return review_users(directory(), accounts)

        def is_administrator(account: Address) -> Deferred[bool]:
            return find_login(directory(), account).addCallback(lambda user: user is not None and user.is_administrator)

        def find_groups(user: DirectoryUser) -> Deferred[tuple[str, ...]]:
            directories = directory()
            if IRightsDirectory.providedBy(directories):
                return IRightsDirectory(directories).find_groups(user)
            return succeed(user.groups)

        self.registry = SessionRegistry(clock, end_seconds=settings.sessions.end_seconds)
        self._rules = SessionRules(self.registry, settings.auth, settings.access, find_groups=find_groups, clock=clock)
        self.watch = SessionWatch(
            self.registry,
            review,
            settings.sessions,
            clock,
            bus,
            is_administrator=is_administrator,
            rules=self._rules,
        )
        self._end_following: Callable[[], None] | None = None

    def start(self) -> None:
        """Look after sessions from now on."""
        self.watch.start()

    def use(self, directory: IDirectory, settings: Settings) -> None:
        """From now on these are the directories, and the rules: who is logged in is looked at soon.

        Changes of the directories are heard of, and no more of those before them.
        """
        self._rules.replace(settings.auth, settings.access)
        if self._end_following is not None:
            self._end_following()
            self._end_following = None
        if IFollowDirectory.providedBy(directory):
            self._end_following = IFollowDirectory(directory).follow_changes(self.watch.heard)
        self.watch.heard(None)

    def stop(self) -> None:
        """Nobody is looked after any more."""
        self.watch.stop()
        if self._end_following is not None:
            self._end_following()
            self._end_following = None
