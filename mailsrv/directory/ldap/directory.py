"""A directory over LDAP.

One search answers for an address both questions, user or alias. Answers are fresh for ``cache_seconds``. When no server
answers, known recipients are taken from older answers up to ``outage_seconds``, everything else is Unavailable:
mail for others waits (451), nobody is told that a password is wrong (R-AUTH-7, RELIABILITY 7.2). Passwords are checked
by a bind, always against a server. Two entries for one name are nobody that can be told: Unavailable, and an error in
the log.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.coroutines import run_coroutine
from mailsrv.directory.ldap.answers import NOBODY, Answer, AnswerCache
from mailsrv.directory.ldap.changes import Change, ChangeFollower, Changes
from mailsrv.directory.ldap.client import LdapClient
from mailsrv.directory.ldap.domains import LdapDomains
from mailsrv.directory.ldap.entry import EntryReader
from mailsrv.directory.ldap.filters import dn_from_template
from mailsrv.directory.ldap.lookups import MANY_PATIENCE_SECONDS, MANY_SECONDS, Ambiguous, LookUps
from mailsrv.directory.ldap.password_check import IPasswordCheck
from mailsrv.directory.ldap.rights_in_ldap import RightsInLdap
from mailsrv.directory.ldap.rights_questions import RightsQuestions
from mailsrv.directory.ldap.state import describe
from mailsrv.directory.ldap.trouble import LdapTrouble
from mailsrv.directory.names import canonical_address
from mailsrv.directory.peek import IPeekable, Peeked
from mailsrv.errors import Unavailable
from mailsrv.interfaces.directory import DirectoryUser, IDirectory, ILoginDirectory
from mailsrv.interfaces.directory_changes import IFollowDirectory
from mailsrv.interfaces.directory_state import DirectoryState, IReportsState
from mailsrv.interfaces.domain_source import IDomainSource, ISuppliesDomains
from mailsrv.interfaces.sessions import IReviewDirectory

T = TypeVar("T")

_NOBODY = "cn=nobody at all"


@implementer(
    IDirectory, IFollowDirectory, ILoginDirectory, IPeekable, IReportsState, IReviewDirectory, ISuppliesDomains
)
class LdapDirectory(RightsInLdap):
    """``base`` is where everything is searched below; ``seconds``: how long one question may take.

    Who logs in gets their groups with ``tells_groups`` only; members of ``administrator_groups`` are administrators.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        client: LdapClient,
        reader: EntryReader,
        look_ups: LookUps,
        cache: AnswerCache,
        *,
        rights: RightsQuestions,
        password_check: IPasswordCheck,
        base: str,
        seconds: float,
        clock: IReactorTime,
        list_seconds: float = 60.0,
        tells_groups: bool = False,
        administrator_groups: Collection[str] = (),
        make_follower: Callable[[Callable[[Changes], None]], ChangeFollower] | None = None,
        domains: LdapDomains | None = None,
    ) -> None:
        self.name = name
        self._client = client
        self._reader = reader
        self._look_ups = look_ups
        self._cache = cache
        super().__init__(rights, reader.mapping, administrator_groups, tells_groups=tells_groups)
        self._password_check = password_check
        self._base = base
        self._seconds = seconds
        self._make_follower = make_follower
        self._domains = domains
        self._clock = clock
        self._list_seconds = list_seconds
        self._listed: tuple[float, Sequence[DirectoryUser]] | None = None
        self._asking: dict[Address, list[Deferred[Answer]]] = {}
        self._is_out = False

    # IDirectory

    def find_user(self, address: Address) -> Deferred[DirectoryUser | None]:
        return run_coroutine(self._find_user(address))

    async def _find_user(self, address: Address) -> DirectoryUser | None:
        return (await self._answer(canonical_address(address), may_be_old=True)).user

    def find_alias(self, address: Address) -> Deferred[Sequence[Address] | None]:
        return run_coroutine(self._find_alias(address))

    async def _find_alias(self, address: Address) -> Sequence[Address] | None:
        return (await self._answer(canonical_address(address), may_be_old=True)).targets

    def peek(self, address: Address, *, is_target: bool = False) -> Peeked | None:
        """See :class:`~mailsrv.directory.peek.IPeekable`: what was asked lately."""
        answer = self._cache.fresh(address, as_member=is_target)
        return None if answer is None else (answer.targets, answer.user)

    def states(self) -> Sequence[DirectoryState]:
        """See :class:`~mailsrv.interfaces.directory_state.IReportsState`."""
        servers = self._client.servers
        # It takes a look at each answer: only where it is wanted.
        is_out = not any(server.is_up for server in servers.all)
        oldest = self._cache.oldest_seconds() if is_out else None
        answers = len(self._cache)
        return (describe(self.name, servers.all, answers=answers, oldest_answer_seconds=oldest, now=servers.seconds()),)

    def find_login(self, address: Address) -> Deferred[DirectoryUser | None]:
        """Who logs in by this name: an address, an alias, a short name, a principal's name. Never from old answers."""
        return run_coroutine(self._find_login(canonical_address(address)))

    async def _find_login(self, address: Address) -> DirectoryUser | None:
        known = self._cache.fresh(address)
        if known is not None and known.user is not None:
            known_user = await self._with_groups(known.user, known.dn)
            if known_user is not None:
                return known_user
            # It was moved, or is gone.
            self._cache.drop(address)
        if not address.domain:
            return None
        found = await self._ask(self._look_ups.login(address))
        if found is None:
            return None
        account = found.user.address
        if account != address:
            # Another entry may have the account's address, too: the account is not for who wrote it into theirs.
            known = await self._answer(account, may_be_old=False)
            if known.is_known and known.dn.lower() != found.dn.lower():
                raise self._look_ups.ambiguous(account, [found.dn, known.dn])
        self._look_ups.keep(found)
        return await self._with_groups(found.user, found.dn)

    def check_password(self, user: DirectoryUser | None, password: str) -> Deferred[bool]:
        """By a bind. For nobody one is made, too, with a name that is none (R-AUTH-4)."""
        return run_coroutine(self._check_password(user, password))

    async def _check_password(self, user: DirectoryUser | None, password: str) -> bool:
        if not password:
            return False
        dn = f"{_NOBODY},{self._base}"
        if user is not None:
            dn = await self._dn(user)
        outcome = await self._ask(self._password_check.check(dn, password, seconds=self._seconds))
        if user is None:
            return False
        if not outcome.is_right:
            self._log.info(
                "{directory}: {user}: {reason}", directory=self.name, user=user.address, reason=outcome.reason
            )
        return outcome.is_right

    async def _dn(self, user: DirectoryUser) -> str:
        template = self._reader.mapping.dn_template
        address = user.address
        if template:
            return dn_from_template(template, local=address.local_part, domain=address.domain, address=str(address))
        known = self._cache.fresh(address)
        if known is None or not known.dn:
            known = await self._answer(address, may_be_old=False)
        return known.dn if known.user is not None else f"{_NOBODY},{self._base}"

    def known_entry(self, address: Address) -> str:
        """The DN of the entry that was asked for lately; "" if it was not."""
        known = self._cache.fresh(address)
        return "" if known is None else known.dn

    def list_users(self) -> Deferred[Sequence[DirectoryUser]]:
        return run_coroutine(self._list_users())

    async def _list_users(self) -> Sequence[DirectoryUser]:
        now = self._clock.seconds()
        if self._listed is not None and now - self._listed[0] < self._list_seconds:
            return self._listed[1]
        seconds = max(self._seconds, MANY_SECONDS)
        listed = await self._ask(
            self._client.with_connection(self._look_ups.read_all, seconds=seconds, patience=MANY_PATIENCE_SECONDS)
        )
        self._listed = (now, listed)
        return listed

    def review(self, addresses: Sequence[Address]) -> Deferred[Mapping[Address, DirectoryUser | None]]:
        """See :class:`~mailsrv.interfaces.sessions.IReviewDirectory`: one search for all of them."""
        return run_coroutine(self._review(addresses))

    async def _review(self, addresses: Sequence[Address]) -> Mapping[Address, DirectoryUser | None]:
        drops = self._cache.drops
        try:
            users = await self._ask(
                self._client.with_connection(partial(self._look_ups.read_these, addresses), seconds=self._seconds)
            )
            if not users:
                await self._ask(self._look_ups.check_somebody_is_there())
        except Unavailable:
            return {}
        found: dict[Address, DirectoryUser | None] = {}
        for address in addresses:
            same = users.get(address, [])
            if len(same) > 1:
                self._look_ups.ambiguous(address, [user.dn for user in same])
                continue
            if same and self._cache.drops == drops:
                self._look_ups.keep(same[0])
            elif not same:
                self._cache.drop(address)
                drops = self._cache.drops
            found[address] = same[0].user if same else None
        return found

    def _drop(self, address: Address) -> None:
        self._cache.drop(address)

    def domain_sources(self) -> Sequence[IDomainSource]:
        """See :class:`~mailsrv.interfaces.domain_source.ISuppliesDomains`."""
        return () if self._domains is None else (self._domains,)

    # IFollowDirectory

    def follow_changes(self, changed: Callable[[Sequence[Address] | None], None]) -> Callable[[], None]:
        """See :class:`~mailsrv.interfaces.directory_changes.IFollowDirectory`; as the setting ``changes`` says."""
        if self._make_follower is None:
            return lambda: None

        def hear(changes: Changes) -> None:
            if self._domains is not None:
                self._domains.heard(changes)
            changed(self.forget(changes))

        follower = self._make_follower(hear)
        follower.start()
        return follower.stop

    def forget(self, changes: Changes) -> Sequence[Address] | None:
        """Ask anew about entries that have changed; answers with the addresses they have and had.

        None: anybody may be concerned. A group has changed, and rules on log-ins are about groups.
        """
        self._listed = None
        self._rights.forget()
        if changes is None:
            self._cache.drop_all()
            return None
        addresses: set[Address] = set()
        concerns_lists = [self._forget_entry(change, addresses) for change in changes]
        if any(concerns_lists):
            self._cache.drop_lists()
            if self._tells_groups:
                return None
        return tuple(addresses)

    def _forget_entry(self, change: Change, addresses: set[Address]) -> bool:
        """Whether lists may have other members, or aliases other targets, for it."""
        users = self._cache.users_of(change.dn)
        entry = change.entry
        known_as = () if entry is None else self._reader.addresses(entry)
        addresses.update(known_as, self._cache.drop_entry(change.dn, known_as))
        user = None if entry is None or self._reader.is_group(entry) else self._reader.user(entry)
        # Most changes are of users, and change nothing of where mail goes. Members of a list are remembered with it.
        return user is None or any(each.address != user.user.address for each in users)

    # Answers

    async def _answer(self, address: Address, *, may_be_old: bool) -> Answer:
        known = self._cache.fresh(address)
        if known is not None:
            return known
        if not address.domain:
            return NOBODY
        waiting = self._asking.get(address)
        try:
            if waiting is not None:
                # The same question is under way: a mailing to one user must not become a hundred searches.
                waiter: Deferred[Answer] = Deferred()
                waiting.append(waiter)
                return await waiter
            return await self._ask_once(address)
        except Ambiguous:
            raise
        except Unavailable:
            old = self._cache.stale(address) if may_be_old else None
            if old is None:
                raise
            return old

    async def _ask_once(self, address: Address) -> Answer:
        waiting: list[Deferred[Answer]] = []
        self._asking[address] = waiting
        drops = self._cache.drops
        try:
            answer = await self._ask(self._look_ups.address(address))
        except Exception as error:
            told = error if isinstance(error, Unavailable) else Unavailable(cause="the question failed")
            for waiter in waiting:
                waiter.errback(told)
            raise
        finally:
            del self._asking[address]
        self._cache.add(address, answer)
        if self._cache.drops != drops:
            # Something has changed since the question was asked: the answer may be from before.
            self._cache.drop(address)
        for waiter in waiting:
            if not waiter.called:
                waiter.callback(answer)
        return answer

    async def _ask(self, question: Awaitable[T]) -> T:
        """The answer; any trouble with the directory is Unavailable."""
        try:
            answer = await question
        except LdapTrouble as error:
            self._note_trouble(str(error))
            raise Unavailable(cause=f"{self.name}: {error}") from error
        self._is_out = False
        return answer

    def _note_trouble(self, cause: str) -> None:
        """Once per outage: the servers' own changes of state are logged where they are noticed."""
        if not self._is_out:
            self._is_out = True
            self._log.error("{directory} does not answer: {cause}", directory=self.name, cause=cause)
