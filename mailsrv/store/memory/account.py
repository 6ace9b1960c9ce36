"""An account in memory: its mailboxes by name, its subscriptions, its quota."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.interfaces.changes import ChangeNotice, IChangeBus
from mailsrv.interfaces.content import Content, InlineContent
from mailsrv.interfaces.journal import Applied, DeliveryKey
from mailsrv.interfaces.mailbox import (
    AppendedMessages,
    CopiedMessages,
    FlagSet,
    IAccountMailboxes,
    IMailbox,
    InvalidMailboxName,
    LimitReached,
    MailboxExists,
    MailboxInfo,
    MailboxInUse,
    MailboxStatus,
    NewMessage,
    NoSuchMailbox,
    OverQuota,
    QuotaUsage,
    SpecialUse,
    Uid,
)
from mailsrv.store.listeners import Listeners
from mailsrv.store.mailbox_name import (
    INBOX,
    INITIAL_MAILBOXES,
    canonical_name,
    check_keywords,
    checked_name,
    checked_subscription,
    is_inferior,
    list_order,
    parents,
    renamed,
)
from mailsrv.store.memory.mailbox import MemoryMailbox, new_message
from mailsrv.store.settings import StoreSettings
from mailsrv.store.view import stored_flags


@implementer(IAccountMailboxes)
class MemoryAccount:
    """One account's mailboxes."""

    def __init__(self, account: Address, settings: StoreSettings, bus: IChangeBus) -> None:
        self.account = account
        self.others_prefix = ""
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

    def quota_root(self, name: str) -> str:
        return ""

    def quota(self, root: str = "") -> Deferred[QuotaUsage]:
        return fail(NoSuchMailbox()) if root else succeed(self.usage())

    def list_mailboxes(self, prefix: str = "") -> Deferred[Sequence[MailboxInfo]]:
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
            self._subscriptions.add(checked_subscription(name, self.settings))
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
            new_message(
                content,
                message.flags,
                now if message.internal_date is None else message.internal_date,
                message.date_offset_minutes,
            )
            for message, content in zip(messages, octets, strict=True)
        ]
        return AppendedMessages(mailbox.uid_validity, mailbox.add(made))

    def copy_from(self, source: IMailbox, uids: Sequence[Uid], destination: str) -> Deferred[CopiedMessages]:
        if not isinstance(source, MemoryMailbox):
            raise TypeError("only mailboxes of the same store can be copied from")
        return maybeDeferred(lambda: source.copy_to(self, uids, destination))

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
        return self.find(name).flags_of(uid)


def _take(content: Content) -> bytes:
    """The octets; a file is removed, as it was given to us."""
    if isinstance(content, InlineContent):
        return content.octets
    with open(content.path, "rb") as file:
        octets = file.read()
    os.unlink(content.path)
    return octets
