"""Accounts' mail as the protocols see it: mailboxes, messages, flags (RFC 9051 section 2.3).

Mailbox names here are Unicode with ``/`` between the levels, never modified UTF-7, never a path;
``INBOX`` is spelt so. Flags are strings: the five system flags in their RFC spelling
(``\\Seen``) and keywords as first spelt. ``\\Recent`` is no stored flag: see ``claim_recent``.
"""

from __future__ import annotations

import enum
from array import array
from collections.abc import Callable, Sequence
from typing import NewType

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from mailsrv.address import Address
from mailsrv.errors import MailError, Unavailable
from mailsrv.interfaces.content import Content, IContent
from mailsrv.status import (
    BAD_ARGUMENTS,
    MAILBOX_FULL,
    SYSTEM_ERROR,
    EnhancedStatus,
)

Uid = NewType("Uid", int)
MessageNumber = NewType("MessageNumber", int)
ModSeq = NewType("ModSeq", int)
FlagSet = frozenset[str]

SYSTEM_FLAGS = ("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft")
DELIMITER = "/"


class SpecialUse(enum.Enum):
    """RFC 6154 attributes that mailsrv keeps for a mailbox."""

    ARCHIVE = "\\Archive"
    DRAFTS = "\\Drafts"
    JUNK = "\\Junk"
    SENT = "\\Sent"
    TRASH = "\\Trash"


class MailboxError(MailError):
    """A command on mailboxes that cannot be done; subclasses say why."""

    enhanced_status: EnhancedStatus = BAD_ARGUMENTS
    default_text = "That cannot be done"

    def __init__(self, text: str = "", *, cause: str = "") -> None:
        super().__init__(self.enhanced_status, text or self.default_text, cause=cause)


class NoSuchMailbox(MailboxError):
    """IMAP ``NO [NONEXISTENT]``, and ``[TRYCREATE]`` where a message was to go there."""

    default_text = "No such mailbox"
    may_be_created = True
    """Whether CREATE could help."""


class NoSuchSharedMailbox(NoSuchMailbox):
    """Nothing of that name is shared with the user, or there is nothing: the two cannot be told apart."""

    may_be_created = False


class NotPermitted(MailboxError):
    """``NO [NOPERM]``: a mailbox of somebody else, and the right does not go so far."""

    default_text = "You may not do that in this mailbox"


class MailboxExists(MailboxError):
    """IMAP ``NO [ALREADYEXISTS]``."""

    default_text = "A mailbox of that name exists"


class InvalidMailboxName(MailboxError):
    """IMAP ``NO [CANNOT]``: a name the store cannot hold (control octets, depth, length; R-PATH-1)."""

    default_text = "That mailbox name cannot be used"


class MailboxInUse(MailboxError):
    """``NO [INUSE]`` (INBOX cannot be deleted, has children …) and POP3 ``-ERR [IN-USE]``."""

    enhanced_status = SYSTEM_ERROR
    default_text = "The mailbox is in use"


class UnreadableMessage(Unavailable):
    """One message is there, and its file cannot be read; others perhaps can."""

    def __init__(self, uid: Uid, cause: str) -> None:
        super().__init__(cause=cause)
        self.uid = uid


class OverQuota(MailboxError):
    """``NO [OVERQUOTA]``; SMTP 552 5.2.2."""

    enhanced_status = MAILBOX_FULL
    default_text = "Quota exceeded"


class LimitReached(MailboxError):
    """``NO [LIMIT]``: too many mailboxes, keywords or UIDs."""

    default_text = "A limit of this server is reached"


@frozen
class MailboxInfo:
    """One line of LIST."""

    name: str
    mailbox_id: int
    """Stable over RENAME; 0 for a name that exists only as a parent or a subscription."""
    is_selectable: bool = True
    is_subscribed: bool = False
    exists: bool = True
    """False for a subscription without a mailbox (``\\NonExistent``)."""
    special_use: SpecialUse | None = None
    may_write: bool = True
    """Whether the user may put messages in, change and remove them."""


@frozen
class MailboxStatus:
    """What STATUS can ask for (RFC 3501 6.3.10, RFC 8438 SIZE, RFC 7162 HIGHESTMODSEQ)."""

    messages: int
    recent: int
    unseen: int
    deleted: int
    size_octets: int
    uid_next: int
    uid_validity: int
    highest_mod_seq: int


@frozen
class QuotaUsage:
    """RFC 9208 usage of the account's one quota root. Limits are None where there is none."""

    octets: int
    octet_limit: int | None
    messages: int
    message_limit: int | None


