"""What a recipient's address stands for: accounts here, addresses elsewhere, or nobody.

The order, for an address in a local domain (whose other names mean the same):

1. an alias of exactly this local part, then a user of exactly this local part;
2. the same without the subaddress (``alice+lists`` → ``alice``, detail ``lists``; RFC 5233);
3. for ``postmaster``, also where an alias names it: the domain's setting, the general one, the first
   user. Mail for postmaster is never refused (RFC 5321 4.5.1);
4. the domain's catch-all.

Where an alias leads elsewhere and a list owner is named (``owner-staff`` beside ``staff``), the owner
gets the notices: it is told with each forward.

Aliases are followed up to ALIAS_DEPTH steps and a number of targets; an address met again is not
followed again, and one that an alias names within itself is the account of that name. Local parts
that carry a route (``user%elsewhere``, ``elsewhere!user``, ``user@elsewhere`` in quotes,
``@relay:user``) are ordinary names: unless a user of exactly that name exists, they are nobody,
and nothing is ever sent to the address inside (RFC 5321 appendix F.2).

Every method may raise Unavailable: what a directory would say is then not known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from mailsrv.address import Address, AddressError
from mailsrv.coroutines import run_coroutine
from mailsrv.directory.domains import Knowledge, LocalDomains
from mailsrv.directory.names import canonical_address, parse_account_name
from mailsrv.directory.peek import IPeekable, Peeked
from mailsrv.directory.resolution import (
    ForeignDomain,
    Forward,
    LocalAccounts,
    LocalRecipient,
    PassedAlias,
    Resolution,
    UnknownRecipient,
    check_is_foreign,
    open_to_all,
)
from mailsrv.directory.resolve_steps import Listener, Step, StepKind
from mailsrv.directory.settings import DomainSettings
from mailsrv.errors import Unavailable
from mailsrv.interfaces.directory import IDirectory

ALIAS_DEPTH = 10
ALIAS_TARGETS = 20_000
"""What one address may lead to where the settings say nothing else: lists of thousands, but not webs without end."""
_TARGETS_IN_ONE_GO = 64
_COMPARED_IN_ONE_GO = 512
POSTMASTER = "postmaster"
OWNER_PREFIX = "owner-"
_ROUTE_CHARACTERS = frozenset("%!@:")


Carries = Callable[[Address], bool]
"""Whether a transport rule leads a local address (that is no alias) elsewhere."""


class _Expansion:
    """The way through aliases for one address."""

    __slots__ = ("accounts", "aliases", "carried", "carries", "forwards", "listener", "met", "passed", "targets")

    def __init__(self, carries: Carries | None = None, listener: Listener | None = None) -> None:
        self.accounts: dict[Address, LocalRecipient] = {}
        self.forwards: dict[Address, Forward] = {}
        self.carried: dict[Address, None] = {}
        self.met: set[Address] = set()
        self.passed: list[PassedAlias] = []
        self.aliases: dict[Address, PassedAlias] = {}
        """Those among ``met`` that are aliases, as they were passed first."""
        self.targets = 0
        self.carries = carries
        self.listener = listener

    def is_empty(self) -> bool:
        return not self.accounts and not self.forwards and not self.carried

    def add(self, resolution: LocalAccounts) -> None:
        for recipient in resolution.accounts:
            self.accounts.setdefault(recipient.account, recipient)
        for forward in resolution.forwards:
            self.forwards.setdefault(forward.address, forward)
        self.carried.update(dict.fromkeys(resolution.carried))

    def result(self) -> LocalAccounts:
        return LocalAccounts(
            tuple(self.accounts.values()), tuple(self.forwards.values()), tuple(self.carried), tuple(self.passed)
        )

    def tell(self, kind: StepKind, address: Address, *result: object) -> None:
        if self.listener is not None:
            self.listener(Step(kind, address, tuple(str(each) for each in result)))


class AddressResolver:
    """Resolves addresses by domains and a directory. ``postmaster`` is the general setting, an address or "".

    ``target_limit``: how many targets all aliases behind one address may name together. ``take_turns`` lets others
    have the reactor for a moment: a list of thousands is followed some targets at a time.
    """

    _log = Logger()

    def __init__(
        self,
        domains: LocalDomains,
        directory: IDirectory,
        *,
        postmaster: str = "",
        target_limit: int = ALIAS_TARGETS,
        take_turns: Callable[[], Deferred[None]] | None = None,
    ) -> None:
        self._domains = domains
        self._directory = directory
        self._target_limit = target_limit
        self._take_turns = take_turns
        self._postmaster = postmaster
        self._peek = IPeekable(directory).peek if IPeekable.providedBy(directory) else None

    def find_at_hand(self, address: Address) -> LocalAccounts | None:
        """What :meth:`resolve` would answer, where that is one user who is known without asking anybody."""
        if self._peek is None:
            return None
        found = self._domains.find(address.domain)
        if found is None:
            return None
        if found[0] != address.domain:
            address = Address(address.local_part, found[0])
        known = self._peek(canonical_address(address))
        if known is None or known[0] is not None or known[1] is None:
            return None
        return LocalAccounts((LocalRecipient(known[1]),))

    def is_foreign(self, address: Address) -> bool:
        """Whether :meth:`resolve` would answer with :class:`ForeignDomain`."""
        domain = address.domain or self._domains.primary
        return self._domains.find(domain) is None and self._domains.knowledge is not Knowledge.NONE

    async def resolve(
        self, address: Address, *, carries: Carries | None = None, listener: Listener | None = None
    ) -> Resolution:
        """What the address stands for now. ``listener`` is told every step."""
        domain = address.domain
        if not domain:
            # <Postmaster> (RFC 5321 4.1.1.3): of the first domain.
            domain = self._domains.primary
        found = self._find_domain(domain)
        if found is None:
            return ForeignDomain(domain, self._domains.knowledge is Knowledge.ALL)
        main, settings = found
        ours = canonical_address(Address(address.local_part, main))
        expansion = _Expansion(carries, listener)
        if listener is not None:
            expansion.tell(StepKind.DOMAIN, address, main)
        await self._expand(ours, settings, expansion, "", ())
        if not expansion.is_empty():
            return open_to_all(expansion.result()) if self._is_postmaster(ours) else expansion.result()
        if not _ROUTE_CHARACTERS.isdisjoint(ours.local_part):
            return UnknownRecipient(address)
        base, detail = ours.split_subaddress(settings.subaddress_delimiter)
        if base.local_part == POSTMASTER:
            return await self._resolve_postmaster(main, settings, detail, expansion)
        if settings.catch_all:
            await self._follow_setting("catch_all", settings.catch_all, expansion, detail, (ours,))
            expansion.tell(StepKind.CATCH_ALL, ours, settings.catch_all)
            if not expansion.is_empty():
                return expansion.result()
        expansion.tell(StepKind.NOBODY, ours)
        return UnknownRecipient(address)

    def _find_domain(self, domain: str) -> tuple[str, DomainSettings] | None:
        found = self._domains.find(domain)
        if found is None and self._domains.knowledge is Knowledge.NONE:
            raise Unavailable(cause=f"whether {domain} is ours is not known: no directory has told its domains yet")
        return found

    def canonical(self, address: Address) -> Address | None:
        """The address in the main name of its domain, as directories are asked for it; None where it is not ours."""
        found = self._find_domain(address.domain)
        return None if found is None else canonical_address(Address(address.local_part, found[0]))

    def without_detail(self, address: Address) -> Address:
        """A canonical address of ours without its subaddress."""
        found = self._domains.find(address.domain)
        return address if found is None else address.split_subaddress(found[1].subaddress_delimiter)[0]

    def _is_postmaster(self, address: Address) -> bool:
        return self.without_detail(address).local_part == POSTMASTER

    @property
    def domains(self) -> LocalDomains:
        """Ours."""
        return self._domains

    def may_send_as(self, account: Address, address: Address) -> Deferred[bool]:
        """Whether mail to ``address`` reaches ``account``: own address, subaddress, alias."""
        known = self.find_at_hand(address)
        if known is not None:
            return succeed(known.accounts[0].account == account)
        return run_coroutine(self._may_send_as(account, address))

    async def _may_send_as(self, account: Address, address: Address) -> bool:
        resolution = await self.resolve(address)
        check_is_foreign(resolution)
        return isinstance(resolution, LocalAccounts) and await self._has_any(
            (recipient.account for recipient in resolution.accounts), {account}
        )

    async def reaches(self, address: Address, names: Collection[Address]) -> bool:
        """Whether mail for the address reaches one of ``names``: accounts here or addresses elsewhere."""
        if not names:
            return False
        resolution = await self.resolve(address)
        if not isinstance(resolution, LocalAccounts):
            return False
        accounts = (each.account for each in resolution.accounts)
        return await self._has_any(chain(accounts, (each.address for each in resolution.forwards)), names)

    async def _has_any(self, addresses: Iterable[Address], names: Collection[Address]) -> bool:
        for number, address in enumerate(addresses, 1):
            if self._take_turns is not None and number % _COMPARED_IN_ONE_GO == 0:
                await self._take_turns()
            if address in names:
                return True
        return False

    async def _expand(
        self,
        address: Address,
        settings: DomainSettings,
        expansion: _Expansion,
        detail: str,
        aliases: tuple[Address, ...],
    ) -> None:
        """Add what a canonical local address stands for; ``aliases`` are those that led to it."""
        is_own_target = address in aliases
        # Members of a list were read with it: none of them is worth a Deferred.
        known = None if self._peek is None else self._peek(address, is_target=bool(aliases))
        if not is_own_target:
            if address in expansion.met:
                again = expansion.aliases.get(address)
                if again is not None and aliases:
                    expansion.passed.append(evolve(again, through=aliases[-1]))
                expansion.tell(StepKind.AGAIN, address)
                return
            expansion.met.add(address)
            targets = await self._directory.find_alias(address) if known is None else known[0]
            if targets is not None:
                is_user = bool(aliases) and await self._is_user(address, known)
                passed = PassedAlias(address, aliases[-1] if aliases else None, is_user)
                expansion.passed.append(passed)
                expansion.aliases[address] = passed
                if expansion.listener is not None:
                    expansion.tell(StepKind.ALIAS, address, *targets)
                await self._follow(targets, expansion, detail, (*aliases, address))
                return
        if expansion.carries is not None and expansion.carries(address):
            expansion.carried[address] = None
            expansion.tell(StepKind.CARRIED, address)
            return
        user = await self._directory.find_user(address) if known is None else known[1]
        if user is not None:
            expansion.accounts.setdefault(user.address, LocalRecipient(user, detail))
            if expansion.listener is not None:
                expansion.tell(StepKind.USER, address, user.address)
            return
        if is_own_target or not _ROUTE_CHARACTERS.isdisjoint(address.local_part):
            return
        base, own_detail = address.split_subaddress(settings.subaddress_delimiter)
        if base != address:
            if expansion.listener is not None:
                expansion.tell(StepKind.SUBADDRESS, address, base, own_detail)
            await self._expand(base, settings, expansion, own_detail or detail, aliases)
        elif aliases and address.local_part == POSTMASTER:
            # Of `abuse: postmaster` in every file of aliases.
            expansion.add(await self._resolve_postmaster(address.domain, settings, detail, expansion, aliases))

    async def _is_user(self, address: Address, known: Peeked | None) -> bool:
        try:
            return (await self._directory.find_user(address) if known is None else known[1]) is not None
        except Unavailable:
            # Whoever told the targets would know: this alias is of another directory, which does not depend on this.
            return False

    async def _follow(
        self, targets: Sequence[Address], expansion: _Expansion, detail: str, aliases: tuple[Address, ...]
    ) -> None:
        """Add what the targets of the last of ``aliases`` stand for; targets that are nobody add nothing."""
        if len(aliases) > ALIAS_DEPTH:
            raise self._too_much(aliases[0], f"more than {ALIAS_DEPTH} steps")
        expansion.targets += len(targets)
        if expansion.targets > self._target_limit:
            raise self._too_much(aliases[0], f"more than {self._target_limit} targets")
        elsewhere: list[Address] = []
        for number, target in enumerate(targets, 1):
            if self._take_turns is not None and number % _TARGETS_IN_ONE_GO == 0:
                await self._take_turns()
            found = self._find_domain(target.domain)
            if found is None:
                elsewhere.append(target)
                continue
            main, settings = found
            ours = canonical_address(Address(target.local_part, main))
            await self._expand(ours, settings, expansion, detail, aliases)
        if elsewhere:
            alias = aliases[-1]
            owner = await self._find_owner(alias)
            if owner is not None:
                expansion.tell(StepKind.OWNER, alias, owner)
            for number, target in enumerate(elsewhere, 1):
                if self._take_turns is not None and number % _COMPARED_IN_ONE_GO == 0:
                    await self._take_turns()
                expansion.forwards.setdefault(target, Forward(target, alias, owner))
                if expansion.listener is not None:
                    expansion.tell(StepKind.FORWARD, alias, target)

    async def _find_owner(self, alias: Address) -> Address | None:
        """The address of an alias's owner, where there is one: an alias or a user."""
        if alias.local_part.startswith(OWNER_PREFIX):
            return None
        try:
            owner = Address(OWNER_PREFIX + alias.local_part, alias.domain)
        except AddressError:
            return None
        if await self._directory.find_alias(owner) is None and await self._directory.find_user(owner) is None:
            return None
        return owner

    async def _follow_setting(
        self, name: str, configured: str, expansion: _Expansion, detail: str, aliases: tuple[Address, ...]
    ) -> None:
        """Follow an address of the settings as if the last of ``aliases`` were an alias for it."""
        try:
            target = parse_account_name(configured, aliases[-1].domain)
        except ValueError as error:
            self._log.error("The {setting} setting cannot be used: {error}", setting=name, error=str(error))
            return
        await self._follow((target,), expansion, detail, aliases)
        if expansion.is_empty():
            self._log.error("The {setting} setting {value} names nobody", setting=name, value=configured)

    def _too_much(self, alias: Address, what: str) -> Unavailable:
        self._log.error("Alias {alias} leads through {what}: mail for it waits", alias=str(alias), what=what)
        return Unavailable(cause=f"alias {alias}: {what}")

    async def _resolve_postmaster(
        self, main: str, settings: DomainSettings, detail: str, asked: _Expansion, aliases: tuple[Address, ...] = ()
    ) -> LocalAccounts:
        address = Address(POSTMASTER, main)
        for configured in (settings.postmaster, self._postmaster):
            if not configured:
                continue
            expansion = _Expansion(asked.carries, asked.listener)
            expansion.tell(StepKind.POSTMASTER, address, configured)
            await self._follow_setting("postmaster", configured, expansion, detail, (*aliases, address))
            if not expansion.is_empty():
                return open_to_all(expansion.result())
        users = await self._directory.list_users()
        if not users:
            raise Unavailable(cause="no user to take postmaster's mail")
        own = [user for user in users if user.address.domain == main]
        recipient = LocalRecipient((own or users)[0], detail)
        asked.tell(StepKind.POSTMASTER, address, recipient.account)
        return LocalAccounts((recipient,))
