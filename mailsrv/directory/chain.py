"""Several directories asked in order; the first that knows, answers.

If one is unavailable before any has answered, the answer is unavailable, even if a later one
would know: mail must not go to another account because a server is down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.coroutines import run_coroutine
from mailsrv.directory.peek import IPeekable, Peek, Peeked
from mailsrv.directory.review import review_users
from mailsrv.directory.scram import joint_standings
from mailsrv.interfaces.directory import DirectoryUser, IDirectory, ILoginDirectory, IScramDirectory, ScramStanding
from mailsrv.interfaces.directory_changes import IFollowDirectory
from mailsrv.interfaces.directory_state import DirectoryState, IReportsState
from mailsrv.interfaces.domain_source import IDomainSource, ISuppliesDomains
from mailsrv.interfaces.rights import IRightsDirectory, PostingRule, SendRights, SharedMailbox
from mailsrv.interfaces.sessions import IReviewDirectory


@implementer(
    IDirectory,
    IFollowDirectory,
    ILoginDirectory,
    IPeekable,
    IReportsState,
    IReviewDirectory,
    IRightsDirectory,
    IScramDirectory,
    ISuppliesDomains,
)
class DirectoryChain:
    """One directory made of several.

    ``for_unknown`` is the one that spends the time of a password check on unknown users
    (R-AUTH-4); by default the first. ``with_users`` are those that have users, and not only aliases; by default all.
    """

    def __init__(
        self,
        directories: Sequence[IDirectory],
        *,
        for_unknown: IDirectory | None = None,
        with_users: Sequence[IDirectory] | None = None,
    ) -> None:
        self.name = "chain"
        self._directories = tuple(directories)
        self._with_users = self._directories if with_users is None else tuple(with_users)
        self._by_name = {directory.name: directory for directory in directories}
        if len(self._by_name) != len(self._directories):
            raise ValueError("two directories have the same name")
        self._peeks: Sequence[tuple[str, Peek]] | None = None
        if all(IPeekable.providedBy(directory) for directory in self._directories):
            self._peeks = [(directory.name, IPeekable(directory).peek) for directory in self._directories]
        self._for_unknown = for_unknown or (self._directories[0] if self._directories else None)

    def find_user(self, address: Address) -> Deferred[DirectoryUser | None]:
        return run_coroutine(self._find_user(address))

    async def _find_user(self, address: Address) -> DirectoryUser | None:
        for directory in self._directories:
            user = await directory.find_user(address)
            if user is not None:
                return user if user.directory == directory.name else evolve(user, directory=directory.name)
        return None

    def find_login(self, address: Address) -> Deferred[DirectoryUser | None]:
        """Who logs in by this name; where a directory knows no other names than addresses, those."""
        return run_coroutine(self._find_login(address))

    async def _find_login(self, address: Address) -> DirectoryUser | None:
        for directory in self._directories:
            if ILoginDirectory.providedBy(directory):
                user = await ILoginDirectory(directory).find_login(address)
            else:
                user = await directory.find_user(address)
            if user is not None:
                return user if user.directory == directory.name else evolve(user, directory=directory.name)
        return None

    def review(self, addresses: Sequence[Address]) -> Deferred[Mapping[Address, DirectoryUser | None]]:
        """See :class:`~mailsrv.interfaces.sessions.IReviewDirectory`: gone is who is gone from all of them."""
        return run_coroutine(self._review(addresses))

    async def _review(self, addresses: Sequence[Address]) -> Mapping[Address, DirectoryUser | None]:
        found: dict[Address, DirectoryUser | None] = {}
        missing = list(addresses)
        for directory in self._directories:
            if not missing:
                break
            told = await review_users(directory, missing)
            for address, user in told.items():
                if user is not None:
                    found[address] = evolve(user, directory=directory.name)
            # Who one of them cannot say anything about may be there.
            missing = [address for address in missing if address in told and told[address] is None]
        found.update(dict.fromkeys(missing))
        return found

    def follow_changes(self, changed: Callable[[Sequence[Address] | None], None]) -> Callable[[], None]:
        """See :class:`~mailsrv.interfaces.directory_changes.IFollowDirectory`: all that can be followed."""
        ends = [
            IFollowDirectory(each).follow_changes(changed)
            for each in self._directories
            if IFollowDirectory.providedBy(each)
        ]

        def end() -> None:
            for one in ends:
                one()

        return end

    def peek(self, address: Address, *, is_target: bool = False) -> Peeked | None:
        """See :class:`~mailsrv.directory.peek.IPeekable`: what all of them have at hand."""
        if self._peeks is None:
            return None
        targets: Sequence[Address] | None = None
        user: DirectoryUser | None = None
        for name, peek in self._peeks:
            known = peek(address, is_target=is_target)
            if known is None:
                return None
            if targets is None:
                targets = known[0]
            if user is None and known[1] is not None:
                user = known[1] if known[1].directory == name else evolve(known[1], directory=name)
        return (targets, user)

    def check_password(self, user: DirectoryUser | None, password: str) -> Deferred[bool]:
        return run_coroutine(self._check_password(user, password))

    async def _check_password(self, user: DirectoryUser | None, password: str) -> bool:
        directory = self._by_name.get(user.directory) if user is not None else None
        if directory is not None:
            return await directory.check_password(user, password)
        if self._for_unknown is not None:
            await self._for_unknown.check_password(None, password)
        return False

    def states(self) -> Sequence[DirectoryState]:
        """Of all that tell."""
        telling = [IReportsState(each) for each in self._directories if IReportsState.providedBy(each)]
        return [state for each in telling for state in each.states()]

    def domain_sources(self) -> Sequence[IDomainSource]:
        """Of all that list domains."""
        supplying = [ISuppliesDomains(each) for each in self._directories if ISuppliesDomains.providedBy(each)]
        return [source for each in supplying for source in each.domain_sources()]

    def scram_standings(self) -> Sequence[ScramStanding]:
        return joint_standings(self._with_users)

    def find_alias(self, address: Address) -> Deferred[Sequence[Address] | None]:
        return run_coroutine(self._find_alias(address))

    async def _find_alias(self, address: Address) -> Sequence[Address] | None:
        for directory in self._directories:
            targets = await directory.find_alias(address)
            if targets is not None:
                return targets
        return None

    def list_users(self) -> Deferred[Sequence[DirectoryUser]]:
        return run_coroutine(self._list_users())

    async def _list_users(self) -> Sequence[DirectoryUser]:
        users: dict[Address, DirectoryUser] = {}
        for directory in self._directories:
            for user in await directory.list_users():
                users.setdefault(user.address, evolve(user, directory=directory.name))
        return tuple(users[address] for address in sorted(users, key=str))

    # IRightsDirectory: the directory that knows an address, and no later one, says what holds for it.

    @property
    def has_rights(self) -> bool:
        return any(
            IRightsDirectory.providedBy(each) and IRightsDirectory(each).has_rights for each in self._directories
        )

    @property
    def has_shared_mailboxes(self) -> bool:
        return any(
            IRightsDirectory.providedBy(each) and IRightsDirectory(each).has_shared_mailboxes
            for each in self._directories
        )

    def find_groups(self, user: DirectoryUser) -> Deferred[tuple[str, ...]]:
        directory = self._by_name.get(user.directory)
        if directory is None or not IRightsDirectory.providedBy(directory):
            return succeed(user.groups)
        return IRightsDirectory(directory).find_groups(user)

    def find_posting_rule(self, address: Address) -> Deferred[PostingRule | None]:
        return run_coroutine(self._find_posting_rule(address))

    async def _find_posting_rule(self, address: Address) -> PostingRule | None:
        for directory in self._directories:
            if await directory.find_alias(address) is not None:
                provides = IRightsDirectory.providedBy(directory)
                return await IRightsDirectory(directory).find_posting_rule(address) if provides else None
        return None

    def find_send_rights(self, address: Address) -> Deferred[SendRights | None]:
        return run_coroutine(self._find_send_rights(address))

    async def _find_send_rights(self, address: Address) -> SendRights | None:
        for directory in self._directories:
            if await directory.find_alias(address) is None and await directory.find_user(address) is None:
                continue
            provides = IRightsDirectory.providedBy(directory)
            return await IRightsDirectory(directory).find_send_rights(address) if provides else None
        return None

    def find_shared_mailboxes(self, user: DirectoryUser) -> Deferred[Sequence[SharedMailbox]]:
        directory = self._by_name.get(user.directory)
        if directory is None or not IRightsDirectory.providedBy(directory):
            return succeed(())
        return IRightsDirectory(directory).find_shared_mailboxes(user)