@frozen
class MessageSummary:
    """What the index keeps of a message besides flags: enough for all of FETCH but the octets.

    Plain tuple-like values, made once at delivery by :mod:`mailsrv.message`.
    """

    uid: Uid
    size_octets: int
    internal_date: int
    date_offset_minutes: int
    header_octets: int
    """Length of the header section with the empty line that ends it."""
    imap_envelope: bytes
    """The parenthesised ENVELOPE, ready to send."""
    body_structure: bytes
    """The parenthesised BODYSTRUCTURE with extension data, ready to send."""
    body: bytes
    """The parenthesised BODY without extension data, ready to send."""
    cached_fields: bytes
    """The header fields of ``mailsrv.message.CACHED_FIELD_NAMES`` as they stand in the message, in order."""
    sent_day: int
    """``mailsrv.message.sent_day`` of the Date field, its time and zone disregarded (SENTSINCE); -1 without one."""
    email_id: str = ""


DATE_OF_NONE = -(1 << 63)
"""Before every date there is."""


@frozen(eq=False)
class InternalDates:
    """Internal dates of messages, parallel to the UIDs asked for; ``DATE_OF_NONE`` for a message that is gone."""

    seconds: array[int]
    """array('q'): since 1970."""
    days: array[int]
    """array('q'): days since 1970 in the zone the date was given with (SINCE and the like disregard zones)."""


class FlagOperation(enum.Enum):
    """STORE FLAGS, +FLAGS, -FLAGS."""

    REPLACE = "replace"
    ADD = "add"
    REMOVE = "remove"


@frozen
class FlagsStored:
    """Outcome of a STORE: what was not changed because it is newer than UNCHANGEDSINCE (RFC 7162 3.1.3)."""

    mod_seq: ModSeq
    """Of the messages changed; messages that already had these flags keep their own."""
    changed: Sequence[Uid]
    modified: Sequence[Uid]


@frozen
class CopiedMessages:
    """COPYUID (RFC 4315): ``source[i]`` became ``destination[i]``."""

    uid_validity: int
    source: Sequence[Uid]
    destination: Sequence[Uid]


@frozen
class AppendedMessages:
    """APPENDUID (RFC 4315)."""

    uid_validity: int
    uids: Sequence[Uid]


@frozen
class NewMessage:
    """One message of an APPEND. ``internal_date`` None: now."""

    content: Content
    flags: FlagSet = frozenset()
    internal_date: int | None = None
    date_offset_minutes: int = 0


class IMailbox(Interface):
    """A mailbox some session of this process has open; shared by all of them in this process.

    ``uids``, ``flag_set_numbers`` and ``mod_seqs`` are parallel and ascending by UID. When
    messages come, all three are *appended to*; when messages go, all three are *replaced by new
    arrays*. So ``(uids, length)`` taken at one moment is a numbering that never changes, and
    sessions that agree share it. Entries of the other two change in place.
    """

    account: Address = Attribute("Whose it is: mailboxes of two accounts may have the same numbers.")
    may_write: bool = Attribute("Whether the user may change anything in it now; watchers are told when that changes.")
    name: str = Attribute("Its name now (RENAME changes it).")
    mailbox_id: int = Attribute("Stable over RENAME.")
    uid_validity: int = Attribute("UIDVALIDITY.")
    uid_next: int = Attribute("UIDNEXT as of the last refresh.")
    highest_mod_seq: int = Attribute("HIGHESTMODSEQ as of the last refresh.")
    uids: array[int] = Attribute("array('I')")
    flag_set_numbers: array[int] = Attribute("array('I'): index for flag_set()")
    mod_seqs: array[int] = Attribute("array('Q')")
    is_gone: bool = Attribute(
        "True once the mailbox was deleted, or may not be read any more: sessions should be told BYE or deselected."
    )

    def flag_set(number: int) -> FlagSet:
        """The flags a number in ``flag_set_numbers`` stands for; numbers are never reused while open."""

    def keywords() -> FlagSet:
        """Keywords in use or used before (for the FLAGS response)."""

    def changed_since(mod_seq: int) -> Sequence[Uid]:
        """UIDs present whose mod-sequence is greater, ascending; from memory."""

    def watch(watcher: Callable[[], None]) -> Callable[[], None]:
        """Call ``watcher`` whenever the arrays changed, for whatever reason; answers with what ends it.

        Watchers are called in the reactor thread and must not change the mailbox.
        """

    def refresh() -> Deferred[None]:
        """Take in everything committed up to now, by whomever (also files that came or went by other programs).

        Fires at once where nothing can have changed.
        """

    def claim_recent() -> Deferred[Uid]:
        """Messages from this UID on are \\Recent to the caller, and to no later caller (RFC 3501 2.3.2)."""

    def store_flags(
        uids: Sequence[Uid],
        operation: FlagOperation,
        flags: FlagSet,
        unchanged_since: int | None = None,
    ) -> Deferred[FlagsStored]:
        """Fires when durable. The arrays show the change by then. UIDs that are gone are passed over."""

    def expunge(uids: Sequence[Uid] | None = None) -> Deferred[Sequence[Uid]]:
        """Remove for good what has \\Deleted (among ``uids``, if given); the UIDs removed. Durable."""

    def delete_messages(uids: Sequence[Uid]) -> Deferred[Sequence[Uid]]:
        """Remove these whatever their flags (POP3 QUIT); the UIDs removed. Durable."""

    def copy(uids: Sequence[Uid], destination: str) -> Deferred[CopiedMessages]:
        """Copy with flags and internal dates, all or none. Durable. Fails with NoSuchMailbox, OverQuota."""

    def move(uids: Sequence[Uid], destination: str) -> Deferred[CopiedMessages]:
        """As copy, and the sources are gone in the same step (RFC 6851)."""

    def summaries(uids: Sequence[Uid], *, with_structure: bool = True) -> Deferred[Sequence[MessageSummary]]:
        """Of those present, ascending. A few are answered at once, many come from a thread: ask in slices.

        Without ``with_structure`` only UID, internal date and email id can be relied on: a message nobody
        has looked into yet is not looked into for this.
        """

    def internal_dates(uids: Sequence[Uid]) -> Deferred[InternalDates]:
        """Dates of messages given in ascending order; from memory once somebody asked."""

    def contents(uids: Sequence[Uid]) -> Deferred[Sequence[IContent | None]]:
        """Open messages for reading, one answer each, in order; None where it is gone. Ask in slices.

        :class:`UnreadableMessage` names the first that cannot be read, and none is opened then.
        """

    def close() -> None:
        """This session is done with it. Call once for every ``open_mailbox``."""


