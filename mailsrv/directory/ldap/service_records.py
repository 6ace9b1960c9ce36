"""Servers that the DNS names (SRV, RFC 2782): ``uri = ["srv:example.test"]``.

``srv:DOMAIN`` stands for ``_ldap._tcp.DOMAIN``; with Active Directory for its domain controllers,
``_ldap._tcp.dc._msdcs.DOMAIN``, first. A name that begins with an underscore is asked for as it is
(``srv:_ldaps._tcp.example.test``, or that of a site). Servers of the lowest priority number come first; among equals a
server's chance to be first is its weight. The order is drawn anew only when the records change: a connection stays with
its server. The resolver remembers records for their time to live; it is asked again every LOOK_SECONDS at most.

Which name a certificate must have: who can forge the DNS's answer must not become our directory (RFC 4513 3.1.3,
RFC 6125 6.2.1). The target's own name counts where the answer was validated by DNSSEC, or, with ``trust`` SUBDOMAINS,
where it is the domain of the settings or below it. Otherwise the certificate must be for that domain itself.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Sequence

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailsrv.address import AddressError, parse_domain
from mailsrv.directory.ldap.servers import LdapServer, Servers
from mailsrv.directory.ldap.trouble import NoServer
from mailsrv.interfaces.resolver import DnsAnswer, DnsFailure, IResolver, ServiceRecord

SCHEME = "srv:"
LOOK_SECONDS = 30.0
RETRY_SECONDS = 5.0
MOST_SERVERS = 16
"""Of one name: those in front."""
_LDAP, _LDAPS = "_ldap", "_ldaps"


class SrvTrust(enum.Enum):
    """Whose names a certificate may have that the DNS led to without proof."""

    DNSSEC = "dnssec"
    SUBDOMAINS = "subdomains"


@frozen
class ServiceName:
    """``names`` are asked for in turn, until one has records; ``domain`` is what the settings name."""

    uri: str
    names: tuple[str, ...]
    domain: str
    is_ldaps: bool


def parse_service(uri: str, *, has_controllers: bool = False) -> ServiceName:
    """From ``srv:DOMAIN`` or ``srv:_ldap._tcp.DOMAIN``. Raises ValueError. ``has_controllers``: Active Directory's."""
    name = uri.removeprefix(SCHEME).lower().removesuffix(".")
    labels = name.split(".")
    services = [number for number, label in enumerate(labels) if label.startswith("_")]
    domain = ".".join(labels[services[-1] + 1 :] if services else labels)
    try:
        domain = parse_domain(domain)
    except AddressError as error:
        raise ValueError(f"{uri!r}: expected srv: and a domain, or the name of SRV records in it") from error
    if not services:
        names = (f"_ldap._tcp.dc._msdcs.{domain}",) if has_controllers else ()
        return ServiceName(uri, (*names, f"_ldap._tcp.{domain}"), domain, is_ldaps=False)
    if labels[0] not in (_LDAP, _LDAPS) or labels[1] != "_tcp":
        raise ValueError(f"{uri!r}: expected _ldap._tcp or _ldaps._tcp in front")
    return ServiceName(uri, (name,), domain, is_ldaps=labels[0] == _LDAPS)


def in_order(records: Sequence[ServiceRecord], draw: Callable[[int], int]) -> list[ServiceRecord]:
    """As RFC 2782 has it; ``draw(n)`` is a number from 0 to n."""
    ordered: list[ServiceRecord] = []
    for priority in sorted({record.priority for record in records}):
        # Those without weight first: then they have a small chance, and not none.
        left = sorted((each for each in records if each.priority == priority), key=lambda each: each.weight != 0)
        while left:
            chosen, running = draw(sum(each.weight for each in left)), 0
            for record in left:
                running += record.weight
                if running >= chosen:
                    break
            left.remove(record)
            ordered.append(record)
    return ordered


@define(eq=False)
class _Known:
    """What one name led to, and in which order it is used."""

    records: frozenset[ServiceRecord] = frozenset()
    ordered: tuple[ServiceRecord, ...] = ()
    servers: tuple[LdapServer, ...] = ()


