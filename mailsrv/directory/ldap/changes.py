"""Following what changes in a directory, so that what is remembered of it is forgotten at once.

One thread with a connection of its own for each directory and worker. A *source* knows how a server tells of changes:
``changes_poll.py`` asks for what is newer than the last it saw, ``changes_sync.py`` lets the server say it. A change
only makes us forget (what is not remembered is asked for anew) and look at sessions again; so nothing goes wrong when
one is told twice, and what gets lost is caught by the time an answer may be remembered.

While nothing can be followed, the log says so once, and the connection is tried again after 1, 2, 4 … seconds, a minute
at most. Each time costs everything that is remembered: only who was followed for a minute is tried after 1 s again.
"""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import frozen
from twisted.logger import Logger

from mailsrv.directory.ldap.client import Attempts
from mailsrv.directory.ldap.connection import LdapConnection, LdapEntry
from mailsrv.directory.ldap.trouble import LdapTrouble, RequestTrouble

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0
MANY = 500
"""So many are collected before they are told."""
_HANDED_OVER = 8
"""Changes that the reactor thread takes at a time (some milliseconds); then others have their turn."""
_TAKEN_SECONDS = 1.0


@frozen
class Change:
    """An entry that is new, different or (without ``entry``) gone."""

    dn: str
    entry: LdapEntry | None = None


Changes = Sequence[Change] | None
"""None: anything may have changed."""


class FollowState(enum.Enum):
    """How it stands."""

    STOPPED = "stopped"
    FOLLOWING = "following"
    TRYING = "trying"


class NotOffered(RequestTrouble):
    """The server has no such way to tell of changes."""


class Feed(Protocol):
    """What a source is given."""

    def tell(self, changes: Changes) -> None:
        """Hand changes over, in batches."""

    def pause(self, seconds: float) -> bool:
        """Wait; False if it is time to end."""

    def goes_on(self) -> bool:
        """Whether to go on on this connection: nobody has stopped, and no server that is preferred is back."""

    def following(self, how: str) -> None:
        """From now on nothing is missed; ``how`` is for the log."""


class Source(Protocol):
    """How a server tells of changes. Blocks; raises LdapTrouble. Keeps what it needs to go on after an interruption."""

    def follow(self, connection: LdapConnection, feed: Feed) -> None: ...


class ChangeFollower:
    """``tell`` is called in the reactor thread. ``start`` once, ``stop`` for good."""

    _log = Logger()

    def __init__(
        self,
        name: str,
        attempts: Attempts,
        source: Source,
        tell: Callable[[Changes], None],
        *,
        call_from_thread: Callable[[Callable[[], object]], object],
        attempt_seconds: float,
    ) -> None:
        self.state = FollowState.STOPPED
        self.how = ""
        """By what way, of which server."""
        self._name = name
        self._attempts = attempts
        self._source = source
        self._tell = tell
        self._call_from_thread = call_from_thread
        self._attempt_seconds = attempt_seconds
        self._is_stopped = threading.Event()
        self._uri = ""
        self._wait = FIRST_WAIT_SECONDS
        self._followed_since: float | None = None
        self._was_told = ""

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self.state = FollowState.TRYING
        threading.Thread(target=self._run, name=f"ldap changes {self._name}", daemon=True).start()

    def stop(self) -> None:
        """End soon; nothing is told any more from now on."""
        self._is_stopped.set()
        self.state = FollowState.STOPPED

    # In the thread

    def _run(self) -> None:
        while not self._is_stopped.is_set():
            try:
                self._follow()
                # A server that is preferred is back: go there at once.
                continue
            except LdapTrouble as error:
                self._note_trouble(str(error))
            except Exception:
                # A bug of ours must not end it for good.
                self._log.failure("changes of {directory}: following failed", directory=self._name)
                self._note_trouble("a fault")
            since, self._followed_since = self._followed_since, None
            if since is not None and time.monotonic() - since >= LONGEST_WAIT_SECONDS:
                self._wait = FIRST_WAIT_SECONDS
            if self._is_stopped.wait(self._wait):
                return
            self._wait = min(self._wait * 2, LONGEST_WAIT_SECONDS)

    def _follow(self) -> None:
        server = self._attempts.servers.usable()[0]
        connection = self._attempts.open(server, time.monotonic() + self._attempt_seconds, as_service=True)
        self._uri = server.uri
        try:
            self._source.follow(connection, self)
        finally:
            connection.close()

    def _note_trouble(self, cause: str) -> None:
        if self.state is FollowState.STOPPED:
            return
        self.state = FollowState.TRYING
        if self._was_told != "lost":
            self._was_told = "lost"
            self._log.warn(
                "Directory {name}: changes cannot be followed, answers may be as old as they are remembered: {cause}",
                name=self._name,
                cause=cause,
            )

    # Feed

    def tell(self, changes: Changes) -> None:
        if changes is None:
            self._hand_over(None)
            return
        for start in range(0, len(changes), _HANDED_OVER):
            self._hand_over(changes[start : start + _HANDED_OVER])

    def _hand_over(self, changes: Changes) -> None:
        taken = threading.Event()

        def take() -> None:
            try:
                if not self._is_stopped.is_set():
                    self._tell(changes)
            finally:
                taken.set()

        self._call_from_thread(take)
        while not taken.wait(_TAKEN_SECONDS) and not self._is_stopped.is_set():
            """The reactor is busy: nothing more is read meanwhile."""

    def pause(self, seconds: float) -> bool:
        return not self._is_stopped.wait(seconds)

    def goes_on(self) -> bool:
        if self._is_stopped.is_set():
            return False
        up = [server for server in self._attempts.servers.all if server.is_up]
        return not up or up[0].uri == self._uri

    def following(self, how: str) -> None:
        if self._is_stopped.is_set():
            return
        self.state = FollowState.FOLLOWING
        self.how = f"{how} of {self._uri}"
        if self._followed_since is None:
            self._followed_since = time.monotonic()
        if self._was_told != self.how:
            self._was_told = self.how
            self._log.info("Directory {name}: changes are followed by {how}", name=self._name, how=self.how)