class IAccountMailboxes(Interface):
    """All mailboxes of one account. Names that are refused raise :class:`MailboxError`."""

    account: Address = Attribute("Whose.")
    others_prefix: str = Attribute('What names of other users\' mailboxes begin with; "" where there are none.')

    def list_mailboxes(prefix: str = "") -> Deferred[Sequence[MailboxInfo]]:
        """Everything LIST and LSUB may speak of, sorted by name, INBOX first.

        Only names that begin with ``prefix`` are asked for: others may be left out.
        """

    def create(name: str, special_use: SpecialUse | None = None) -> Deferred[None]:
        """With the parents it needs. Durable."""

    def delete(name: str) -> Deferred[None]:
        """Messages and all; with children it stays as an unselectable parent (RFC 3501 6.3.4). Durable."""

    def rename(old: str, new: str) -> Deferred[None]:
        """With its children; INBOX gives its messages to ``new`` and stays (RFC 3501 6.3.5). Durable."""

    def subscribe(name: str, *, subscribed: bool) -> Deferred[None]:
        """SUBSCRIBE and UNSUBSCRIBE. Durable."""

    def status(name: str) -> Deferred[MailboxStatus]:
        """As of now."""

    def open_mailbox(name: str) -> Deferred[IMailbox]:
        """The shared, refreshed mailbox. Fails with NoSuchMailbox."""

    def append(name: str, messages: Sequence[NewMessage]) -> Deferred[AppendedMessages]:
        """All or none (RFC 3502). Durable (DESIGN: record synced, applied, noted). Takes over file content."""

    def copy_from(source: IMailbox, uids: Sequence[Uid], destination: str) -> Deferred[CopiedMessages]:
        """Copy from a mailbox of another account of the same store; otherwise as ``IMailbox.copy``."""

    def quota_root(name: str) -> str:
        """The quota root that a mailbox counts for (RFC 9208 section 3): "" is the account's own."""

    def quota(root: str = "") -> Deferred[QuotaUsage]:
        """Usage as of now. Fails with NoSuchMailbox where there is no such quota root."""

    def lock_maildrop() -> Deferred[Callable[[], None]]:
        """The POP3 exclusive lock, over all workers; fails with MailboxInUse. The answer releases it."""

    def listen(listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` when the list of mailboxes changed; answers with what ends it."""

    def release() -> None:
        """The session that asked for this account is over. Once for every ``IMailStore.open_account``."""


class IMailStore(Interface):
    """Where accounts' mail is kept."""

    def open_account(account: Address, quota_octets: int | None = None) -> Deferred[IAccountMailboxes]:
        """The account's mailboxes, made at first use (INBOX, Drafts, Sent, Junk, Trash, Archive).

        ``quota_octets`` is the limit its directory names, None the one of the settings. Shared by
        the sessions of this process. Cheap to hold: what costs (the index) is opened
        late and closed when idle.
        """

    def has_quota(account: Address) -> bool:
        """Whether there is a limit where the directory names none: then ``reserve_quota`` may refuse."""

    def reserve_quota(account: Address, octets: int, limit_octets: int | None) -> Deferred[Callable[[], None]]:
        """Set room aside before mail is journaled; the answer gives it back when the mail is applied or refused.

        Fails with OverQuota. Never checked again after the 250.
        """
