"""A mailbox in memory, and its messages."""

from __future__ import annotations

import os
from array import array
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from attrs import define
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from zope.interface import implementer

from mailsrv.interfaces.content import IContent
from mailsrv.interfaces.mailbox import (
    DATE_OF_NONE,
    CopiedMessages,
    FlagOperation,
    FlagSet,
    FlagsStored,
    IMailbox,
    InternalDates,
    MailboxStatus,
    MessageSummary,
    ModSeq,
    SpecialUse,
    Uid,
)
from mailsrv.opened_content import LoadedContent
from mailsrv.store.flag_change import changed_flags
from mailsrv.store.mailbox_name import check_keywords
from mailsrv.store.summary import StoredSummary, stored_summary
from mailsrv.store.view import DELETED, SEEN, MailboxView, StoredFlags, ViewedMailbox, flag_set_of, stored_flags

if TYPE_CHECKING:
    from mailsrv.store.memory.account import MemoryAccount


@define(eq=False)
class MemoryMessage:
    """A message; one that has no UID yet has 0 for its mod-sequence."""

    octets: bytes
    summary: StoredSummary
    internal_date: int
    date_offset_minutes: int
    flags: StoredFlags
    mod_seq: int
    email_id: str
    recipient: str = ""


def new_message(octets: bytes, flags: FlagSet, internal_date: int, date_offset_minutes: int) -> MemoryMessage:
    """A message that has no UID yet."""
    return MemoryMessage(
        octets=octets,
        summary=stored_summary(octets),
        internal_date=internal_date,
        date_offset_minutes=date_offset_minutes,
        flags=stored_flags(flags),
        mod_seq=0,
        email_id="M" + os.urandom(12).hex(),
    )


@implementer(IMailbox)
class MemoryMailbox(ViewedMailbox):
    """A mailbox; the same object for all who open it."""

    def __init__(self, owner: MemoryAccount, name: str, mailbox_id: int, uid_validity: int) -> None:
        self.account = owner.account
        self.may_write = True
        self.name = name
        self.mailbox_id = mailbox_id
        self.uid_validity = uid_validity
        self.is_gone = False
        self.special_use: SpecialUse | None = None
        self._owner = owner
        self._view = MailboxView(owner.settings.change_log_entries)
        self._view.highest_mod_seq = 1
        self._messages: dict[int, MemoryMessage] = {}
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

    def flags_of(self, uid: int) -> FlagSet:
        """The flags of one message (for tests)."""
        return flag_set_of(*self._messages[uid].flags)

    def add(self, messages: Sequence[MemoryMessage]) -> list[Uid]:
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

    def take_all(self) -> list[MemoryMessage]:
        """Give all messages away (RENAME INBOX)."""
        messages = [self._messages[uid] for uid in sorted(self._messages)]
        self.remove(list(self._messages))
        return messages

    def end(self) -> None:
        """The mailbox was deleted."""
        self.is_gone = True
        self._view.notify()

    def copy(self, uids: Sequence[Uid], destination: str) -> Deferred[CopiedMessages]:
        return maybeDeferred(self.copy_to, self._owner, uids, destination)

    def copy_to(
        self, account: MemoryAccount, uids: Sequence[Uid], destination: str, *, is_move: bool = False
    ) -> CopiedMessages:
        """Copy to a mailbox of any account."""
        target = account.find(destination)
        source = [] if self.is_gone else sorted(uid for uid in set(uids) if uid in self._messages)
        if not is_move:
            account.check_quota(sum(self._messages[uid].summary.size_octets for uid in source), len(source))
        copies = [
            MemoryMessage(
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
            copied = self.copy_to(self._owner, uids, destination, is_move=True)
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
