"""Sessions of users: how one is ended when its user may no longer have it.

A checker answers with a :class:`Login` (a bare :class:`~mailsrv.interfaces.directory.DirectoryUser` stands for a log-in
with the directory's password). The protocol gives itself to the portal as the *mind*::

    _, account, logout = await portal.login(credentials, self, IAccount)

From then until ``logout`` the session is known by its account, and looked at again every now and then
(:mod:`mailsrv.auth.session_watch`). A mind that is no :class:`IUserSession` is let alone.
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from attrs import field, frozen
from twisted.internet.defer import Deferred, succeed
from zope.interface import Attribute, Interface, implementer

from mailsrv.address import Address
from mailsrv.interfaces.directory import DirectoryUser


class SessionEnd(enum.Enum):
    """Why a session ends; the value is the sentence its client may see."""

    DISABLED = "The account may not log in any more"
    """Disabled, locked or expired."""
    GONE = "The account is gone"
    CHANGED = "The password has changed, log in again"
    SECOND_FACTOR = "More than the password is demanded, log in again"
    REVOKED = "The app password is not valid any more"
    EXPIRED = "The token has expired, log in again"
    DENIED = "The account may not log in here any more"
    """By a rule on log-ins."""
    DEMOTED = "The administrator may not act for others any more"


class IUserSession(Interface):
    """A connection that somebody has logged in on. Reactor thread only."""

    service: str = Attribute("``submission``, ``imap`` or ``pop3``.")
    connection_id: str = Attribute("Its name in the log.")
    client_address: str = Attribute('Textual IP address, "" for a Unix socket.')

    def end_session(end: SessionEnd) -> None:
        """Finish the command under way, tell the client in the protocol's words, and close. May be called twice."""

    def abort() -> None:
        """Close at once."""


class IProof(Interface):
    """By what somebody has logged in, as far as it may stop being good while the session lasts."""

    is_second_factor: bool = Attribute("Whether it is enough where a second factor is demanded.")

    def objection(user: DirectoryUser) -> Deferred[SessionEnd | None]:
        """Why it is no good any more; ``user`` is as the directory tells them now.

        None while it is good, and where that cannot be found out: a session does not end because something is down.
        """


@implementer(IProof)
@frozen
class DirectoryProof:
    """The directory's own password (or its SCRAM keys), as the entry was when it was right."""

    user: DirectoryUser
    is_second_factor: ClassVar[bool] = False

    def objection(self, user: DirectoryUser) -> Deferred[SessionEnd | None]:
        if user.needs_second_factor:
            return succeed(SessionEnd.SECOND_FACTOR)
        return succeed(SessionEnd.CHANGED if self.is_outdated(user) else None)

    def is_outdated(self, user: DirectoryUser) -> bool:
        """Whether the password may be another by now."""
        return not hmac.compare_digest(_stamp(self.user), _stamp(user))


@implementer(IProof)
@frozen
class LastingProof:
    """Good until a moment in the time of day (a token's ``exp``), or without end (a client certificate)."""

    seconds: Callable[[], float]
    expires: float | None = None
    is_second_factor: bool = True

    def objection(self, user: DirectoryUser) -> Deferred[SessionEnd | None]:
        if user.needs_second_factor and not self.is_second_factor:
            return succeed(SessionEnd.SECOND_FACTOR)
        is_over = self.expires is not None and self.seconds() >= self.expires
        return succeed(SessionEnd.EXPIRED if is_over else None)


@frozen
class Login:
    """What a checker answers with: who it is, by what proof, and who acts for them."""

    user: DirectoryUser
    proof: IProof
    acting: DirectoryUser | None = field(default=None)
    """An administrator who logged in as ``user``: the proof is theirs, and the session ends with either's right."""

    @property
    def prover(self) -> DirectoryUser:
        """Whose proof it is."""
        return self.acting or self.user


class IReviewDirectory(Interface):
    """A directory that can look at many of its users at once, past what it remembers."""

    def review(addresses: Sequence[Address]) -> Deferred[Mapping[Address, DirectoryUser | None]]:
        """These canonical addresses as they are now: None for who is not there any more.

        Who cannot be asked for now is left out. Never fails.
        """


def _stamp(user: DirectoryUser) -> bytes:
    """Changes with the password: where it can be told apart, with nothing else."""
    if user.secret:
        return "\n".join((user.secret, *user.verifiers)).encode("utf-8", "surrogatepass")
    return user.password_stamp or user.fingerprint
