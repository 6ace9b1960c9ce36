"""A DNS that keeps everything in memory: the double for tests of whatever asks :class:`IResolver`.

What was not put in does not exist: a name without any record is NXDOMAIN, a type that a known
name does not have is an answer without records. ``failures`` holds names that fail, for all types
or for one (``"example.test"``, ``"TLSA _25._tcp.mx.example.test"``). Aliases are followed.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mailsrv.interfaces.resolver import (
    DnsAnswer,
    DnsFailure,
    IResolver,
    MailExchange,
    ServiceRecord,
    TlsaRecord,
)

_Record = TypeVar("_Record")

ALIAS_LIMIT = 8


@implementer(IResolver)
@define(eq=False)
class MemoryResolver:
    """Answers at once; ``delay_seconds`` later with a ``clock``; when ``release`` is called where ``holds`` is set.

    ``secure`` has the names whose records are validated; an answer through aliases is secure where all of them are.
    """

    clock: IReactorTime | None = None
    delay_seconds: float = 0.0
    holds: bool = False
    secure: set[str] = field(factory=set)
    failures: set[str] = field(factory=set)
    canonical: dict[str, str] = field(factory=dict)
    """CNAME records: name → where it leads."""
    questions: list[str] = field(factory=list)
    """What was asked: type and name, ``MX example.test``."""
    _mail_exchanges: dict[str, list[MailExchange]] = field(factory=lambda: defaultdict(list))
    _addresses: dict[str, list[str]] = field(factory=lambda: defaultdict(list))
    _texts: dict[str, list[bytes]] = field(factory=lambda: defaultdict(list))
    _tlsa: dict[str, list[TlsaRecord]] = field(factory=lambda: defaultdict(list))
    _services: dict[str, list[ServiceRecord]] = field(factory=lambda: defaultdict(list))
    _pointers: dict[str, list[str]] = field(factory=lambda: defaultdict(list))
    _held: list[Deferred[None]] = field(factory=list)

    def add_mx(self, domain: str, *hosts: str, preference: int = 10) -> None:
        """MX records of one preference; the host "" makes a null MX (RFC 7505)."""
        self._mail_exchanges[domain] += [MailExchange(preference if host else 0, host) for host in hosts]

    def add_addresses(self, host: str, *addresses: str) -> None:
        """A and AAAA records."""
        self._addresses[host] += addresses

    def add_texts(self, name: str, *texts: bytes) -> None:
        """TXT records."""
        self._texts[name] += texts

    def add_tlsa(self, name: str, *records: TlsaRecord) -> None:
        """TLSA records; ``name`` with the port: ``_25._tcp.mx.example.test``."""
        self._tlsa[name] += records

    def add_services(self, name: str, *records: ServiceRecord) -> None:
        """SRV records."""
        self._services[name] += records

    def add_pointers(self, address: str, *hosts: str) -> None:
        """PTR records, by the address itself."""
        self._pointers[address] += hosts

    def release(self) -> None:
        """Let everything answer that was held back."""
        held, self._held = self._held, []
        for waiting in held:
            waiting.callback(None)

    def mail_exchanges(self, domain: str) -> Deferred[DnsAnswer[MailExchange]]:
        return self._answer("MX", domain, self._mail_exchanges, sorted)

    def addresses(self, host: str) -> Deferred[DnsAnswer[str]]:
        return self._answer(
            "A",
            host,
            self._addresses,
            lambda found: sorted(found, key=lambda text: -ipaddress.ip_address(text).version),
        )

    def texts(self, name: str) -> Deferred[DnsAnswer[bytes]]:
        return self._answer("TXT", name, self._texts)

    def tlsa(self, name: str) -> Deferred[DnsAnswer[TlsaRecord]]:
        return self._answer("TLSA", name, self._tlsa)

    def services(self, name: str) -> Deferred[DnsAnswer[ServiceRecord]]:
        return self._answer("SRV", name, self._services)

    def pointers(self, address: str) -> Deferred[DnsAnswer[str]]:
        return self._answer("PTR", address, self._pointers)

    def name_servers(self, domain: str) -> Deferred[DnsAnswer[str]]:
        """There are none of any name: nothing of ours asks for them."""
        return self._answer("NS", domain, {})

    def aliases(self, name: str) -> Deferred[DnsAnswer[str]]:
        self.questions.append(f"CNAME {name}")
        return self._when_due().addCallback(lambda _: self._find_alias(name.lower()))

    def _find_alias(self, name: str) -> DnsAnswer[str]:
        if self.failures & {name, f"CNAME {name}"}:
            raise DnsFailure(name, cause="told to fail")
        records = (self.canonical[name],) if name in self.canonical else ()
        return DnsAnswer(
            records,
            is_secure=name in self.secure,
            name_exists=bool(records) or self._exists(name),
            canonical_name=name,
        )

    def _answer(
        self,
        kind: str,
        name: str,
        records: dict[str, list[_Record]],
        arrange: Callable[[Iterable[_Record]], Iterable[_Record]] = tuple,
    ) -> Deferred[DnsAnswer[_Record]]:
        self.questions.append(f"{kind} {name}")
        return self._when_due().addCallback(lambda _: self._find(kind, name, records, arrange))

    def _find(
        self,
        kind: str,
        name: str,
        records: dict[str, list[_Record]],
        arrange: Callable[[Iterable[_Record]], Iterable[_Record]],
    ) -> DnsAnswer[_Record]:
        target, is_secure = name.lower(), name.lower() in self.secure
        for _ in range(ALIAS_LIMIT):
            if self.failures & {target, f"{kind} {target}"}:
                raise DnsFailure(name, cause="told to fail")
            if target not in self.canonical:
                break
            target = self.canonical[target]
            is_secure = is_secure and target in self.secure
        else:
            raise DnsFailure(name, cause="too many aliases")
        return DnsAnswer(
            tuple(arrange(records.get(target, ()))),
            is_secure=is_secure,
            name_exists=self._exists(target),
            canonical_name=target,
        )

    def _exists(self, name: str) -> bool:
        everything = (
            self._mail_exchanges,
            self._addresses,
            self._texts,
            self._tlsa,
            self._services,
            self._pointers,
        )
        below = "." + name
        return any(known == name or known.endswith(below) for records in everything for known in records)

    def _when_due(self) -> Deferred[None]:
        if self.holds:
            waiting: Deferred[None] = Deferred()
            self._held.append(waiting)
            return waiting
        if self.clock is not None and self.delay_seconds:
            due: Deferred[None] = Deferred()
            self.clock.callLater(self.delay_seconds, due.callback, None)
            return due
        return succeed(None)
