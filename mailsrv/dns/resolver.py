"""The resolver of a process: asks recursive servers, remembers, and asks once where several wait for the same.

Nothing here validates signatures: that is the business of a resolver that has proved that it does
(see :mod:`mailsrv.dns.validation`). Answers are bounded in records and aliases (R-DNS-1); failures
are remembered for some seconds, so that a broken domain does not cost a question for each message.
"""

from __future__ import annotations

import ipaddress
from typing import Any, TypeVar

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore, fail, succeed
from twisted.logger import Logger
from twisted.names import dns
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.coroutines import run_coroutine
from mailsrv.dns import records
from mailsrv.dns.asking import Asking
from mailsrv.dns.cache import Cache
from mailsrv.dns.exchange import DnsExchange, NetworkExchange
from mailsrv.dns.records import Reader
from mailsrv.dns.servers import ServerList
from mailsrv.dns.settings import DnsSettings
from mailsrv.dns.validation import Validation
from mailsrv.dns.wire import CNAME, NXDOMAIN, ROOT, TLSA, Record, Reply, normalize_name
from mailsrv.interfaces.resolver import (
    DnsAnswer,
    DnsFailure,
    IResolver,
    MailExchange,
    ServiceRecord,
    TlsaRecord,
)

T = TypeVar("T")

_Key = tuple[int, str]


@frozen
class _Found:
    """An answer, and how long it may be remembered."""

    answer: DnsAnswer[Any]
    ttl: int


