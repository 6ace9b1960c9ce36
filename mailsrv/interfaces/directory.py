"""Directories: who has an account here, and what addresses stand for whom.

Every method may fail with :class:`~mailsrv.errors.Unavailable`: a directory that is down is
never an unknown user (R-AUTH-7).
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from mailsrv.address import Address


@frozen
class DirectoryUser:
    """A user as a directory tells it. Holds no secret that is fit for a log."""

    address: Address
    """Canonical: it names the account and its place in the store."""
    display_name: str = ""
    quota_octets: int | None = None
    may_log_in: bool = True
    secret: str = field(default="", repr=False)
    """The stored verifier, e.g. ``{ARGON2ID}$argon2id$…``; empty where the directory checks passwords itself."""
    fingerprint: bytes = field(default=b"", repr=False)
    """Changes whenever the entry (password, state) changes: cached log-ins die with it (R-AUTH-2)."""
    password_stamp: bytes = field(default=b"", repr=False)
    """Changes with the password and nothing else; empty where that cannot be told apart from other changes."""
    networks: tuple[str, ...] = ()
    """From where they may log in, as networks or ``local`` for Unix sockets; empty: from anywhere."""
    verifiers: tuple[str, ...] = field(default=(), repr=False)
    """Further stored forms of the same password, for mechanisms that need their own: ``{SCRAM-SHA-256}…``."""
    directory: str = ""
    """Name of the directory that told it, where several are asked: it is the one to check the password."""
    groups: tuple[str, ...] = ()
    """Names of the groups they are in, directly or through others: for rules on who may do what from where."""
    is_administrator: bool = False
    """May act for other users, where the settings allow that at all."""
    needs_second_factor: bool = False
    """The password alone lets nobody in: app passwords, tokens and certificates do."""


@frozen
class ScramStanding:
    """How far a directory can serve one SCRAM mechanism."""

    mechanism: str
    has_everyone: bool
    """Every user who may log in has keys for it."""
    iterations: int
    """Of most keys, as the length of the salt is."""
    salt_octets: int


class IScramDirectory(Interface):
    """A directory whose users may have keys for SCRAM."""

    def scram_standings() -> Sequence[ScramStanding]:
        """The mechanisms at least one user has keys for, by what is known now: nothing is waited for."""


class IDirectory(Interface):
    """A source of users and aliases."""

    name: str = Attribute("For the log.")

    def find_user(address: Address) -> Deferred[DirectoryUser | None]:
        """The user of exactly this address (local part compared without case); None if there is none."""

    def check_password(user: DirectoryUser | None, password: str) -> Deferred[bool]:
        """Whether the password is theirs. ``None`` (unknown user) does the same work and is False (R-AUTH-4)."""

    def find_alias(address: Address) -> Deferred[Sequence[Address] | None]:
        """What an alias stands for, one step; None if there is no such alias."""

    def list_users() -> Deferred[Sequence[DirectoryUser]]:
        """All of them, for the administrator; sorted by address."""


class ILoginDirectory(Interface):
    """A directory whose users have names to log in with that are no addresses of theirs."""

    def find_login(address: Address) -> Deferred[DirectoryUser | None]:
        """Who logs in by this name (a name without a domain has got the default one); None if nobody does.

        May fail as the methods of :class:`IDirectory` do.
        """
