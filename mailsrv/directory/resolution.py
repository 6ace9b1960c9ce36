"""What :mod:`mailsrv.directory.resolve` answers: accounts here and addresses elsewhere, a foreign domain, or nobody."""

from __future__ import annotations

from attrs import evolve, frozen

from mailsrv.address import Address
from mailsrv.errors import Unavailable
from mailsrv.interfaces.directory import DirectoryUser


@frozen
class LocalRecipient:
    """An account mail goes to, and the detail it was addressed with ("" for none)."""

    user: DirectoryUser
    detail: str = ""

    @property
    def account(self) -> Address:
        return self.user.address


@frozen
class Forward:
    """An address elsewhere that an alias of ours names."""

    address: Address
    alias: Address
    """The innermost alias that names it."""
    owner: Address | None = None
    """Who looks after that alias (``owner-…``): the reverse-path its mail goes on with."""


@frozen
class PassedAlias:
    """An alias or a list on the way from an address to accounts."""

    address: Address
    through: Address | None = None
    """The one that led to it; None: the address that was asked about."""
    is_user: bool = False
    """A user whose mail goes on: it is theirs to say where to, and no administrator's."""


@frozen
class LocalAccounts:
    """An address of ours: the accounts it stands for, and what leads out of here."""

    accounts: tuple[LocalRecipient, ...] = ()
    forwards: tuple[Forward, ...] = ()
    """What aliases name outside."""
    carried: tuple[Address, ...] = ()
    """Addresses of our domains that ``carries`` said are delivered elsewhere."""
    passed: tuple[PassedAlias, ...] = ()
    """What may have rules on who sends to it, the outer ones first, again for each way to it; nothing for postmaster,
    whom anybody may write."""


@frozen
class ForeignDomain:
    """The domain is not ours: whether it may be relayed is for the caller to decide."""

    domain: str
    is_certain: bool = True
    """False while a directory that lists domains cannot be asked: it may have become ours meanwhile."""


@frozen
class UnknownRecipient:
    """The domain is ours, the address is nobody's."""

    address: Address


Resolution = LocalAccounts | ForeignDomain | UnknownRecipient


def check_is_foreign(resolution: Resolution) -> None:
    """Raise Unavailable where the domain may have become ours: nobody is refused for a directory that is down."""
    if isinstance(resolution, ForeignDomain) and not resolution.is_certain:
        raise Unavailable(cause=f"{resolution.domain} was none of ours when the directory told its domains last")


def open_to_all(resolution: LocalAccounts) -> LocalAccounts:
    """Without the rules of lists (RFC 5321 4.5.1)."""
    return evolve(resolution, passed=())