@implementer(IResolver)
class Resolver:
    """``reactor`` gives time and sockets; ``exchange`` stands instead of the sockets in tests.

    Raises ValueError where ``settings.servers`` has what is no address.
    """

    _log = Logger()

    def __init__(self, settings: DnsSettings, reactor: Any, *, exchange: DnsExchange | None = None) -> None:
        self._settings = settings
        self._seconds = reactor.seconds
        self._servers = ServerList(settings.servers)
        self._asking = Asking(settings, exchange or NetworkExchange(reactor), reactor.seconds)
        self._cache: Cache[_Key, DnsAnswer[Any] | str] = Cache(settings.cache_entries)
        self._validation = Validation(settings, self._asking, reactor.seconds, self._cache.clear)
        self._pending: dict[_Key, list[Deferred[Any]]] = {}
        self._turns = DeferredSemaphore(settings.concurrent_queries)

    def mail_exchanges(self, domain: str) -> Deferred[DnsAnswer[MailExchange]]:
        return self._find(domain, dns.MX, records.read_mail_exchange).addCallback(_sort_exchanges)

    def addresses(self, host: str) -> Deferred[DnsAnswer[str]]:
        if host == "localhost" or host.endswith(".localhost"):
            # RFC 6761 6.3: never asked for.
            return succeed(DnsAnswer(("::1", "127.0.0.1"), canonical_name=host))
        return run_coroutine(self._both_families(host))

    def texts(self, name: str) -> Deferred[DnsAnswer[bytes]]:
        return self._find(name, dns.TXT, records.read_text)

    def tlsa(self, name: str) -> Deferred[DnsAnswer[TlsaRecord]]:
        return self._find(name, TLSA, records.read_tlsa)

    def services(self, name: str) -> Deferred[DnsAnswer[ServiceRecord]]:
        return self._find(name, dns.SRV, records.read_service)

    def pointers(self, address: str) -> Deferred[DnsAnswer[str]]:
        try:
            name = ipaddress.ip_address(address.partition("%")[0]).reverse_pointer
        except ValueError:
            return succeed(DnsAnswer((), name_exists=False, canonical_name=address))
        return self._find(name, dns.PTR, records.read_host)

    def name_servers(self, domain: str) -> Deferred[DnsAnswer[str]]:
        return self._find(domain, dns.NS, records.read_host)

    def aliases(self, name: str) -> Deferred[DnsAnswer[str]]:
        return self._find(name, CNAME, records.read_host)

    def validation_states(self) -> dict[str, str]:
        """For people: each server, and whether it has proved that it validates."""
        return self._validation.states(self._servers.current(self._seconds()))

    async def _both_families(self, host: str) -> DnsAnswer[str]:
        asked = [self._find(host, kind, records.read_address) for kind in (dns.AAAA, dns.A)]
        results: list[tuple[bool, Any]] = await DeferredList(asked, consumeErrors=True)
        answers: list[DnsAnswer[str]] = [result for is_good, result in results if is_good]
        found = tuple(address for answer in answers for address in answer.records)
        if len(answers) < len(results) and not found:
            raise next(result.value for is_good, result in results if not is_good)
        return DnsAnswer(
            found[: self._settings.max_records],
            is_secure=all(answer.is_secure for answer in answers),
            name_exists=any(answer.name_exists for answer in answers),
            canonical_name=answers[0].canonical_name,
        )

    def _find(self, text: str, kind: int, read: Reader[T]) -> Deferred[DnsAnswer[T]]:
        name = normalize_name(text)
        if name is None:
            # What is no name is nobody's: this is known without asking.
            return succeed(DnsAnswer((), name_exists=False, canonical_name=text))
        key = (kind, name)
        known = self._cache.get(key, self._seconds())
        if isinstance(known, DnsAnswer):
            return succeed(known)
        if known is not None:
            return fail(DnsFailure(name, cause=known))
        waiters = self._pending.get(key)
        if waiters is None:
            if len(self._turns.waiting) > self._settings.waiting_queries:
                return fail(DnsFailure(name, cause="too many questions are waiting"))
            waiters = self._pending[key] = []
            looking: Deferred[_Found] = self._turns.run(self._look, name, kind, read)
            waiter = _wait(waiters)
            looking.addBoth(self._settle, key)
            return waiter
        return _wait(waiters)

    def _settle(self, result: _Found | Failure, key: _Key) -> None:
        """Tell all who wait, and remember."""
        waiters = self._pending.pop(key, [])
        now = self._seconds()
        if isinstance(result, _Found):
            self._cache.put(key, result.answer, now + result.ttl)
            while waiters:
                waiters.pop(0).callback(result.answer)
            return
        error = result.value
        if not isinstance(error, DnsFailure):
            self._log.failure("Asking the DNS for {name} failed", result, name=key[1])
            error = DnsFailure(key[1], cause=f"internal error: {type(error).__name__}")
        # Once for all who wait, and for those who ask again too soon.
        self._log.info(
            "No answer from the DNS for {name} ({type}): {cause}",
            name=key[1],
            type=dns.QUERY_TYPES.get(key[0], "TLSA"),
            cause=error.cause,
        )
        self._cache.put(key, error.cause, now + self._settings.failure_ttl)
        while waiters:
            waiters.pop(0).errback(Failure(DnsFailure(key[1], cause=error.cause)))

    def _look(self, name: str, kind: int, read: Reader[T]) -> Deferred[_Found]:
        return Deferred.fromCoroutine(self._follow(name, kind, read))

    async def _follow(self, name: str, kind: int, read: Reader[T]) -> _Found:
        """Ask, and follow aliases, within one answer and over several."""
        servers, is_proved = await self._validation.choose(self._servers.current(self._seconds()))
        target, is_secure, ttl, hops = name, is_proved, self._settings.max_ttl, 0
        while True:
            reply = await self._asking.ask(servers, target, kind, wants_dnssec=is_proved)
            is_secure = is_secure and reply.is_authentic
            asked = target
            while kind != CNAME and (alias := _alias_of(target, reply.answers)) is not None:
                hops += 1
                if hops > self._settings.max_aliases:
                    raise DnsFailure(name, cause=f"more than {self._settings.max_aliases} aliases")
                next_name = records.read_host(alias.payload)
                if next_name is None:
                    raise DnsFailure(name, cause="an alias that leads to what is no name")
                target, ttl = next_name, min(ttl, alias.ttl)
            own = [one for one in reply.answers if one.owner == target and one.type == kind]
            if own or target == asked or reply.rcode == NXDOMAIN or reply.negative_ttl is not None:
                break
            # The server followed only a part of the way.
        return self._conclude(name, target, reply, own, read, is_secure=is_secure, ttl=ttl)

    def _conclude(
        self,
        name: str,
        target: str,
        reply: Reply,
        own: list[Record],
        read: Reader[T],
        *,
        is_secure: bool,
        ttl: int,
    ) -> _Found:
        values = [value for one in own if (value := read(one.payload)) is not None]
        if own and not values:
            raise DnsFailure(name, cause="records whose contents are malformed")
        if len(values) < len(own):
            self._log.warn("Malformed records of {name} are passed over", name=name)
        if own:
            ttl = min([ttl, *(one.ttl for one in own)])
        else:
            # Without an SOA record nothing says how long (RFC 2308 section 5).
            ttl = min(ttl, reply.negative_ttl or 0, self._settings.max_negative_ttl)
        answer = DnsAnswer(
            tuple(dict.fromkeys(values)),
            is_secure=is_secure,
            name_exists=reply.rcode != NXDOMAIN,
            canonical_name="" if target == ROOT else target,
        )
        return _Found(answer, max(ttl, self._settings.min_ttl))


def _alias_of(name: str, answers: tuple[Record, ...]) -> Record | None:
    return next((one for one in answers if one.type == CNAME and one.owner == name), None)


def _wait(waiters: list[Deferred[Any]]) -> Deferred[Any]:
    """One who gives up waiting leaves the others and the question alone."""
    waiter: Deferred[Any] = Deferred(waiters.remove)
    waiters.append(waiter)
    return waiter


def _sort_exchanges(answer: DnsAnswer[MailExchange]) -> DnsAnswer[MailExchange]:
    """By preference; a null MX among others says nothing (RFC 7505 section 3)."""
    found = sorted(answer.records)
    if len(found) > 1 and any(one.host for one in found):
        found = [one for one in found if one.host]
    return answer if tuple(found) == answer.records else evolve(answer, records=tuple(found))
