"""From settings to the object graph: the only place that knows every part.

::

    listeners ─ factories ─┬─ portal ─ directory          who is it
                           ├─ receivers ─ resolver,       is it for us, is it wanted
                           │              filters
                           └─ spool ─ journal ─ applier ─ store ─ change bus

:class:`Policy` is the part that SIGHUP replaces as a whole: directories, domains, log-in, filters. The
rest lives as long as the process.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Sequence
from typing import Any

from attrs import field, frozen
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.threadpool import ThreadPool

from mailsrv.app.control import Start
from mailsrv.app.server import CannotStart, Drainable, ReloadRefused
from mailsrv.app.settings import ListenSettings, Service
from mailsrv.app.storage import Storage, open_storage, retry_stuck
from mailsrv.auth.checker import PasswordChecker
from mailsrv.auth.login_cache import LoginCache
from mailsrv.auth.realm import MailRealm
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.config.schema import Settings
from mailsrv.delivery.receiver import MessageReceiver
from mailsrv.directory.build import make_directory
from mailsrv.directory.domains import LocalDomains
from mailsrv.directory.passwords.hashing import HashingPool
from mailsrv.directory.resolve import AddressResolver
from mailsrv.filters.loading import FilterNotFound, LoadedFilter, load_filters
from mailsrv.filters.pipeline import FilterPipeline
from mailsrv.imap.factory import ImapServerFactory
from mailsrv.interfaces.delivery import IMessageReceiver
from mailsrv.pop3.factory import Pop3ServerFactory
from mailsrv.smtp.factory import SmtpServerFactory
from mailsrv.smtp.settings import Service as SmtpService
from mailsrv.tls.certificates import TlsError
from mailsrv.tls.contexts import TlsContexts
from mailsrv.wire.connection_limits import ConnectionTable
from mailsrv.wire.networks import NetworkSet
from mailsrv.wire.tls_mode import TlsMode

_log = Logger()

ProtocolFactory = SmtpServerFactory | ImapServerFactory | Pop3ServerFactory


@frozen
class Policy:
    """What decides about log-ins and recipients, made from one reading of the configuration."""

    realm: MailRealm
    checker: PasswordChecker
    receivers: dict[str, IMessageReceiver] = field(repr=False)


class MailServer:
    """The object graph of one process (:class:`mailsrv.app.server.Server`)."""

    def __init__(self, settings: Settings, reactor: Any, storage: Storage) -> None:
        """Reads keys, certificates and filters: waits for the disk. Raises :class:`CannotStart`."""
        self._settings = settings
        self._reactor = reactor
        self._storage = storage
        self._pool = ThreadPool(0, settings.server.threads, "mailsrv")
        self._run_in_thread: Any = functools.partial(deferToThreadPool, reactor, self._pool)
        self._hashing = HashingPool(settings.passwords, reactor=reactor)
        self._connections = ConnectionTable(settings.limits, reactor.seconds)
        self._throttle = self._make_throttle(settings)
        try:
            self._tls = TlsContexts(settings.tls) if uses_tls(settings) else None
            policy = self._make_policy(settings, load_filters(settings.filter))
        except (TlsError, FilterNotFound) as error:
            raise CannotStart(str(error)) from error
        self._portal = Portal(policy.realm, (policy.checker,))
        self._listening = [
            (listen, self._make_factory(listen, index, policy)) for index, listen in enumerate(settings.listen)
        ]

    @property
    def drainables(self) -> Sequence[Drainable]:
        return [factory for _, factory in self._listening]

    @property
    def factories(self) -> Sequence[IProtocolFactory]:
        return [self._wrapped(listen, factory) for listen, factory in self._listening]

    def _wrapped(self, listen: ListenSettings, factory: ProtocolFactory) -> IProtocolFactory:
        if listen.tls is not TlsMode.IMPLICIT:
            return factory
        context: Any = factory.context_factory
        return TLSMemoryBIOFactory(context, False, factory)

    # Making

    def _make_throttle(self, settings: Settings) -> LoginThrottle:
        return LoginThrottle(settings.auth, clock=self._reactor, exempt_networks=settings.limits.exempt_networks)

    def _make_policy(self, settings: Settings, filters: Sequence[LoadedFilter]) -> Policy:
        directory = make_directory(
            settings.directory,
            hashing=self._hashing,
            clock=self._reactor,
            run_in_thread=self._run_in_thread,
            default_domain=settings.auth.default_domain,
        )
        resolver = AddressResolver(LocalDomains(settings.domain), directory)
        checker = PasswordChecker(
            directory,
            settings.auth,
            clock=self._reactor,
            throttle=self._throttle,
            cache=LoginCache(
                clock=self._reactor, seconds=settings.auth.cache_seconds, entries=settings.auth.cache_entries
            ),
        )
        pipeline = FilterPipeline(filters, self._reactor)
        receivers: dict[str, IMessageReceiver] = {
            service.value: MessageReceiver(
                settings.delivery,
                service=service.value,
                hostname=settings.hostname,
                resolver=resolver,
                filters=pipeline,
                spool=self._storage.journal.spool,
                journal=self._storage.journal,
                store=self._storage.store,
                clock=self._reactor,
                run_in_thread=self._run_in_thread,
            )
            for service in SmtpService
        }
        return Policy(MailRealm(self._storage.store, resolver.may_send_as), checker, receivers)

    def _make_factory(self, listen: ListenSettings, index: int, policy: Policy) -> ProtocolFactory:
        context = None
        if self._tls is not None and listen.tls is not TlsMode.NONE:
            # A name of its own: sessions of one listener cannot be resumed at another (R-TLS-3).
            context = self._tls.for_listener(f"{listen.service.value}-{index}")
        common: dict[str, Any] = {
            "hostname": self._settings.hostname,
            "context_factory": context,
            "tls_mode": listen.tls,
            "plaintext_networks": plaintext_networks(self._settings, listen),
            "connections": self._connections,
            "clock": self._reactor,
        }
        if listen.service is Service.IMAP:
            spool = self._storage.journal.spool
            return ImapServerFactory(self._settings.imap, portal=self._portal, spool=spool, **common)
        if listen.service is Service.POP3:
            return Pop3ServerFactory(self._settings.pop3, portal=self._portal, **common)
        service = SmtpService(listen.service.value)
        return SmtpServerFactory(
            self._settings.smtp,
            policy.receivers[service.value],
            service=service,
            portal=self._portal if service is SmtpService.SUBMISSION else None,
            **common,
        )

    # Life

    def start(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        self._pool.start()
        self._hashing.start()
        await self._storage.start()

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        try:
            await self._storage.stop()
        finally:
            self._hashing.stop()
            if self._pool.started and not self._pool.joined:
                self._pool.stop()

    # Reload

    def reload(self, settings: Settings) -> Deferred[Sequence[str]]:
        return Deferred.fromCoroutine(self._reload(settings))

    async def _reload(self, settings: Settings) -> Sequence[str]:
        """Everything that may be refused comes first; after it nothing can fail."""
        throttle = self._throttle
        try:
            filters = load_filters(settings.filter)
            if self._tls is not None:
                await self._run_in_thread(self._tls.reload, settings.tls)
        except (TlsError, FilterNotFound) as error:
            raise ReloadRefused(str(error)) from error
        if _throttling(settings) != _throttling(self._settings):
            throttle = self._make_throttle(settings)
        self._throttle = throttle
        policy = self._make_policy(settings, filters)
        # The portal stays, for every session has it; what it consists of is new.
        self._portal.realm = policy.realm
        self._portal.registerChecker(policy.checker)
        for listen, factory in self._listening:
            factory.plaintext_networks = plaintext_networks(settings, listen)
            if isinstance(factory, SmtpServerFactory):
                factory.receiver = policy.receivers[listen.service.value]
                factory.replace_settings(settings.smtp)
            elif isinstance(factory, ImapServerFactory):
                factory.replace_settings(settings.imap)
            else:
                factory.replace_settings(settings.pop3)
        if settings.limits != self._settings.limits:
            # Only then: the rates are counted anew.
            self._connections.replace_settings(settings.limits)
        self._settings = settings
        self._retry_stuck()
        return ["domains", "directories", "log-in", "filters", "limits", "protocol settings", *self._tls_effect()]

    def _retry_stuck(self) -> None:
        """Mail that was put aside is tried again: a reload is what an administrator does after mending a mailbox."""
        Deferred.fromCoroutine(retry_stuck(self._storage.journal)).addErrback(
            lambda failure: _log.failure("mail that was put aside could not be tried again", failure)
        )

    def _tls_effect(self) -> list[str]:
        return [] if self._tls is None else [f"certificates (the first ends on {self._tls.expires:%Y-%m-%d})"]


def _throttling(settings: Settings) -> object:
    """What a throttle is made of; a new one has forgotten all failures."""
    return settings.auth, settings.limits.exempt_networks


def plaintext_networks(settings: Settings, listen: ListenSettings) -> NetworkSet:
    """Where log-ins without TLS may come from: the listener's own list, or that of ``[auth]``."""
    own = listen.plaintext_networks
    return NetworkSet(settings.auth.plaintext_networks if own is None else own)


def uses_tls(settings: Settings) -> bool:
    """Whether any listener speaks TLS."""
    return any(listen.tls is not TlsMode.NONE for listen in settings.listen)


def build_server(settings: Settings, reactor: Any) -> MailServer:
    """The server in one process."""
    return MailServer(settings, reactor, open_storage(settings, reactor, secrets.token_bytes(16)))


def build_worker(settings: Settings, reactor: Any, start: Start) -> MailServer:
    """The server in one of several workers."""
    storage = open_storage(settings, reactor, start.run_id, workers=start.workers)
    return MailServer(settings, reactor, storage)


def check_files(settings: Settings) -> None:
    """What a supervisor looks at before workers are given settings: keys, certificates, filters.

    Raises :class:`CannotStart`.
    """
    try:
        load_filters(settings.filter)
        if uses_tls(settings):
            TlsContexts(settings.tls)
    except (TlsError, FilterNotFound) as error:
        raise CannotStart(str(error)) from error
