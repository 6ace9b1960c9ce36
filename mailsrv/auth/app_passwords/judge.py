"""App passwords for the reactor thread: is this one good, and what has become of it?

The file is asked at every log-in, in one thread: that takes a fraction of a millisecond, and one that was revoked, by
whomever, lets nobody in from then on. So nothing is remembered here but how many questions are under way, and whether
there are any app passwords at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.auth.app_passwords.database import AppPasswordDatabase
from mailsrv.auth.app_passwords.record import SCOPE_OF_SERVICE, AppPassword
from mailsrv.auth.settings import AuthSettings
from mailsrv.errors import MailError
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.interfaces.sessions import IProof, SessionEnd
from mailsrv.threads import RunInThread, ThreadQueue
from mailsrv.wire.networks import network_key

T = TypeVar("T")


@frozen
class Found:
    """The app password somebody gave, or why it is none: a reason for the log."""

    password: AppPassword | None
    reason: str = ""


class AppPasswordJudge:
    """``seconds`` since 1970. One for a process: it outlives a change of settings."""

    _log = Logger()

    def __init__(
        self,
        database: AppPasswordDatabase,
        settings: AuthSettings,
        *,
        run_in_thread: RunInThread,
        seconds: Callable[[], float],
    ) -> None:
        self._database = database
        self._queue = ThreadQueue(run_in_thread, settings.app_password_queue, "questions for the file of app passwords")
        self._seconds = seconds
        self._settings = settings
        self._noting: set[int] = set()
        """Whose use is being written: clients log in several times at once."""
        self._is_looking = False
        self._looked_at: float | None = None
        self.are_any = False
        """Whether anybody has one, as of the last look (:meth:`look`)."""

    def replace_settings(self, settings: AuthSettings) -> None:
        """Use these from now on."""
        self._settings = settings
        self._queue.limit = settings.app_password_queue

    @property
    def refused(self) -> int:
        """How many questions found too many waiting."""
        return self._queue.refused

    async def find(self, account: str, secret: str, service: str) -> Found:
        """Judge a secret for a service. ``account`` may be nobody's: it costs the same. Raises Unavailable."""
        password = await self._queue.run(lambda: self._database.find(account, secret))
        if password is None:
            return Found(None, "unknown or revoked app password")
        reason = self.objection(password, service)
        return Found(None, reason) if reason else Found(password)

    def objection(self, password: AppPassword, service: str) -> str:
        """Why it is no good for this service now, for the log; "" if it is."""
        return password.objection(SCOPE_OF_SERVICE.get(service), self._seconds())

    def note_use(self, password: AppPassword, service: str, client_address: str) -> None:
        """Somebody was let in by it. Nobody waits for that to be written."""
        now = self._seconds()
        # The other way round after a clock was set back.
        if password.used_at is not None and 0 <= now - password.used_at < self._settings.app_password_use_seconds:
            return
        if password.id in self._noting:
            return
        self._noting.add(password.id)
        network = network_key(client_address) or "local"
        noting = self._queue.run(lambda: self._database.note_use(password.id, now, service, network))
        noting.addErrback(self._note_failed, password).addBoth(lambda _: self._noting.discard(password.id))

    def _note_failed(self, failure: Failure, password: AppPassword) -> None:
        failure.trap(MailError)
        cause = failure.value.cause if isinstance(failure.value, MailError) else ""
        self._log.warn("the last use of app password {number} was not noted: {cause}", number=password.id, cause=cause)

    def current(self, number: int) -> Deferred[AppPassword | None]:
        """What the file says of one now; None: it was revoked. Fails with Unavailable."""
        return self._queue.run(lambda: self._database.get(number))

    def look(self, every: float = 1.0) -> None:
        """See whether there are any, at most once in ``every`` seconds; :attr:`are_any` tells it a little later."""
        now = self._seconds()
        if self._is_looking or (self._looked_at is not None and 0 <= now - self._looked_at < every):
            return
        self._looked_at = now
        self._is_looking = True
        self._queue.run(self._database.is_empty).addCallbacks(self._has_looked, self._look_failed)

    def _has_looked(self, is_empty: bool) -> None:
        self._is_looking = False
        self.are_any = not is_empty

    def _look_failed(self, failure: Failure) -> None:
        # As it was: log-ins by them are Unavailable, and say why in the log.
        self._is_looking = False
        failure.trap(MailError)


@implementer(IProof)
@frozen
class AppPasswordProof:
    """That somebody has logged in by an app password: good until that is revoked or has expired."""

    judge: AppPasswordJudge
    password: AppPassword
    service: str
    is_second_factor: ClassVar[bool] = True

    def objection(self, user: DirectoryUser) -> Deferred[SessionEnd | None]:
        return self.judge.current(self.password.id).addCallbacks(self._objection, _unknown)

    def _objection(self, now: AppPassword | None) -> SessionEnd | None:
        # After another file took the place, a number may be another's.
        is_same = now is not None and (now.account, now.created_at) == (self.password.account, self.password.created_at)
        if now is None or not is_same or self.judge.objection(now, self.service):
            return SessionEnd.REVOKED
        return None


def _unknown(failure: Failure) -> None:
    failure.trap(MailError)
