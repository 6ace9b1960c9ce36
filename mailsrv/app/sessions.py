"""The sessions of this process: their registry, and who looks after them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from mailsrv.address import Address
from mailsrv.auth.rules import find_login
from mailsrv.auth.session_settings import SessionSettings
from mailsrv.auth.session_watch import SessionWatch
from mailsrv.auth.sessions import SessionRegistry
from mailsrv.directory.review import review_users
from mailsrv.interfaces.changes import IChangeBus
from mailsrv.interfaces.directory import DirectoryUser, IDirectory
from mailsrv.interfaces.directory_changes import IFollowDirectory


class Sessions:
    """``directory`` answers with the directories as they are configured now."""

    def __init__(
        self, settings: SessionSettings, *, clock: Any, bus: IChangeBus, directory: Callable[[], IDirectory]
    ) -> None:
        def review(accounts: Sequence[Address]) -> Deferred[Mapping[Address, DirectoryUser | None]]:
            return review_users(directory(), accounts)

        def is_administrator(account: Address) -> Deferred[bool]:
            return find_login(directory(), account).addCallback(lambda user: user is not None and user.is_administrator)

        self.registry = SessionRegistry(clock, end_seconds=settings.end_seconds)
        self.watch = SessionWatch(self.registry, review, settings, clock, bus, is_administrator=is_administrator)
        self._end_following: Callable[[], None] | None = None

    def start(self) -> None:
        """Look after sessions from now on."""
        self.watch.start()

    def follow(self, directory: IDirectory) -> None:
        """Hear of the changes of these directories, and no more of those before them."""
        if self._end_following is not None:
            self._end_following()
            self._end_following = None
        if IFollowDirectory.providedBy(directory):
            self._end_following = IFollowDirectory(directory).follow_changes(self.watch.heard)

    def stop(self) -> None:
        """Nobody is looked after any more."""
        self.watch.stop()
        if self._end_following is not None:
            self._end_following()
            self._end_following = None
