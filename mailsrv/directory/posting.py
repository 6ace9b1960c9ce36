"""Who may send to a list: decided at RCPT, before anything of the message is there.

A rule about persons needs to know who is sending. A log-in tells; so does the envelope sender of a client that the
settings let send under any name (``delivery.relay_networks``, local programs of trusted users). What a stranger writes
as envelope sender tells nothing: to such a rule they are nobody, whatever they write. The exception is the
administrator's to make: ``delivery.believe_list_senders`` believes it of addresses elsewhere, which cannot log
in here; never of our own.

Where aliases lead to lists and lists to lists, the first with a rule decides for all that is behind it: who put the
inner one there has decided about it. Not so behind a member who lets their own mail go on: nobody gets into a list
by being forwarded to it by one of another. Mail for postmaster is refused to nobody (RFC 5321 4.5.1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Collection, Sequence

from attrs import frozen

from mailsrv.address import Address
from mailsrv.directory.address_rights import AddressRights
from mailsrv.directory.names import canonical_address
from mailsrv.directory.resolution import LocalAccounts, PassedAlias
from mailsrv.directory.resolve import AddressResolver
from mailsrv.errors import MailError
from mailsrv.interfaces.rights import Posters, PostingRule
from mailsrv.status import EXPANSION_PROHIBITED


@frozen
class Poster:
    """Who is sending, as far as it is known."""

    account: Address | None = None
    """Who has logged in."""
    sender: Address | None = None
    """The envelope sender."""
    is_trusted: bool = False
    """The envelope sender is one the client may use: it was compared with the log-in, or the client is believed."""


_WHO = {
    Posters.USERS: "users of this server",
    Posters.DOMAIN: "users of its domain",
    Posters.MEMBERS: "its members",
    Posters.NAMED: "those it names",
}


class PostingPolicy:
    """Applies the rules on lists. ``believes_senders``: addresses elsewhere are who they say."""

    def __init__(self, resolver: AddressResolver, rights: AddressRights, *, believes_senders: bool = False) -> None:
        self._resolver = resolver
        self._rights = rights
        self._believes_senders = believes_senders

    async def check(
        self, passed: Sequence[PassedAlias], poster: Poster, reached: Collection[Address] | None = None
    ) -> None:
        """Raise the refusal that RCPT answers with, or Unavailable. ``passed``: of the resolution, in its order.

        ``reached``: the accounts and addresses it leads to, where they are known: the members of the first of them.
        """
        if not passed or not self._rights.has_rules:
            return
        async for address, rule in self._deciding(passed):
            members = reached if address == passed[0].address else None
            if not await self.may_post(address, rule, poster, members):
                raise MailError(EXPANSION_PROHIBITED, refusal_text(address, rule, poster), cause=f"list {address}")

    async def rules(self, passed: Sequence[PassedAlias]) -> Sequence[tuple[Address, PostingRule]]:
        """The rules that decide, for who wants to see them."""
        return [each async for each in self._deciding(passed)]

    async def _deciding(self, passed: Sequence[PassedAlias]) -> AsyncIterator[tuple[Address, PostingRule]]:
        """The outermost rules: of all ways to an address, and behind each user who lets their mail go on."""
        behind: dict[Address | None, list[PassedAlias]] = {}
        for each in passed:
            behind.setdefault(each.through, []).append(each)
        met: set[Address] = set()
        left = deque(behind.get(None, ()))
        while left:
            one = left.popleft()
            if one.address in met:
                continue
            met.add(one.address)
            rule = await self._rights.posting_rule(one.address)
            if rule is None:
                left.extend(behind.get(one.address, ()))
                continue
            yield one.address, rule
            decided = deque([one])
            while decided:
                for each in behind.get(decided.popleft().address, ()):
                    if each.address in met:
                        continue
                    met.add(each.address)
                    if each.is_user:
                        left.extend(behind.get(each.address, ()))
                    else:
                        decided.append(each)

    async def may_post(
        self, address: Address, rule: PostingRule, poster: Poster, members: Collection[Address] | None = None
    ) -> bool:
        """Whether this rule of the list ``address`` lets them. ``members``, where they are known already."""
        if rule.is_open:
            return True
        names = await self._names_of(poster)
        claimed = set(names) if poster.sender is None else {*names, self._own_name(poster.sender)}
        if not rule.refused.isdisjoint(claimed):
            return False
        if rule.who is Posters.ANYBODY:
            return True
        if rule.who is Posters.USERS and (names or poster.is_trusted):
            return True
        if self._believes_senders and poster.sender is not None and self._resolver.canonical(poster.sender) is None:
            names.add(canonical_address(poster.sender))
        if rule.who is Posters.DOMAIN and any(name.domain == address.domain for name in names):
            return True
        if not rule.named.isdisjoint(names):
            return True
        if rule.who is Posters.MEMBERS:
            if members is None:
                is_member = await self._resolver.reaches(address, names)
            else:
                is_member = not names.isdisjoint(members)
            if is_member:
                return True
        for each in rule.named_lists:
            if await self._resolver.reaches(each, names):
                return True
        return False

    async def _names_of(self, poster: Poster) -> set[Address]:
        """All that is proven: the account, and the address they send under with the account behind it."""
        names = set() if poster.account is None else {poster.account}
        sender = poster.sender
        if sender is None or not poster.is_trusted or sender == poster.account:
            return names
        names.add(self._own_name(sender))
        resolution = await self._resolver.resolve(sender)
        if isinstance(resolution, LocalAccounts) and not resolution.forwards and len(resolution.accounts) == 1:
            names.add(resolution.accounts[0].account)
        return names

    def _own_name(self, address: Address) -> Address:
        return self._resolver.canonical(address) or canonical_address(address)


def describe(rule: PostingRule) -> str:
    """A rule for people: who may send."""
    if rule.who is Posters.ANYBODY:
        text = "anybody may send to it"
    elif rule.who is Posters.NOBODY and not rule.named:
        text = "nobody may send to it"
    elif rule.is_moderated:
        text = "it is moderated: its moderators may send to it, logged in, and what others send is refused, not held"
    else:
        text = f"{_WHO.get(rule.who, 'those it names')} may send to it, logged in"
    if rule.named and rule.who is not Posters.ANYBODY:
        shown = sorted(map(str, rule.named))
        more = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
        text += f" (named: {', '.join(shown[:10])}{more})"
    if rule.refused:
        text += f"; {len(rule.refused)} may not"
    return text


def refusal_text(address: Address, rule: PostingRule, poster: Poster) -> str:
    """What somebody who may not hears: a line that tells them what would help."""
    name = str(address) if str(address).isascii() else "this list"
    if rule.who is Posters.NOBODY and not rule.named:
        return f"Nobody may send to {name}"
    who = "its moderators" if rule.is_moderated else _WHO.get(rule.who, "those it names")
    if poster.account is None and not poster.is_trusted:
        return f"Only {who} may send to {name}, after a log-in at their own mail server"
    if rule.who is Posters.ANYBODY:
        return f"You may not send to {name}"
    return f"Only {who} may send to {name}"
