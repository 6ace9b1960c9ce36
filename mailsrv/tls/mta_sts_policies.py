"""Finding MTA-STS policies: the TXT record, the fetch, and what is kept (RFC 8461 3 to 5).

A policy that is kept counts until it expires, whatever happens to the TXT record or the web
server meanwhile: this is what an attacker cannot take away. A new id in the TXT record means a new
fetch, and so does half of a policy's life. One fetch serves all who wait for it; after a failure
there is none for a while.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from mailsrv.interfaces.resolver import DnsFailure, IResolver
from mailsrv.tls.client_settings import MtaStsSettings
from mailsrv.tls.https import HttpsClient, HttpsError
from mailsrv.tls.mta_sts import StsError, format_policy, parse_id, parse_policy
from mailsrv.tls.mta_sts_files import StoredPolicy, StsFiles

T = TypeVar("T")

InThread = Callable[..., "Deferred[Any]"]
"""``deferToThread`` of some pool."""

_MEMORY_LIMIT = 5000
_LOOK_AGAIN_SECONDS = 60.0
"""How often the disk is asked anew for a domain without a policy that counts: another worker may have fetched one."""


@frozen
class StsFinding:
    """What was found for a domain. ``fault`` is a result type of RFC 8460 4.3 where a policy should be and is not."""

    stored: StoredPolicy | None = None
    fault: str = ""
    detail: str = ""
    txt_id: str | None = None


class StsPolicies:
    """Policies by domain. ``folder`` is made at the first policy; disk work goes to ``in_thread``.

    Without ``keeps`` nothing is written: for commands that run as another user than the server.
    """

    _log = Logger()

    def __init__(
        self,
        settings: MtaStsSettings,
        resolver: IResolver,
        https: HttpsClient,
        folder: str,
        reactor: Any,
        *,
        in_thread: InThread | None = None,
        keeps: bool = True,
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._https = https
        self._files = StsFiles(folder, settings.cached_policies)
        self._keeps = keeps
        self._now = reactor.seconds
        self._in_thread = in_thread or (
            lambda work, *arguments: deferToThreadPool(reactor, reactor.getThreadPool(), work, *arguments)
        )
        # With when the disk was asked.
        self._memory: OrderedDict[str, tuple[float, StoredPolicy | None]] = OrderedDict()
        self._failed: OrderedDict[str, tuple[float, StsFinding]] = OrderedDict()
        self._fetching: dict[str, list[Deferred[StsFinding]]] = {}
        self._turns = DeferredSemaphore(settings.concurrent_fetches)

    async def find(self, domain: str) -> StsFinding:
        """The policy that counts now. Never fails."""
        stored = await self._kept(domain)
        try:
            txt_id = parse_id((await self._resolver.texts(f"_mta-sts.{domain}")).records)
        except DnsFailure:
            txt_id = None
        if txt_id is None:
            return StsFinding(stored)
        if stored is not None and stored.policy_id == txt_id:
            if stored.needs_refresh(self._now(), self._settings.max_age):
                # It still counts: nobody has to wait for the new one.
                self._fetch_once(domain, txt_id).addErrback(self._note_bug)
            return StsFinding(stored, txt_id=txt_id)
        found = await self._fetch_once(domain, txt_id)
        if found.stored is None and stored is not None and stored.is_valid(self._now(), self._settings.max_age):
            return StsFinding(stored, found.fault, found.detail, txt_id)
        return found

    async def kept(self, domain: str) -> StoredPolicy | None:
        """What is on disk, valid or not."""
        stored: StoredPolicy | None = await self._in_thread(self._files.read, domain)
        return stored

    def lines_for(self, domain: str) -> tuple[str, ...]:
        """The policy's lines for reports (RFC 8460 4.4), where it was used lately."""
        _, stored = self._memory.get(domain, (0.0, None))
        return () if stored is None else format_policy(stored.policy)

    async def _kept(self, domain: str) -> StoredPolicy | None:
        """What is remembered or on disk, if it is still valid."""
        asked_at, stored = self._memory.get(domain, (-math.inf, None))
        now = self._now()
        if not self._is_valid(stored) and not asked_at <= now < asked_at + _LOOK_AGAIN_SECONDS:
            stored = await self._in_thread(self._files.read, domain)
            _put(self._memory, domain, (now, stored), _MEMORY_LIMIT)
        elif domain in self._memory:
            self._memory.move_to_end(domain)
        return stored if self._is_valid(stored) else None

    def _is_valid(self, stored: StoredPolicy | None) -> bool:
        return stored is not None and stored.is_valid(self._now(), self._settings.max_age)

    def _fetch_once(self, domain: str, txt_id: str) -> Deferred[StsFinding]:
        waiters = self._fetching.get(domain)
        waiter: Deferred[StsFinding]
        if waiters is None:
            waiters = self._fetching[domain] = []
            waiter = Deferred(waiters.remove)
            waiters.append(waiter)
            self._turns.run(lambda: Deferred.fromCoroutine(self._fetch(domain, txt_id))).addErrback(
                self._explain_bug
            ).addCallback(self._settle, domain)
            return waiter
        waiter = Deferred(waiters.remove)
        waiters.append(waiter)
        return waiter

    def _settle(self, found: StsFinding, domain: str) -> None:
        waiters = self._fetching.pop(domain, [])
        while waiters:
            waiters.pop(0).callback(found)

    async def _fetch(self, domain: str, txt_id: str) -> StsFinding:
        failed = self._failed.get(domain)
        if failed is not None and failed[1].txt_id == txt_id and self._now() < failed[0]:
            return failed[1]
        # Another worker may have been here.
        stored: StoredPolicy | None = await self._in_thread(self._files.read, domain)
        now = self._now()
        if (
            stored is None
            or stored.policy_id != txt_id
            or not stored.is_valid(now, self._settings.max_age)
            or stored.needs_refresh(now, self._settings.max_age)
        ):
            found = await self._fetch_anew(domain, txt_id)
            if found.stored is None:
                self._log.warn("No MTA-STS policy of {domain}: {detail}", domain=domain, detail=found.detail)
                _put(self._failed, domain, (self._now() + self._settings.retry_after, found), _MEMORY_LIMIT)
                return found
            stored = found.stored
            try:
                if self._keeps:
                    await self._in_thread(self._files.write, domain, stored)
            except OSError as error:
                self._log.warn(
                    "The MTA-STS policy of {domain} cannot be kept in {folder}: {reason}",
                    domain=domain,
                    folder=self._files.folder,
                    reason=error.strerror,
                )
        self._failed.pop(domain, None)
        _put(self._memory, domain, (now, stored), _MEMORY_LIMIT)
        return StsFinding(stored, txt_id=txt_id)

    async def _fetch_anew(self, domain: str, txt_id: str) -> StsFinding:
        url = f"https://mta-sts.{domain}/.well-known/mta-sts.txt"
        settings = self._settings
        try:
            answer = await self._https.request(
                "GET", url, timeout=settings.fetch_timeout, max_octets=settings.max_octets
            )
            if answer.status != 200:
                raise HttpsError(f"{url} is answered with {answer.status}")
            if answer.media_type != "text/plain":
                raise HttpsError(f"{url} is not text/plain")
            policy = parse_policy(answer.body)
        except StsError as error:
            return StsFinding(None, "sts-policy-invalid", f"{url}: {error}", txt_id)
        except HttpsError as error:
            return StsFinding(None, "sts-policy-fetch-error", str(error), txt_id)
        except Exception as error:  # DNS, sockets, TLS and HTTP: whichever it was, there is no policy
            return StsFinding(None, _fault_of(error), f"{url}: {_sentence(error)}", txt_id)
        return StsFinding(StoredPolicy(policy, txt_id, self._now()), txt_id=txt_id)

    def _note_bug(self, failure: Any) -> None:
        self._log.failure("Fetching an MTA-STS policy failed", failure)

    def _explain_bug(self, failure: Any) -> StsFinding:
        self._note_bug(failure)
        return StsFinding(None, "sts-policy-fetch-error", "internal error")


def _put(table: OrderedDict[str, T], key: str, value: T, limit: int) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > limit:
        table.popitem(last=False)


def _fault_of(error: Exception) -> str:
    """RFC 8460 4.3.2.2: errors of the web's certificate have a word of their own."""
    names = {type(reason.value).__module__.partition(".")[0] for reason in getattr(error, "reasons", ())}
    return "sts-webpki-invalid" if names & {"OpenSSL", "service_identity"} else "sts-policy-fetch-error"


def _sentence(error: Exception) -> str:
    reasons = [type(reason.value).__name__ for reason in getattr(error, "reasons", ())]
    return ", ".join(reasons) or type(error).__name__
