"""A mail store that lives in memory: the twin of the Maildir store for tests and for trying out.

Everything of :class:`~mailsrv.interfaces.mailbox.IMailStore` is there, and every Deferred it
answers with has fired already. Nothing survives the process. :class:`MemoryApplier` delivers
into it from a journal.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable, Collection, Sequence

from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.errors import MailError, Unavailable
from mailsrv.interfaces.changes import ChangeNotice, IChangeBus
from mailsrv.interfaces.content import Content, FileContent, IContent, InlineContent
from mailsrv.interfaces.journal import Applied, DeliveryKey, IApplier, LocalDelivery, NotApplied, PendingDelivery
from mailsrv.interfaces.mailbox import (
    DATE_OF_NONE,
    AppendedMessages,
    CopiedMessages,
    FlagOperation,
    FlagSet,
    FlagsStored,
    IAccountMailboxes,
    IMailbox,
    IMailStore,
    InternalDates,
    InvalidMailboxName,
    LimitReached,
    MailboxExists,
    MailboxInfo,
    MailboxInUse,
    MailboxStatus,
    MessageSummary,
    ModSeq,
    NewMessage,
    NoSuchMailbox,
    OverQuota,
    QuotaUsage,
    SpecialUse,
    Uid,
)
from mailsrv.opened_content import LoadedContent
from mailsrv.store.bus import LocalChangeBus
from mailsrv.store.flag_change import changed_flags
from mailsrv.store.listeners import Listeners
from mailsrv.store.mailbox_name import (
    INBOX,
    INITIAL_MAILBOXES,
    canonical_name,
    check_keywords,
    checked_name,
    is_inferior,
    list_order,
    parents,
    renamed,
)
from mailsrv.store.settings import StoreSettings
from mailsrv.store.summary import StoredSummary, stored_summary
from mailsrv.store.view import DELETED, SEEN, MailboxView, StoredFlags, ViewedMailbox, flag_set_of, stored_flags


@define(eq=False)
class _Message:
    octets: bytes
    summary: StoredSummary
    internal_date: int
    date_offset_minutes: int
    flags: StoredFlags
    mod_seq: int
    email_id: str
    recipient: str = ""


@implementer(IMailbox)
class MemoryMailbox(ViewedMailbox):
    """A mailbox; the same object for all who open it."""

    def __init__(self, owner: MemoryAccount, name: str, mailbox_id: int, uid_validity: int) -> None:
        self.name = name
        self.mailbox_id = mailbox_id
        self.uid_validity = uid_validity
        self.is_gone = False
        self.special_use: SpecialUse | None = None
        self._owner = owner
        self._view = MailboxView(owner.settings.change_log_entries)
        self._view.highest_mod_seq = 1
        self._messages: dict[int, _Message] = {}
        self._recent = 1

    def refresh(self) -> Deferred[None]:
        return succeed(None)

    def close(self) -> None:
        """The mailbox lives on with its account."""

    def claim_recent(self) -> Deferred[Uid]:
        claimed, self._recent = self._recent, self._view.uid_next
        return succeed(Uid(claimed))

    def status_now(self) -> MailboxStatus:
        """STATUS."""
        flags = [message.flags[0] for message in self._messages.values()]
        return MailboxStatus(
            messages=len(flags),
            recent=sum(uid >= self._recent for uid in self._messages),
            unseen=sum(not bits & SEEN for bits in flags),
            deleted=sum(bool(bits & DELETED) for bits in flags),
            size_octets=self.octets,
            uid_next=self.uid_next,
            uid_validity=self.uid_validity,
            highest_mod_seq=self.highest_mod_seq,
        )

    @property
    def octets(self) -> int:
        return sum(message.summary.size_octets for message in self._messages.values())

    @property
    def count(self) -> int:
        return len(self._messages)

    def add(self, messages: Sequence[_Message]) -> list[Uid]:
        """Give new messages UIDs and one new mod-sequence."""
        mod_seq = self.highest_mod_seq + 1
        rows, uids = [], []
        for uid, message in enumerate(messages, self.uid_next):
            message.mod_seq = mod_seq
            self._messages[uid] = message
            rows.append((uid, mod_seq, *message.flags))
            uids.append(Uid(uid))
        if rows:
            self._view.apply_changes(rows, (), mod_seq, rows[-1][0] + 1)
            self._owner.changed(self)
        return uids

    def store_flags(
        self,
        uids: Sequence[Uid],
        operation: FlagOperation,
        flags: FlagSet,
        unchanged_since: int | None = None,
    ) -> Deferred[FlagsStored]:
        return maybeDeferred(self._store_flags, uids, operation, flags, unchanged_since)

    def _store_flags(
        self, uids: Sequence[Uid], operation: FlagOperation, flags: FlagSet, unchanged_since: int | None
    ) -> FlagsStored:
        bits, keywords = stored_flags(flags)
        if operation is not FlagOperation.REMOVE and keywords:
            check_keywords(keywords.split(" "), self.keywords(), self._owner.settings)
        mod_seq = self.highest_mod_seq + 1
        rows, modified = [], []
        for uid in sorted(set(uids)):
            message = self._messages.get(uid)
            if message is None:
                continue
            if unchanged_since is not None and message.mod_seq > unchanged_since:
                modified.append(uid)
                continue
            after = changed_flags(message.flags, operation, bits, keywords)
            if after != message.flags:
                message.flags, message.mod_seq = after, mod_seq
                rows.append((uid, mod_seq, *after))
        if rows:
            self._view.apply_changes(rows, (), mod_seq, self.uid_next)
            self._owner.changed(self)
        return FlagsStored(ModSeq(self.highest_mod_seq), [Uid(row[0]) for row in rows], modified)

    def expunge(self, uids: Sequence[Uid] | None = None) -> Deferred[Sequence[Uid]]:
        among = self._messages if uids is None else set(uids)
        marked = [uid for uid, message in self._messages.items() if message.flags[0] & DELETED and uid in among]
        return succeed(self.remove(marked))

    def delete_messages(self, uids: Sequence[Uid]) -> Deferred[Sequence[Uid]]:
        return succeed(self.remove(uids))

    def remove(self, uids: Collection[int]) -> list[Uid]:
        """Forget messages; those that were there."""
        gone = sorted(uid for uid in set(uids) if self._messages.pop(uid, None) is not None)
        if gone:
            self._view.apply_changes((), gone, self.highest_mod_seq + 1, self.uid_next)
            self._owner.changed(self)
        return [Uid(uid) for uid in gone]

    def take_all(self) -> list[_Message]:
        """Give all messages away (RENAME INBOX)."""
        messages = [self._messages[uid] for uid in sorted(self._messages)]
        self.remove(list(self._messages))
        return messages

    def end(self) -> None:
        """The mailbox was deleted."""
        self.is_gone = True
        self._view.notify()

    def copy(self, uids: Sequence[Uid], destination: str) -> Deferred[CopiedMessages]:
        return maybeDeferred(self._copy, uids, destination)

    def _copy(self, uids: Sequence[Uid], destination: str, *, is_move: bool = False) -> CopiedMessages:
        target = self._owner.find(destination)
        source = sorted(uid for uid in set(uids) if uid in self._messages)
        if not is_move:
            self._owner.check_quota(sum(self._messages[uid].summary.size_octets for uid in source), len(source))
        copies = [
            _Message(
                octets=message.octets,
                summary=message.summary,
                internal_date=message.internal_date,
                date_offset_minutes=message.date_offset_minutes,
                flags=message.flags,
                mod_seq=0,
                email_id=message.email_id,
                recipient=message.recipient,
            )
            for message in (self._messages[uid] for uid in source)
        ]
        return CopiedMessages(target.uid_validity, [Uid(uid) for uid in source], target.add(copies))

    def move(self, uids: Sequence[Uid], destination: str) -> Deferred[CopiedMessages]:
        def move() -> CopiedMessages:
            copied = self._copy(uids, destination, is_move=True)
            self.remove(copied.source)
            return copied

        return maybeDeferred(move)

    def summaries(self, uids: Sequence[Uid], *, with_structure: bool = True) -> Deferred[Sequence[MessageSummary]]:
        found = []
        for uid in sorted(set(uids)):
            message = self._messages.get(uid)
            if message is not None:
                found.append(
                    message.summary.for_message(
                        uid, message.internal_date, message.date_offset_minutes, message.email_id
                    )
                )
        return succeed(found)

    def internal_dates(self, uids: Sequence[Uid]) -> Deferred[InternalDates]:
        seconds, days = array("q"), array("q")
        for uid in uids:
            message = self._messages.get(uid)
            if message is None:
                seconds.append(DATE_OF_NONE)
                days.append(DATE_OF_NONE)
            else:
                seconds.append(message.internal_date)
                days.append((message.internal_date + message.date_offset_minutes * 60) // 86_400)
        return succeed(InternalDates(seconds, days))

    def contents(self, uids: Sequence[Uid]) -> Deferred[Sequence[IContent | None]]:
        messages = [self._messages.get(uid) for uid in uids]
        return succeed([None if message is None else LoadedContent(message.octets) for message in messages])


@implementer(IAccountMailboxes)
class MemoryAccount:
    """One account's mailboxes."""

    def __init__(self, account: Address, settings: StoreSettings, bus: IChangeBus) -> None:
        self.account = account
        self.settings = settings
        self.quota_octets = settings.quota_octets
        self.reserved_octets = 0
        self.seen_keys: dict[DeliveryKey, Applied] = {}
        self._bus = bus
        self._mailboxes: dict[str, MemoryMailbox] = {}
        self._subscriptions: set[str] = set()
        self._last_id = 0
        self._last_validity = 0
        self._is_locked = False
        self._listeners = Listeners()
        for name, use in INITIAL_MAILBOXES:
            self._make(name).special_use = use
            self._subscriptions.add(name)

    def changed(self, mailbox: MemoryMailbox) -> None:
        """Tell the bus of a mailbox's change."""
        self._bus.publish(ChangeNotice(str(self.account), mailbox.mailbox_id, mailbox.highest_mod_seq))

    def _list_changed(self) -> None:
        self._bus.publish(ChangeNotice(str(self.account), 0, 0))
        self._listeners.call()

    def _make(self, name: str) -> MemoryMailbox:
        self._last_id += 1
        self._last_validity = max(int(time.time()), self._last_validity + 1)
        mailbox = self._mailboxes[name] = MemoryMailbox(self, name, self._last_id, self._last_validity)
        return mailbox

    def find(self, name: str) -> MemoryMailbox:
        """The mailbox of that name; raises NoSuchMailbox."""
        mailbox = self._mailboxes.get(canonical_name(name))
        if mailbox is None:
            raise NoSuchMailbox
        return mailbox

    def check_quota(self, octets: int, messages: int) -> None:
        """Raise OverQuota where so much more would not fit."""
        usage = self.usage()
        if usage.octet_limit is not None and usage.octets + self.reserved_octets + octets > usage.octet_limit:
            raise OverQuota
        if usage.message_limit is not None and usage.messages + messages > usage.message_limit:
            raise OverQuota

    def usage(self) -> QuotaUsage:
        """What the mailboxes hold."""
        return QuotaUsage(
            octets=sum(mailbox.octets for mailbox in self._mailboxes.values()),
            octet_limit=self.quota_octets,
            messages=sum(mailbox.count for mailbox in self._mailboxes.values()),
            message_limit=self.settings.quota_messages,
        )

    def quota(self) -> Deferred[QuotaUsage]:
        return succeed(self.usage())

    def list_mailboxes(self) -> Deferred[Sequence[MailboxInfo]]:
        names = {parent for name in self._mailboxes for parent in parents(name)} | set(self._mailboxes)
        listed = []
        for name in sorted(names | self._subscriptions, key=list_order):
            mailbox = self._mailboxes.get(name)
            listed.append(
                MailboxInfo(
                    name=name,
                    mailbox_id=mailbox.mailbox_id if mailbox else 0,
                    is_selectable=mailbox is not None,
                    is_subscribed=name in self._subscriptions,
                    exists=name in names,
                    special_use=mailbox.special_use if mailbox else None,
                )
            )
        return succeed(listed)

    def create(self, name: str, special_use: SpecialUse | None = None) -> Deferred[None]:
        return maybeDeferred(self._create, name, special_use)

    def _create(self, name: str, special_use: SpecialUse | None) -> None:
        name = checked_name(name, self.settings)
        if name in self._mailboxes:
            raise MailboxExists
        self._check_count(1)
        self._make(name).special_use = special_use
        self._list_changed()

    def _check_count(self, more: int) -> None:
        if len(self._mailboxes) + more > self.settings.mailbox_count:
            raise LimitReached("Too many mailboxes")

    def delete(self, name: str) -> Deferred[None]:
        return maybeDeferred(self._delete, canonical_name(name))

    def _delete(self, name: str) -> None:
        if name == INBOX:
            raise MailboxInUse("INBOX cannot be deleted")
        if name not in self._mailboxes:
            if any(is_inferior(other, name) for other in self._mailboxes):
                raise MailboxInUse("It has inferior mailboxes")
            raise NoSuchMailbox
        mailbox = self._mailboxes.pop(name)
        mailbox.end()
        self.changed(mailbox)
        self._list_changed()

    def rename(self, old: str, new: str) -> Deferred[None]:
        return maybeDeferred(self._rename, canonical_name(old), new)

    def _rename(self, old: str, new: str) -> None:
        new = checked_name(new, self.settings)
        if new in self._mailboxes:
            raise MailboxExists
        if old == INBOX:
            self._check_count(1)
            inbox, target = self._mailboxes[INBOX], self._make(new)
            target.add(inbox.take_all())
        else:
            moving = [name for name in self._mailboxes if name == old or is_inferior(name, old)]
            if not moving:
                raise NoSuchMailbox
            if is_inferior(new, old):
                raise InvalidMailboxName("A mailbox cannot be moved below itself")
            targets = [checked_name(renamed(name, old, new), self.settings) for name in moving]
            if any(target in self._mailboxes for target in targets):
                raise MailboxExists
            for name, target_name in zip(moving, targets, strict=True):
                mailbox = self._mailboxes[target_name] = self._mailboxes.pop(name)
                mailbox.name = target_name
            for name in [name for name in self._subscriptions if name == old or is_inferior(name, old)]:
                self._subscriptions.remove(name)
                self._subscriptions.add(renamed(name, old, new))
        self._list_changed()

    def subscribe(self, name: str, *, subscribed: bool) -> Deferred[None]:
        return maybeDeferred(self._subscribe, name, subscribed)

    def _subscribe(self, name: str, subscribed: bool) -> None:
        if subscribed:
            if len(self._subscriptions) >= self.settings.subscription_count:
                raise LimitReached("Too many subscriptions")
            self._subscriptions.add(checked_name(name, self.settings))
        else:
            self._subscriptions.discard(canonical_name(name))
        self._list_changed()

    def status(self, name: str) -> Deferred[MailboxStatus]:
        return maybeDeferred(lambda: self.find(name).status_now())

    def open_mailbox(self, name: str) -> Deferred[IMailbox]:
        return maybeDeferred(self.find, name)

    def append(self, name: str, messages: Sequence[NewMessage]) -> Deferred[AppendedMessages]:
        return maybeDeferred(self._append, name, messages)

    def _append(self, name: str, messages: Sequence[NewMessage]) -> AppendedMessages:
        # File content is ours from the call on, so it is taken even where the append is refused.
        octets = [_take(message.content) for message in messages]
        mailbox = self.find(name)
        self.check_quota(sum(map(len, octets)), len(octets))
        for message in messages:
            keywords = stored_flags(message.flags)[1]
            if keywords:
                check_keywords(keywords.split(" "), mailbox.keywords(), self.settings)
        now = int(time.time())
        made = [
            self.new_message(
                content,
                message.flags,
                now if message.internal_date is None else message.internal_date,
                message.date_offset_minutes,
            )
            for message, content in zip(messages, octets, strict=True)
        ]
        return AppendedMessages(mailbox.uid_validity, mailbox.add(made))

    @staticmethod
    def new_message(octets: bytes, flags: FlagSet, internal_date: int, date_offset_minutes: int) -> _Message:
        """A message that has no UID yet."""
        return _Message(
            octets=octets,
            summary=stored_summary(octets),
            internal_date=internal_date,
            date_offset_minutes=date_offset_minutes,
            flags=stored_flags(flags),
            mod_seq=0,
            email_id="M" + os.urandom(12).hex(),
        )

    def lock_maildrop(self) -> Deferred[Callable[[], None]]:
        def lock() -> Callable[[], None]:
            if self._is_locked:
                raise MailboxInUse("The maildrop is locked by another session")
            self._is_locked = True
            return self._unlock

        return maybeDeferred(lock)

    def _unlock(self) -> None:
        self._is_locked = False

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        return self._listeners.add(listener)

    def release(self) -> None:
        """The account lives on with the store."""

    def flags_of(self, name: str, uid: int) -> FlagSet:
        """The flags of one message (for tests)."""
        mailbox = self.find(name)
        return flag_set_of(*mailbox._messages[uid].flags)


