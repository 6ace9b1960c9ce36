"""What a recipient's address stands for: accounts here, addresses elsewhere, or nobody.

The order, for an address in a local domain (whose other names mean the same):

1. an alias of exactly this local part, then a user of exactly this local part;
2. the same without the subaddress (``alice+lists`` → ``alice``, detail ``lists``; RFC 5233);
3. for ``postmaster``: the domain's setting, the general one, the first user. Mail for postmaster
   is never refused (RFC 5321 4.5.1).

Aliases are followed up to ALIAS_DEPTH steps and TARGET_LIMIT targets; an address met again is not
followed again, and one that an alias names within itself is the account of that name. Local parts
that carry a route (``user%elsewhere``, ``elsewhere!user``, ``user@elsewhere`` in quotes,
``@relay:user``) are ordinary names: unless a user of exactly that name exists, they are nobody,
and nothing is ever sent to the address inside (RFC 5321 appendix F.2).

Every method may raise Unavailable: what a directory would say is then not known.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailsrv.address import Address
from mailsrv.coroutines import run_coroutine
from mailsrv.directory.domains import LocalDomains
from mailsrv.directory.names import canonical_address, parse_account_name
from mailsrv.directory.settings import DomainSettings
from mailsrv.errors import Unavailable
from mailsrv.interfaces.directory import DirectoryUser, IDirectory

ALIAS_DEPTH = 10
TARGET_LIMIT = 1000
POSTMASTER = "postmaster"
_ROUTE_CHARACTERS = frozenset("%!@:")


@frozen
class LocalRecipient:
    """An account mail goes to, and the detail it was addressed with ("" for none)."""

    user: DirectoryUser
    detail: str = ""

    @property
    def account(self) -> Address:
        return self.user.address


@frozen
class LocalAccounts:
    """An address of ours: the accounts it stands for, and what aliases name outside (``forwards``)."""

    accounts: tuple[LocalRecipient, ...] = ()
    forwards: tuple[Address, ...] = ()


@frozen
class ForeignDomain:
    """The domain is not ours: whether it may be relayed is for the caller to decide."""

    domain: str


@frozen
class UnknownRecipient:
    """The domain is ours, the address is nobody's."""

    address: Address


Resolution = LocalAccounts | ForeignDomain | UnknownRecipient


class _Expansion:
    """The way through aliases for one address."""

    def __init__(self) -> None:
        self.accounts: dict[Address, LocalRecipient] = {}
        self.forwards: dict[Address, None] = {}
        self.met: set[Address] = set()
        self.targets = 0

    def is_empty(self) -> bool:
        return not self.accounts and not self.forwards

    def result(self) -> LocalAccounts:
        return LocalAccounts(tuple(self.accounts.values()), tuple(self.forwards))


class AddressResolver:
    """Resolves addresses by domains and a directory. ``postmaster`` is the general setting, an address or ""."""

    _log = Logger()

    def __init__(self, domains: LocalDomains, directory: IDirectory, *, postmaster: str = "") -> None:
        self._domains = domains
        self._directory = directory
        self._postmaster = postmaster

    async def resolve(self, address: Address) -> Resolution:
        """What the address stands for now."""
        domain = address.domain
        if not domain:
            # <Postmaster> (RFC 5321 4.1.1.3): of the first domain.
            if not self._domains.names:
                return ForeignDomain("")
            domain = self._domains.names[0]
        found = self._domains.find(domain)
        if found is None:
            return ForeignDomain(domain)
        main, settings = found
        ours = canonical_address(Address(address.local_part, main))
        expansion = _Expansion()
        await self._expand(ours, settings, expansion, "", ())
        if expansion.is_empty():
            base, detail = ours.split_subaddress(settings.subaddress_delimiter)
            if base.local_part == POSTMASTER and _ROUTE_CHARACTERS.isdisjoint(ours.local_part):
                return await self._resolve_postmaster(main, settings, detail)
            return UnknownRecipient(address)
        return expansion.result()

    def may_send_as(self, account: Address, address: Address) -> Deferred[bool]:
        """Whether mail to ``address`` reaches ``account``: own address, subaddress, alias."""
        return run_coroutine(self._may_send_as(account, address))

    async def _may_send_as(self, account: Address, address: Address) -> bool:
        resolution = await self.resolve(address)
        return isinstance(resolution, LocalAccounts) and any(
            recipient.account == account for recipient in resolution.accounts
        )

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
        if not is_own_target:
            if address in expansion.met:
                return
            expansion.met.add(address)
            targets = await self._directory.find_alias(address)
            if targets is not None:
                await self._follow(targets, expansion, detail, (*aliases, address))
                return
        user = await self._directory.find_user(address)
        if user is not None:
            expansion.accounts.setdefault(user.address, LocalRecipient(user, detail))
            return
        if is_own_target or not _ROUTE_CHARACTERS.isdisjoint(address.local_part):
            return
        base, own_detail = address.split_subaddress(settings.subaddress_delimiter)
        if base != address:
            await self._expand(base, settings, expansion, own_detail or detail, aliases)

    async def _follow(
        self, targets: Sequence[Address], expansion: _Expansion, detail: str, aliases: tuple[Address, ...]
    ) -> None:
        """Add what the targets of the last of ``aliases`` stand for; targets that are nobody add nothing."""
        if len(aliases) > ALIAS_DEPTH:
            raise self._too_much(aliases[0], f"more than {ALIAS_DEPTH} steps")
        expansion.targets += len(targets)
        if expansion.targets > TARGET_LIMIT:
            raise self._too_much(aliases[0], f"more than {TARGET_LIMIT} targets")
        for target in targets:
            found = self._domains.find(target.domain)
            if found is None:
                expansion.forwards[target] = None
                continue
            main, settings = found
            ours = canonical_address(Address(target.local_part, main))
            await self._expand(ours, settings, expansion, detail, aliases)

    def _too_much(self, alias: Address, what: str) -> Unavailable:
        self._log.error("Alias {alias} leads through {what}: mail for it waits", alias=str(alias), what=what)
        return Unavailable(cause=f"alias {alias}: {what}")

    async def _resolve_postmaster(self, main: str, settings: DomainSettings, detail: str) -> LocalAccounts:
        for configured in (settings.postmaster, self._postmaster):
            if not configured:
                continue
            try:
                target = parse_account_name(configured, main)
            except ValueError as error:
                self._log.error("The postmaster setting cannot be used: {error}", error=str(error))
                continue
            expansion = _Expansion()
            await self._follow((target,), expansion, detail, (Address(POSTMASTER, main),))
            if not expansion.is_empty():
                return expansion.result()
            self._log.error("The postmaster setting {setting} names nobody", setting=configured)
        users = await self._directory.list_users()
        if not users:
            raise Unavailable(cause="no user to take postmaster's mail")
        own = [user for user in users if user.address.domain == main]
        return LocalAccounts((LocalRecipient((own or users)[0], detail),))
