"""The accounts of others a user may open: by the settings' ``[[shared]]`` tables and by the directory.

A right counts where it leads to a user. Groups have no mailboxes; whether the other user may log in
themselves is of no concern, for the accounts of teams often may not. What a directory says counts for its own users
only: an entry that bears the address of a user of another directory opens nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailsrv.address import Address, parse_mailbox
from mailsrv.coroutines import run_coroutine
from mailsrv.directory.domains import LocalDomains
from mailsrv.directory.names import canonical_address
from mailsrv.directory.shared_settings import SharedSettings
from mailsrv.errors import Unavailable
from mailsrv.interfaces.directory import DirectoryUser, IDirectory
from mailsrv.interfaces.rights import IRightsDirectory, MailboxRight, SharedAccount


class MailboxRights:
    """``limit``: accounts one user may open; 0 is none, and nobody is asked."""

    _log = Logger()

    def __init__(
        self, domains: LocalDomains, directory: IDirectory, shared: Sequence[SharedSettings], *, limit: int
    ) -> None:
        """Raises ValueError where two tables are about the same account."""
        self._domains = domains
        self._directory = directory
        self._rights = IRightsDirectory(directory) if IRightsDirectory.providedBy(directory) else None
        self._limit = limit
        self._told: set[Address] = set()
        self._shared = tuple(shared)
        self._by_user: dict[Address, dict[Address, bool]] = {}
        """User → account → whether they may write."""
        twice = self._read()
        if twice:
            raise ValueError(f"the mailboxes of {twice[0]} are shared twice")

    def _read(self) -> Sequence[Address]:
        """Take the tables by the domains there are now; answers with those that are about the same account."""
        self._table = self._domains.table
        self._by_user.clear()
        accounts: set[Address] = set()
        twice: list[Address] = []
        for one in self._shared:
            account = self._canonical(parse_mailbox(one.account))
            if account in accounts:
                twice.append(account)
                continue
            accounts.add(account)
            for may_write, users in ((False, one.readers), (True, one.writers)):
                for user in users:
                    granted = self._by_user.setdefault(self._canonical(parse_mailbox(user)), {})
                    granted[account] = may_write or granted.get(account, False)
        return twice

    @property
    def has_rules(self) -> bool:
        """Whether anybody may have a right; where not, nobody has to ask."""
        return bool(self._limit) and (
            bool(self._by_user) or (self._rights is not None and self._rights.has_shared_mailboxes)
        )

    def find(self, user: DirectoryUser) -> Deferred[Sequence[SharedAccount]]:
        """Sorted by address. Fails with Unavailable where the rights cannot be asked.

        What cannot be said of one account (two entries have its address, its directory is down) is none of the others.
        """
        return run_coroutine(self._find(user))

    async def _find(self, user: DirectoryUser) -> Sequence[SharedAccount]:
        if self._table is not self._domains.table:
            # A directory may have given a domain another name.
            for address in self._read():
                self._log.error("Two [[shared]] tables are about {address}: the first counts", address=str(address))
        by_table = self._by_user.get(user.address, {})
        by_directory: dict[Address, bool] = {}
        if self._rights is not None and self._rights.has_shared_mailboxes:
            for shared in await self._rights.find_shared_mailboxes(user):
                account = self._canonical(shared.address)
                may_write = MailboxRight.WRITE in shared.rights
                if may_write or MailboxRight.READ in shared.rights:
                    by_directory[account] = may_write or by_directory.get(account, False)
        found: list[SharedAccount] = []
        for account in sorted(by_table.keys() | by_directory.keys(), key=str):
            if account == user.address:
                continue
            if len(found) == self._limit:
                self._tell(user.address)
                break
            try:
                owner = await self._directory.find_user(account)
            except Unavailable:
                may_write = by_table.get(account, False) or by_directory.get(account, False)
                found.append(SharedAccount(account, may_write, is_known=False))
                continue
            if owner is None or owner.address != account:
                continue
            rights = [by_table[account]] if account in by_table else []
            if account in by_directory and owner.directory == user.directory:
                rights.append(by_directory[account])
            if rights:
                found.append(SharedAccount(account, any(rights), owner.quota_octets))
        return found

    def _tell(self, user: Address) -> None:
        """Once for each of some users: they are asked for again and again."""
        if user not in self._told and len(self._told) < 1000:
            self._told.add(user)
            self._log.warn(
                "{account} may open more than {limit} accounts of others (sharing.mailboxes): the first are served",
                account=str(user),
                limit=self._limit,
            )

    def _canonical(self, address: Address) -> Address:
        address = canonical_address(address)
        found = self._domains.find(address.domain)
        return address if found is None else Address(address.local_part, found[0])