def _take(content: Content) -> bytes:
    """The octets; a file is removed, as it was given to us."""
    if isinstance(content, InlineContent):
        return content.octets
    with open(content.path, "rb") as file:
        octets = file.read()
    os.unlink(content.path)
    return octets


@define
class _Reservation:
    account: MemoryAccount
    octets: int = field(default=0)

    def give_back(self) -> None:
        self.account.reserved_octets -= self.octets
        self.octets = 0


@implementer(IMailStore)
class MemoryMailStore:
    """All accounts, each made when first asked for."""

    def __init__(self, settings: StoreSettings | None = None, bus: IChangeBus | None = None) -> None:
        self.settings = settings if settings is not None else StoreSettings()
        self._bus = bus if bus is not None else LocalChangeBus()
        self._accounts: dict[Address, MemoryAccount] = {}

    def account(self, account: Address) -> MemoryAccount:
        """The account, at once."""
        found = self._accounts.get(account)
        if found is None:
            found = self._accounts[account] = MemoryAccount(account, self.settings, self._bus)
        return found

    def open_account(self, account: Address, quota_octets: int | None = None) -> Deferred[IAccountMailboxes]:
        found = self.account(account)
        if quota_octets is not None:
            found.quota_octets = quota_octets
        return succeed(found)

    def reserve_quota(self, account: Address, octets: int, limit_octets: int | None) -> Deferred[Callable[[], None]]:
        def reserve() -> Callable[[], None]:
            found = self.account(account)
            if limit_octets is not None:
                found.quota_octets = limit_octets
            found.check_quota(octets, 1)
            found.reserved_octets += octets
            return _Reservation(found, octets).give_back

        return maybeDeferred(reserve)

    def start(self) -> Deferred[None]:
        """Nothing to begin."""
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Nothing to end."""
        return succeed(None)


@implementer(IApplier)
class MemoryApplier:
    """Delivers into a :class:`MemoryMailStore`, each key once. Not for threads: tests call it in place."""

    def __init__(self, store: MemoryMailStore) -> None:
        self._store = store

    def apply(self, deliveries: Sequence[PendingDelivery[LocalDelivery]]) -> Sequence[Applied | NotApplied]:
        return [self._apply(pending) for pending in deliveries]

    def _apply(self, pending: PendingDelivery[LocalDelivery]) -> Applied | NotApplied:
        account = self._store.account(pending.delivery.account)
        known = account.seen_keys.get(pending.key)
        if known is not None:
            return known
        try:
            mailbox = account.find(pending.delivery.mailbox)
            octets = _peek(pending.message.content)
        except MailError as error:
            return NotApplied(pending.key, error)
        except OSError as error:
            return NotApplied(pending.key, Unavailable(cause=str(error)))
        message = account.new_message(
            octets, pending.delivery.flags, pending.message.internal_date, pending.message.date_offset_minutes
        )
        message.recipient = pending.delivery.recipient
        [uid] = mailbox.add([message])
        applied = Applied(pending.key, mailbox.uid_validity, uid, mailbox.highest_mod_seq)
        account.seen_keys[pending.key] = applied
        return applied

    def take_touched(self) -> Collection[str]:
        return ()

    def checkpoint_failed(self, keys: Collection[DeliveryKey]) -> None:
        """Memory has no disk to doubt."""


def _peek(content: Content) -> bytes:
    if isinstance(content, FileContent):
        with open(content.path, "rb") as file:
            return file.read()
    return content.octets
