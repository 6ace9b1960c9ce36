"""Who a forward-path is: accounts here, addresses elsewhere with the way to them, or a refusal at RCPT.

Strangers cannot relay: what is not of our own domains is refused at RCPT unless the client is logged in or of
a network that may, whatever the transport rules say, and by no spelling of a local part (the resolver knows no
routes in local parts). What leads elsewhere from an address of ours, an alias, a transport rule, a bounce to a
rewritten sender, is our own decision and goes on for everybody. A directory that does not answer is Unavailable
(451 4.3.0), never an unknown user (R-AUTH-7). The DNS is not asked.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailsrv.address import Address
from mailsrv.delivery.quota import TARGETS_IN_ONE_GO
from mailsrv.directory.resolution import (
    ForeignDomain,
    LocalAccounts,
    LocalRecipient,
    PassedAlias,
    UnknownRecipient,
    check_is_foreign,
)
from mailsrv.directory.resolve import AddressResolver
from mailsrv.directory.resolve_steps import Listener
from mailsrv.errors import MailError, Unavailable
from mailsrv.interfaces.envelope import RecipientParameters
from mailsrv.interfaces.queue import Destination, Transport
from mailsrv.routing.rules import Route, TransportRules
from mailsrv.routing.srs import SenderRewriting, is_srs
from mailsrv.routing.via import Action
from mailsrv.status import BAD_DOMAIN, BAD_MAILBOX, NOT_AUTHORISED


class Service(enum.Enum):
    """Which kind of listener a message came by."""

    MX = "mx"
    SUBMISSION = "submission"
    LMTP = "lmtp"


_FOREIGN = {
    Service.MX: (NOT_AUTHORISED, "Relaying denied"),
    Service.SUBMISSION: (NOT_AUTHORISED, "This server sends no mail to other domains"),
    Service.LMTP: (BAD_DOMAIN, "Not a domain of this server"),
}
_NO_PARAMETERS = RecipientParameters()


@frozen
class OnwardTarget:
    """An address that is reached by the queue."""

    address: Address
    destination: Destination
    forwarder: Address | None = None
    """The address of ours (canonical) it was forwarded by; None where the client itself named ``address``."""
    owner: Address | None = None
    """Of the alias that forwards: the reverse-path."""


@frozen
class Found:
    """What a forward-path stands for; nothing at all where its mail is dropped."""

    accounts: tuple[LocalRecipient, ...] = ()
    onward: tuple[OnwardTarget, ...] = ()
    passed: tuple[PassedAlias, ...] = ()
    """Aliases and lists on the way, which may have rules on who sends to them."""

    def reached(self) -> set[Address]:
        """Everybody it stands for."""
        return {target.account for target in self.accounts} | {target.address for target in self.onward}


@frozen
class Recipient:
    """An accepted forward-path with what it stands for."""

    forward_path: Address
    targets: tuple[LocalRecipient, ...]
    onward: tuple[OnwardTarget, ...] = ()
    parameters: RecipientParameters = _NO_PARAMETERS
    is_redirected: bool = False
    """A filter said where it goes."""

    @property
    def is_wanted(self) -> bool:
        """False where a filter or a rule drops its mail."""
        return bool(self.targets or self.onward)

    @property
    def is_several(self) -> bool:
        """An alias for more than one: a confidential list in RFC 3461's words."""
        return len(self.targets) + len(self.onward) > 1


