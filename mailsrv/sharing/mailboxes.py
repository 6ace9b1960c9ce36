"""A user's own mailboxes and those of others they may open, as one account (IAccountMailboxes).

A name decides whose a mailbox is (`names.py`), the grants whether it is there at all and may be changed. Others'
accounts are opened for one question, or for as long as a mailbox of theirs is.

The tree of somebody else's mailboxes belongs to them: CREATE, DELETE and RENAME are refused for every name of the
namespace, whatever stands there, as with all names nothing tells an account without a right from one that is not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from zope.interface import implementer

from mailsrv.errors import MailError
from mailsrv.interfaces.content import Content
from mailsrv.interfaces.mailbox import (
    AppendedMessages,
    CopiedMessages,
    IAccountMailboxes,
    IMailbox,
    IMailStore,
    MailboxInfo,
    MailboxStatus,
    NewMessage,
    NoSuchMailbox,
    NoSuchSharedMailbox,
    NotPermitted,
    QuotaUsage,
    SpecialUse,
    Uid,
)
from mailsrv.sharing.grants import Grants
from mailsrv.sharing.mailbox import OwnMailbox, SharedMailbox
from mailsrv.sharing.names import PREFIX, ROOT, full_name, is_others, may_begin_with, split_name

T = TypeVar("T")
_TREE = "Mailboxes of others are created, renamed and deleted by their owners"


@implementer(IAccountMailboxes)
class SharingMailboxes:
    """One session's. ``discard`` removes content that is not wanted after all; ``released`` is told of the end."""

    _log = Logger()

    def __init__(
        self,
        own: IAccountMailboxes,
        grants: Grants,
        store: IMailStore,
        *,
        discard: Callable[[Content], object],
        released: Callable[[], object],
    ) -> None:
        self.account = own.account
        self._own = own
        self._grants = grants
        self._store = store
        self._discard = discard
        self._released = released

    @property
    def others_prefix(self) -> str:
        return PREFIX if self._grants.accounts else ""

    # Accounts of others

    async def _open(self, owner: str) -> IAccountMailboxes:
        """Release it. Raises NoSuchSharedMailbox, Unavailable."""
        granted = self._grants.find(owner)
        return await self._store.open_account(granted.address, granted.quota_octets)

    async def _ask(self, owner: str, question: Callable[[IAccountMailboxes], Awaitable[T]]) -> T:
        """Ask an account one thing."""
        mailboxes = await self._open(owner)
        try:
            return await question(mailboxes)
        except NoSuchMailbox:
            raise NoSuchSharedMailbox from None
        finally:
            mailboxes.release()

    def _check_write(self, owner: str) -> None:
        if not self._grants.find(owner).may_write:
            raise NotPermitted

    def _may_write(self, owner: str) -> bool:
        granted = self._grants.accounts.get(owner)
        return granted is not None and granted.may_write

    # The list

    def list_mailboxes(self, prefix: str = "") -> Deferred[Sequence[MailboxInfo]]:
        return Deferred.fromCoroutine(self._list(prefix))

    async def _list(self, prefix: str) -> Sequence[MailboxInfo]:
        listed = await self._own.list_mailboxes(prefix)
        grants = self._grants
        if prefix.startswith(PREFIX) and not grants.is_known:
            grants.find(prefix)  # says so
        infos = [info for info in listed if not is_others(info.name)]
        subscribed = {info.name for info in listed if info.is_subscribed and is_others(info.name)}
        others: dict[str, MailboxInfo] = {}
        if grants.accounts:
            others[ROOT] = MailboxInfo(ROOT, 0, is_selectable=False)
        for owner in list(grants.accounts):
            if may_begin_with(owner, prefix):
                others.update((info.name, info) for info in await self._list_of(owner))
        for name in subscribed:
            info = others.get(name, MailboxInfo(name, 0, is_selectable=False, exists=False))
            others[name] = evolve(info, is_subscribed=True)
        return sorted([*infos, *others.values()], key=lambda info: (info.name != "INBOX", info.name))

    async def _list_of(self, owner: str) -> Sequence[MailboxInfo]:
        """What there is of one account, without the special uses and subscriptions of its owner."""
        try:
            listed = await self._ask(owner, lambda mailboxes: mailboxes.list_mailboxes())
            granted = self._grants.find(owner)
        except NoSuchSharedMailbox:
            return ()
        except MailError as error:
            # One account that cannot be read must not take the list away from everybody who may open it.
            self._log.warn("mailboxes of {account} cannot be listed: {error}", account=owner, error=str(error))
            return (MailboxInfo(owner, 0, may_write=self._may_write(owner)),)
        found = [
            evolve(
                info,
                name=full_name(owner, info.name),
                is_subscribed=False,
                special_use=None,
                may_write=granted.may_write,
            )
            for info in listed
            if info.exists
        ]
        if any(info.name.startswith("INBOX/") for info in listed if info.exists):
            found.append(MailboxInfo(f"{owner}/INBOX", 0, is_selectable=False))
        return found

    def create(self, name: str, special_use: SpecialUse | None = None) -> Deferred[None]:
        return fail(NotPermitted(_TREE)) if is_others(name) else self._own.create(name, special_use)

    def delete(self, name: str) -> Deferred[None]:
        return fail(NotPermitted(_TREE)) if is_others(name) else self._own.delete(name)

    def rename(self, old: str, new: str) -> Deferred[None]:
        return fail(NotPermitted(_TREE)) if is_others(old) or is_others(new) else self._own.rename(old, new)

    def subscribe(self, name: str, *, subscribed: bool) -> Deferred[None]:
        """Subscriptions are the user's own, also those to mailboxes of others."""
        return self._own.subscribe(name, subscribed=subscribed)

    # One mailbox

    def status(self, name: str) -> Deferred[MailboxStatus]:
        return Deferred.fromCoroutine(self._status(name)) if is_others(name) else self._own.status(name)

    async def _status(self, name: str) -> MailboxStatus:
        owner, mailbox = split_name(name)
        return await self._ask(owner, lambda mailboxes: mailboxes.status(mailbox))

    def open_mailbox(self, name: str) -> Deferred[IMailbox]:
        return Deferred.fromCoroutine(self._open_mailbox(name))

    async def _open_mailbox(self, name: str) -> IMailbox:
        if not is_others(name):
            return OwnMailbox(await self._own.open_mailbox(name), self)
        owner, mailbox = split_name(name)
        mailboxes = await self._open(owner)
        try:
            opened = await mailboxes.open_mailbox(mailbox)
        except BaseException as error:
            mailboxes.release()
            if isinstance(error, NoSuchMailbox):
                raise NoSuchSharedMailbox from None
            raise
        shared = SharedMailbox(opened, self, self._grants, owner, closed=mailboxes.release)
        try:
            shared.check_read()  # the right may have gone while we waited
        except NoSuchSharedMailbox:
            shared.close()
            raise
        self._log.info("{account} opens {name}", account=str(self.account), name=name)
        return shared

    def append(self, name: str, messages: Sequence[NewMessage]) -> Deferred[AppendedMessages]:
        return (
            Deferred.fromCoroutine(self._append(name, messages))
            if is_others(name)
            else self._own.append(name, messages)
        )

    async def _append(self, name: str, messages: Sequence[NewMessage]) -> AppendedMessages:
        try:
            owner, mailbox = split_name(name)
            self._check_write(owner)
            mailboxes = await self._open(owner)
        except BaseException:
            for message in messages:
                self._discard(message.content)
            raise
        try:
            # The account takes the content over, refused or not.
            return await mailboxes.append(mailbox, messages)
        except NoSuchMailbox:
            raise NoSuchSharedMailbox from None
        finally:
            mailboxes.release()

    # Copies

    def copy_from(self, source: IMailbox, uids: Sequence[Uid], destination: str) -> Deferred[CopiedMessages]:
        inner = source.inner if isinstance(source, OwnMailbox) else source
        if not is_others(destination):
            return self._own.copy_from(inner, uids, destination)

        async def copy() -> CopiedMessages:
            owner, mailbox = split_name(destination)
            self._check_write(owner)
            return await self._ask(owner, lambda mailboxes: mailboxes.copy_from(inner, uids, mailbox))

        return Deferred.fromCoroutine(copy())

    def copy(
        self, source: OwnMailbox, uids: Sequence[Uid], destination: str, *, is_move: bool
    ) -> Deferred[CopiedMessages]:
        """From a mailbox this account gave to any of its names. See `IMailbox.copy` and `IMailbox.move`."""
        return Deferred.fromCoroutine(self._copy(source, uids, destination, is_move=is_move))

    async def _copy(
        self, source: OwnMailbox, uids: Sequence[Uid], destination: str, *, is_move: bool
    ) -> CopiedMessages:
        if isinstance(source, SharedMailbox):
            source.check_read()
            if is_move:
                source.check_write()
        target, mailbox = self.account, destination
        if is_others(destination):
            owner, mailbox = split_name(destination)
            target = self._grants.find(owner).address
            self._check_write(owner)
        if target == source.account:
            try:
                return await (source.inner.move if is_move else source.inner.copy)(uids, mailbox)
            except NoSuchMailbox:
                raise (NoSuchSharedMailbox if is_others(destination) else NoSuchMailbox)() from None
        copied = await self.copy_from(source, uids, destination)
        return await self._take_away(source, copied, destination) if is_move and copied.source else copied

    async def _take_away(self, source: OwnMailbox, copied: CopiedMessages, destination: str) -> CopiedMessages:
        """The second half of a MOVE: the copies are on disk, and each message is in one place afterwards.

        Two accounts are two indexes: a crash in between leaves messages in both, never in none (RFC 6851 3.3).
        What somebody else took away meanwhile was not moved by us.
        """
        pairs = list(zip(copied.source, copied.destination, strict=True))
        try:
            gone = frozenset(await source.delete_messages(copied.source))
        except MailError:
            left = await self._left_in(source)
            await self._take_back([made for uid, made in pairs if uid in left], copied.uid_validity, destination)
            raise
        await self._take_back([made for uid, made in pairs if uid not in gone], copied.uid_validity, destination)
        return CopiedMessages(
            copied.uid_validity,
            [uid for uid, _ in pairs if uid in gone],
            [made for uid, made in pairs if uid in gone],
        )

    async def _left_in(self, source: OwnMailbox) -> frozenset[int]:
        """What is certainly still there after a removal that failed: it may have failed after its commit.

        Asked of the store, as a right that has gone takes nothing away.
        """
        inner = source.inner
        try:
            await inner.refresh()
        except MailError:
            return frozenset()
        return frozenset() if inner.is_gone else frozenset(inner.uids)

    async def _take_back(self, made: Sequence[Uid], uid_validity: int, destination: str) -> None:
        if not made:
            return
        try:
            mailbox = await self._open_mailbox(destination)
            try:
                # Another mailbox of that name may be there by now, with other messages under these numbers.
                if mailbox.uid_validity == uid_validity:
                    await mailbox.delete_messages(made)
            finally:
                mailbox.close()
        except MailError as error:
            self._log.warn("copies in {name} could not be taken back: {error}", name=destination, error=str(error))

    # Quota

    def quota_root(self, name: str) -> str:
        """Each account's is called like its INBOX, the own one ""."""
        return split_name(name)[0] if is_others(name) else ""

    def quota(self, root: str = "") -> Deferred[QuotaUsage]:
        if not root:
            return self._own.quota()
        return Deferred.fromCoroutine(self._ask(root, lambda mailboxes: mailboxes.quota()))

    # The own account's

    def lock_maildrop(self) -> Deferred[Callable[[], None]]:
        return self._own.lock_maildrop()

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        ends = (self._own.listen(listener), self._grants.watch(listener))

        def end() -> None:
            for one in ends:
                one()

        return end

    def release(self) -> None:
        self._own.release()
        self._released()