@define(eq=False)
class ServerFinder:
    """Keeps ``servers`` as the DNS says. Used in the reactor thread."""

    places: Sequence[LdapServer | ServiceName]
    resolver: Callable[[], IResolver]
    servers: Servers
    clock: IReactorTime
    starttls: bool = True
    trust: SrvTrust = SrvTrust.DNSSEC
    draw: Callable[[int], int] = field(factory=lambda: lambda most: random.SystemRandom().randint(0, most))
    _known: dict[ServiceName, _Known] = field(factory=dict)
    _look_at: float = 0.0
    _waiting: list[Deferred[None]] | None = None
    _log = Logger()

    async def find(self, seconds: float) -> None:
        """Look if it is time; wait only where no server is known at all. Raises NoServer."""
        if self._waiting is None and (not self._known or self.clock.seconds() >= self._look_at):
            self.look()
        if self._waiting is not None and not self.servers.all:
            waiter: Deferred[None] = Deferred()
            waiter.addTimeout(seconds, self.clock, onTimeoutCancel=lambda result, _: None)
            self._waiting.append(waiter)
            await waiter
        if not self.servers.all:
            raise NoServer("the DNS names no server")

    def look(self) -> None:
        """Ask, without waiting for it; once at a time."""
        if self._waiting is None:
            self._waiting = []
            Deferred.fromCoroutine(self._look()).addErrback(
                lambda failure: self._log.failure("The servers of a directory could not be looked for", failure)
            ).addBoth(self._told)

    def _told(self, _: object) -> None:
        waiting, self._waiting = self._waiting or [], None
        for waiter in waiting:
            if not waiter.called:
                waiter.callback(None)

    async def _look(self) -> None:
        is_good = True
        for place in self.places:
            if isinstance(place, ServiceName):
                known = self._known.setdefault(place, _Known())
                try:
                    await self._ask(place, known)
                except DnsFailure as error:
                    # What was known still is.
                    is_good = False
                    self._log.warn(
                        "The servers of {uri} cannot be looked for: {cause}",
                        uri=place.uri,
                        cause=error.cause or str(error),
                    )
        self._look_at = self.clock.seconds() + (LOOK_SECONDS if is_good else RETRY_SECONDS)
        found: list[LdapServer] = []
        for place in self.places:
            found += self._known[place].servers if isinstance(place, ServiceName) else (place,)
        self.servers.replace(found)

    async def _ask(self, place: ServiceName, known: _Known) -> None:
        answer: DnsAnswer[ServiceRecord] = DnsAnswer(())
        for name in place.names:
            answer = await self.resolver().services(name)
            if answer.records:
                break
        # A target of "." says that there is no such service here.
        records = frozenset(record for record in answer.records if record.host and record.port)
        if records != known.records:
            known.records, known.ordered = records, tuple(in_order(tuple(records), self.draw)[:MOST_SERVERS])
        if not records:
            self._log.warn("The DNS has no SRV records for {uri} ({names})", uri=place.uri, names=place.names)
        looked = await DeferredList(
            [self.resolver().addresses(record.host) for record in known.ordered], consumeErrors=True
        )
        known.servers = tuple(
            self._server(place, record, found[1].records if found[0] else (), is_proved=answer.is_secure)
            for record, found in zip(known.ordered, looked, strict=True)
        )

    def _server(
        self, place: ServiceName, record: ServiceRecord, addresses: Sequence[str], *, is_proved: bool
    ) -> LdapServer:
        host = record.host
        is_ours = host == place.domain or host.endswith("." + place.domain)
        is_trusted = is_proved or (self.trust is SrvTrust.SUBDOMAINS and is_ours)
        scheme = "ldaps" if place.is_ldaps else "ldap"
        return LdapServer(
            f"{scheme}://{host}:{record.port}",
            host,
            record.port,
            place.is_ldaps,
            self.starttls and not place.is_ldaps,
            tls_name=host if is_trusted else place.domain,
            addresses=tuple(addresses),
        )