class RecipientPolicy:
    """Says who is a recipient for one service. Without ``router`` nothing leaves here."""

    _log = Logger()

    def __init__(
        self,
        service: Service,
        resolver: AddressResolver,
        router: TransportRules | None = None,
        *,
        rewriting: SenderRewriting | None = None,
        seconds: Callable[[], float] | None = None,
        take_turns: Callable[[], Deferred[None]] | None = None,
    ) -> None:
        """``rewriting`` with ``seconds`` (since the epoch) turns bounces to senders we have rewritten back.

        ``take_turns`` lets others have the reactor for a moment: a list may lead to thousands of addresses elsewhere.
        """
        self._service = service
        self._resolver = resolver
        self._router = router
        self._rewriting = rewriting
        self._seconds = seconds
        self._take_turns = take_turns

    @property
    def _has_local_rules(self) -> bool:
        """Asked each time: domains of a directory come and go."""
        return self._router is not None and self._router.has_local_rules

    def find_at_hand(
        self, forward_path: Address, sender: Address | None = None, *, may_relay: bool = False
    ) -> Found | None:
        """As :meth:`find`, where it is a user here or an address elsewhere, and nobody has to be asked; else None."""
        if self._has_local_rules:
            return None
        # A name in the form of a rewritten sender is nobody's but for that.
        if self._rewriting is not None and is_srs(forward_path):
            return None
        if may_relay and self._router is not None and self._resolver.is_foreign(forward_path):
            return Found((), self._relay(self._router, forward_path, sender))
        known = self._resolver.find_at_hand(forward_path)
        return None if known is None else Found(known.accounts)

    async def find(
        self,
        forward_path: Address,
        sender: Address | None = None,
        *,
        may_relay: bool = False,
        listener: Listener | None = None,
    ) -> Found:
        """What stands behind it; raises the MailError that RCPT answers with. ``sender`` is the reverse-path.

        ``listener`` is told the resolver's steps.
        """
        if self._rewriting is not None and is_srs(forward_path) and self._resolver.canonical(forward_path) is not None:
            return await self._find_original(forward_path, sender, listener)
        if self._has_local_rules:
            resolution = await self._resolve_by_rules(forward_path, sender, listener)
            if resolution is None:
                return Found()
        else:
            resolution = await self._resolver.resolve(forward_path, listener=listener)
        if isinstance(resolution, LocalAccounts):
            if not resolution.forwards and not resolution.carried:
                return Found(resolution.accounts, (), resolution.passed)
            return await self._lead(forward_path, resolution, sender)
        if isinstance(resolution, ForeignDomain):
            if self._router is None or not may_relay:
                check_is_foreign(resolution)
                status, text = _FOREIGN[self._service]
                raise MailError(status, text)
            return Found((), self._relay(self._router, forward_path, sender))
        raise MailError(BAD_MAILBOX, "No such user here")

    async def _resolve_by_rules(
        self, forward_path: Address, sender: Address | None, listener: Listener | None
    ) -> LocalAccounts | ForeignDomain | UnknownRecipient | None:
        """As the resolver, with rules that name local addresses; None where one drops the mail."""
        router, ours = self._router, self._resolver.canonical(forward_path)
        if router is None or ours is None:
            return await self._resolver.resolve(forward_path, listener=listener)
        if not self._is_let_through(router.find(sender, ours), forward_path):
            return None
        return await self._resolver.resolve(
            forward_path, carries=lambda address: router.find(sender, address).is_onward, listener=listener
        )

    def _is_let_through(self, route: Route, address: Address) -> bool:
        """Whether mail for ``address`` goes anywhere; raises the refusal of a rule."""
        if route.action is Action.REJECT:
            raise MailError(NOT_AUTHORISED, route.text, cause=f"route[{route.rule}]")
        if route.action is Action.DISCARD:
            self._log.info(
                "Mail for {recipient} is dropped, as route[{rule}] says", recipient=str(address), rule=route.rule
            )
            return False
        return True

    def _relay(
        self,
        router: TransportRules,
        address: Address,
        sender: Address | None,
        *,
        forwarder: Address | None = None,
        owner: Address | None = None,
    ) -> tuple[OnwardTarget, ...]:
        """The way to an address elsewhere: one, or none where a rule drops it. Raises the refusal."""
        route = router.find(sender, address)
        if not self._is_let_through(route, address):
            return ()
        destination = route.destination
        if destination is None or (destination.transport is Transport.MX and _is_nowhere(destination.target)):
            raise MailError(BAD_DOMAIN, "This domain gets no mail")
        return (OnwardTarget(address, destination, forwarder, owner),)

    async def _lead(self, forward_path: Address, resolution: LocalAccounts, sender: Address | None) -> Found:
        """The ways out of an address of ours."""
        router = self._router
        if router is None:
            # Delivering to the local part of a group alone would lose mail without a word.
            self._log.error(
                "Alias {alias} names addresses elsewhere ({forwards}): mail for it is refused, as nothing is relayed",
                alias=str(forward_path),
                forwards=", ".join(str(forward.address) for forward in resolution.forwards[:10]),
            )
            raise MailError(NOT_AUTHORISED, "Mail for this address is not forwarded", cause="alias to another domain")
        forwarder = self._resolver.canonical(forward_path)
        onward: list[OnwardTarget] = []
        for address in resolution.carried:
            if address == forwarder:
                # No alias came between: the local part keeps its case (RFC 5321 2.4).
                onward += self._relay(router, Address(forward_path.local_part, address.domain), sender)
            else:
                onward += self._relay(router, address, sender)
        for number, forward in enumerate(resolution.forwards, 1):
            if self._take_turns is not None and number % TARGETS_IN_ONE_GO == 0:
                await self._take_turns()
            onward += self._relay(router, forward.address, sender, forwarder=forwarder, owner=forward.owner)
        return Found(resolution.accounts, tuple(onward), resolution.passed)

    async def _find_original(self, forward_path: Address, sender: Address | None, listener: Listener | None) -> Found:
        """Whom a bounce to a rewritten sender is for."""
        if self._rewriting is None or self._seconds is None:
            raise MailError(BAD_MAILBOX, "No such user here")
        original = self._rewriting.restore(forward_path, self._seconds())
        if sender is not None:
            # Else whoever has seen the address could write to its owner through us for weeks.
            raise MailError(NOT_AUTHORISED, "This address takes delivery notices only")
        if self._resolver.canonical(original) is not None:
            if is_srs(original):
                raise MailError(BAD_MAILBOX, "No such user here", cause="SRS address of an SRS address of ours")
            return await self.find(original, sender, listener=listener)
        if self._router is None:
            raise MailError(NOT_AUTHORISED, "Mail for this address is not forwarded")
        return Found((), self._relay(self._router, original, sender))

    async def stands_for(self, address: Address) -> tuple[Address, ...]:
        """The addresses behind one of ours, for VRFY and EXPN; raises MailError where it is nobody's."""
        resolution = await self._resolver.resolve(address)
        if isinstance(resolution, ForeignDomain):
            check_is_foreign(resolution)
            raise MailError(BAD_DOMAIN, "Not a domain of this server")
        if isinstance(resolution, UnknownRecipient):
            raise MailError(BAD_MAILBOX, "No such user here")
        forwards = (forward.address for forward in resolution.forwards)
        return (*(recipient.account for recipient in resolution.accounts), *forwards)

    async def find_all(
        self, redirected: Sequence[Address], sender: Address | None = None, *, instead_of: Address | None = None
    ) -> Found:
        """What a filter redirects to, each account and address once; elsewhere, too, where there is a way out.

        A filter that names nobody is a mistake of ours, not of the peer's: Unavailable.
        """
        accounts: dict[Address, LocalRecipient] = {}
        onward: dict[Address, OnwardTarget] = {}
        forwarder = None if instead_of is None else self._resolver.canonical(instead_of)
        for address in redirected:
            try:
                found = await self.find(address, sender, may_relay=True)
            except MailError as error:
                raise Unavailable(cause=f"a filter redirects to {address}: {error}") from error
            for target in found.accounts:
                accounts.setdefault(target.account, target)
            for each in found.onward:
                moved = OnwardTarget(each.address, each.destination, each.forwarder or forwarder, each.owner)
                onward.setdefault(each.address, moved)
        return Found(tuple(accounts.values()), tuple(onward.values()))


def _is_nowhere(domain: str) -> bool:
    """Whether a domain can have no mail exchanger: one label alone, or a name made to be none (RFC 6761 6.3, 6.4)."""
    if domain.startswith("["):
        return False
    return "." not in domain or domain.rpartition(".")[2] in {"invalid", "localhost"}
