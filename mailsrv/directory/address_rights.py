"""The rules on an address: those of the settings' ``[[list]]`` tables, else those of the directory."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from mailsrv.address import Address, parse_mailbox
from mailsrv.directory.domains import LocalDomains
from mailsrv.directory.list_settings import ListSettings
from mailsrv.directory.names import canonical_address
from mailsrv.interfaces.directory import IDirectory
from mailsrv.interfaces.rights import IRightsDirectory, PostingRule, SendRights


class AddressRights:
    """Addresses it is asked about are canonical. Both questions raise Unavailable."""

    _log = Logger()

    def __init__(self, domains: LocalDomains, directory: IDirectory, lists: Sequence[ListSettings] = ()) -> None:
        """Raises ValueError where two tables are about the same list."""
        self._domains = domains
        self._directory = IRightsDirectory(directory) if IRightsDirectory.providedBy(directory) else None
        self._lists = tuple(lists)
        self._posting: dict[Address, PostingRule] = {}
        self._sending: dict[Address, SendRights] = {}
        twice = self._read()
        if twice:
            raise ValueError(f"the list {twice[0]} is named twice")

    def _read(self) -> Sequence[Address]:
        """Take the tables by the domains there are now; answers with those that are about the same list."""
        self._table = self._domains.table
        self._posting.clear()
        self._sending.clear()
        twice: list[Address] = []
        for one in self._lists:
            address = self._canonical(one.address)
            if address in self._posting:
                twice.append(address)
                continue
            posters, senders = self._all(one.posters), self._all(one.send_as)
            self._posting[address] = PostingRule(
                one.post, frozenset(posters), posters, frozenset(self._all(one.refused))
            )
            self._sending[address] = SendRights(one.members_send_as, frozenset(senders), named_lists=senders)
        return twice

    def _keep_up(self) -> None:
        """A directory may have given a domain another name."""
        if self._table is self._domains.table:
            return
        for address in self._read():
            self._log.error("Two [[list]] tables are about {address}: the first counts", address=str(address))

    @property
    def has_rules(self) -> bool:
        """Whether any rule is to be found; where not, nobody has to ask."""
        return bool(self._posting) or (self._directory is not None and self._directory.has_rights)

    def _all(self, texts: Sequence[str]) -> tuple[Address, ...]:
        return tuple(self._canonical(text) for text in texts)

    def _canonical(self, text: str) -> Address:
        address = canonical_address(parse_mailbox(text))
        found = self._domains.find(address.domain)
        return address if found is None else Address(address.local_part, found[0])

    async def posting_rule(self, address: Address) -> PostingRule | None:
        """Who may send to the list; None where the address is none, or nothing is said."""
        self._keep_up()
        rule = self._posting.get(address)
        if rule is not None or self._directory is None or not self._directory.has_rights:
            return rule
        return await self._directory.find_posting_rule(address)

    async def send_rights(self, address: Address) -> SendRights | None:
        """Who may send as the address; None where nothing is said."""
        self._keep_up()
        rights = self._sending.get(address)
        if rights is not None or self._directory is None or not self._directory.has_rights:
            return rights
        return await self._directory.find_send_rights(address)
