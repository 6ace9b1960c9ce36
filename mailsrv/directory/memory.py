"""A directory in memory: the twin of the others, for tests and for programs that embed mailsrv."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Sequence

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.directory.names import canonical_address
from mailsrv.errors import Unavailable
from mailsrv.interfaces.directory import DirectoryUser, IDirectory
from mailsrv.interfaces.domain_source import IDomainSource, SuppliedDomain


@implementer(IDirectory)
class MemoryDirectory:
    """Users with plain passwords. ``is_down`` makes every question fail; ``checks`` counts password checks."""

    def __init__(self, name: str = "memory") -> None:
        self.name = name
        self.is_down = False
        self.checks = 0
        self._users: dict[Address, DirectoryUser] = {}
        self._aliases: dict[Address, tuple[Address, ...]] = {}

    def add_user(
        self,
        address: Address,
        password: str,
        *,
        display_name: str = "",
        quota_octets: int | None = None,
        may_log_in: bool = True,
        networks: tuple[str, ...] = (),
        groups: tuple[str, ...] = (),
        is_administrator: bool = False,
        needs_second_factor: bool = False,
    ) -> DirectoryUser:
        """Add or replace a user."""
        user = DirectoryUser(
            address=canonical_address(address),
            display_name=display_name,
            quota_octets=quota_octets,
            may_log_in=may_log_in,
            secret="{PLAIN}" + password,
            networks=networks,
            groups=groups,
            is_administrator=is_administrator,
            needs_second_factor=needs_second_factor,
            directory=self.name,
        )
        user = evolve(user, fingerprint=hashlib.blake2b(repr((user, user.secret)).encode(), digest_size=16).digest())
        self._users[user.address] = user
        return user

    def remove_user(self, address: Address) -> None:
        """Forget a user; KeyError if there is none."""
        del self._users[canonical_address(address)]

    def add_alias(self, address: Address, targets: Iterable[Address]) -> None:
        """Add or replace an alias."""
        self._aliases[canonical_address(address)] = tuple(canonical_address(target) for target in targets)

    def find_user(self, address: Address) -> Deferred[DirectoryUser | None]:
        return self._down() or succeed(self._users.get(canonical_address(address)))

    def check_password(self, user: DirectoryUser | None, password: str) -> Deferred[bool]:
        if self.is_down:
            return fail(Unavailable(cause=f"{self.name} is down"))
        self.checks += 1
        expected = user.secret.removeprefix("{PLAIN}") if user is not None else ""
        is_right = hmac.compare_digest(
            expected.encode("utf-8", "surrogatepass"), password.encode("utf-8", "surrogatepass")
        )
        return succeed(is_right and bool(expected))

    def find_alias(self, address: Address) -> Deferred[Sequence[Address] | None]:
        if self.is_down:
            return fail(Unavailable(cause=f"{self.name} is down"))
        return succeed(self._aliases.get(canonical_address(address)))

    def list_users(self) -> Deferred[Sequence[DirectoryUser]]:
        if self.is_down:
            return fail(Unavailable(cause=f"{self.name} is down"))
        return succeed(tuple(self._users[address] for address in sorted(self._users, key=str)))

    def _down(self) -> Deferred[DirectoryUser | None] | None:
        return fail(Unavailable(cause=f"{self.name} is down")) if self.is_down else None


@implementer(IDomainSource)
class MemoryDomains:
    """Domains that stand in memory: the twin of those that a directory server lists. ``asked`` counts questions."""

    def __init__(self, *names: str, name: str = "memory", key: str = "00000000", seconds: float = 30.0) -> None:
        self.name = name
        self.key = key
        self.seconds = seconds
        self.limit = 10_000
        self.is_down = False
        self.asked = 0
        self.domains: dict[str, SuppliedDomain] = {}
        self._changed: Callable[[], None] | None = None
        for each in names:
            self.add(each)

    def add(self, name: str, alias_of: str = "") -> None:
        """Add or replace a domain, or another name of one; tell nobody."""
        self.domains[name] = SuppliedDomain(name, alias_of or name, f"{name} in {self.name}")

    def tell(self) -> None:
        """Something has changed."""
        if self._changed is not None:
            self._changed()

    def find_domains(self) -> Deferred[Sequence[SuppliedDomain]]:
        self.asked += 1
        if self.is_down or not self.domains:
            return fail(Unavailable(cause=f"{self.name} {'is down' if self.is_down else 'shows no domains at all'}"))
        return succeed(tuple(sorted(self.domains.values())))

    def follow_domains(self, changed: Callable[[], None]) -> None:
        self._changed = changed
