"""What a directory says users may do with addresses that are not their own.

A directory that knows of such rights provides :class:`IRightsDirectory`. It is asked only where a right is in question:
a recipient who is a user, a log-in without rules on groups, a message under the user's own address cost nothing more.
Every method may fail with :class:`~mailsrv.errors.Unavailable`.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from mailsrv.address import Address
from mailsrv.interfaces.directory import DirectoryUser


class Posters(enum.Enum):
    """Who may send to a list."""

    ANYBODY = "anybody"
    USERS = "users"
    """Whoever has logged in here."""
    DOMAIN = "domain"
    """Users of the list's own domain."""
    MEMBERS = "members"
    NAMED = "named"
    """Those who are named, and nobody else."""
    NOBODY = "nobody"


@frozen
class PostingRule:
    """Who may send to a list. Addresses are canonical."""

    who: Posters = Posters.ANYBODY
    named: frozenset[Address] = frozenset()
    """Users who may besides; where nobody but them may, the addresses elsewhere, too."""
    named_lists: tuple[Address, ...] = ()
    """Addresses that may stand for others: those behind them may, too."""
    refused: frozenset[Address] = frozenset()
    """Users who may not, whatever else is said."""
    is_moderated: bool = False
    """Those named are moderators."""

    @property
    def is_open(self) -> bool:
        """Nobody has to say who they are."""
        return self.who is Posters.ANYBODY and not self.refused


@frozen
class SendRights:
    """Who may send under an address that is not, or not only, their own."""

    members: bool = True
    """Whom mail for it reaches may: they have it as an address of theirs."""
    named: frozenset[Address] = frozenset()
    """Users who may send as it: nobody sees who wrote."""
    named_lists: tuple[Address, ...] = ()
    """Addresses that may stand for others: those behind them may, too."""
    on_behalf: frozenset[Address] = frozenset()
    """Users who may write From it where a Sender field says who they are (RFC 5322 3.6.2)."""
    is_whole: bool = True
    """False: who else may could not be asked for, only ``members`` is known."""


class MailboxRight(enum.Enum):
    """What somebody may do with a mailbox of others."""

    READ = "read"
    WRITE = "write"
    """Put mail in, change flags, remove mail."""
    POST = "post"
    """Send as its address."""


@frozen
class SharedMailbox:
    """A mailbox of somebody else, or of a group."""

    address: Address
    rights: frozenset[MailboxRight]

    def __str__(self) -> str:
        return f"{self.address} ({', '.join(right.value for right in MailboxRight if right in self.rights)})"


@frozen
class SharedAccount:
    """An account of somebody else whose mailboxes a user may open."""

    address: Address
    """Canonical."""
    may_write: bool
    quota_octets: int | None = None
    """The account's own, as its directory names it."""
    is_known: bool = True
    """False: there is a right, but the directory cannot say now whether the account is there."""


class IRightsDirectory(Interface):
    """A directory that knows groups and rights."""

    has_shared_mailboxes: bool = Attribute("Whether it may let somebody open mailboxes of others.")
    has_rights: bool = Attribute("Whether any rule is there to be found; where not, nobody has to ask.")

    def find_groups(user: DirectoryUser) -> Deferred[tuple[str, ...]]:
        """Names of the groups a user is in, through all levels."""

    def find_posting_rule(address: Address) -> Deferred[PostingRule | None]:
        """The rule of a list; None where the address is none of this directory's lists."""

    def find_send_rights(address: Address) -> Deferred[SendRights | None]:
        """Who may send as this address of a user or a list; None where the directory does not know the address."""

    def find_shared_mailboxes(user: DirectoryUser) -> Deferred[Sequence[SharedMailbox]]:
        """The mailboxes of others this user may open or send as, themselves or by a group."""
